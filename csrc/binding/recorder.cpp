// pybind11 bindings of recorder, observer, sinks and recovery. Cold: the hot path does not pass through here.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <deque>
#include <map>
#include <optional>
#include <tuple>

#include "rubriscope/binding/batch.h"
#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/py_recorder.h"
#include "rubriscope/binding/py_sink.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/core/clock.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/event.h"
#include "rubriscope/recorder/record_writer.h"
#include "rubriscope/recorder/recovery.h"
#include "rubriscope/recorder/report.h"
#include "rubriscope/sinks/jsonl/jsonl_sink.h"
#include "rubriscope/sinks/sqlite/sqlite_sink.h"
#include "rubriscope/sinks/trace_jsonl/trace_jsonl_sink.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

// Calls Python code that may have set an exception.
template <class Value>
Value checked(Value value) {
  if (!value) throw py::error_already_set();
  return value;
}

std::shared_ptr<Sink> as_sink(const py::handle& sink) {
  if (py::isinstance<Sink>(sink)) return py::cast<std::shared_ptr<Sink>>(sink);
  return std::make_shared<PySink>(py::reinterpret_borrow<py::object>(sink));
}

std::vector<std::shared_ptr<Sink>> as_sinks(const py::list& list) {
  std::vector<std::shared_ptr<Sink>> sinks;
  for (const auto& sink : list) sinks.push_back(as_sink(sink));
  return sinks;
}

// A recorder that nobody closed closes itself, and waits for its sinks: one written in Python needs the GIL.
void delete_without_gil(Recorder* recorder) {
  if (Py_IsInitialized() == 0 || PyGILState_Check() == 0) {
    delete recorder;
    return;
  }
  const py::gil_scoped_release release;
  delete recorder;
}

std::shared_ptr<PyRecorder> make_recorder(const std::string& session_id, const std::string& session_name,
                                          std::int64_t created_ns, const std::string& metadata_json,
                                          bool ledger, int rank, int world_size, const py::list& sinks,
                                          const std::filesystem::path& journal_dir,
                                          std::uint64_t journal_limit_bytes, const std::string& on_full,
                                          double block_timeout_s, int flush_interval_ms,
                                          const std::optional<std::shared_ptr<vault::Vault>>& vault) {
  RecorderOptions options;
  options.vault = vault.value_or(nullptr);
  options.journal_dir = journal_dir;
  options.journal_limit_bytes = journal_limit_bytes;
  if (on_full != "block" && on_full != "drop_newest") {
    throw ValueError("on_full is 'block' or 'drop_newest', got '" + on_full + "'");
  }
  options.on_full = on_full == "block" ? OnFull::block : OnFull::drop_newest;
  options.block_timeout_s = block_timeout_s;
  options.flush_interval_ms = flush_interval_ms;
  WriterInfo writer;
  writer.rank = rank;
  writer.world_size = world_size;
  auto held = as_sinks(sinks);
  std::shared_ptr<Recorder> recorder;
  {
    const py::gil_scoped_release release;
    recorder.reset(new Recorder(SessionInfo{session_id, session_name, created_ns, metadata_json, ledger},
                                writer, std::move(held), options),
                   delete_without_gil);
  }
  return std::make_shared<PyRecorder>(std::move(recorder));
}

py::dict stats_of(const PyRecorder& recorder) {
  RecorderStats stats;
  {
    const py::gil_scoped_release release;
    stats = recorder.core().stats();
  }
  py::list sinks;
  for (const auto& sink : stats.sinks) {
    py::dict entry;
    entry["target"] = sink.target;
    entry["durable"] = sink.durable;
    entry["pending"] = sink.pending;
    entry["failed"] = sink.failed;
    entry["failing"] = sink.failing;
    entry["last_error"] = sink.last_error;
    sinks.append(entry);
  }
  py::dict all;
  all["accepted"] = stats.accepted;
  all["durable"] = stats.durable;
  all["pending"] = stats.pending;
  all["dropped"] = stats.dropped;
  all["failed"] = stats.failed;
  all["recovered"] = stats.recovered;
  all["damaged"] = stats.damaged;
  all["unattributed"] = stats.unattributed;
  all["capture_ns"] = stats.capture_ns;
  all["journal_bytes"] = stats.journal_bytes;
  all["sinks"] = sinks;
  return all;
}

