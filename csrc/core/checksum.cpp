#include "rubriscope/core/checksum.h"

#include <array>
#include <bit>
#include <cstring>

#include "rubriscope/core/record.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define RUBRISCOPE_CRC_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define RUBRISCOPE_CRC_TARGET __attribute__((target("+crc")))
#endif

namespace rubriscope::detail {

namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian and read in place");

constexpr std::uint32_t kPolynomial = 0x82F63B78;  // CRC-32C, reflected

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    for (std::size_t k = 1; k < 8; ++k) {
      const std::uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 255];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

struct TableCrc {
  static std::uint32_t word(std::uint32_t crc, std::uint64_t value) {
    value ^= crc;
    std::uint32_t next = 0;
    for (std::size_t k = 0; k < 8; ++k) next ^= kTables[7 - k][(value >> (8 * k)) & 255];
    return next;
  }
  static std::uint32_t byte(std::uint32_t crc, std::uint8_t value) {
    return (crc >> 8) ^ kTables[0][(crc ^ value) & 255];
  }
};

std::uint64_t load_word(const unsigned char* at) {
  std::uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// One CRC instruction has a latency of three cycles and a throughput of one, so three independent lanes run
// over thirds of the data; the lanes are then fed, in order, into one more CRC. Every lane is a CRC, so a
// burst of up to 32 bits anywhere changes the result; the length is part of the start value.
//
// A macro, not a template: inlining across different target attributes is refused by the compiler.
#define RUBRISCOPE_LANED_CRC(WORD, BYTE)                                            \
  const auto* at = static_cast<const unsigned char*>(data);                         \
  const std::size_t third = bytes / 24;                                             \
  const unsigned char* second_lane = at + third * 8;                                \
  const unsigned char* third_lane = second_lane + third * 8;                        \
  std::uint32_t a = ~static_cast<std::uint32_t>(bytes), b = ~0u, c = ~0u;           \
  for (std::size_t i = 0; i < third; ++i) {                                         \
    a = WORD(a, load_word(at + i * 8));                                             \
    b = WORD(b, load_word(second_lane + i * 8));                                    \
    c = WORD(c, load_word(third_lane + i * 8));                                     \
  }                                                                                 \
  std::uint32_t crc = WORD(a, b | std::uint64_t{c} << 32);                          \
  const unsigned char* rest = third_lane + third * 8;                               \
  const unsigned char* const end = static_cast<const unsigned char*>(data) + bytes; \
  for (; rest + 8 <= end; rest += 8) crc = WORD(crc, load_word(rest));              \
  for (; rest < end; ++rest) crc = BYTE(crc, *rest);                                \
  return ~crc

#if defined(__x86_64__)

RUBRISCOPE_CRC_TARGET inline std::uint32_t crc_word(std::uint32_t crc, std::uint64_t value) {
  return static_cast<std::uint32_t>(_mm_crc32_u64(crc, value));
}
RUBRISCOPE_CRC_TARGET inline std::uint32_t crc_byte(std::uint32_t crc, std::uint8_t value) {
  return _mm_crc32_u8(crc, value);
}

#elif defined(__aarch64__)

RUBRISCOPE_CRC_TARGET inline std::uint32_t crc_word(std::uint32_t crc, std::uint64_t value) {
  return __crc32cd(crc, value);
}
RUBRISCOPE_CRC_TARGET inline std::uint32_t crc_byte(std::uint32_t crc, std::uint8_t value) {
  return __crc32cb(crc, value);
}

#endif

// Zero until this file's initialisers have run: the portable way gives the same sums.
const bool kAccelerated = has_crc_instructions();

}  // namespace

std::uint32_t checksum_portable(const void* data, std::size_t bytes) {
  RUBRISCOPE_LANED_CRC(TableCrc::word, TableCrc::byte);
}

std::uint32_t crc32c(const void* data, std::size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i < bytes; ++i) crc = TableCrc::byte(crc, at[i]);
  return ~crc;
}

#if defined(RUBRISCOPE_CRC_TARGET)

RUBRISCOPE_CRC_TARGET std::uint32_t checksum_accelerated(const void* data, std::size_t bytes) {
  RUBRISCOPE_LANED_CRC(crc_word, crc_byte);
}

#else

std::uint32_t checksum_accelerated(const void* data, std::size_t bytes) {
  return checksum_portable(data, bytes);
}

#endif

bool has_crc_instructions() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__)
  return (getauxval(AT_HWCAP) & (1u << 7)) != 0;  // HWCAP_CRC32
#else
  return false;
#endif
}

}  // namespace rubriscope::detail

namespace rubriscope {

std::uint32_t checksum(const void* data, std::size_t bytes) {
  return detail::kAccelerated ? detail::checksum_accelerated(data, bytes)
                              : detail::checksum_portable(data, bytes);
}

}  // namespace rubriscope
