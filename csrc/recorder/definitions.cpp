#include "rubriscope/recorder/definitions.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/record.h"
#include "rubriscope/recorder/fault_point.h"

namespace rubriscope {

struct DefinitionsWriter::FrameHeader {
  static constexpr std::uint32_t kMagic = 0x46445352;  // "RSDF"

  std::uint32_t magic;
  std::uint32_t check;  ///< checksum() of the rest of the header and the payload
  Kind kind;
  std::uint32_t bytes;  ///< of the payload, which is padded to 8
};

namespace {

constexpr const char* kNames[2] = {"definitions", "definitions.copy"};

void put(std::string& to, const void* data, std::size_t bytes) {
  to.append(static_cast<const char*>(data), bytes);
}
void put(std::string& to, std::uint64_t value) { put(to, &value, sizeof value); }
void put(std::string& to, std::string_view text) {
  put(to, text.size());
  to.append(text);
}

/// Takes values out of a payload in the order they were put.
class Fields {
 public:
  explicit Fields(std::string_view payload) : rest_(payload) {}

  std::uint64_t number() {
    std::uint64_t value = 0;
    if (rest_.size() < sizeof value) throw FormatError("definitions: a field is cut short");
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }

  std::string text() {
    const std::uint64_t bytes = number();
    if (rest_.size() < bytes) throw FormatError("definitions: a text is cut short");
    std::string value(rest_.substr(0, bytes));
    rest_.remove_prefix(bytes);
    return value;
  }