std::shared_ptr<Position> make_position(const std::string& episode, std::optional<std::int64_t> step,
                                        std::optional<std::int64_t> group,
                                        std::optional<std::int32_t> sample) {
  auto position = std::make_shared<Position>(episode);
  if (step) position->step = *step;
  if (group) position->group = *group;
  if (sample) position->sample = *sample;
  return position;
}

// A writable label of the default position; None goes back to automatic.
template <auto Member, auto None>
void add_label(py::class_<PyRecorder, std::shared_ptr<PyRecorder>>& type, const char* name) {
  using Value = decltype(((Position*)nullptr->*Member).load());
  type.def_property(
      name,
      [](PyRecorder& recorder) -> std::optional<Value> {
        const Value value = (*recorder.core().default_position.load().*Member).load();
        return value == None ? std::nullopt : std::optional<Value>(value);
      },
      [](PyRecorder& recorder, std::optional<Value> value) {
        (*recorder.core().default_position.load().*Member).store(value.value_or(None));
      });
}

/// A field's value as the record keeps it. Borrows from `kept` where it had to be made.
EventField event_field(std::uint16_t place, const py::handle& value, std::deque<std::string>& kept) {
  CaptureForm form = CaptureForm::text;
  if (py::isinstance<py::bytes>(value)) {
    form = CaptureForm::bytes;
    kept.push_back(py::cast<std::string>(value));
  } else if (py::isinstance<py::str>(value)) {
    kept.push_back(py::cast<std::string>(value));
  } else if (PyBool_Check(value.ptr()) == 0 && PyLong_Check(value.ptr()) != 0) {
    form = CaptureForm::integer;
    kept.push_back(py::cast<std::string>(py::str(value)));
  } else if (PyFloat_Check(value.ptr()) != 0) {
    form = CaptureForm::real;
    kept.push_back(py::cast<std::string>(py::repr(value)));
  } else {
    form = CaptureForm::json;
    kept.push_back(
        py::cast<std::string>(py::module_::import("rubriscope.snapshot").attr("dump_json")(value)));
  }
  return {place, kept.back(), static_cast<std::uint8_t>(form)};
}

bool emit_event(PyRecorder& recorder, const std::string& kind, std::uint32_t schema_id,
                const std::vector<double>& values, const std::map<std::uint16_t, py::object>& fields,
                const std::string& outcome, std::uint64_t duration_ns, std::optional<std::int64_t> step,
                const std::string& metadata_json) {
  const SchemaPtr schema = recorder.core().schema(schema_id);
  if (schema->kind != Schema::Kind::event || values.size() != schema->slots.size()) {
    throw ValueError("schema " + std::to_string(schema_id) + " is of " + std::string(schema->kind_name()) +
                     " with " + std::to_string(schema->slots.size()) + " values, got an event with " +
                     std::to_string(values.size()));
  }
  std::deque<std::string> kept;
  std::vector<EventField> texts;
  for (const auto& [place, value] : fields) {
    if (place >= schema->fields.size()) {
      throw ValueError("event \"" + schema->name + "\" has no field " + std::to_string(place));
    }
    texts.push_back(event_field(place, value, kept));
  }
  RecordPosition position = recorder.take_log_position(step);
  const std::string episode(position.episode);
  position.episode = episode;
  const ClockTimes now = clock_times(ticks());
  Event event{kind_of_name(kind),       schema_id, position, now.wall_ns,  now.monotonic_ns, duration_ns,
              outcome_of_name(outcome), values,    texts,    metadata_json};
  if (!is_event(event.kind)) throw ValueError("\"" + kind + "\" is no kind of event");
  const py::gil_scoped_release release;
  return publish(recorder.core(), event);
}

