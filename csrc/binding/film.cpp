// pybind11 bindings of the film: columns as NumPy arrays without a copy, snapshots as Python objects.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "rubriscope/binding/film_scan.h"
#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/snapshot_object.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/film/film_reader.h"

namespace py = pybind11;

namespace rubriscope::binding {
namespace {

/// Hands the vector's memory to NumPy.
template <class Value>
py::array_t<Value> as_array(std::vector<Value>&& values, std::vector<py::ssize_t> shape = {}) {
  auto* const owned = new std::vector<Value>(std::move(values));
  const py::capsule owner(owned, [](void* pointer) { delete static_cast<std::vector<Value>*>(pointer); });
  if (shape.empty()) shape = {static_cast<py::ssize_t>(owned->size())};
  return py::array_t<Value>(std::move(shape), owned->data(), owner);
}

void add_position(py::dict& columns, PositionColumns&& at) {
  columns["step"] = as_array(std::move(at.step));
  columns["time_ns"] = as_array(std::move(at.time_ns));
  columns["sequence"] = as_array(std::move(at.sequence));
  columns["writer"] = as_array(std::move(at.writer));
  columns["rank"] = as_array(std::move(at.rank));
  columns["group"] = as_array(std::move(at.group));
  columns["sample"] = as_array(std::move(at.sample));
  columns["episode"] = as_array(std::move(at.episode));
}

/// FilmReader with an end: Python code closes what it opened.
class PyFilmReader {
 public:
  PyFilmReader(const std::string& path, const std::optional<vault::Kek>& kek)
      : reader_(std::make_shared<FilmReader>(path, kek)) {}

  std::shared_ptr<FilmReader> reader() const {
    if (!reader_) throw ValueError("the film is closed");
    return reader_;
  }
  void close() { reader_.reset(); }

 private:
  std::shared_ptr<FilmReader> reader_;
};

py::list sessions(const PyFilmReader& film) {
  std::vector<FilmSession> found;
  {
    const auto reader = film.reader();
    const py::gil_scoped_release release;
    found = reader->sessions();
  }
  py::list result;
  for (const FilmSession& session : found) {
    py::dict entry;
    entry["session_id"] = session.id;
    entry["uuid"] = session.info.id;
    entry["name"] = session.info.name;
    entry["created_at"] = session.created_at;
    entry["created_ns"] = session.info.created_ns;
    entry["closed_ns"] = session.closed_ns;
    entry["metadata"] = session.info.metadata_json;
    entry["steps"] = session.steps;
    entry["scalars"] = session.scalars;
    entry["events"] = session.events;
    entry["episodes"] = session.episodes;
    entry["writers"] = session.writers;
    entry["ranks"] = session.ranks;
    entry["first_ns"] = session.first_ns;
    entry["last_ns"] = session.last_ns;
    result.append(entry);
  }
  return result;
}

/// Calls a FilmReader's method without the GIL.
template <class Call>
auto without_gil(const PyFilmReader& film, Call&& call) {
  const auto reader = film.reader();
  const py::gil_scoped_release release;
  return call(*reader);
}

py::list episodes(const PyFilmReader& film, std::int64_t session) {
  py::list result;
  for (const FilmEpisode& episode :
       without_gil(film, [&](FilmReader& reader) { return reader.episodes(session); })) {
    py::dict entry;
    entry["name"] = episode.name;
    entry["started_ns"] = episode.started_ns;
    result.append(entry);
  }
  return result;
}

py::list writers(const PyFilmReader& film, std::int64_t session) {
  py::list result;
  for (const WriterInfo& writer :
       without_gil(film, [&](FilmReader& reader) { return reader.writers(session); })) {
    py::dict entry;
    entry["writer_id"] = writer.id;
    entry["rank"] = writer.rank;
    entry["world_size"] = writer.world_size;
    entry["host"] = writer.host;
    entry["pid"] = writer.pid;
    entry["started_ns"] = writer.started_ns;
    result.append(entry);
  }
  return result;
}

py::list summaries(const PyFilmReader& film, std::int64_t session, std::size_t bins,
                   std::optional<std::string> episode) {
  FilmFilter filter;
  filter.episode = std::move(episode);
  return as_list(
      without_gil(film, [&](FilmReader& reader) { return reader.summaries(session, bins, filter); }));
}

class RecordIterator {
 public:
  explicit RecordIterator(FilmReader::Cursor cursor) : cursor_(std::move(cursor)) {}

