// Oracles: RFC 8032's test vectors and the published example of Go's note package, the format's origin.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "rubriscope/core/base64.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/ledger/note.h"

namespace rubriscope::ledger {
namespace {

constexpr const char* kPeter = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const std::string kText =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const std::string kNote =
    kText +
    "\n\xe2\x80\x94 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
constexpr const char* kPetersSeed = "YEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

Seed seed_of(std::string_view hex) {
  Seed seed;
  for (std::size_t i = 0; i < seed.size(); ++i) {
    seed[i] = static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(2 * i, 2)), nullptr, 16));
  }
  return seed;
}

TEST(SigningKey, MatchesRfc8032) {
  const SigningKey first(seed_of("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
  EXPECT_EQ(to_hex(first.public_key()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  EXPECT_EQ(to_hex(first.sign({})),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0"
            "595bbe24655141438e7a100b");
  const SigningKey second(seed_of("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"));
  const std::string message = "\x72";
  const Signature signature = second.sign(bytes_of(message));
  EXPECT_EQ(to_hex(signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eae"
            "b4302aeeb00d291612bb0c00");
  EXPECT_TRUE(verify_signature(second.public_key(), bytes_of(message), signature));
  EXPECT_FALSE(verify_signature(first.public_key(), bytes_of(message), signature));
  EXPECT_FALSE(verify_signature(second.public_key(), bytes_of("s"), signature));
}

TEST(Note, VerifiesThePublishedExample) {
  const VerifierKey peter = VerifierKey::parse(kPeter);
  EXPECT_EQ(peter.name, "PeterNeumann");
  EXPECT_EQ(peter.text(), kPeter);
  const Note note = Note::parse(kNote);
  EXPECT_EQ(note.text, kText);
  EXPECT_TRUE(note.is_signed_by(peter));
  EXPECT_EQ(note.serialized(), kNote);
}

TEST(Note, SignsAsThePublishedExample) {
  // The example's private key is "AY…": the algorithm's byte and the seed.
  const std::string bytes = *from_base64(std::string("A") + kPetersSeed);
  ASSERT_EQ(bytes.size(), 33u);
  Seed seed;
  std::copy(bytes.begin() + 1, bytes.end(), seed.begin());
  Note note{kText, {}};
  note.sign("PeterNeumann", SigningKey(seed));
  EXPECT_EQ(note.serialized(), kNote);
}

TEST(Note, NoBitOfTextOrSignatureMayChange) {
  const VerifierKey peter = VerifierKey::parse(kPeter);
  const Note good = Note::parse(kNote);
  for (std::size_t bit = 0; bit < 8 * good.text.size(); ++bit) {
    Note changed = good;
    changed.text[bit / 8] = static_cast<char>(changed.text[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(changed.is_signed_by(peter));
  }
  for (std::size_t bit = 0; bit < 8 * good.signatures[0].signature.size(); ++bit) {
    Note changed = good;
    char& byte = changed.signatures[0].signature[bit / 8];
    byte = static_cast<char>(byte ^ (1 << (bit % 8)));
    EXPECT_FALSE(changed.is_signed_by(peter));
  }
}

TEST(Note, ManyKeysMaySign) {
  const SigningKey log = SigningKey::generate();
  const SigningKey witness = SigningKey::generate();
  Note note{"a\nb\n", {}};
  note.sign("log", log);
  note.sign("witness.example/w1", witness);
  const Note read = Note::parse(note.serialized());
  EXPECT_TRUE(read.is_signed_by({"log", log.public_key()}));
  EXPECT_TRUE(read.is_signed_by({"witness.example/w1", witness.public_key()}));
  EXPECT_FALSE(read.is_signed_by({"log", witness.public_key()}));
  EXPECT_FALSE(read.is_signed_by({"witness", witness.public_key()}));
}

TEST(Note, RefusesWhatIsNone) {
  for (const std::string& bad :
       {std::string(), std::string("text\n"), std::string("text\n\n"), std::string("text\n\nno signature\n"),
        std::string("text\n\n\xe2\x80\x94 name !!!!\n"), kNote.substr(0, kNote.size() - 1)}) {
    EXPECT_THROW(Note::parse(bad), ValueError) << bad;
  }
  for (const char* bad : {"", "a+b", "Peter+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                          "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"}) {
    EXPECT_THROW(VerifierKey::parse(bad), ValueError) << bad;
  }
}

TEST(Checkpoint, ReadsWhatItWrote) {
  Checkpoint checkpoint{"rubriscope/session/writer", 12345, {}, {"time 1"}};
  checkpoint.root[0] = 7;
  const std::string text = checkpoint.text();
  EXPECT_EQ(text, "rubriscope/session/writer\n12345\nBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\ntime 1\n");
  const Checkpoint read = Checkpoint::parse(text);
  EXPECT_EQ(read.origin, checkpoint.origin);
  EXPECT_EQ(read.size, checkpoint.size);
  EXPECT_EQ(read.root, checkpoint.root);
  EXPECT_EQ(read.extensions, checkpoint.extensions);
  for (const char* bad :
       {"", "a\n", "a\n1\n", "a\n01\nBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "a\n-1\nBw==\n",
        "a\n1\nBw==\n", "\n1\nBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "a\n1\nBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nrest"}) {
    EXPECT_THROW(Checkpoint::parse(bad), ValueError) << bad;
  }
}

TEST(Base64, IsTheOneSpelling) {
  for (const char* good : {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="}) {
    const auto bytes = from_base64(good);
    ASSERT_TRUE(bytes) << good;
    EXPECT_EQ(to_base64(bytes_of(*bytes)), good);
  }
  for (const char* bad : {"Z", "Zg", "Zg=", "Zh==", "Zm9v\n", " Zm9", "Zm9*", "===="})
    EXPECT_FALSE(from_base64(bad)) << bad;
}

}  // namespace
}  // namespace rubriscope::ledger
