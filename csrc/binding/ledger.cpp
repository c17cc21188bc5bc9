// The ledger for Python: hashes are bytes of 32, proofs lists of them.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/py_ledger_source.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/film/ledger_reader.h"
#include "rubriscope/ledger/file_digest.h"
#include "rubriscope/ledger/merkle_tree.h"
#include "rubriscope/ledger/signer.h"
#include "rubriscope/sinks/sqlite/format.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

using ledger::Hash;
using ledger::Signer;

py::bytes to_python(const Hash& hash) { return {reinterpret_cast<const char*>(hash.data()), hash.size()}; }

py::list to_python(const std::vector<Hash>& proof) {
  py::list list;
  for (const Hash& hash : proof) list.append(to_python(hash));
  return list;
}

Hash hash_from(const py::bytes& given, const char* name) {
  const auto text = static_cast<std::string_view>(given);
  Hash hash;
  if (text.size() != hash.size()) {
    throw ValueError(std::string(name) + " has " + std::to_string(text.size()) + " bytes, a SHA-256 has 32");
  }
  std::memcpy(hash.data(), text.data(), hash.size());
  return hash;
}

std::vector<Hash> proof_from(const std::vector<py::bytes>& given) {
  std::vector<Hash> proof;
  for (const py::bytes& hash : given) proof.push_back(hash_from(hash, "a hash of the proof"));
  return proof;
}

void bind_tree(py::module_& m) {
  using ledger::MerkleTree;
  py::class_<MerkleTree>(m, "MerkleTree",
                         R"(The Merkle tree of RFC 6962 over a growing list of entries, in memory.

Hashes are SHA-256, 32 bytes; a leaf is SHA-256(0x00 ‖ entry), a node SHA-256(0x01 ‖ left ‖ right). The tree keeps
64 bytes an entry. Not for several threads at once.)")
      .def(py::init<>())
      .def(
          "append",
          [](MerkleTree& tree, const py::bytes& entry) {
            return tree.append(ledger::bytes_of(static_cast<std::string_view>(entry)));
          },
          py::arg("entry"), "Adds an entry; returns its index.")
      .def_property_readonly("size", &MerkleTree::size, "The number of entries.")
      .def("__len__", &MerkleTree::size)
      .def(
          "root",
          [](MerkleTree& tree, std::optional<std::uint64_t> size) { return to_python(tree.root(size)); },
          py::arg("size") = py::none(),
          "The root of the first `size` entries, of all when left out. Raises ValueError when there are "
          "fewer.")
      .def(
          "inclusion_proof",
          [](MerkleTree& tree, std::uint64_t index, std::optional<std::uint64_t> size) {
            return to_python(tree.inclusion_proof(index, size));
          },
          py::arg("index"), py::arg("size") = py::none(),
          "The hashes that lead from entry `index` to the root of the first `size` (RFC 9162 §2.1.3). Raises "
          "ValueError for an index or a size that the tree does not have.")
      .def(
          "consistency_proof",
          [](MerkleTree& tree, std::uint64_t m_, std::optional<std::uint64_t> n) {
            return to_python(tree.consistency_proof(m_, n));
          },
          py::arg("m"), py::arg("n") = py::none(),
          "The hashes that show the tree of `m` entries to be a prefix of that of `n` (RFC 9162 §2.1.4). "
          "Raises "
          "ValueError for sizes that the tree does not have.");
  m.def(
      "verify_inclusion",
      [](const py::bytes& entry, std::uint64_t index, std::uint64_t size, const std::vector<py::bytes>& proof,
         const py::bytes& root) {
        const Hash leaf = ledger::Hasher().leaf(ledger::bytes_of(static_cast<std::string_view>(entry)));
        return ledger::verify_inclusion(leaf, index, size, proof_from(proof), hash_from(root, "root"));
      },
      py::arg("entry"), py::arg("index"), py::arg("size"), py::arg("proof"), py::arg("root"),
      "Whether the proof shows that `entry` (bytes) is number `index` of the tree of `size` entries with "
      "this "
      "root (RFC 9162 §2.1.3.2). Raises ValueError for a hash that has not 32 bytes.");
  m.def(
      "verify_consistency",
      [](std::uint64_t m_, std::uint64_t n, const py::bytes& first_root, const py::bytes& second_root,
         const std::vector<py::bytes>& proof) {
        return ledger::verify_consistency(m_, n, hash_from(first_root, "first_root"),
                                          hash_from(second_root, "second_root"), proof_from(proof));
      },
      py::arg("m"), py::arg("n"), py::arg("first_root"), py::arg("second_root"), py::arg("proof"),
      "Whether the proof shows that the tree of `m` entries with `first_root` is a prefix of the tree of `n` "
      "with "
      "`second_root` (RFC 9162 §2.1.4.2). Raises ValueError for a hash that has not 32 bytes.");
}