  py::object next() {
    std::optional<FilmRecord> found;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      found = cursor_.next();
    }
    if (!found) throw py::stop_iteration();
    return record_object(found->record.view(), *found->session, *found->writer, false);
  }

 private:
  std::mutex mutex_;  // several threads may share an iterator
  FilmReader::Cursor cursor_;
};

}  // namespace

py::dict as_dict(ScoreColumns&& columns, bool with_durations) {
  py::dict result;
  result["score"] = as_array(std::move(columns.score));
  result["status"] = as_array(std::move(columns.status));
  if (with_durations) result["duration_ns"] = as_array(std::move(columns.duration_ns));
  add_position(result, std::move(columns.at));
  return result;
}

py::list as_list(const std::vector<PathSummary>& summaries) {
  py::list result;
  for (const PathSummary& summary : summaries) {
    const auto where = [](bool defined, double value) -> py::object {
      return defined ? py::object(py::float_(value)) : py::object(py::none());
    };
    const auto n = static_cast<double>(summary.scored);
    const auto called = static_cast<double>(summary.scored + summary.failed);
    // A constant's mean may round to a neighbour: its spread is 0 all the same.
    const bool constant = summary.least == summary.greatest;
    py::dict entry;
    entry["path"] = summary.path;
    entry["n"] = summary.scored;
    entry["mean"] = where(summary.scored > 0, constant ? summary.least : summary.mean);
    entry["std"] = where(summary.scored > 1, constant ? 0 : std::sqrt(summary.squares / (n - 1)));
    entry["min"] = where(summary.scored > 0, summary.least);
    entry["max"] = where(summary.scored > 0, summary.greatest);
    entry["skipped"] = summary.skipped;
    entry["failed"] = summary.failed;
    entry["mean_duration_ns"] = where(called > 0, summary.duration_ns / called);
    py::list curve;
    for (const double value : summary.curve) {
      if (!std::isnan(value)) curve.append(value);
    }
    entry["curve"] = curve;
    result.append(entry);
  }
  return result;
}

