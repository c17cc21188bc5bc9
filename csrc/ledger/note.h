// Signed notes (c2sp.org/signed-note): a text and the signatures under it, each of a named key; and the keys
// and checkpoints (c2sp.org/tlog-checkpoint) written in that form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/ledger/key.h"

namespace rubriscope::ledger {

/// A key as others know it: "name+1a2b3c4d+base64", of which the middle is its id.
struct VerifierKey {
  std::string name;
  PublicKey key{};

  /// The first four bytes of SHA-256(name ‖ "\n" ‖ algorithm ‖ key).
  std::uint32_t id() const;
  std::string text() const;
  /// Throws ValueError for anything else, an id that does not fit, or another algorithm than Ed25519.
  static VerifierKey parse(std::string_view text);
};

/// A text of whole lines with its signatures.
struct Note {
  struct Line {
    std::string name;
    std::uint32_t key_id{};
    std::string signature;  ///< bytes
  };

  std::string text;
  std::vector<Line> signatures;

  /// Throws ValueError for what is no signed note.
  static Note parse(std::string_view note);
  std::string serialized() const;

  /// Adds the signature of a key under this name.
  void sign(const std::string& name, const SigningKey& key);
  /// Whether a signature by this key is there and holds. A signature that claims to be its and does not hold
  /// makes it false, whatever others say.
  bool is_signed_by(const VerifierKey& key) const;
};

/// What a log's keeper vouches for: that the first `size` entries of log `origin` have this root.
struct Checkpoint {
  std::string origin;
  std::uint64_t size{};
  Hash root{};
  std::vector<std::string> extensions;

  std::string text() const;
  /// Throws ValueError for a text that is no checkpoint.
  static Checkpoint parse(std::string_view text);
};

}  // namespace rubriscope::ledger
