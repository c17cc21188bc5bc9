#include "rubriscope/ledger/signer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/ids.h"
#include "rubriscope/recorder/report.h"

namespace rubriscope::ledger {

namespace {

constexpr std::string_view kPrivate = "PRIVATE+KEY+";
constexpr char kEd25519 = 0x01;

// Never destroyed: a drain may still sign while the process exits.
struct Current {
  std::mutex mutex;
  std::shared_ptr<const Signer> signer;
};
Current& current() {
  static Current& only = *new Current;
  return only;
}

std::string default_name() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  std::string name = std::string("rubriscope/") + host;
  std::replace_if(name.begin(), name.end(), [](char c) { return c == '+' || c == ' '; }, '-');
  return name;
}

const char* environment(const char* variable) {
  const char* const value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

std::string Signer::sign(const Checkpoint& checkpoint) const {
  Note note{checkpoint.text(), {}};
  note.sign(name, key);
  return note.serialized();
}

std::string Signer::text() const {
  const std::string verifier_text = verifier().text();
  const std::string id = verifier_text.substr(name.size(), 10);  // "+1a2b3c4d+"
  std::string bytes(1, kEd25519);
  bytes.append(reinterpret_cast<const char*>(key.seed().data()), key.seed().size());
  return std::string(kPrivate) + name + id + to_base64(bytes_of(bytes));
}

Signer Signer::parse(std::string_view text) {
  constexpr const char* kWhat = "not a ledger key (expected PRIVATE+KEY+name+id+base64)";
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  if (!text.starts_with(kPrivate)) throw ValueError(kWhat);
  const std::string_view rest = text.substr(kPrivate.size());
  const std::size_t first = rest.find('+');
  const std::size_t second = first == std::string_view::npos ? first : rest.find('+', first + 1);
  if (second == std::string_view::npos) throw ValueError(kWhat);
  const std::optional<std::string> bytes = from_base64(rest.substr(second + 1));
  Seed seed;
  if (!bytes || bytes->size() != 1 + seed.size() || (*bytes)[0] != kEd25519) throw ValueError(kWhat);
  std::memcpy(seed.data(), bytes->data() + 1, seed.size());
  Signer signer{std::string(rest.substr(0, first)), SigningKey(seed)};
  if (signer.text() != text) throw ValueError("the id of this ledger key is not its own");
  return signer;
}

std::filesystem::path key_folder() {
  if (const char* const config = environment("XDG_CONFIG_HOME")) {
    return std::filesystem::path(config) / "rubriscope";
  }
  const char* const home = environment("HOME");
  return std::filesystem::path(home != nullptr ? home : "/") / ".config" / "rubriscope";
}

Signer make_key_file(const std::filesystem::path& path, const std::string& name) {
  Signer signer{name, SigningKey::generate()};
  VerifierKey::parse(signer.verifier().text());  // refuses a bad name
  std::error_code ignored;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  // Written aside and linked, so that a key file is there whole or not at all, and of two processes that make
  // one at once only one does.
  const std::filesystem::path aside = path.string() + "." + make_uuid() + ".new";
  const int file = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) throw SystemError(errno, "Making a ledger key", aside.string());
  const std::string text = signer.text() + "\n";
  const bool written =
      ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  const int write_error = errno;
  ::close(file);
  const bool linked = written && ::link(aside.c_str(), path.c_str()) == 0;
  const int link_error = errno;
  ::unlink(aside.c_str());
  if (!linked) throw SystemError(written ? link_error : write_error, "Making a ledger key", path.string());
  return signer;
}

Signer read_key_file(const std::filesystem::path& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) throw SystemError(errno, "Reading a ledger key", path.string());
  if ((info.st_mode & 077) != 0) {
    throw ValueError("the ledger key " + path.string() + " can be read by others; chmod 600 it");
  }
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) throw SystemError(EIO, "Reading a ledger key", path.string());
  try {
    return Signer::parse(text.str());
  } catch (const ValueError& error) {
    throw ValueError(path.string() + ": " + error.what());
  }
}

Signer default_key() {
  if (const char* const text = environment("RUBRISCOPE_LEDGER_KEY")) return Signer::parse(text);
  if (const char* const path = environment("RUBRISCOPE_LEDGER_KEY_FILE")) return read_key_file(path);
  const std::filesystem::path path = key_folder() / "ledger.key";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    try {
      Signer made = make_key_file(path, default_name());
      report("info", "made the key that signs ledgers: " + path.string() +
                         " (public: " + made.verifier().text() + ")");
      return made;
    } catch (const SystemError& error) {
      if (error.code != EEXIST) throw;  // another process was faster
    }
  }
  return read_key_file(path);
}

std::shared_ptr<const Signer> signer() {
  const std::lock_guard lock(current().mutex);
  return current().signer;
}

void set_signer(std::shared_ptr<const Signer> signer) {
  const std::lock_guard lock(current().mutex);
  current().signer = std::move(signer);
}

}  // namespace rubriscope::ledger
