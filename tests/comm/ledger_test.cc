// The ledger: what it keeps, what survives a killed process, and what its reader refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cluster/base/error.h"
#include "comm/ledger/ledger.h"

namespace echelon {

namespace {

using ::testing::HasSubstr;

/// A file of this test alone, gone at the end.
class LedgerFileTest : public ::testing::Test {
 protected:
  LedgerFileTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ledger-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~LedgerFileTest() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/rank-00000.ledger"; }

  std::string folder_;
};

Ledger::Entering entry(int64_t sequence) {
  return {.sequence = sequence,
          .group = "dp",
          .op = "all_reduce",
          .name = "gradient norm",
          .dtype = "float32",
          .count = 1,
          .bytes = 7};
}

TEST(Ledger, KeepsTheLastEntriesInOrder) {
  Ledger ledger;
  for (int64_t sequence = 1; sequence <= Ledger::capacity + 10; ++sequence) ledger.leave(ledger.enter(entry(sequence)));
  auto last = ledger.last(3);
  ASSERT_EQ(last.size(), 3u);
  EXPECT_EQ(last[0].sequence, Ledger::capacity + 8);
  EXPECT_EQ(last[2].sequence, Ledger::capacity + 10);
  EXPECT_EQ(ledger.last(10'000).size(), static_cast<size_t>(Ledger::capacity));
}

TEST(Ledger, TellsWhatARankIsInsideOf) {
  Ledger ledger;
  ledger.enter(entry(17));
  auto inside = ledger.last(1).at(0);
  EXPECT_EQ(inside.left_seconds, 0);
  EXPECT_THAT(inside.text(), HasSubstr("all_reduce \"gradient norm\" of 1 float32 in dp (number 17), inside since "));
}

TEST(Ledger, LeavingADroppedEntryTouchesNothing) {
  Ledger ledger;
  int64_t first = ledger.enter(entry(1));
  for (int64_t sequence = 2; sequence <= Ledger::capacity + 1; ++sequence) ledger.enter(entry(sequence));
  ledger.leave(first);
  EXPECT_EQ(ledger.last(1).at(0).left_seconds, 0);
}

TEST(Ledger, CutsNamesThatAreTooLong) {
  Ledger ledger;
  std::string name(1000, 'n');
  ledger.enter({.sequence = 1, .group = name, .op = name, .name = name, .dtype = name, .count = 1, .bytes = 0});
  EXPECT_EQ(ledger.last(1).at(0).name, std::string(143, 'n'));
}

TEST_F(LedgerFileTest, SurvivesAKilledProcess) {
  pid_t child = ::fork();
  if (child == 0) {
    Ledger ledger(path());
    ledger.leave(ledger.enter(entry(1)));
    ledger.enter(entry(2));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto last = read_ledger(path(), 10);
  ASSERT_EQ(last.size(), 2u);
  EXPECT_GT(last[0].left_seconds, 0);
  EXPECT_EQ(last[1].left_seconds, 0);
  EXPECT_EQ(last[1].bytes, 7);
}

TEST_F(LedgerFileTest, RefusesWhatIsNoLedger) {
  EXPECT_THROW(read_ledger(path(), 1), Error);
  std::ofstream(path()) << "short";
  EXPECT_THROW(read_ledger(path(), 1), Error);
  std::ofstream(path()) << std::string(100'000, 'x');
  EXPECT_THROW(read_ledger(path(), 1), Error);
}

TEST_F(LedgerFileTest, RefusesACutFile) {
  { Ledger ledger(path()); }
  std::filesystem::resize_file(path(), std::filesystem::file_size(path()) - 1);
  EXPECT_THROW(read_ledger(path(), 1), Error);
}

TEST_F(LedgerFileTest, ReadsNothingFromALyingCounter) {
  { Ledger(path()).enter(entry(1)); }
  for (int64_t lie : {std::numeric_limits<int64_t>::max(), int64_t{1} << 40}) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(16);  // after the magic and the capacity
    file.write(reinterpret_cast<const char*>(&lie), sizeof lie);
    file.close();
    EXPECT_TRUE(read_ledger(path(), 1000).empty());
  }
}

TEST_F(LedgerFileTest, EscapesControlCharactersOfAForeignFile) {
  {
    Ledger(path()).enter(
        {.sequence = 1, .group = "g", .op = "o", .name = "\x1b[2J\n", .dtype = "d", .count = 1, .bytes = 0});
  }
  EXPECT_EQ(read_ledger(path(), 1).at(0).name, "\\x1b[2J\\x0a");
}

TEST(Ledger, IsAnErrorWhereItsFolderIsMissing) { EXPECT_THROW(Ledger("/nonexistent/ledger"), Error); }

}  // namespace

}  // namespace echelon