void bind_keys(py::module_& m) {
  py::class_<Signer, std::shared_ptr<Signer>>(m, "LedgerKey")
      .def_static("parse",
                  [](const std::string& text) { return std::make_shared<Signer>(Signer::parse(text)); })
      .def_static("read",
                  [](const std::filesystem::path& path) {
                    return std::make_shared<Signer>(ledger::read_key_file(path));
                  })
      .def_static("make",
                  [](const std::filesystem::path& path, const std::string& name) {
                    return std::make_shared<Signer>(ledger::make_key_file(path, name));
                  })
      .def_static("default", [] { return std::make_shared<Signer>(ledger::default_key()); })
      .def_property_readonly("name", [](const Signer& key) { return key.name; })
      .def_property_readonly("public", [](const Signer& key) { return key.verifier().text(); });
  m.def(
      "file_sha256",
      [](const std::filesystem::path& path,
         const std::optional<std::function<void(std::uint64_t)>>& progress) {
        const py::gil_scoped_release release;
        const ledger::FileDigest digest = ledger::digest_file(path, [&](std::uint64_t bytes) {
          const py::gil_scoped_acquire acquire;
          if (PyErr_CheckSignals() != 0) throw py::error_already_set();
          if (progress) (*progress)(bytes);
        });
        return std::pair(ledger::to_hex(digest.sha256), digest.bytes);
      },
      py::arg("path"), py::arg("progress") = py::none(),
      "The SHA-256 of a file in hexadecimal, and its size; `progress` gets the bytes read, now and then.");
  m.def("ledger_key_folder", &ledger::key_folder);
  m.def(
      "set_ledger_key", [](std::shared_ptr<Signer> key) { ledger::set_signer(std::move(key)); },
      py::arg("key").none(true));
  m.def("has_ledger_key", [] { return ledger::signer() != nullptr; });
}

template <class Body>
auto without_gil(Body&& body) {
  const py::gil_scoped_release release;
  return body();
}

