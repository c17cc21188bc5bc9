// Trace files for the command line.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "rubriscope/binding/modules.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/trace/trace_file.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

TraceFilter make_filter(const std::string& layer, const std::string& status,
                        std::optional<std::int64_t> since_ns) {
  return {layer, status, since_ns};
}

/// A progress that takes the GIL, and lets a Ctrl-C through.
TraceFile::Progress progress_of(const py::object& function) {
  return [&function](std::uint64_t done, std::uint64_t total) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!function.is_none()) function(done, total);
  };
}

std::vector<py::bytes> as_bytes(const std::vector<std::string>& lines) {
  return {lines.begin(), lines.end()};
}

}  // namespace

void bind_trace_file(py::module_& m) {
  py::class_<TraceStats>(m, "TraceStats", "Figures over spans in flat memory.")
      .def(py::init<std::size_t>(), py::arg("slowest"))
      .def("add", &TraceStats::add, py::arg("layer"), py::arg("status"), py::arg("duration_ms"),
           py::arg("line"))
      .def("layers",
           [](const TraceStats& stats) {
             py::dict all;
             for (const auto& [name, of_layer] : stats.layers()) {
               py::dict one;
               one["operations"] = of_layer.operations;
               one["average_ms"] = of_layer.total_ms / static_cast<double>(of_layer.operations);
               one["p95_ms"] = of_layer.durations.quantile(0.95) / 1e6;
               one["errors"] = of_layer.errors;
               one["blocked"] = of_layer.blocked;
               all[py::str(name)] = one;
             }
             return all;
           })
      .def("slowest", [](const TraceStats& stats) {
        std::vector<py::bytes> all;
        for (const TraceStats::Slow& slow : stats.slowest()) all.emplace_back(slow.line);
        return all;
      });

  py::class_<TraceFile>(m, "TraceFile", "A file of trace events, read in flat memory.")
      .def(py::init(
               [](const std::filesystem::path& path) { return std::make_unique<TraceFile>(path.string()); }),
           py::arg("path"))
      .def_property_readonly("corrupt", &TraceFile::corrupt)
      .def_property_readonly("size", &TraceFile::size)
      .def(
          "last",
          [](TraceFile& file, std::size_t count, const std::string& layer, const std::string& status,
             std::optional<std::int64_t> since_ns, const py::object& progress) {
            const TraceFilter filter = make_filter(layer, status, since_ns);
            const TraceFile::Progress report = progress_of(progress);
            std::vector<std::string> lines;
            {
              const py::gil_scoped_release release;
              file.backwards(
                  [&](const TraceLine& line, std::string_view text) {
                    if (filter.takes(line)) lines.emplace_back(text);
                    return lines.size() < count;
                  },
                  report);
            }
            std::reverse(lines.begin(), lines.end());
            return as_bytes(lines);
          },
          py::arg("count"), py::arg("layer"), py::arg("status"), py::arg("since_ns"), py::arg("progress"),
          "The last events that a filter takes, in the file's order.")
      .def(
          "batch",
          [](TraceFile& file, std::uint64_t offset, std::size_t most, const std::string& layer,
             const std::string& status, std::optional<std::int64_t> since_ns, const py::object& progress) {
            const TraceFilter filter = make_filter(layer, status, since_ns);
            const TraceFile::Progress report = progress_of(progress);
            std::vector<std::string> lines;
            std::uint64_t end = offset;
            {
              const py::gil_scoped_release release;
              end = file.forwards(
                  offset,
                  [&](const TraceLine& line, std::string_view text) {
                    if (filter.takes(line)) lines.emplace_back(text);
                    return lines.size() < most;
                  },
                  report);
            }
            return std::make_pair(as_bytes(lines), end);
          },
          py::arg("offset"), py::arg("most"), py::arg("layer"), py::arg("status"), py::arg("since_ns"),
          py::arg("progress"), "Up to `most` events from an offset on, and where to go on.")
      .def(
          "tree",
          [](TraceFile& file, const std::string& id, const py::object& progress) {
            const TraceFile::Progress report = progress_of(progress);
            std::vector<std::string> lines;
            {
              const py::gil_scoped_release release;
              lines = file.tree(id, report);
            }
            return as_bytes(lines);
          },
          py::arg("id"), py::arg("progress"), "The events of the whole tree that holds an id.")
      .def(
          "stats",
          [](TraceFile& file, TraceStats& stats, std::size_t last, const std::string& layer,
             const std::string& status, std::optional<std::int64_t> since_ns, const py::object& progress) {
            const TraceFilter filter = make_filter(layer, status, since_ns);
            const TraceFile::Progress report = progress_of(progress);
            const py::gil_scoped_release release;
            std::uint64_t taken = 0;
            const TraceFile::Visit visit = [&](const TraceLine& line, std::string_view text) {
              if (filter.takes(line)) {
                stats.add(line.layer, line.status, line.duration_ms, text);
                ++taken;
              }
              return last == 0 || taken < last;
            };
            if (last != 0) {
              file.backwards(visit, report);
            } else {
              file.forwards(0, visit, report);
            }
            return taken;
          },
          py::arg("stats"), py::arg("last"), py::arg("layer"), py::arg("status"), py::arg("since_ns"),
          py::arg("progress"), "Adds the events (the last so many, 0: all) to `stats`; returns how many.");
  m.def(
      "read_timestamp", [](const std::string& text) { return read_timestamp(text); }, py::arg("text"),
      "Nanoseconds since the Unix epoch of an ISO 8601 time, None where it is none.");
}

}  // namespace rubriscope::binding
