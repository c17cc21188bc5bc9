#include "rubriscope/binding/snapshot_object.h"

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/binding/py_names.h"
#include "rubriscope/core/captured.h"
#include "rubriscope/core/event_fields.h"
#include "rubriscope/sinks/rows.h"

namespace py = pybind11;

namespace rubriscope::binding {
namespace {

py::object steal(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

py::object text_object(std::string_view text) {
  return steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

/// The paths of a schema as interned Python strings.
struct PathNames {
  std::vector<Slot> slots;
  std::vector<std::vector<PyObject*>> of_slot;  // owned, for the life of the process

  explicit PathNames(const std::vector<Slot>& of_slots) : slots(of_slots) {
    for (const Slot& slot : slots) {
      auto& names = of_slot.emplace_back();
      for (const std::string& path : slot.paths) {
        PyObject* name = text_object(path).release().ptr();
        PyUnicode_InternInPlace(&name);
        names.push_back(name);
      }
    }
  }
  ~PathNames() {
    for (auto& names : of_slot) {
      for (PyObject* const name : names) Py_DECREF(name);
    }
  }
  PathNames(const PathNames&) = delete;
  PathNames& operator=(const PathNames&) = delete;

  bool is_of(const Schema& schema) const {
    if (slots.size() != schema.slots.size()) return false;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].paths != schema.slots[i].paths) return false;
    }
    return true;
  }
};

/// Held by shared ownership: building a snapshot runs Python code, during which another thread may come here.
std::shared_ptr<const PathNames> path_names(const Schema& schema) {
  constexpr std::size_t most = 32;
  // Leaked on purpose: at exit the interpreter is gone before static objects are.
  static auto& cache = *new std::vector<std::shared_ptr<const PathNames>>();
  for (std::size_t i = 0; i < cache.size(); ++i) {
    // Compared by content: a schema's address may be that of one that is gone.
    if (!cache[i]->is_of(schema)) continue;
    if (i != 0) std::swap(cache[i], cache[i - 1]);
    return cache[i != 0 ? i - 1 : 0];
  }
  auto made = std::make_shared<const PathNames>(schema.slots);
  if (cache.size() >= most) cache.pop_back();
  cache.insert(cache.begin(), made);
  return made;
}

PyObject* status_name(Status status) {
  static std::array<PyObject*, 4> names{};
  constexpr std::array<const char*, 4> texts = {"skipped", "scored", "failed", "pending"};
  const auto index = static_cast<std::size_t>(status) & 3;
  PyObject* const name = interned(names[index], texts[index]);
  if (name == nullptr) throw py::error_already_set();
  return name;
}

void set_item(const py::dict& dict, PyObject* key, PyObject* value) {
  if (PyDict_SetItem(dict.ptr(), key, value) != 0) throw py::error_already_set();
}

py::object parse_json(std::string_view text) {
  static PyObject* loads = nullptr;
  PyObject* const function = import_once(loads, "json", "loads");
  if (function == nullptr) throw py::error_already_set();
  return steal(PyObject_CallOneArg(function, text_object(text).ptr()));
}

void note_capture(const py::dict& notes, const char* name, std::uint8_t form) {
  const std::string_view note = capture_note(form);
  if (!note.empty()) notes[name] = py::str(note.data(), note.size());
}

py::object capture_object(std::string_view text, std::uint8_t form) {
  if (form == static_cast<std::uint8_t>(CaptureForm::bytes)) return py::bytes(text.data(), text.size());
  if (form == static_cast<std::uint8_t>(CaptureForm::json)) return parse_json(text);
  if (const auto integer = captured_integer(text, form)) return py::int_(*integer);
  if (const auto real = captured_real(text, form)) return py::float_(*real);
  if (form == static_cast<std::uint8_t>(CaptureForm::integer)) {
    return steal(PyLong_FromString(std::string(text).c_str(), nullptr, 10));
  }
  if ((form & kCaptureCut) == 0) return text_object(text);
  std::string marked;
  append_captured_text(marked, text, form);
  return text_object(marked);
}

}  // namespace

