// AES-256-GCM against published vectors, wrapped keys, and what a sealed record gives away.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/vault/aead.h"
#include "rubriscope/vault/sealer.h"
#include "rubriscope/vault/vault.h"
#include "support/random_record.h"

namespace rubriscope::vault {
namespace {

using namespace rubriscope::testing;

std::string from_hex(std::string_view digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

Nonce nonce_from(std::string_view hex) {
  Nonce nonce{};
  const std::string bytes = from_hex(hex);
  std::copy(bytes.begin(), bytes.end(), nonce.begin());
  return nonce;
}

struct Vector {
  const char *key, *nonce, *additional, *plain, *sealed;
};

// McGrew and Viega, "The Galois/Counter Mode of Operation" (submission to NIST), appendix B, test cases 13 to
// 16: those of 256-bit keys and 96-bit nonces.
const Vector kVectors[] = {
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "",
     "530f8afbc74536b9a963b4f1c4cb738b"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "",
     "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf"
     "5aa0de6"
     "57ba637b391aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6"
     "393ba7a"
     "0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf"
     "5aa0de6"
     "57ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6"
     "393ba7a"
     "0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
};

TEST(Aead, PublishedVectors) {
  for (const Vector& vector : kVectors) {
    Aead aead(Secret::parse(vector.key));
    const std::string plain = from_hex(vector.plain);
    const std::string additional = from_hex(vector.additional);
    const std::string expected = from_hex(vector.sealed);
    std::string sealed(plain.size() + kTagBytes, '\0');
    ASSERT_TRUE(aead.seal(nonce_from(vector.nonce), as_octets(additional), as_octets(plain),
                          reinterpret_cast<std::uint8_t*>(sealed.data())));
    EXPECT_EQ(sealed, expected);
    std::string opened(plain.size(), '\0');
    ASSERT_TRUE(aead.open(nonce_from(vector.nonce), as_octets(additional), as_octets(sealed),
                          reinterpret_cast<std::uint8_t*>(opened.data())));
    EXPECT_EQ(opened, plain);
  }
}

// As Project Wycheproof does it: every change of tag, ciphertext, nonce or additional data is refused.
TEST(Aead, EveryChangedBitIsRefused) {
  const Vector& vector = kVectors[3];
  Aead aead(Secret::parse(vector.key));
  const std::string good = from_hex(vector.sealed);
  const std::string additional = from_hex(vector.additional);
  std::string out(good.size(), '\0');
  auto* const to = reinterpret_cast<std::uint8_t*>(out.data());
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string changed = good;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
    ASSERT_FALSE(aead.open(nonce_from(vector.nonce), as_octets(additional), as_octets(changed), to)) << bit;
    EXPECT_EQ(out.find(from_hex("d9313225")), std::string::npos);
  }
  for (std::size_t bit = 0; bit < additional.size() * 8; ++bit) {
    std::string changed = additional;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
    ASSERT_FALSE(aead.open(nonce_from(vector.nonce), as_octets(changed), as_octets(good), to)) << bit;
  }
  for (std::size_t bit = 0; bit < 96; ++bit) {
    Nonce changed = nonce_from(vector.nonce);
    changed[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    ASSERT_FALSE(aead.open(changed, as_octets(additional), as_octets(good), to)) << bit;
  }
  for (std::size_t length = 0; length < good.size(); ++length) {
    ASSERT_FALSE(aead.open(nonce_from(vector.nonce), as_octets(additional),
                           as_octets(std::string_view(good).substr(0, length)), to));
  }
  EXPECT_TRUE(aead.open(nonce_from(vector.nonce), as_octets(additional), as_octets(good), to));
}

TEST(Hmac, Rfc4231) {
  // Test case 2 has a short key, which RFC 2104 fills up with zeros: as a key of 32 bytes it is the same.
  std::string key = "Jefe";
  key.resize(Secret::kBytes, '\0');
  EXPECT_EQ(to_hex(hmac(Secret::parse(key), "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Secret, TakesBytesOrDigitsAndShowsNeither) {
  const std::string digits = "000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
  const Secret from_digits = Secret::parse(digits + "\n");
  const Secret from_bytes = Secret::parse(from_hex(digits));
  EXPECT_TRUE(std::equal(from_digits.bytes().begin(), from_digits.bytes().end(), from_bytes.bytes().begin()));
  for (const std::string& bad : {std::string(), std::string(31, 'k'), std::string(64, 'g'), digits + "0"}) {
    try {
      Secret::parse(bad);
      FAIL() << bad;
    } catch (const ValueError& error) {
      EXPECT_EQ(std::string(error.what()).find(bad.empty() ? "\x01" : bad), std::string::npos);
    }
  }
}

TEST(Kek, UnwrapsWhatItWrappedForThis) {
  const Kek kek(Secret::random());
  const Kek other(Secret::random());
  const Secret secret = Secret::random();
  const std::string wrapped = kek.wrap(secret, "purpose");
  const Secret back = kek.unwrap(wrapped, "purpose");
  EXPECT_TRUE(std::equal(back.bytes().begin(), back.bytes().end(), secret.bytes().begin()));
  EXPECT_NE(kek.wrap(secret, "purpose"), wrapped);  // a nonce of its own
  EXPECT_EQ(Kek::wrapped_by(wrapped), kek.id());
  EXPECT_THROW(other.unwrap(wrapped, "purpose"), SealedError);
  EXPECT_THROW(kek.unwrap(wrapped, "another"), SealedError);
  for (std::size_t bit = 8; bit < wrapped.size() * 8; ++bit) {
    std::string changed = wrapped;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
    EXPECT_THROW(kek.unwrap(changed, "purpose"), SealedError) << bit;
  }
  EXPECT_THROW(kek.unwrap(wrapped.substr(1), "purpose"), FormatError);
}

class SealerTest : public ::testing::Test {
 protected:
  /// What the recorder does with a record that was filled.
  OwnedRecord sealed(const Sealer& sealer, const OwnedRecord& plain) {
    const RecordView view = plain.view();
    RecordBuilder room(make_tree(0));
    room.sequence(view.header->sequence)
        .extra(ExtraTag::metadata,
               std::string(Sealer::sealed_bytes(view.header->length()) - sizeof(RecordHeader) - 8, '\xEE'));
    OwnedRecord out = room.build();
    RecordHeader* const filled = Sealer::scratch_for(&out.header(), view.header->length());
    std::memcpy(reinterpret_cast<std::byte*>(filled) + 8, reinterpret_cast<const std::byte*>(view.header) + 8,
                view.header->length() - 8);
    EXPECT_EQ(sealer.seal(filled), &out.header());
    return out;
  }

  const Kek kek_{Secret::random()};
  const VaultPtr vault_ = std::make_shared<Vault>(kek_);
  const SessionInfo session_ = make_session();
  const WriterInfo writer_ = make_writer();
  const Sealer sealer_{vault_, session_, writer_};
  Opener opener_{*vault_, sealer_.wrapped_key(), session_.id, writer_.id};
};

TEST_F(SealerTest, RandomRecordsComeBackAlsoThroughTheirCanonicalBytes) {
  std::mt19937_64 random(11);
  for (const SchemaPtr& schema : {make_tree(0), make_tree(1), make_tree(15), make_scalars({"loss", "kl"}),
                                  make_event(2, {"a", "b", "c"}), make_tree(700)}) {
    for (int i = 0; i < 50; ++i) {
      const OwnedRecord plain = random_record(random, schema, random() >> 24);
      const OwnedRecord hidden = sealed(sealer_, plain);
      ASSERT_TRUE(hidden.view().is_sealed());
      ASSERT_EQ(hidden.view().header->slots, 0);
      const DecodedRecord opened = opener_.open(hidden.view());
      ASSERT_EQ(content(opened.view()), content(plain.view()));
      std::vector<std::byte> bytes;
      encode_cbor(hidden.view(), session_, writer_, bytes);
      const DecodedRecord stored = decode_cbor(bytes);
      ASSERT_TRUE(stored.view().is_sealed());
      ASSERT_EQ(content(opener_.open(stored.view()).view()), content(plain.view()));
      std::vector<std::byte> again;
      encode_cbor(stored.view(), session_, writer_, again);
      ASSERT_EQ(again, bytes);
    }
  }
}

TEST_F(SealerTest, ASnapshotGrowsByAtMost48Bytes) {
  for (std::size_t bytes = sizeof(RecordHeader); bytes < 2000; bytes += 8) {
    EXPECT_LE(Sealer::sealed_bytes(bytes), bytes + 48);
  }
}

TEST_F(SealerTest, NothingOfTheHeaderCanBeChanged) {
  RecordBuilder builder(make_tree(2));
  builder.sequence(7).step(3).score(0, 0.5).extra(ExtraTag::action, "secret");
  const OwnedRecord hidden = sealed(sealer_, builder.build());
  const auto* const bytes = reinterpret_cast<const char*>(hidden.view().header);
  EXPECT_EQ(std::string_view(bytes, hidden.view().header->length()).find("secret"), std::string_view::npos);
  const auto refused = [&](auto change) {
    OwnedRecord changed = hidden;
    change(changed.header());
    EXPECT_THROW(opener_.open(changed.view()), SealedError);
  };
  refused([](RecordHeader& h) { h.kind = RecordKind::scalars; });
  refused([](RecordHeader& h) { h.schema ^= 1; });
  refused([](RecordHeader& h) { h.sequence ^= 1; });
  refused([](RecordHeader& h) { h.time_ns ^= 1; });
  refused([](RecordHeader& h) { h.monotonic_ns ^= 1; });
  refused([](RecordHeader& h) { h.step ^= 1; });
  refused([](RecordHeader& h) { h.group ^= 1; });
  refused([](RecordHeader& h) { h.sample ^= 1; });
  refused([](RecordHeader& h) { h.thread ^= 1; });
  const Sealer other(vault_, session_, make_writer(2));
  Opener others(*vault_, other.wrapped_key(), session_.id, make_writer(2).id);
  EXPECT_THROW(others.open(hidden.view()), SealedError);
  EXPECT_THROW(Opener(*vault_, other.wrapped_key(), session_.id, writer_.id), SealedError);
  EXPECT_THROW(Opener(Vault(Kek(Secret::random())), sealer_.wrapped_key(), session_.id, writer_.id),
               SealedError);
}

TEST_F(SealerTest, SchemasShowTokensOnly) {
  Schema plain = *make_event(2, {"field_name"}, 5);
  plain.slots[0].class_name = "SecretClass";
  const Schema shown = sealer_.seal(plain);
  const std::string text = shown.definition_json();
  for (const char* word : {"SecretClass", "field_name", "mem.write", "value_0", "memory"}) {
    EXPECT_EQ(text.find(word), std::string::npos) << word;
  }
  EXPECT_EQ(shown.name, vault_->token("mem.write"));
  EXPECT_EQ(shown.slots.at(1).paths.at(0), vault_->token("value_1"));
  EXPECT_EQ(vault_->token("value_1"), Vault(kek_, vault_->wrapped_search_key()).token("value_1"));
  EXPECT_NE(vault_->token("value_1"), Vault(kek_).token("value_1"));
  const Schema stored = Schema::from_definition_json(text, 5);
  EXPECT_EQ(sealed_by(stored), writer_.id);
  EXPECT_EQ(opener_.open(stored).definition_json(), plain.definition_json());
  Schema renumbered = stored;
  renumbered.sealed.replace(renumbered.sealed.find(":5:"), 3, ":6:");
  EXPECT_THROW(opener_.open(renumbered), SealedError);
}

TEST_F(SealerTest, MetadataComesBackToItsWriterAlone) {
  const std::string sealed_json = sealer_.seal_metadata("{\"command\": \"python train.py\"}");
  EXPECT_EQ(sealed_json.find("train"), std::string::npos);
  EXPECT_EQ(metadata_sealed_by(sealed_json), writer_.id);
  EXPECT_EQ(opener_.open_metadata(sealed_json), "{\"command\": \"python train.py\"}");
  EXPECT_EQ(metadata_sealed_by("{}"), "");
  EXPECT_THROW(opener_.open_metadata("{}"), SealedError);
}

}  // namespace
}  // namespace rubriscope::vault