void bind_recorder_type(py::module_& m) {
  py::class_<PyRecorder, std::shared_ptr<PyRecorder>> type(m, "Recorder");
  type.def(py::init(&make_recorder), py::kw_only(), py::arg("session_id"), py::arg("session_name"),
           py::arg("created_ns"), py::arg("metadata_json"), py::arg("ledger"), py::arg("rank"),
           py::arg("world_size"), py::arg("sinks"), py::arg("journal_dir"), py::arg("journal_limit_bytes"),
           py::arg("on_full"), py::arg("block_timeout_s"), py::arg("flush_interval_ms"),
           py::arg("vault") = py::none())
      .def(
          "flush", [](PyRecorder& recorder, double timeout_s) { return recorder.core().flush(timeout_s); },
          py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>())
      .def(
          "close", [](PyRecorder& recorder) { recorder.core().close(); },
          py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("closed", [](PyRecorder& recorder) { return recorder.core().closed(); })
      .def("stats", &stats_of)
      .def_property_readonly("session_id", [](PyRecorder& recorder) { return recorder.core().session().id; })
      .def_property_readonly("session_name",
                             [](PyRecorder& recorder) { return recorder.core().session().name; })
      .def_property_readonly("writer_id", [](PyRecorder& recorder) { return recorder.core().writer().id; })
      .def_property_readonly("journal_path",
                             [](PyRecorder& recorder) { return recorder.core().journal_path(); })
      .def("add_recovered",
           [](PyRecorder& recorder, std::uint64_t recovered, std::uint64_t damaged) {
             recorder.core().recovered += recovered;
             recorder.core().damaged += damaged;
           })
      .def(
          "enter_position",
          [](PyRecorder& recorder, const std::string& episode, std::optional<std::int64_t> step,
             std::optional<std::int64_t> group, std::optional<std::int32_t> sample) {
            return py::reinterpret_steal<py::object>(
                checked(recorder.enter_position(make_position(episode, step, group, sample))));
          },
          py::arg("episode"), py::arg("step"), py::arg("group_id"), py::arg("sample_index"))
      .def(
          "enter_positions",
          [](PyRecorder& recorder,
             const std::vector<std::tuple<std::string, std::optional<std::int64_t>,
                                          std::optional<std::int64_t>, std::optional<std::int32_t>>>&
                 labels) {
            if (labels.empty()) throw ValueError("enter_positions() takes one position or more");
            std::vector<std::shared_ptr<Position>> positions;
            for (const auto& label : labels) positions.push_back(std::apply(make_position, label));
            return py::reinterpret_steal<py::object>(checked(recorder.enter_positions(std::move(positions))));
          },
          py::arg("labels"),
          "Places the next snapshots of this context, each at (episode, step, group, sample).")
      .def("positions_taken", &PyRecorder::positions_taken,
           "How many calls have taken their place since this context's position was entered.")
      .def("leave_position", [](PyRecorder& recorder,
                                const py::object& token) { checked(recorder.leave_position(token.ptr())); })
      .def("annotate",
           [](PyRecorder& recorder, const py::dict& mapping) { checked(recorder.annotate(mapping.ptr())); })
      .def(
          "log",
          [](PyRecorder& recorder, const std::vector<std::string>& names, const std::vector<double>& values,
             std::optional<std::int64_t> step) {
            RecordPosition position = recorder.take_log_position(step);
            const std::string episode(position.episode);
            position.episode = episode;
            const py::gil_scoped_release release;
            return log_scalars(recorder.core(), names, values, position);
          },
          py::arg("names"), py::arg("values"), py::arg("step"))
      .def(
          "define_event",
          [](PyRecorder& recorder, const std::string& name, const std::string& attributes_json,
             const std::vector<std::string>& values, const std::vector<std::string>& fields) {
            return recorder.core().define(event_schema(name, attributes_json, values, fields));
          },
          py::arg("name"), py::arg("attributes_json"), py::arg("values"), py::arg("fields"),
          "The number of a schema of events, for emit_event().")
      .def("emit_event", &emit_event, py::arg("kind"), py::arg("schema"), py::kw_only(), py::arg("values"),
           py::arg("fields"), py::arg("outcome") = "success", py::arg("duration_ns") = 0,
           py::arg("step") = py::none(), py::arg("metadata_json") = "",
           "Writes an event that ends now; NaN where there is no value. False when it was refused.")
      .def_property(
          "episode_id", [](PyRecorder& recorder) { return recorder.position()->episode(); },
          [](PyRecorder& recorder, const std::string& episode) {
            const auto before = recorder.core().default_position.load();
            auto fresh = std::make_shared<Position>(episode);
            fresh->step = before->step.load();
            fresh->group = before->group.load();
            fresh->sample = before->sample.load();
            recorder.core().default_position.store(std::move(fresh));
          })
      .def_property_readonly("next_step", [](PyRecorder& recorder) {
        const auto position = recorder.position();
        return position->next_step.load();
      });
  add_label<&Position::step, Position::kAutomatic>(type, "step");
  add_label<&Position::group, kNoGroup>(type, "group_id");
  add_label<&Position::sample, kNoSample>(type, "sample_index");
}

void bind_observer(py::module_& m) {
  py::class_<PyObserver, std::shared_ptr<PyObserver>>(m, "Observer")
      .def(py::init([](std::shared_ptr<PyRecorder> recorder, const py::object& capture, bool raise_errors) {
             auto mode = PyObserver::CaptureMode::callable;
             if (py::isinstance<py::str>(capture)) {
               const auto name = py::cast<std::string>(capture);
               if (name != "none" && name != "text") {
                 throw ValueError("capture is 'none', 'text' or a callable, got '" + name + "'");
               }
               mode = name == "none" ? PyObserver::CaptureMode::none : PyObserver::CaptureMode::text;
             } else if (PyCallable_Check(capture.ptr()) == 0) {
               throw py::type_error("capture is 'none', 'text' or a callable, got " +
                                    py::cast<std::string>(py::repr(capture)));
             }
             const bool callable = mode == PyObserver::CaptureMode::callable;
             return std::make_shared<PyObserver>(std::move(recorder), mode,
                                                 callable ? capture.ptr() : nullptr, raise_errors);
           }),
           py::arg("recorder"), py::arg("capture"), py::arg("raise_errors"))
      .def("attach",
           [](const std::shared_ptr<PyObserver>& observer, const py::object& rubric) {
             if (!is_rubric(rubric.ptr())) {
               throw py::type_error("an observer watches a rubric, got " +
                                    py::cast<std::string>(py::repr(rubric)));
             }
             attach(node_of(rubric.ptr()), observer);
           })
      .def("detach",
           [](PyObserver& observer, const py::object& rubric) { detach(node_of(rubric.ptr()), observer); })
      .def_property_readonly("snapshots", [](PyObserver& observer) { return observer.snapshots.load(); })
      .def_property_readonly("failures", [](PyObserver& observer) { return observer.failures.load(); });

  m.def("_is_observed",
        [](const py::object& rubric) { return node_of(rubric.ptr()).observation() != nullptr; });
  m.def("_kind", [](const py::object& rubric) {
    PyNode& node = node_of(rubric.ptr());
    checked(refresh_forward(node));
    static constexpr const char* kNames[] = {"leaf", "sequential", "gate", "weighted_sum"};
    return kNames[static_cast<int>(node.kind)];
  });

  py::class_<BatchContexts>(m, "_BatchContexts")
      .def(py::init([](const py::object& root, std::size_t pairs, std::optional<BatchContexts*> outer,
                       const std::vector<std::size_t>& rows) {
             return std::make_unique<BatchContexts>(root.ptr(), pairs, outer.value_or(nullptr), rows);
           }),
           py::arg("root"), py::arg("pairs"), py::arg("outer") = py::none(),
           py::arg("rows") = std::vector<std::size_t>{})
      .def("now", &BatchContexts::now)
      .def("record", [](BatchContexts& contexts, const py::object& rubric, std::size_t pair, double value,
                        std::uint64_t start,
                        std::uint64_t end) { contexts.record(rubric.ptr(), pair, value, start, end); })
      .def("fail",
           [](BatchContexts& contexts, const py::object& rubric, std::size_t pair, const py::object& error,
              std::uint64_t start) { contexts.fail(rubric.ptr(), pair, error.ptr(), start); })
      .def("call",
           [](BatchContexts& contexts, const py::object& rubric, std::size_t pair, const py::object& action,
              const py::object& observation) {
             return py::reinterpret_steal<py::object>(
                 checked(contexts.call(rubric.ptr(), pair, action.ptr(), observation.ptr())));
           })
      .def("publish", [](BatchContexts& contexts, const py::list& actions, const py::list& observations) {
        checked(contexts.publish(actions.ptr(), observations.ptr()));
      });
}

void bind_sinks(py::module_& m) {
  py::class_<Sink, std::shared_ptr<Sink>>(m, "Sink")
      .def_property_readonly("target", &Sink::target)
      .def_property_readonly("stores_identity", &Sink::stores_identity);
  py::class_<SqliteSink, Sink, std::shared_ptr<SqliteSink>>(m, "SqliteSink")
      .def(py::init<const std::filesystem::path&>(), py::arg("path"))
      .def("open_vault", &SqliteSink::open_vault, py::arg("kek"), py::call_guard<py::gil_scoped_release>(),
           "The database's keys, made (and the file with them) where there are none. Raises "
           "rubriscope.SealedError when another key wrapped them.")
      .def_property_readonly("is_encrypted", &SqliteSink::is_encrypted,
                             "Whether there is a database and it has keys.");
  py::class_<JsonlSink, Sink, std::shared_ptr<JsonlSink>>(m, "JsonlSink")
      .def(py::init<const std::filesystem::path&>(), py::arg("path"));
  py::class_<TraceJsonlSink, Sink, std::shared_ptr<TraceJsonlSink>>(m, "TraceJsonlSink")
      .def(py::init<const std::filesystem::path&>(), py::arg("path"));
}

void bind_record_writer(py::module_& m) {
  py::class_<RecordWriter>(m, "RecordWriter", "Brings another process's canonical records into a sink.")
      .def(py::init([](const py::object& sink, const std::string& session_id, const std::string& session_name,
                       std::int64_t created_ns, const std::string& metadata_json, bool ledger,
                       const std::string& writer_id, int rank, int world_size, const std::string& host,
                       std::int64_t pid, std::int64_t started_ns) {
             return std::make_unique<RecordWriter>(
                 as_sink(sink), SessionInfo{session_id, session_name, created_ns, metadata_json, ledger},
                 WriterInfo{writer_id, rank, world_size, host, pid, started_ns});
           }),
           py::arg("sink"), py::kw_only(), py::arg("session_id"), py::arg("session_name"),
           py::arg("created_ns"), py::arg("metadata_json"), py::arg("ledger"), py::arg("writer_id"),
           py::arg("rank"), py::arg("world_size"), py::arg("host"), py::arg("pid"), py::arg("started_ns"))
      .def("define", &RecordWriter::define, py::arg("id"), py::arg("definition_json"))
      .def("knows", &RecordWriter::knows, py::arg("id"))
      .def(
          "write",
          [](RecordWriter& writer, const std::vector<py::bytes>& records) {
            std::vector<std::string_view> views(records.begin(), records.end());
            RecordWriter::Written written;
            {
              const py::gil_scoped_release release;
              written = writer.write(views);
            }
            return py::make_tuple(written.stored, written.repeated, written.refused);
          },
          py::arg("records"),
          "Stores records that are not there yet; returns (stored, repeated, [(index, why refused)]).")
      .def("close", &RecordWriter::close, py::call_guard<py::gil_scoped_release>());
  m.def(
      "recode_record",
      [](const py::bytes& record) {
        const DecodedRecord decoded = decode_cbor(std::as_bytes(std::span(std::string_view(record))));
        const RecordView view = decoded.view();
        std::vector<std::byte> again;
        encode_cbor(view, {decoded.session_id, "", 0, ""}, {decoded.writer_id, 0, 1, "", 0, 0}, again);
        return py::make_tuple(py::bytes(reinterpret_cast<const char*>(again.data()), again.size()),
                              view.header->sequence, view.header->schema);
      },
      py::arg("record"),
      "Decodes a record's canonical bytes and encodes them anew: (bytes, sequence, schema's number).");
}

py::dict as_dict(const RecoveryReport& report) {
  py::dict described;
  described["journals"] = report.journals;
  described["delivered"] = report.delivered;
  described["torn"] = report.torn;
  described["damaged"] = report.damaged;
  described["set_aside"] = report.set_aside;
  described["kept"] = report.kept;
  described["left_alone"] = report.left_alone;
  described["messages"] = report.messages;
  return described;
}

void bind_recovery(py::module_& m) {
  m.def(
      "recover",
      [](const std::filesystem::path& base_dir, const py::object& sinks, const py::object& progress) {
        RecoveryProgress report_progress;
        if (!progress.is_none()) {
          report_progress = [&progress](const std::filesystem::path& journal, std::uint64_t done,
                                        std::uint64_t total) {
            const py::gil_scoped_acquire gil;
            progress(journal, done, total);
          };
        }
        if (py::isinstance<py::list>(sinks)) {
          const auto given = as_sinks(py::cast<py::list>(sinks));
          RecoveryReport report;
          {
            const py::gil_scoped_release release;
            report = recover(base_dir, given, report_progress);
          }
          return as_dict(report);
        }
        const SinkFactory factory = [&sinks](const std::string& target) -> std::shared_ptr<Sink> {
          const py::gil_scoped_acquire gil;
          const py::object made = sinks(target);
          return made.is_none() ? nullptr : as_sink(made);
        };
        RecoveryReport report;
        {
          const py::gil_scoped_release release;
          report = recover(base_dir, factory, report_progress);
        }
        return as_dict(report);
      },
      py::arg("base_dir"), py::arg("sinks"), py::arg("progress") = py::none(),
      "Delivers what the ownerless journals under base_dir hold. `sinks` is a list of sinks, or a function "
      "from a "
      "target to a sink (or None where it cannot be opened here).");
  m.def("list_journals", [](const std::filesystem::path& base_dir) {
    py::list journals;
    for (const auto& info : list_journals(base_dir)) {
      py::dict entry;
      entry["path"] = info.path;
      entry["owner_alive"] = info.owner_alive;
      entry["set_aside"] = info.set_aside;
      entry["pending_records"] = info.pending_records;
      entry["bytes"] = info.bytes;
      entry["session_name"] = info.session.name;
      entry["session_id"] = info.session.id;
      entry["writer_id"] = info.writer.id;
      entry["rank"] = info.writer.rank;
      entry["pid"] = info.writer.pid;
      entry["targets"] = info.targets;
      journals.append(entry);
    }
    return journals;
  });
  m.def("journal_dir_for", &journal_dir_for, py::arg("target"));
  m.def("make_uuid", &make_uuid);
  m.def("_report", [](const std::string& level, const std::string& message) { report(level, message); });
}

}  // namespace

void bind_recorder(py::module_& m) {
  bind_sinks(m);
  bind_record_writer(m);
  bind_recorder_type(m);
  bind_observer(m);
  bind_recovery(m);
}

}  // namespace rubriscope::binding
