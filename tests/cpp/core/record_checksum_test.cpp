// checksum() and record_is_valid().
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "rubriscope/core/checksum.h"
#include "rubriscope/core/record.h"

namespace rubriscope {
namespace {

std::vector<std::uint8_t> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

TEST(Checksum, TheTableIsCrc32c) {
  // RFC 3720, appendix B.4.
  const std::vector<std::uint8_t> zeros(32, 0), ones(32, 0xff);
  std::vector<std::uint8_t> up(32), down(32);
  for (int i = 0; i < 32; ++i) {
    up[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i);
    down[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(31 - i);
  }
  EXPECT_EQ(detail::crc32c(zeros.data(), 32), 0x8A9136AAu);
  EXPECT_EQ(detail::crc32c(ones.data(), 32), 0x62A8AB43u);
  EXPECT_EQ(detail::crc32c(up.data(), 32), 0x46DD794Eu);
  EXPECT_EQ(detail::crc32c(down.data(), 32), 0x113FDB5Cu);
  EXPECT_EQ(detail::crc32c("123456789", 9), 0xE3069283u);
}

TEST(Checksum, PortableAndAcceleratedAgree) {
  if (!detail::has_crc_instructions()) GTEST_SKIP() << "no CRC instructions";
  const std::vector<std::uint8_t> bytes = random_bytes(5000, 1);
  for (std::size_t size = 0; size < 600; ++size) {
    ASSERT_EQ(detail::checksum_portable(bytes.data() + size % 7, size),
              detail::checksum_accelerated(bytes.data() + size % 7, size))
        << size;
  }
  EXPECT_EQ(detail::checksum_portable(bytes.data(), 5000), checksum(bytes.data(), 5000));
}

/// The definition in record.h, told in other words: CRCs of the thirds, then of the fold and the rest.
std::uint32_t by_definition(const std::vector<std::uint8_t>& bytes) {
  const auto raw = [](std::uint32_t crc, const std::uint8_t* at, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      crc ^= at[i];
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0);
    }
    return crc;
  };
  const std::size_t third = bytes.size() / 24 * 8;
  const std::uint32_t a = raw(~static_cast<std::uint32_t>(bytes.size()), bytes.data(), third);
  const std::uint32_t lanes[2] = {raw(~0u, bytes.data() + third, third),
                                  raw(~0u, bytes.data() + 2 * third, third)};
  std::uint8_t fold[8];
  std::memcpy(fold, lanes, 8);
  std::uint32_t crc = raw(a, fold, 8);
  crc = raw(crc, bytes.data() + 3 * third, bytes.size() - 3 * third);
  return ~crc;
}

TEST(Checksum, IsWhatItsDefinitionSays) {
  for (const std::size_t size : {0, 1, 7, 8, 23, 24, 25, 100, 400, 4096}) {
    const auto bytes = random_bytes(size, static_cast<unsigned>(size));
    EXPECT_EQ(checksum(bytes.data(), size), by_definition(bytes)) << size;
  }
}

TEST(Checksum, EverySingleFlippedBitChangesIt) {
  std::vector<std::uint8_t> bytes = random_bytes(200, 3);
  const std::uint32_t right = checksum(bytes.data(), bytes.size());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    ASSERT_NE(checksum(bytes.data(), bytes.size()), right) << bit;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
  }
}

TEST(Checksum, ZerosOfDifferentLengthsDiffer) {
  const std::vector<std::uint8_t> zeros(512, 0);
  std::set<std::uint32_t> sums;
  for (std::size_t size = 0; size <= 512; ++size) sums.insert(checksum(zeros.data(), size));
  EXPECT_EQ(sums.size(), 513u);
  EXPECT_EQ(sums.count(0), 0u);
}

class RecordValidity : public ::testing::Test {
 protected:
  static constexpr std::uint16_t kSlots = 3;
  static constexpr std::uint32_t kExtras = 24;
  static constexpr std::size_t kBytes = sizeof(RecordHeader) + arrays_bytes(kSlots) + kExtras;

  RecordValidity() : words_(kBytes / 8 + 8) {
    header()->length_and_state = kBytes | RecordHeader::kCommitted;
    header()->slots = kSlots;
    header()->extras_bytes = kExtras;
    header()->sequence = 5;
    seal();
  }
  RecordHeader* header() { return reinterpret_cast<RecordHeader*>(words_.data()); }
  void seal() {
    header()->checksum = checksum(reinterpret_cast<std::byte*>(header()) + 8, header()->length() - 8);
  }
  std::vector<std::uint64_t> words_;
};

TEST_F(RecordValidity, AWholeRecordIsValid) {
  EXPECT_TRUE(record_is_valid(header(), kBytes));
  EXPECT_TRUE(record_is_valid(header(), kBytes + 64));
}

TEST_F(RecordValidity, ItMustFitIntoWhatIsThere) {
  for (std::size_t available = 0; available < kBytes; ++available) {
    EXPECT_FALSE(record_is_valid(header(), available)) << available;
  }
}

TEST_F(RecordValidity, TheCountsMustFitIntoTheLength) {
  header()->slots = 60000;
  seal();
  EXPECT_FALSE(record_is_valid(header(), kBytes));
  header()->slots = kSlots;
  header()->extras_bytes = 0xfffffff8u;
  seal();
  EXPECT_FALSE(record_is_valid(header(), kBytes));
  header()->extras_bytes = kExtras + 1;
  seal();
  EXPECT_FALSE(record_is_valid(header(), kBytes));
}

TEST_F(RecordValidity, ALengthOfZeroIsNotARecord) {
  header()->length_and_state = 0;
  EXPECT_FALSE(record_is_valid(header(), kBytes));
}

TEST_F(RecordValidity, EveryFlippedByteIsFound) {
  auto* const bytes = reinterpret_cast<std::uint8_t*>(words_.data());
  for (std::size_t i = 4; i < kBytes; ++i) {  // 0 to 3 hold the length, which decides what is summed
    bytes[i] ^= 0xff;
    EXPECT_FALSE(record_is_valid(header(), kBytes)) << i;
    bytes[i] ^= 0xff;
  }
}

}  // namespace
}  // namespace rubriscope