py::object snapshot_object(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                           bool recovered) {
  static PyObject* type = nullptr;
  PyObject* const snapshot_type = import_once(type, "rubriscope.snapshot", "NeuralSnapshot");
  if (snapshot_type == nullptr) throw py::error_already_set();

  const RecordHeader& header = *record.header;
  const std::size_t slots = header.slots;
  const std::shared_ptr<const PathNames> names = path_names(*record.schema);
  const double* const values = record.scores();
  const Status* const status = record.statuses();
  const std::uint64_t* const duration = record.durations_ns();

  py::dict scores;
  py::dict statuses;
  py::dict durations;
  for (std::size_t i = 0; i < slots; ++i) {
    const bool scored = status[i] == Status::scored;
    const py::object score = scored ? steal(PyFloat_FromDouble(values[i])) : py::object();
    const py::object took =
        status[i] != Status::skipped ? steal(PyLong_FromUnsignedLongLong(duration[i])) : py::object();
    for (PyObject* const path : names->of_slot[i]) {
      if (score) set_item(scores, path, score.ptr());
      set_item(statuses, path, status_name(status[i]));
      if (took) set_item(durations, path, took.ptr());
    }
  }

  py::object episode;
  py::object action = py::none();
  py::object observation = py::none();
  py::object metadata = py::dict();
  py::dict explanations;
  py::dict reasons;
  py::dict score_metadata;
  py::dict calls;
  py::dict captures;
  const auto set_by_slot = [&](const py::dict& dict, std::uint16_t slot, const py::object& value) {
    if (slot >= slots) return;
    for (PyObject* const path : names->of_slot[slot]) set_item(dict, path, value.ptr());
  };
  record.for_each_extra([&](const RecordView::Extra& extra) {
    switch (extra.tag) {
      case ExtraTag::episode:
        if (!episode) episode = text_object(extra.text);
        break;
      case ExtraTag::action:
        action = capture_object(extra.text, extra.form);
        note_capture(captures, "action", extra.form);
        break;
      case ExtraTag::observation:
        observation = capture_object(extra.text, extra.form);
        note_capture(captures, "observation", extra.form);
        break;
      case ExtraTag::explanation:
        set_by_slot(explanations, extra.slot, text_object(extra.text));
        break;
      case ExtraTag::reason:
        set_by_slot(reasons, extra.slot, text_object(extra.text));
        break;
      case ExtraTag::metadata:
        metadata = parse_json(extra.text);
        break;
      case ExtraTag::score_metadata:
        set_by_slot(score_metadata, extra.slot, parse_json(extra.text));
        break;
      case ExtraTag::calls:
        set_by_slot(calls, extra.slot,
                    steal(PyLong_FromString(std::string(extra.text).c_str(), nullptr, 10)));
        break;
      case ExtraTag::field:   // of events
      case ExtraTag::sealed:  // opened before it comes here
        break;
    }
  });
  if (!episode) episode = text_object("0");  // what a recorder's position begins with

  const bool has_reward = slots != 0 && status[0] == Status::scored && std::isfinite(values[0]);
  const py::object id = text_object(writer.id + ":" + std::to_string(header.sequence));
  const py::object session_id = text_object(session.id);
  const py::object session_name = text_object(session.name);
  const py::object step = py::int_(header.step);
  const py::object time_ns = py::int_(header.time_ns);
  const py::object reward = has_reward ? py::object(py::float_(values[0])) : py::none();
  const py::object rank = py::int_(writer.rank);
  const py::object group = header.group == kNoGroup ? py::object(py::none()) : py::int_(header.group);
  const py::object sample = header.sample == kNoSample ? py::object(py::none()) : py::int_(header.sample);
  const py::bool_ is_recovered(recovered);

  // Positionally, in the order of the fields of NeuralSnapshot.
  const std::array<PyObject*, 22> arguments = {
      id.ptr(),           session_id.ptr(),   session_name.ptr(), episode.ptr(),
      step.ptr(),         time_ns.ptr(),      scores.ptr(),       statuses.ptr(),
      durations.ptr(),    reward.ptr(),       metadata.ptr(),     action.ptr(),
      observation.ptr(),  explanations.ptr(), reasons.ptr(),      score_metadata.ptr(),
      calls.ptr(),        rank.ptr(),         group.ptr(),        sample.ptr(),
      is_recovered.ptr(), captures.ptr()};
  return steal(PyObject_Vectorcall(snapshot_type, arguments.data(), arguments.size(), nullptr));
}

py::object scalars_object(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                          bool recovered) {
  static PyObject* type = nullptr;
  PyObject* const scalars_type = import_once(type, "rubriscope.snapshot", "Scalars");
  if (scalars_type == nullptr) throw py::error_already_set();
  const RecordHeader& header = *record.header;
  py::dict values;
  for (std::size_t i = 0; i < header.slots; ++i) {
    values[py::str(record.schema->slots[i].paths.front())] = record.scores()[i];
  }
  return py::reinterpret_borrow<py::object>(scalars_type)(writer.id + ":" + std::to_string(header.sequence),
                                                          session.id, session.name, header.step,
                                                          header.time_ns, values, writer.rank, recovered);
}

py::object event_object(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                        bool recovered) {
  static PyObject* type = nullptr;
  PyObject* const event_type = import_once(type, "rubriscope.event", "Event");
  if (event_type == nullptr) throw py::error_already_set();
  const RecordHeader& header = *record.header;
  const Schema& schema = *record.schema;
  const std::shared_ptr<const PathNames> names = path_names(schema);
  py::dict values;
  for (std::size_t i = 0; i < header.slots; ++i) {
    if (record.statuses()[i] != Status::scored) continue;
    set_item(values, names->of_slot[i].front(), steal(PyFloat_FromDouble(record.scores()[i])).ptr());
  }
  py::dict fields;
  std::vector<RecordView::Extra> extras;
  for (const RecordView::Extra& field : event_fields(record, extras)) {
    fields[text_object(schema.fields[field.slot])] = capture_object(field.text, field.form);
  }
  const rows::Columns columns = rows::columns_of(record);
  const auto text = [](std::string_view of) { return text_object(of); };
  return py::reinterpret_borrow<py::object>(event_type)(
      writer.id + ":" + std::to_string(header.sequence), text(kind_name(header.kind)), text(schema.name),
      session.id, session.name,
      columns.episode.data() != nullptr ? text(columns.episode) : py::object(py::none()), header.step,
      header.time_ns, header.duration_ns, text(outcome_name(header.outcome)), values, fields,
      parse_json(schema.attributes),
      columns.metadata_json.data() != nullptr ? parse_json(columns.metadata_json) : py::object(py::dict()),
      writer.rank, header.thread, header.group == kNoGroup ? py::object(py::none()) : py::int_(header.group),
      header.sample == kNoSample ? py::object(py::none()) : py::int_(header.sample), recovered);
}

py::object record_object(const RecordView& record, const SessionInfo& session, const WriterInfo& writer,
                         bool recovered) {
  switch (record.header->kind) {
    case RecordKind::snapshot:
      return snapshot_object(record, session, writer, recovered);
    case RecordKind::scalars:
      return scalars_object(record, session, writer, recovered);
    default:
      return event_object(record, session, writer, recovered);
  }
}

}  // namespace rubriscope::binding
