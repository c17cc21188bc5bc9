// pybind11 bindings of the vault.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "rubriscope/binding/modules.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/film/unsealer.h"
#include "rubriscope/sinks/sqlite/vault_store.h"
#include "rubriscope/vault/vault.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

class PyUnsealer {
 public:
  PyUnsealer(std::string where, py::object key_of)
      : unsealer_(std::move(where), [key_of = std::move(key_of)](const std::string& writer) {
          const auto found = py::cast<std::pair<std::string, std::optional<py::bytes>>>(key_of(writer));
          return film::DataKey{found.first, found.second
                                                ? std::optional(std::string(std::string_view(*found.second)))
                                                : std::nullopt};
        }) {}

  void unlock(const vault::Kek& kek, const py::bytes& wrapped) {
    unsealer_.unlock(kek, std::string(std::string_view(wrapped)));
  }
  std::string token(const std::string& name) const { return unsealer_.token(name); }
  std::string metadata(const std::string& stored) { return unsealer_.metadata(stored); }
  std::string schema(const std::string& definition) {
    const Schema stored = Schema::from_definition_json(definition, 0);
    return stored.sealed.empty() ? definition : unsealer_.schema(stored)->definition_json();
  }
  py::bytes record(const py::bytes& record) {
    const std::string_view bytes(record);
    const auto stored = std::as_bytes(std::span(bytes));
    if (read_cbor_fields(stored).sealed.data() == nullptr) return record;
    const std::span<const std::byte> opened = unsealer_.record(stored);
    return {reinterpret_cast<const char*>(opened.data()), opened.size()};
  }

 private:
  film::Unsealer unsealer_;
};

}  // namespace

void bind_vault(py::module_& m) {
  using vault::Kek;
  using vault::Vault;

  py::class_<Kek>(m, "Kek", "A key-encryption key.")
      .def(py::init([](const py::bytes& key) { return Kek(vault::Secret::parse(std::string_view(key))); }),
           py::arg("key"), "32 raw bytes or 64 hex digits. Raises ValueError for anything else.")
      .def_property_readonly("id", &Kek::id, "16 hex digits that tell keys apart and give none away.")
      .def(
          "rewrap",
          [](const Kek& before, const py::bytes& wrapped, const std::string& purpose,
             const Kek& now) -> py::object {
            const std::string_view bytes(wrapped);
            if (Kek::wrapped_by(bytes) == now.id()) return py::none();
            return py::bytes(now.wrap(before.unwrap(bytes, purpose), purpose));
          },
          py::arg("wrapped"), py::arg("purpose"), py::arg("now"),
          "The same key wrapped by `now`, or None where it is already. Raises rubriscope.SealedError.");
  py::class_<Vault, std::shared_ptr<Vault>>(m, "Vault", "The keys with which a database is written and read.")
      .def(py::init([](const Kek& kek, const std::optional<py::bytes>& wrapped) {
             if (!wrapped) return std::make_shared<Vault>(kek);
             return std::make_shared<Vault>(kek, std::string_view(*wrapped));
           }),
           py::arg("kek"), py::arg("wrapped_search_key") = py::none())
      .def_property_readonly("wrapped_search_key",
                             [](const Vault& vault) { return py::bytes(vault.wrapped_search_key()); })
      .def("token", &Vault::token, py::arg("path"), "What stands for a path in the database: 32 hex digits.");
  py::class_<PyUnsealer>(m, "Unsealer", "Opens what is encrypted in rows that were read elsewhere.")
      .def(py::init<std::string, py::object>(), py::arg("where"), py::arg("key_of"),
           "key_of(writer_id) gives (session UUID, wrapped data key or None).")
      .def("unlock", &PyUnsealer::unlock, py::arg("kek"), py::arg("wrapped_search_key"))
      .def("token", &PyUnsealer::token, py::arg("name"))
      .def("metadata", &PyUnsealer::metadata, py::arg("stored"))
      .def("schema", &PyUnsealer::schema, py::arg("definition"),
           "The definition behind the tokens; another's as it is. Raises rubriscope.SealedError.")
      .def("record", &PyUnsealer::record, py::arg("record"),
           "The canonical bytes as they would have been unsealed; others as they are. Raises "
           "rubriscope.SealedError.");
  m.def(
      "record_episode",
      [](const py::bytes& record) -> py::object {
        const std::string_view bytes(record);
        const CborFields fields = read_cbor_fields(std::as_bytes(std::span(bytes)));
        if (fields.episode.data() == nullptr) return py::none();
        return py::make_tuple(std::string(fields.episode), fields.time_ns);
      },
      py::arg("record"), "A record's episode and time, or None.");
  m.attr("_SEARCH_KEY_PURPOSE") = std::string(vault::kSearchKeyPurpose);
  m.def("_data_key_purpose", &vault::data_key_purpose, py::arg("session_id"), py::arg("writer_id"));
  m.def(
      "rotate_keys",
      [](const std::string& path, const Kek& before, const Kek& now) {
        const sqlite::Rotation rotation = sqlite::rotate(path, before, now);
        return py::make_tuple(rotation.rewrapped, rotation.already);
      },
      py::arg("path"), py::arg("before"), py::arg("now"), "(keys wrapped anew, keys that were already).");
  m.def("shred_session", &sqlite::shred, py::arg("path"), py::arg("session_uuid"),
        py::call_guard<py::gil_scoped_release>(), "Destroys a session's data keys; how many there were.");
}

}  // namespace rubriscope::binding
