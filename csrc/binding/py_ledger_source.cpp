#include "rubriscope/binding/py_ledger_source.h"

#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <utility>

#include "rubriscope/film/copy_rows.h"
#include "rubriscope/ledger/log.h"

namespace py = pybind11;

namespace rubriscope::binding {
namespace {

const char* table_name(LedgerTable table) {
  switch (table) {
    case LedgerTable::steps:
      return "steps";
    case LedgerTable::scalars:
      return "scalars";
    case LedgerTable::events:
      return "events";
    case LedgerTable::entries:
      return "ledger_entries";
    case LedgerTable::tiles:
      break;
  }
  return "ledger_tiles";
}

class PyLedgerSource final : public LedgerSource {
 public:
  explicit PyLedgerSource(py::object ledgers) : ledgers_(ledgers.release().ptr()) {}
  ~PyLedgerSource() override {
    if (Py_IsInitialized() == 0) return;
    const py::gil_scoped_acquire gil;
    Py_DECREF(ledgers_);
  }

  void reading(const std::function<void()>& body) override {
    tell("begin");
    try {
      body();
    } catch (...) {
      tell("abandon");
      throw;
    }
    tell("end");
  }

  std::vector<LedgerLog> logs(std::int64_t session) override { return logs_of("logs", session); }
  std::vector<LedgerLog> without_log(std::int64_t session) override {
    return logs_of("without_log", session);
  }

  std::optional<LedgerLog> log(std::int64_t writer_key) override {
    auto row = call<std::optional<LogRow>>("log", writer_key);
    return row ? std::optional(as_log(std::move(*row))) : std::nullopt;
  }

  std::unique_ptr<LedgerRows> rows(LedgerTable table, std::int64_t first, std::int64_t last) override {
    return std::make_unique<CopyRows>(
        table, first, last, [this](LedgerTable of, std::int64_t from, std::int64_t to) {
          return call<std::string>("rows", table_name(of), from, to, CopyRows::kRowsAPiece);
        });
  }

  LedgerWriter writer(std::int64_t writer_key) override {
    const py::gil_scoped_acquire gil;
    const auto row = call<py::object>("writer", writer_key);
    if (row.is_none()) throw LedgerProblem("its writer's row is missing");
    const auto get = [&row](const char* name) { return row[name]; };
    LedgerWriter writer;
    writer.session = py::cast<std::int64_t>(get("session_id"));
    writer.session_id = py::cast<std::string>(get("uuid"));
    writer.name = py::cast<std::string>(get("name"));
    writer.created_ns = py::cast<std::int64_t>(get("created_ns"));
    writer.created_at_holds = py::cast<bool>(get("created_at_holds"));
    writer.metadata = py::cast<std::string>(get("metadata"));
    writer.is_first = py::cast<bool>(get("is_first"));
    writer.rank = py::cast<std::int64_t>(get("rank"));
    writer.world_size = py::cast<std::int64_t>(get("world_size"));
    writer.host = py::cast<std::string>(get("host"));
    writer.pid = py::cast<std::int64_t>(get("pid"));
    writer.started_ns = py::cast<std::int64_t>(get("started_ns"));
    return writer;
  }

  std::optional<LedgerSchema> schema(std::int64_t schema_key) override {
    using Rubric = std::tuple<std::string, std::int64_t, std::string, std::string>;
    using Row = std::tuple<std::int64_t, std::string, std::string, std::vector<Rubric>>;
    const auto row = call<std::optional<Row>>("schema", schema_key);
    if (!row) return std::nullopt;
    LedgerSchema found{std::get<0>(*row), std::get<1>(*row), std::get<2>(*row), {}};
    for (const auto& [path, slot, pointer, class_name] : std::get<3>(*row)) {
      found.rubrics.push_back({path, slot, pointer, class_name});
    }
    return found;
  }

  std::string stored(std::string_view text) const override {
    std::string valid;
    postgres::append_text(valid, text);
    return valid;
  }

 private:
  using LogRow = std::tuple<std::int64_t, std::string, std::int32_t, std::string, std::uint64_t, std::string>;

  static LedgerLog as_log(LogRow&& row) {
    auto& [key, id, rank, uuid, size, checkpoint] = row;
    return {key, id, rank, ledger::origin_of(uuid, id), size, std::move(checkpoint)};
  }

  std::vector<LedgerLog> logs_of(const char* method, std::int64_t session) {
    std::vector<LedgerLog> found;
    for (LogRow& row : call<std::vector<LogRow>>(method, session)) found.push_back(as_log(std::move(row)));
    return found;
  }

  void tell(const char* method) {
    const py::gil_scoped_acquire gil;
    py::handle(ledgers_).attr(method)();
  }

  /// A Python object as Result is for who holds the GIL.
  template <class Result, class... Arguments>
  Result call(const char* method, const Arguments&... arguments) {
    const py::gil_scoped_acquire gil;
    return py::cast<Result>(py::handle(ledgers_).attr(method)(arguments...));
  }

  PyObject* ledgers_;
};

}  // namespace

std::unique_ptr<LedgerSource> make_py_ledger_source(py::object ledgers) {
  return std::make_unique<PyLedgerSource>(std::move(ledgers));
}

}  // namespace rubriscope::binding
