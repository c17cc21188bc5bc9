// Whose name stands under this process's checkpoints, and where that key is kept.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubriscope/ledger/note.h"

namespace rubriscope::ledger {

struct Signer {
  std::string name;
  SigningKey key;

  VerifierKey verifier() const { return {name, key.public_key()}; }
  /// The signed checkpoint of a log as a note.
  std::string sign(const Checkpoint& checkpoint) const;

  /// "PRIVATE+KEY+name+id+base64", as Go's note package writes it.
  std::string text() const;
  /// Throws ValueError for anything else; the message does not show the key.
  static Signer parse(std::string_view text);
};

/// $XDG_CONFIG_HOME/rubriscope, else ~/.config/rubriscope.
std::filesystem::path key_folder();

/// Makes a new key file (mode 0600); never overwrites. Throws ValueError for a bad name, SystemError when it
/// cannot be written or is there.
Signer make_key_file(const std::filesystem::path& path, const std::string& name);
/// Throws SystemError when the file cannot be read, ValueError when it is no key or others may read it.
Signer read_key_file(const std::filesystem::path& path);

/// The key of this process: what RUBRISCOPE_LEDGER_KEY holds, else the file RUBRISCOPE_LEDGER_KEY_FILE names,
/// else <key folder>/ledger.key, which is made where there is none (and reported once). Throws like the
/// above.
Signer default_key();

/// The signer of ledgers in this process; none until set_signer(): they have no checkpoints then.
std::shared_ptr<const Signer> signer();
void set_signer(std::shared_ptr<const Signer> signer);

}  // namespace rubriscope::ledger
