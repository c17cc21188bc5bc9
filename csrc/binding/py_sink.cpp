#include "rubriscope/binding/py_sink.h"

#include <pybind11/stl.h>

#include <map>

#include "rubriscope/binding/snapshot_object.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/core/errors.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

bool flag(const py::object& sink, const char* name, bool otherwise) {
  return py::cast<bool>(py::getattr(sink, name, py::bool_(otherwise)));
}

}  // namespace

PySink::PySink(py::object sink)
    : has_write_records_(py::hasattr(sink, "write_records")),
      has_write_all_(py::hasattr(sink, "write_all")),
      has_write_(py::hasattr(sink, "write")),
      has_log_(py::hasattr(sink, "log")),
      has_open_(py::hasattr(sink, "open")),
      wants_recovered_(flag(sink, "wants_recovered", true)),
      keeps_failed_batches_(flag(sink, "keeps_failed_batches", false)),
      stores_identity_(py::hasattr(sink, "stored_through")) {
  const auto type_name = py::cast<std::string>(py::type::of(sink).attr("__name__"));
  if (!has_write_records_ && !has_write_all_ && !has_write_ && !py::hasattr(sink, "emit")) {
    throw py::type_error("a sink is a path, a URL or an object with emit(snapshot) or write(batch), got " +
                         py::cast<std::string>(py::repr(sink)));
  }
  const py::object target = py::getattr(sink, "target", py::none());
  target_ = py::isinstance<py::str>(target) ? py::cast<std::string>(target) : "python:" + type_name;
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
    refused_ = false;
  } catch (const py::error_already_set& error) {
    // An exception may say `transient = False`: what was sent will never be taken.
    const py::object transient = py::getattr(error.value(), "transient", py::none());
    refused_ = transient.is(py::bool_(false));
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
    described["metadata_json"] = session.metadata_json;
    described["ledger"] = session.ledger;
    described["writer_id"] = writer.id;
    described["rank"] = writer.rank;
    described["world_size"] = writer.world_size;
    described["host"] = writer.host;
    described["pid"] = writer.pid;
    described["started_ns"] = writer.started_ns;
    sink.attr("open")(described);
  });
}

std::optional<std::uint64_t> PySink::stored_through(const WriterInfo& writer) {
  std::optional<std::uint64_t> stored;
  with_gil([&](const py::object& sink) {
    stored = py::cast<std::optional<std::uint64_t>>(sink.attr("stored_through")(writer.id));
  });
  return stored;
}

void PySink::write_encoded(const Batch& batch) {
  CborEncoder encoder(batch.session, batch.writer);
  std::vector<std::size_t> ends;
  ends.reserve(batch.records.size());
  std::map<std::uint32_t, std::string> definitions;
  encoded_.clear();
  for (const auto& record : batch.records) {
    encoder.encode(record, encoded_);
    ends.push_back(encoded_.size());
    const std::uint32_t schema = record.header->schema;
    if (!definitions.contains(schema)) definitions.emplace(schema, record.schema->definition_json());
  }
  with_gil([&](const py::object& sink) {
    py::list records;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      records.append(
          py::make_tuple(batch.records[i].header->sequence,
                         py::bytes(reinterpret_cast<const char*>(encoded_.data()) + begin, ends[i] - begin)));
      begin = ends[i];
    }
    sink.attr("write_records")(batch.writer.id, records, py::cast(definitions));
  });
}

void PySink::write(const Batch& batch) {
  if (has_write_records_) {
    write_encoded(batch);
    return;
  }
  with_gil([&](const py::object& sink) {
    if (has_write_all_) {
      py::list records;
      for (const auto& record : batch.records) {
        records.append(record_object(record, batch.session, batch.writer, batch.recovered));
      }
      sink.attr("write_all")(records);
      return;
    }
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
      if (record.header->kind != RecordKind::scalars || !has_log_) continue;
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
