// Every attack is refused: with its exit code, a sentence that names file and mistake, and little memory.
#include <gtest/gtest.h>

#include "cluster/base/files.h"
#include "tests/cluster/allocation_count.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {
namespace {

constexpr int64_t kMemory = 64 << 20, kTimesTheInput = 8;
constexpr size_t kLongestSentence = 8'000;

/// "" when the attack is refused as it must be.
std::string mistake(const Reader& reader, const Attack& attack) {
  try {
    reader.read(attack.bytes);
  } catch (const Error& error) {
    std::string sentence = error.what();
    if (error.exit_code() != reader.exit_code) return "wrong exit code: " + sentence;
    for (const std::string& words : {attack.words, reader.place}) {
      if (sentence.find(words) == std::string::npos) return "does not say " + words + ": " + sentence;
    }
    if (sentence.size() > kLongestSentence) return "too long: " + sentence;
    return sentence == printable(sentence) ? "" : "bytes of a terminal: " + sentence;
  } catch (const std::exception& error) {
    return std::string("another exception: ") + error.what();
  }
  return "accepted";
}

class Corpus : public testing::TestWithParam<Reader> {};

TEST_P(Corpus, IsRefused) {
  for (const Attack& attack : GetParam().attacks) {
    int64_t peak = peak_bytes([&] { EXPECT_EQ(mistake(GetParam(), attack), "") << attack.name; });
    EXPECT_LT(peak, kMemory + kTimesTheInput * static_cast<int64_t>(attack.bytes.size())) << attack.name;
  }
}

TEST_P(Corpus, GoodFilesAreAccepted) {
  for (const std::string& bytes : GetParam().good) EXPECT_NO_THROW(GetParam().read(bytes)) << bytes;
}

/// Nothing but Error leaves a reader, whatever is cut off or changed.
TEST_P(Corpus, DamagedGoodFilesNeverCrash) {
  constexpr size_t kMostBytes = 8 << 20;  // that are read in all
  for (const std::string& bytes : GetParam().good) {
    size_t step = std::max<size_t>(1, bytes.size() * bytes.size() / kMostBytes);
    for (size_t at = 0; at < bytes.size(); at += step) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
      for (const std::string& damaged : {bytes.substr(0, at), flipped}) {
        try {
          GetParam().read(damaged);
        } catch (const Error& error) {
          ASSERT_EQ(error.exit_code(), GetParam().exit_code) << error.what();
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Of, Corpus, testing::ValuesIn(all_readers()),
                         [](const auto& info) { return info.param.name; });

TEST(CorpusOfAttacks, HoldsAtLeast300) {
  size_t count = 0;
  for (const Reader& reader : all_readers()) {
    std::printf("%-20s %zu attacks\n", reader.name.c_str(), reader.attacks.size());
    count += reader.attacks.size();
  }
  EXPECT_GE(count, 300u);
}

/// Inputs on which a fuzzer once found a mistake, in a folder for each reader.
TEST(CorpusOfAttacks, CrashersOfThePastAreHandled) {
  std::string crashers = std::string(std::getenv("ECHELON_SOURCE")) + "/tests/hostile/crashers";
  std::vector<std::string> folders = list_folder(crashers);
  for (const Reader& reader : all_readers()) {
    if (std::erase(folders, reader.name) == 0) continue;
    std::string folder = join_path(crashers, reader.name);
    for (const std::string& name : list_folder(folder)) {
      std::string bytes = read_file(join_path(folder, name), Error::Kind::input, 1 << 24);
      try {
        reader.read(bytes);
      } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), reader.exit_code) << name << ": " << error.what();
      }
    }
  }
  EXPECT_TRUE(folders.empty()) << "no reader is called " << folders.front();
}

}  // namespace

void PrintTo(const Reader& reader, std::ostream* out) { *out << reader.name; }

}  // namespace echelon::hostile
