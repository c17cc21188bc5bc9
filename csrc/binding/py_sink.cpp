#include "rubriscope/binding/py_sink.h"

#include "rubriscope/binding/snapshot_object.h"
#include "rubriscope/core/errors.h"

namespace py = pybind11;

namespace rubriscope::binding {

PySink::PySink(py::object sink)
    : has_write_(py::hasattr(sink, "write")),
      has_log_(py::hasattr(sink, "log")),
      has_open_(py::hasattr(sink, "open")),
      wants_recovered_(py::cast<bool>(py::getattr(sink, "wants_recovered", py::bool_(true)))) {
  const auto type_name = py::cast<std::string>(py::type::of(sink).attr("__name__"));
  if (!has_write_ && !py::hasattr(sink, "emit")) {
    throw py::type_error("a sink is a path, a URL or an object with emit(snapshot) or write(batch), got " +
                         py::cast<std::string>(py::repr(sink)));
  }
  target_ = "python:" + type_name;
  sink_ = sink.release().ptr();
}

PySink::~PySink() {
  if (Py_IsInitialized() == 0) return;
  const py::gil_scoped_acquire gil;
  Py_DECREF(sink_);
}

template <class Body>
void PySink::with_gil(Body&& body) {
  if (Py_IsInitialized() == 0) throw SinkError(target_ + ": the interpreter has ended", false);
  const py::gil_scoped_acquire gil;
  try {
    body(py::reinterpret_borrow<py::object>(sink_));
  } catch (const py::error_already_set& error) {
    throw SinkError(target_ + ": " + error.what(), true);
  }
}

void PySink::open(const SessionInfo& session, const WriterInfo& writer) {
  if (!has_open_) return;
  with_gil([&](const py::object& sink) {
    py::dict described;
    described["session_id"] = session.id;
    described["session_name"] = session.name;
    described["created_ns"] = session.created_ns;
    described["metadata"] = py::module_::import("json").attr("loads")(session.metadata_json);
    described["writer_id"] = writer.id;
    described["rank"] = writer.rank;
    described["world_size"] = writer.world_size;
    sink.attr("open")(described);
  });
}

void PySink::write(const Batch& batch) {
  with_gil([&](const py::object& sink) {
    py::list snapshots;
    const auto deliver = [&] {
      if (snapshots.empty()) return;
      if (has_write_) {
        sink.attr("write")(snapshots);
      } else {
        const py::object emit = sink.attr("emit");
        for (const auto& snapshot : snapshots) emit(snapshot);
      }
      snapshots = py::list();
    };
    for (const auto& record : batch.records) {
      if (record.header->kind == RecordKind::snapshot) {
        snapshots.append(snapshot_object(record, batch.session, batch.writer, batch.recovered));
        continue;
      }
      if (!has_log_) continue;
      deliver();  // in the order in which they were made
      py::dict values;
      for (std::size_t i = 0; i < record.header->slots; ++i) {
        values[py::str(record.schema->slots[i].paths.front())] = record.scores()[i];
      }
      sink.attr("log")(values, py::arg("step") = record.header->step);
    }
    deliver();
  });
}

void PySink::close() {
  with_gil([](const py::object& sink) {
    if (py::hasattr(sink, "close")) sink.attr("close")();
  });
}

}  // namespace rubriscope::binding
