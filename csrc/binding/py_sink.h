// A sink written in Python: any object with emit(snapshot) or write(batch).
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "rubriscope/recorder/sink.h"

namespace rubriscope::binding {

/// Runs on the drain thread and takes the GIL once per batch.
class PySink final : public Sink {
 public:
  /// Throws pybind11::type_error when the object has neither emit nor write. Holds the GIL.
  explicit PySink(pybind11::object sink);
  ~PySink() override;

  std::string target() const override { return target_; }
  void open(const SessionInfo& session, const WriterInfo& writer) override;
  void write(const Batch& batch) override;
  bool wants_recovered() const override { return wants_recovered_; }
  bool keeps_failed_batches() const override { return false; }
  bool takes_gil() const override { return true; }
  void close() override;

 private:
  // Calls body with the GIL; a Python exception becomes a SinkError.
  template <class Body>
  void with_gil(Body&& body);

  PyObject* sink_;
  std::string target_;
  bool has_write_;
  bool has_log_;
  bool has_open_;
  bool wants_recovered_;
};

}  // namespace rubriscope::binding
