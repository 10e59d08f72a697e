#include "launch/command/rank_output.h"

#include <csignal>

#include <gtest/gtest.h>

namespace echelon {
namespace {

class Output : public testing::Test {
 protected:
  ~Output() override { std::fclose(file_); }
  std::string written() {
    std::rewind(file_);
    std::string text(10000, ' ');
    text.resize(std::fread(text.data(), 1, text.size(), file_));
    return text;
  }
  std::FILE* file_ = std::tmpfile();
  RankOutput output_{Starter::mpirun, file_};
  const std::string frame_ = std::string(74, '-') + "\n";
};

TEST_F(Output, OrdinaryLinesPass) {
  output_.take("one\ntw");
  output_.take("o\n");
  output_.finish();
  EXPECT_EQ(written(), "one\ntwo\n");
}

TEST_F(Output, MpirunsMessageIsKeptAsideAndRead) {
  output_.take("before\n" + frame_ +
               "mpirun noticed that process rank 2 with PID 0 on node vm exited on signal 9 (Killed).\n" + frame_ +
               "after\n");
  output_.finish();
  EXPECT_EQ(written(), "before\nafter\n");
  ASSERT_TRUE(output_.verdict());
  EXPECT_EQ(output_.verdict()->rank, 2);
  EXPECT_EQ(output_.verdict()->signal, SIGKILL);
  EXPECT_EQ(output_.verdict()->host, "vm");
}

TEST_F(Output, ALineOfDashesOfARanksOwnHidesNothing) {
  output_.take(frame_ + "a table\n");
  output_.finish();
  EXPECT_EQ(written(), frame_ + "a table\n");
}

TEST_F(Output, AnAbortNamesItsRankAndCode) {
  output_.take(frame_ +
               "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\nwith errorcode 4.\n\nNOTE: …\n" +
               frame_);
  ASSERT_TRUE(output_.verdict());
  EXPECT_EQ(output_.verdict()->rank, 1);
  EXPECT_EQ(output_.verdict()->exit_code, 4);
}

TEST_F(Output, TheLineBeingDrawnIsShownWhenTheStreamRests) {
  output_.take("\rstep 1");
  output_.rest();
  output_.take("\rstep 2");
  output_.rest();
  output_.say("done");
  EXPECT_EQ(written(), "\rstep 1\rstep 2\ndone\n");
}

TEST_F(Output, ARanksLastSentenceIsHeldBack) {
  output_.take("echelon: input: x: truncated\n");
  EXPECT_EQ(output_.sentence(), "input: x: truncated");
  EXPECT_EQ(written(), "");
}

}  // namespace
}  // namespace echelon
