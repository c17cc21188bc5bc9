#include "rubriscope/core/record.h"

#include <array>
#include <string>

#include "rubriscope/core/errors.h"

namespace rubriscope {

namespace {

constexpr std::array<RecordKind, 5> kKinds = {RecordKind::snapshot, RecordKind::scalars,
                                              RecordKind::observation, RecordKind::span,
                                              RecordKind::checkpoint};
constexpr std::array<std::string_view, kOutcomes> kOutcomeNames = {"success", "error", "blocked"};

}  // namespace

std::string_view kind_name(RecordKind kind) {
  switch (kind) {
    case RecordKind::snapshot:
      return "snapshot";
    case RecordKind::scalars:
      return "scalars";
    case RecordKind::observation:
      return "observation";
    case RecordKind::span:
      return "span";
    case RecordKind::checkpoint:
      return "checkpoint";
  }
  return "";
}

RecordKind kind_of_name(std::string_view name) {
  for (const RecordKind kind : kKinds) {
    if (kind_name(kind) == name) return kind;
  }
  throw ValueError("there is no kind of record \"" + std::string(name) +
                   "\"; expected snapshot, scalars, observation, span or checkpoint");
}

std::string_view outcome_name(Outcome outcome) {
  const auto index = static_cast<std::size_t>(outcome);
  return index < kOutcomeNames.size() ? kOutcomeNames[index] : std::string_view();
}

Outcome outcome_of_name(std::string_view name) {
  for (std::size_t i = 0; i < kOutcomeNames.size(); ++i) {
    if (kOutcomeNames[i] == name) return static_cast<Outcome>(i);
  }
  throw ValueError("there is no outcome \"" + std::string(name) + "\"; expected success, error or blocked");
}

bool record_is_valid(const RecordHeader* header, std::size_t available) {
  if (available < sizeof(RecordHeader)) return false;
  const std::uint64_t length = header->length();
  const std::uint64_t content =
      sizeof(RecordHeader) + arrays_bytes(header->slots) + std::uint64_t{header->extras_bytes};
  if (length > available || content > length) return false;
  return header->checksum == checksum(reinterpret_cast<const std::byte*>(header) + 8, length - 8);
}

}  // namespace rubriscope