void bind_film(py::module_& m) {
  py::class_<RecordIterator>(m, "RecordIterator", "Records of a film, read as they are asked for.")
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &RecordIterator::next);

  py::class_<PyFilmReader>(m, "FilmReader", R"doc(Reads the sessions of an SQLite recording.

Read-only, on a connection of its own, and while a recorder writes; each call sees one consistent state. Records
come writer by writer, writers in the order they were registered, each writer's in the order recorded.

Raises FileNotFoundError when there is no such file, rubriscope.FormatError when it is not a recording, of a newer
format or damaged; rubriscope.SealedError when `kek` is not the key of what is encrypted.)doc")
      .def(py::init<const std::string&, const std::optional<vault::Kek>&>(), py::arg("path"),
           py::arg("kek") = py::none())
      .def("close", &PyFilmReader::close, "Lets go of the file.")
      .def("sessions", &sessions, "One dictionary a session, in the order they were made.")
      .def(
          "find_session",
          [](const PyFilmReader& film, const std::string& key) {
            return without_gil(film, [&](FilmReader& reader) { return reader.find_session(key); });
          },
          py::arg("uuid_or_name"),
          "The number of the session with this UUID, else of the newest with this name. Raises KeyError.")
      .def(
          "paths",
          [](const PyFilmReader& film, std::int64_t session) {
            return without_gil(film, [&](FilmReader& reader) { return reader.paths(session); });
          },
          py::arg("session_id"), "Rubric paths in pre-order, \"root\" first.")
      .def(
          "scalar_names",
          [](const PyFilmReader& film, std::int64_t session) {
            return without_gil(film, [&](FilmReader& reader) { return reader.scalar_names(session); });
          },
          py::arg("session_id"), "Names logged with recorder.log.")
      .def("episodes", &episodes, py::arg("session_id"),
           "Dictionaries of name and started_ns, in the order they began.")
      .def("writers", &writers, py::arg("session_id"),
           "Dictionaries of writer_id, rank, world_size, host, pid and started_ns; the column `writer` is an "
           "index "
           "into them.")
      .def(
          "scores",
          [](const PyFilmReader& film, std::int64_t session, const std::string& path,
             std::optional<std::string> episode, std::optional<std::int64_t> start,
             std::optional<std::int64_t> stop, std::optional<std::size_t> writer) {
            return as_dict(without_gil(film,
                                       [&](FilmReader& reader) {
                                         return reader.scores(session, path, {episode, start, stop, writer});
                                       }),
                           true);
          },
          py::arg("session_id"), py::arg("path"), py::arg("episode") = py::none(),
          py::arg("start") = py::none(), py::arg("stop") = py::none(), py::arg("writer") = py::none(),
          R"doc(One rubric's scores where start <= step < stop, as arrays of shape (records,).

`score` is float64 and NaN where `status` (0 skipped, 1 scored, 2 failed) is not 1; `writer` and `episode` are
indices into writers() and episodes(). Raises KeyError for an unknown session or path.)doc")
      .def(
          "score_matrix",
          [](const PyFilmReader& film, std::int64_t session, std::optional<std::string> episode,
             std::optional<std::int64_t> start, std::optional<std::int64_t> stop,
             std::optional<std::size_t> writer) {
            ScoreMatrix matrix = without_gil(film, [&](FilmReader& reader) {
              return reader.score_matrix(session, {episode, start, stop, writer});
            });
            const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(matrix.at.size()),
                                                    static_cast<py::ssize_t>(matrix.paths.size())};
            py::dict result;
            result["paths"] = matrix.paths;
            result["scores"] = as_array(std::move(matrix.scores), shape);
            result["statuses"] = as_array(std::move(matrix.statuses), shape);
            add_position(result, std::move(matrix.at));
            return result;
          },
          py::arg("session_id"), py::arg("episode") = py::none(), py::arg("start") = py::none(),
          py::arg("stop") = py::none(), py::arg("writer") = py::none(),
          "All rubrics' scores: `scores` and `statuses` of shape (records, paths), and the columns of "
          "scores().")
      .def("summaries", &summaries, py::arg("session_id"), py::arg("bins"), py::arg("episode") = py::none(),
           "Figures of every rubric path from one scan: dictionaries with the fields of "
           "rubriscope.series.Summary "
           "but `kind`.")
      .def(
          "scalars",
          [](const PyFilmReader& film, std::int64_t session, const std::string& name,
             std::optional<std::int64_t> start, std::optional<std::int64_t> stop,
             std::optional<std::size_t> writer) {
            return as_dict(without_gil(film,
                                       [&](FilmReader& reader) {
                                         return reader.scalars(session, name,
                                                               {std::nullopt, start, stop, writer});
                                       }),
                           false);
          },
          py::arg("session_id"), py::arg("name"), py::arg("start") = py::none(), py::arg("stop") = py::none(),
          py::arg("writer") = py::none(),
          "One scalar's values where start <= step < stop, as arrays of shape (records,). Raises KeyError.")
      .def(
          "snapshots",
          [](const PyFilmReader& film, std::int64_t session, std::optional<std::string> episode,
             std::optional<std::int64_t> start, std::optional<std::int64_t> stop,
             std::optional<std::size_t> writer) {
            return std::make_unique<RecordIterator>(without_gil(film, [&](FilmReader& reader) {
              return reader.snapshots(session, {episode, start, stop, writer});
            }));
          },
          py::arg("session_id"), py::arg("episode") = py::none(), py::arg("start") = py::none(),
          py::arg("stop") = py::none(), py::arg("writer") = py::none(),
          "Streams NeuralSnapshot objects where start <= step < stop.")
      .def(
          "events",
          [](const PyFilmReader& film, std::int64_t session, std::optional<std::string> kind,
             std::optional<std::string> name, std::optional<std::int64_t> start,
             std::optional<std::int64_t> stop, std::optional<std::size_t> writer) {
            return std::make_unique<RecordIterator>(without_gil(film, [&](FilmReader& reader) {
              return reader.events(session, {kind, name, start, stop, writer});
            }));
          },
          py::arg("session_id"), py::arg("kind") = py::none(), py::arg("name") = py::none(),
          py::arg("start") = py::none(), py::arg("stop") = py::none(), py::arg("writer") = py::none(),
          "Streams Event objects where start <= step < stop.");
}

}  // namespace rubriscope::binding
