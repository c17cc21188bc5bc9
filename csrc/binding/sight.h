// What calls of sight points share: the frames that run, and what happens when one ends. All hold the GIL.
#pragma once

#include <Python.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/trace/injection.h"
#include "rubriscope/trace/sight_point.h"
#include "rubriscope/trace/sight_window.h"

namespace rubriscope::binding {

/// One call of a sight point that has not ended.
struct SightFrame {
  SightPoint* point;
  std::uint64_t sequence;  ///< frames count up as they begin: the innermost has the greatest
  SightFrame* outer;       ///< of this thread's stack of plain calls
  std::uint64_t begin_tick;
  std::int64_t begin_cpu_ns{-1};  ///< -1: not asked for when it began
  std::vector<double> values;     ///< by place, NaN where none was given; empty until one is
  std::vector<std::size_t> nans;  ///< places that were given NaN, which is beyond any limit
  PyObject* span{nullptr};        ///< owned until end_frame(): of the tracer, the innermost when it began

  /// Adds a value, the last one of a name counts. Throws ValueError when the point has no room, or the value
  /// cannot be (SightPoint::check()).
  void metric(std::string_view name, double value);
};

/// The arguments of a call as vectorcall gives them; empty for a `with` block.
struct SightCall {
  PyObject* const* args{nullptr};
  std::size_t count{0};
  PyObject* keywords{nullptr};
  PyObject* result{nullptr};
};

/// The frame begins now. Plain calls also stand in push_frame()'s stack.
void begin_frame(SightFrame& frame, SightPoint& point);
void push_frame(SightFrame& frame);
void pop_frame(SightFrame& frame);
SightFrame* top_frame();

/// Gives the call its tokens where it gave none itself: `tokens` is their number, a pair of input and output,
/// or a function that tells one of these, or None, of the result. What fails is contained.
void supply_tokens(SightFrame& frame, PyObject* tokens, PyObject* result);

/// Sums by trace of all points.
TraceCosts& trace_costs();

/// Counts, keeps and records a call that has ended; `error` is what it raised, or nullptr. False with an
/// exception set when the point is fail_closed and a limit was passed; nothing else gets out.
bool end_frame(SightFrame& frame, PyObject* error, const SightCall& call);

/// What the injections of the frame's point find in a call that has ended; metrics go to `values`.
std::vector<InjectionHit> probe_call(const SightFrame& frame, std::uint64_t duration_ns, PyObject* error,
                                     const SightCall& call, std::span<double> values);

/// Whether this thread is at the end of a call with injections: calls that the observation itself makes are
/// not observed by injections, or one of a function that it uses would never end.
bool sight_probing();

/// Reports the first failure of the observation itself and counts all. Takes the exception that is set.
void contain_sight_failure();
std::uint64_t sight_failures();

SightWindow& sight_window();

/// Throws KeyError.
SightPoint& sight_point_named(std::string_view name);

/// Adds the type `SightFunction` to the module. False with an exception set.
bool add_sight_type(PyObject* module);

}  // namespace rubriscope::binding
