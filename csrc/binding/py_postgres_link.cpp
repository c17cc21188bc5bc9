#include "rubriscope/binding/py_postgres_link.h"

#include <pybind11/stl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "rubriscope/binding/modules.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "rubriscope/sinks/postgres/copy_encoder.h"
#include "rubriscope/sinks/postgres/libpq.h"
#include "rubriscope/sinks/postgres/store.h"

namespace py = pybind11;

namespace rubriscope::binding {
namespace {

using postgres::Link;
using postgres::Portion;

/// A Python exception as the recorder knows it. Holds the GIL. Its message alone: a traceback's lines could
/// show what a URL holds.
[[noreturn]] void rethrow(const py::error_already_set& error) {
  const std::string message = py::cast<std::string>(py::str(error.value()));
  if (error.matches(py::module_::import("rubriscope.errors").attr("FormatError"))) throw FormatError(message);
  if (!py::hasattr(error.value(), "transient")) {
    throw SinkError(py::cast<std::string>(error.type().attr("__name__")) + ": " + message, true);
  }
  if (py::cast<bool>(error.value().attr("timed_out"))) throw postgres::StatementTimeout(message);
  throw SinkError(message, py::cast<bool>(error.value().attr("transient")));
}

/// Runs Python code with the GIL.
template <class Body>
auto with_gil(Body&& body) {
  if (Py_IsInitialized() == 0) throw SinkError("PostgreSQL: the interpreter has ended", false);
  const py::gil_scoped_acquire gil;
  try {
    return body();
  } catch (const py::error_already_set& error) {
    rethrow(error);
  }
}

std::string valid_text(std::string_view text) {
  std::string valid;
  postgres::append_text(valid, text);
  return valid;
}

std::string valid_json(std::string_view text) {
  std::string valid;
  append_json_value(valid, text.empty() ? "{}" : text);
  return valid;
}

/// A log as register_writer() gives it: None, or its size and the tiles at its edge by key.
std::optional<ledger::LogTail> log_from(std::int64_t writer_key, const py::object& stored) {
  if (stored.is_none()) return std::nullopt;
  const auto [size, tiles] = py::cast<std::pair<std::uint64_t, std::map<std::int64_t, py::bytes>>>(stored);
  std::vector<ledger::Tile> edge = ledger::edge_of(size);
  for (ledger::Tile& tile : edge) {
    const auto found = tiles.find(rows::tile_key(writer_key, tile.level, tile.index));
    if (found == tiles.end()) continue;
    const auto bytes = static_cast<std::string_view>(found->second);
    tile.hashes = ledger::hashes_of(std::as_bytes(std::span(bytes)));
  }
  return ledger::LogTail(size, std::move(edge));
}

class PyLink final : public Link {
 public:
  /// Takes the reference. Holds the GIL.
  explicit PyLink(py::object link)
      : connection_(pointer(link, "libpq"), pointer(link, "pgconn")),
        socket_(py::cast<int>(link.attr("fileno")())) {
    struct stat info{};
    if (fstat(socket_, &info) == 0) inode_ = info.st_ino;
    link_ = link.release().ptr();
  }

  ~PyLink() override {
    if (Py_IsInitialized() == 0) return;
    const py::gil_scoped_acquire gil;
    try {
      py::handle(link_).attr("close")();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("closing a connection to PostgreSQL");
    }
    Py_DECREF(link_);
  }

  Registration register_writer(const SessionInfo& session, const WriterInfo& writer) override {
    return with_gil([&] {
      py::dict described;
      described["uuid"] = session.id;
      described["name"] = valid_text(session.name);
      described["created_ns"] = session.created_ns;
      described["metadata"] = valid_json(session.metadata_json);
      described["writer_id"] = writer.id;
      described["rank"] = writer.rank;
      described["world_size"] = writer.world_size;
      described["host"] = valid_text(writer.host);
      described["pid"] = writer.pid;
      described["started_ns"] = writer.started_ns;
      described["wrapped_key"] =
          writer.wrapped_key.empty() ? py::object(py::none()) : py::bytes(writer.wrapped_key);
      const auto found =
          py::cast<std::tuple<std::int64_t, std::int64_t, std::optional<std::uint64_t>, py::object>>(
              py::handle(link_).attr("register_writer")(described));
      return Registration{std::get<0>(found), std::get<1>(found), std::get<2>(found),
                          log_from(std::get<1>(found), std::get<3>(found))};
    });
  }