void bind_reader(py::module_& m) {
  py::class_<LedgerLog>(m, "LedgerLog")
      .def_readonly("writer_id", &LedgerLog::writer_id)
      .def_readonly("rank", &LedgerLog::rank)
      .def_readonly("origin", &LedgerLog::origin)
      .def_readonly("size", &LedgerLog::size)
      .def_readonly("checkpoint", &LedgerLog::checkpoint);
  // A reader does one thing at a time: who waited for it with the GIL would stop who works with it.
  py::class_<LedgerReader>(m, "LedgerReader")
      .def(py::init(
          [](const std::filesystem::path& path) { return std::make_unique<LedgerReader>(path.string()); }))
      .def_static(
          "over",
          [](py::object ledgers) {
            return std::make_unique<LedgerReader>(make_py_ledger_source(std::move(ledgers)));
          },
          py::arg("ledgers"), "Over rubriscope.postgres_ledger.PostgresLedgers.")
      .def("logs", &LedgerReader::logs, py::call_guard<py::gil_scoped_release>())
      .def("without_log", &LedgerReader::without_log, py::call_guard<py::gil_scoped_release>())
      .def("root",
           [](const LedgerReader& reader, const LedgerLog& log, std::uint64_t size) {
             return to_python(without_gil([&] { return reader.root(log, size); }));
           })
      .def("inclusion_proof",
           [](const LedgerReader& reader, const LedgerLog& log, std::uint64_t index, std::uint64_t size) {
             return to_python(without_gil([&] { return reader.inclusion_proof(log, index, size); }));
           })
      .def("consistency_proof",
           [](const LedgerReader& reader, const LedgerLog& log, std::uint64_t from, std::uint64_t to) {
             return to_python(without_gil([&] { return reader.consistency_proof(log, from, to); }));
           })
      .def("entries",
           [](const LedgerReader& reader, const LedgerLog& log, std::uint64_t begin, std::uint64_t end) {
             py::list list;
             for (const std::string& entry : without_gil([&] { return reader.entries(log, begin, end); })) {
               list.append(py::bytes(entry));
             }
             return list;
           })
      .def("tile",
           [](const LedgerReader& reader, const LedgerLog& log, int level, std::uint64_t index) {
             return to_python(without_gil([&] { return reader.tile(log, level, index); }));
           })
      .def("verify",
           [](const LedgerReader& reader, const LedgerLog& log, const std::vector<std::string>& keys,
              const std::vector<std::string>& against, const py::object& progress) {
             std::vector<ledger::VerifierKey> trusted;
             for (const std::string& key : keys) trusted.push_back(ledger::VerifierKey::parse(key));
             std::vector<ledger::Checkpoint> checkpoints;
             for (const std::string& text : against) checkpoints.push_back(ledger::Checkpoint::parse(text));
             LogVerdict verdict;
             {
               const py::gil_scoped_release release;
               verdict = reader.verify(log, trusted, checkpoints, [&](std::uint64_t entries) {
                 const py::gil_scoped_acquire acquire;
                 if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                 if (!progress.is_none()) progress(entries);
               });
             }
             py::dict found;
             found["root"] = to_python(verdict.root);
             found["size"] = verdict.log.size;
             found["records"] = verdict.records;
             found["signed_size"] = verdict.signed_size;
             found["signed_by"] = verdict.signed_by;
             found["unsigned_tail"] = verdict.unsigned_tail();
             found["problem"] = verdict.problem;
             return found;
           });
  m.attr("_LACKS_A_LOG") = kLacksALog;
  m.def("cosign", [](const std::string& note, const Signer& key) {
    ledger::Note signed_note = ledger::Note::parse(note);
    ledger::Checkpoint::parse(signed_note.text);
    signed_note.sign(key.name, key.key);
    return signed_note.serialized();
  });
  m.def("replace_checkpoint", &sqlite::replace_checkpoint, py::arg("path"), py::arg("writer_id"),
        py::arg("old"), py::arg("new"));
  m.def("open_checkpoint", [](const std::string& note, const std::vector<std::string>& keys) {
    const ledger::Note read = ledger::Note::parse(note);
    const ledger::Checkpoint checkpoint = ledger::Checkpoint::parse(read.text);
    std::vector<std::string> signers;
    for (const std::string& text : keys) {
      const ledger::VerifierKey key = ledger::VerifierKey::parse(text);
      if (read.is_signed_by(key)) signers.push_back(key.name);
    }
    py::dict found;
    found["text"] = read.text;
    found["origin"] = checkpoint.origin;
    found["size"] = checkpoint.size;
    found["root"] = to_python(checkpoint.root);
    found["signed_by"] = signers;
    return found;
  });
}

}  // namespace

void bind_ledger(py::module_& m) {
  bind_tree(m);
  bind_keys(m);
  bind_reader(m);
}

}  // namespace rubriscope::binding
