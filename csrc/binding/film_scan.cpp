// pybind11 bindings of what a film finds out record by record, for readers that are written in Python.
#include "rubriscope/binding/film_scan.h"

#include <pybind11/stl.h>

#include <cstddef>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/snapshot_object.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/film/record_scan.h"

namespace py = pybind11;

namespace rubriscope::binding {
namespace {

using film::SchemaRow;

/// Key and definition of each schema.
using Definitions = std::vector<std::pair<std::int64_t, std::string>>;

std::vector<SchemaRow> as_schemas(const Definitions& definitions) {
  std::vector<SchemaRow> schemas;
  for (const auto& [key, definition] : definitions) {
    schemas.push_back({key, std::make_shared<const Schema>(
                                Schema::from_definition_json(definition, static_cast<std::uint32_t>(key)))});
  }
  return schemas;
}

std::span<const std::byte> bytes_of(const py::handle& object) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(object.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {reinterpret_cast<const std::byte*>(data), static_cast<std::size_t>(size)};
}

/// Calls visit(schema_key, record) for each row (schema_key, bytes).
template <class Visit>
void for_each_row(const py::list& rows, Visit&& visit) {
  for (const py::handle& row : rows) {
    const auto pair = py::reinterpret_borrow<py::tuple>(row);
    visit(py::cast<std::int64_t>(pair[0]), bytes_of(pair[1]));
  }
}

film::SlotFinder finder_of(const std::vector<SchemaRow>& schemas, const std::string& path) {
  film::SlotFinder finder(schemas, path);
  if (!finder.found()) throw KeyError("no schema has the path \"" + path + "\"");
  return finder;
}

/// Records of one writer back as objects.
class RecordDecoder {
 public:
  RecordDecoder(SessionInfo session, WriterInfo writer, const Definitions& definitions)
      : session_(std::move(session)), writer_(std::move(writer)) {
    for (SchemaRow& row : as_schemas(definitions)) schemas_.emplace(row.key, std::move(row.schema));
  }

  py::object object(std::int64_t schema_key, const py::bytes& bytes) {
    DecodedRecord record = decode_cbor(bytes_of(bytes));
    const auto schema = schemas_.find(schema_key);
    if (schema == schemas_.end()) {
      throw FormatError("a record names schema " + std::to_string(schema_key) + ", which is missing");
    }
    record.schema = schema->second;
    const std::size_t slots = record.view().header->slots;
    if (slots != record.schema->slots.size()) {
      throw FormatError("a record has " + std::to_string(slots) + " slots, its schema " +
                        std::to_string(record.schema->slots.size()));
    }
    return record_object(record.view(), session_, writer_, false);
  }

 private:
  SessionInfo session_;
  WriterInfo writer_;
  std::unordered_map<std::int64_t, SchemaPtr> schemas_;
};

}  // namespace

void bind_film_scan(py::module_& m) {
  m.def(
      "schema_paths", [](const Definitions& schemas) { return film::all_paths(as_schemas(schemas)); },
      py::arg("schemas"), "The paths of schemas, given as pairs of key and definition, each once.");

  py::class_<film::ScoreScan>(m, "ScoreScan",
                              "Columns of one rubric path or scalar, from records that were chosen already.")
      .def(py::init(
               [](const Definitions& definitions, const std::string& path, bool scalars, std::string where) {
                 return std::make_unique<film::ScoreScan>(
                     finder_of(as_schemas(definitions), path), film::EpisodeNumbers({}), FilmFilter{},
                     scalars ? Schema::Kind::scalars : Schema::Kind::tree, std::move(where));
               }),
           py::arg("schemas"), py::arg("path"), py::kw_only(), py::arg("scalars"), py::arg("where"))
      .def(
          "add",
          [](film::ScoreScan& scan, std::size_t writer, std::int32_t rank, const py::list& rows) {
            for_each_row(rows, [&](std::int64_t schema_key, std::span<const std::byte> record) {
              scan.add(schema_key, record, writer, rank);
            });
          },
          py::arg("writer"), py::arg("rank"), py::arg("rows"),
          "Takes rows of (schema_key, record) of one writer.")
      .def(
          "columns",
          [](film::ScoreScan& scan) { return as_dict(scan.take(), scan.kind() == Schema::Kind::tree); },
          "Arrays as FilmReader.scores() has them, `episode` unused; a scalar's without `duration_ns`. Ends "
          "the scan.");

  py::class_<film::SummaryScan>(m, "SummaryScan",
                                "Figures of every rubric path, from records that were chosen already.")
      .def(py::init([](const Definitions& definitions, std::size_t bins, std::int64_t low, std::int64_t high,
                       std::string where) {
             return std::make_unique<film::SummaryScan>(as_schemas(definitions), bins, low, high,
                                                        FilmFilter{}, std::move(where));
           }),
           py::arg("schemas"), py::arg("bins"), py::arg("low"), py::arg("high"), py::kw_only(),
           py::arg("where"))
      .def(
          "add",
          [](film::SummaryScan& scan, const py::list& rows) {
            for_each_row(rows, [&](std::int64_t schema_key, std::span<const std::byte> record) {
              scan.add(schema_key, record);
            });
          },
          py::arg("rows"), "Takes rows of (schema_key, record).")
      .def(
          "summaries", [](film::SummaryScan& scan) { return as_list(scan.take()); },
          "Dictionaries as FilmReader.summaries() has them. Ends the scan.");

  py::class_<RecordDecoder>(m, "RecordDecoder",
                            "Records of one writer back as NeuralSnapshot, Scalars or Event objects.")
      .def(py::init([](const std::string& session_id, const std::string& session_name,
                       const std::string& writer_id, std::int32_t rank, const Definitions& schemas) {
             SessionInfo session{session_id, session_name, 0, "{}"};
             WriterInfo writer;
             writer.id = writer_id;
             writer.rank = rank;
             return std::make_unique<RecordDecoder>(std::move(session), std::move(writer), schemas);
           }),
           py::arg("session_id"), py::arg("session_name"), py::arg("writer_id"), py::arg("rank"),
           py::arg("schemas"))
      .def("object", &RecordDecoder::object, py::arg("schema_key"), py::arg("record"));
}

}  // namespace rubriscope::binding