  std::optional<std::uint64_t> stored_through(const std::string& writer_id) override {
    return with_gil([&] {
      return py::cast<std::optional<std::uint64_t>>(py::handle(link_).attr("stored_through")(writer_id));
    });
  }

  std::vector<std::uint64_t> stored_between(std::int64_t writer_key, std::uint64_t first,
                                            std::uint64_t last) override {
    return with_gil([&] {
      return py::cast<std::vector<std::uint64_t>>(
          py::handle(link_).attr("stored_between")(writer_key, first, last));
    });
  }

  std::int64_t schema_key(std::int64_t session_id, const Schema& schema) override {
    return with_gil([&] {
      py::list rubrics;
      for (std::size_t slot = 0; slot < schema.slots.size(); ++slot) {
        for (const std::string& path : schema.slots[slot].paths) {
          rubrics.append(py::make_tuple(valid_text(path), slot, "$[" + std::to_string(slot) + "]",
                                        valid_text(schema.slots[slot].class_name)));
        }
      }
      return py::cast<std::int64_t>(py::handle(link_).attr("schema_key")(
          session_id, std::string(schema.kind_name()), schema.definition_json(), rubrics));
    });
  }

  // Without the GIL: a hand-over to Python code that computes takes up to 5 ms.
  void store(std::int64_t session_id, std::int64_t writer_key, Portion& portion) override {
    try {
      postgres::store(connection_, session_id, writer_key, portion);
    } catch (const postgres::ServerError& error) {
      with_gil([&] {
        const py::object state = error.state.empty() ? py::object(py::none()) : py::str(error.state);
        py::handle(link_).attr("refuse")(valid_text(error.what()), state);
      });
    }
  }

  void close_writers(const std::vector<std::int64_t>& writer_keys) override {
    with_gil([&] { py::handle(link_).attr("close_writers")(writer_keys); });
  }

  void abandon() noexcept override {
    // The Python object stays, unreachable: its end would say goodbye on the parent's socket. The number may
    // belong to another file by now, where the connection was lost.
    struct stat info{};
    if (fstat(socket_, &info) == 0 && S_ISSOCK(info.st_mode) && info.st_ino == inode_) ::close(socket_);
  }

 private:
  static void* pointer(const py::object& link, const char* method) {
    return reinterpret_cast<void*>(py::cast<std::uintptr_t>(link.attr(method)()));
  }

  PyObject* link_;
  postgres::Connection connection_;
  int socket_;
  ino_t inode_{};
};

}  // namespace

std::shared_ptr<PostgresSink> make_postgres_sink(const std::string& target, py::object connect) {
  // Given back with the GIL, whoever lets go of the sink last.
  const std::shared_ptr<PyObject> held(connect.release().ptr(), [](PyObject* object) {
    if (Py_IsInitialized() == 0) return;
    const py::gil_scoped_acquire gil;
    Py_DECREF(object);
  });
  return std::make_shared<PostgresSink>(target, [held]() -> std::unique_ptr<Link> {
    return with_gil([&] { return std::make_unique<PyLink>(py::handle(held.get())()); });
  });
}

void bind_postgres(py::module_& m) {
  py::class_<PostgresSink, Sink, std::shared_ptr<PostgresSink>>(m, "PostgresSink")
      .def(py::init(&make_postgres_sink), py::arg("target"), py::arg("connect"));
  m.def(
      "_ledger_edge_keys",
      [](std::int64_t writer_key, std::uint64_t size) {
        std::vector<std::int64_t> keys;
        for (const ledger::Tile& tile : ledger::edge_of(size)) {
          keys.push_back(rows::tile_key(writer_key, tile.level, tile.index));
        }
        return keys;
      },
      py::arg("writer_key"), py::arg("size"), "The keys of the tiles at the edge of a log of this size.");
  m.attr("_POSTGRES_STEP_COLUMNS") = postgres::CopyColumns::kSteps;
  m.attr("_POSTGRES_SCALAR_COLUMNS") = postgres::CopyColumns::kScalars;
  m.attr("_POSTGRES_EVENT_COLUMNS") = postgres::CopyColumns::kEvents;
}

}  // namespace rubriscope::binding