 private:
  std::string_view rest_;
};

}  // namespace

DefinitionsWriter::DefinitionsWriter(const std::filesystem::path& folder) {
  for (int copy = 0; copy < 2; ++copy) {
    paths_[copy] = folder / kNames[copy];
    files_[copy] = File::open(paths_[copy], O_WRONLY | O_CREAT | O_EXCL | O_APPEND);
  }
}

void DefinitionsWriter::close() {
  for (File& file : files_) file.close();
}

void DefinitionsWriter::append(Kind kind, const std::string& payload) {
  std::string frame(sizeof(FrameHeader), '\0');
  frame += payload;
  frame.resize(sizeof(FrameHeader) + padded(payload.size()), '\0');
  FrameHeader header{FrameHeader::kMagic, 0, kind, static_cast<std::uint32_t>(payload.size())};
  std::memcpy(frame.data(), &header, sizeof header);
  header.check = checksum(frame.data() + 8, 8 + payload.size());
  std::memcpy(frame.data(), &header, sizeof header);
  RUBRISCOPE_FAULT_POINT("define.before");
  for (int copy = 0; copy < 2; ++copy) {
    const off_t before = ::lseek(files_[copy].get(), 0, SEEK_END);
    try {
#ifdef RUBRISCOPE_FAULT_POINTS
      // The tests die in the middle of a frame; in one write() a kill cannot cut it.
      files_[copy].append(frame.data(), frame.size() / 2, paths_[copy]);
      RUBRISCOPE_FAULT_POINT("define.half");
      files_[copy].append(frame.data() + frame.size() / 2, frame.size() - frame.size() / 2, paths_[copy]);
#else
      files_[copy].append(frame.data(), frame.size(), paths_[copy]);
#endif
    } catch (...) {
      // A disk that filled up in the middle leaves half a frame: cut it off, the next one goes there.
      if (before < 0 || ::ftruncate(files_[copy].get(), before) != 0) {
        throw SystemError(errno, "cannot take back half a definition", paths_[copy]);
      }
      throw;
    }
    RUBRISCOPE_FAULT_POINT("define.copied");
  }
}

void DefinitionsWriter::add(const SessionInfo& session) {
  std::string payload;
  put(payload, std::string_view(session.id));
  put(payload, std::string_view(session.name));
  put(payload, static_cast<std::uint64_t>(session.created_ns));
  put(payload, std::string_view(session.metadata_json));
  put(payload, std::uint64_t{session.ledger});
  append(Kind::session, payload);
}

void DefinitionsWriter::add(const WriterInfo& writer) {
  std::string payload;
  put(payload, std::string_view(writer.id));
  put(payload, static_cast<std::uint64_t>(writer.rank));
  put(payload, static_cast<std::uint64_t>(writer.world_size));
  put(payload, std::string_view(writer.host));
  put(payload, static_cast<std::uint64_t>(writer.pid));
  put(payload, static_cast<std::uint64_t>(writer.started_ns));
  put(payload, std::string_view(writer.wrapped_key));
  append(Kind::writer, payload);
}

void DefinitionsWriter::add_target(std::uint32_t index, const std::string& target) {
  std::string payload;
  put(payload, std::uint64_t{index});
  put(payload, std::string_view(target));
  append(Kind::target, payload);
}

void DefinitionsWriter::add_schema(std::uint32_t id, std::string_view definition_json) {
  std::string payload;
  put(payload, std::uint64_t{id});
  put(payload, definition_json);
  append(Kind::schema, payload);
}

Definitions Definitions::read(const std::filesystem::path& folder) {
  using Kind = DefinitionsWriter::Kind;
  using FrameHeader = DefinitionsWriter::FrameHeader;

  Definitions all;
  std::map<std::uint64_t, std::string> targets;
  std::size_t frames[2] = {0, 0};

  const auto take = [&](Kind kind, std::string_view payload) {
    Fields fields(payload);
    switch (kind) {
      case Kind::session:
        if (!all.session) {
          SessionInfo session;
          session.id = fields.text();
          session.name = fields.text();
          session.created_ns = static_cast<std::int64_t>(fields.number());
          session.metadata_json = fields.text();
          session.ledger = fields.number() != 0;
          all.session = std::move(session);
        }
        return;
      case Kind::writer:
        if (!all.writer) {
          WriterInfo writer;
          writer.id = fields.text();
          writer.rank = static_cast<std::int32_t>(fields.number());
          writer.world_size = static_cast<std::int32_t>(fields.number());
          writer.host = fields.text();
          writer.pid = static_cast<std::int64_t>(fields.number());
          writer.started_ns = static_cast<std::int64_t>(fields.number());
          writer.wrapped_key = fields.text();
          all.writer = std::move(writer);
        }
        return;
      case Kind::target: {
        const std::uint64_t index = fields.number();
        targets.emplace(index, fields.text());
        return;
      }
      case Kind::schema: {
        const auto id = static_cast<std::uint32_t>(fields.number());
        if (!all.schemas.contains(id)) {
          all.schemas.emplace(
              id, std::make_shared<const Schema>(Schema::from_definition_json(fields.text(), id)));
        }
        return;
      }
    }
    throw FormatError("definitions: unknown kind " + std::to_string(static_cast<std::uint32_t>(kind)));
  };

  for (int copy = 0; copy < 2; ++copy) {
    const std::filesystem::path path = folder / kNames[copy];
    std::error_code missing;
    if (!std::filesystem::exists(path, missing)) continue;
    const FileBytes content = read_file(path);
    std::size_t at = 0;
    bool skipped = false;
    while (at + sizeof(FrameHeader) <= content.bytes) {
      FrameHeader header;
      std::memcpy(&header, content.data() + at, sizeof header);
      const std::size_t room = content.bytes - at - sizeof header;
      const bool good = header.magic == FrameHeader::kMagic && header.bytes <= room &&
                        header.check == checksum(content.data() + at + 8, 8 + std::size_t{header.bytes});
      if (!good) {
        skipped = true;
        at += 8;
        continue;
      }
      if (skipped) all.damaged = true;  // a bad stretch with a good frame behind it is not a torn end
      skipped = false;
      take(header.kind, {reinterpret_cast<const char*>(content.data()) + at + sizeof header, header.bytes});
      ++frames[copy];
      at += sizeof header + padded(header.bytes);
    }
  }
  // The copies are written one after the other: a kill leaves them one frame apart at most.
  if ((frames[0] > frames[1] ? frames[0] - frames[1] : frames[1] - frames[0]) > 1) all.damaged = true;
  for (auto& [index, target] : targets) {
    if (index == all.targets.size()) all.targets.push_back(std::move(target));
  }
  return all;
}

}  // namespace rubriscope
