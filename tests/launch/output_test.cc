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

TEST_F(Output, WhatMpirunSaysBehindALineThatIsBeingDrawnIsKeptAside) {
  output_.take("\rstep 1\033[Kmpirun: Forwarding signal 10 to job\n");
  output_.take("\rstep 2\033[K" + frame_ +
               "mpirun noticed that process rank 1 with PID 7 on node vm exited on signal 9.\n" + frame_);
  output_.finish();
  EXPECT_EQ(written(), "\rstep 1\033[K\rstep 2\033[K\n");
  EXPECT_TRUE(output_.noise().starts_with("mpirun: Forwarding signal 10 to job\n"));
  ASSERT_TRUE(output_.verdict());
  EXPECT_EQ(output_.verdict()->rank, 1);
}

TEST_F(Output, WhatSlurmSaysIsKeptAside) {
  RankOutput output(Starter::srun, file_);
  output.take("\rstep 1\033[Kslurmstepd-vm: error: *** STEP 6.0 ON vm CANCELLED AT 2026-01-01T00:00:00 ***\n");
  output.take("srun: error: vm: task 1: Killed\n");
  output.finish();
  EXPECT_EQ(written(), "\rstep 1\033[K\n");
  ASSERT_TRUE(output.verdict());
  EXPECT_EQ(output.verdict()->signal, SIGKILL);
}

TEST_F(Output, ARanksLastSentenceIsHeldBack) {
  output_.take("echelon: input: x: truncated\n");
  EXPECT_EQ(output_.sentence(), "input: x: truncated");
  EXPECT_EQ(written(), "");
}

}  // namespace
}  // namespace echelon
