// A sink written in Python: any object with emit(snapshot) or write(batch); see docs/recording.md for the
// rest of the protocol.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubriscope/recorder/sink.h"

namespace rubriscope::binding {

/// Runs on the drain thread and takes the GIL once per batch.
class PySink final : public Sink {
 public:
  /// Throws pybind11::type_error when the object has no method that takes records. Holds the GIL.
  explicit PySink(pybind11::object sink);
  ~PySink() override;

  std::string target() const override { return target_; }
  void open(const SessionInfo& session, const WriterInfo& writer) override;
  void write(const Batch& batch) override;
  bool wants_recovered() const override { return wants_recovered_; }
  bool keeps_failed_batches() const override { return keeps_failed_batches_ && !refused_; }
  bool stores_identity() const override { return stores_identity_; }
  std::optional<std::uint64_t> stored_through(const WriterInfo& writer) override;
  bool takes_gil() const override { return true; }
  void close() override;

 private:
  // Calls body with the GIL; a Python exception becomes a SinkError.
  template <class Body>
  void with_gil(Body&& body);
  void write_encoded(const Batch& batch);

  PyObject* sink_;
  std::string target_;
  bool has_write_records_;  // canonical bytes
  bool has_write_all_;      // snapshots and scalars in one list
  bool has_write_;
  bool has_log_;
  bool has_open_;
  bool wants_recovered_;
  bool keeps_failed_batches_;
  bool stores_identity_;
  bool refused_{false};             // the last failure said that trying again is in vain
  std::vector<std::byte> encoded_;  // scratch, kept for its memory
};

}  // namespace rubriscope::binding
