#include "runtime/store/progress.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include <gtest/gtest.h>

namespace echelon {
namespace {

StepNumbers numbers(int64_t step, double loss = 2.8417) {
  return {.step = step,
          .loss = loss,
          .learning_rate = 2.9e-4,
          .grad_norm = 0.71,
          .tokens_per_second = 41200,
          .step_seconds = 0.5,
          .data_seconds = 0.002};
}

/// What a progress prints.
class Screen {
 public:
  ~Screen() {
    std::fclose(file_);
    std::free(text_);
  }
  ProgressOptions options(bool terminal) {
    return {.terminal = terminal, .every = 5, .ranks = 2, .out = file_, .columns = 200};
  }
  std::string text() {
    std::fflush(file_);
    return std::string(text_, size_);
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_ = ::open_memstream(&text_, &size_);
};

TEST(Progress, TheLiveLineSaysAllThatMatters) {
  Screen screen;
  Progress progress(50000, screen.options(true));
  for (int step = 1196; step <= 1200; ++step) progress.step(numbers(step));
  EXPECT_EQ(progress.live_line(200),
            "step 1200/50000 ▕▏         ▏ 2.4% | loss 2.8417 (ema 2.8417) | gnorm 0.71 | lr 2.9e-4 | 41.2k tok/s "
            "(20.6k/rank) "
            "| data 0.4% | ETA 6h46m");
}

TEST(Progress, ANarrowTerminalLosesTheLeastImportant) {
  Screen screen;
  Progress progress(50000, screen.options(true));
  for (int step = 1196; step <= 1200; ++step) progress.step(numbers(step));
  EXPECT_EQ(progress.live_line(80), "step 1200/50000 ▕▏         ▏ 2.4% | loss 2.8417 | 41.2k tok/s | ETA 6h46m");
  EXPECT_EQ(progress.live_line(1), "step 1200/50000 ▕▏         ▏ 2.4% | loss 2.8417");
}

TEST(Progress, IsRedrawnAtMostTenTimesASecond) {
  Screen screen;
  Progress progress(100000, screen.options(true));
  for (int step = 1; step <= 1000; ++step) progress.step(numbers(step));
  std::string text = screen.text();
  EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 10);
  EXPECT_EQ(text.find('\n'), std::string::npos);
}

TEST(Progress, WithoutATerminalThereIsAPlainLineEveryFewSteps) {
  Screen screen;
  {
    Progress progress(12, screen.options(false));
    for (int step = 1; step <= 12; ++step) progress.step(numbers(step));
  }
  std::string text = screen.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);  // the first, 5, 10 and the last
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_NE(text.find("step=10 steps=12 done=83.3% loss=2.8417 ema=2.8417 grad_norm=0.71 learning_rate=0.00029 "
                      "tokens_per_second=41200 data=0.4% eta_seconds=1\n"),
            std::string::npos)
      << text;
}

TEST(Progress, TimeLeftIsHiddenUntilFiveStepsAreKnown) {
  Screen screen;
  Progress progress(100, screen.options(false));
  for (int step = 1; step <= 4; ++step) progress.step(numbers(step));
  EXPECT_EQ(progress.seconds_left(), std::nullopt);
  progress.step(numbers(5));
  EXPECT_DOUBLE_EQ(*progress.seconds_left(), 95 * 0.5);
}

TEST(Progress, OneSlowStepDoesNotChangeTheTimeLeft) {
  Screen screen;
  Progress progress(100, screen.options(false));
  for (int step = 1; step <= 9; ++step) progress.step(numbers(step));
  StepNumbers slow = numbers(10);
  slow.step_seconds = 100;
  progress.step(slow);
  EXPECT_DOUBLE_EQ(*progress.seconds_left(), 90 * 0.5);
}

TEST(Progress, SavesAndEvaluationsToComeCountAsTimeLeft) {
  Screen screen;
  Progress progress(100, screen.options(false));
  for (int step = 1; step <= 10; ++step) progress.step(numbers(step));
  progress.pause("checkpoint", 3, 50);
  progress.pause("evaluate", 1, 20);
  EXPECT_DOUBLE_EQ(*progress.seconds_left(), 90 * 0.5 + 2 * 3 + 5 * 1);
}

TEST(Progress, ASpikeCarriesItsZScore) {
  Screen screen;
  Progress progress(100, screen.options(false));
  for (int step = 1; step <= 20; ++step) progress.step(numbers(step, 2.8 + 0.01 * (step % 3)));
  EXPECT_EQ(progress.live_line(200).find("(z"), std::string::npos);
  progress.step(numbers(21, 9.0));
  EXPECT_NE(progress.live_line(200).find("loss 9.0000 (z +"), std::string::npos);
  EXPECT_NE(progress.plain_line().find("loss_z="), std::string::npos);
}

TEST(Progress, AnAverageGoesOnBehindANumberThatIsNotFinite) {
  Screen screen;
  Progress progress(100, screen.options(false));
  double nan = std::numeric_limits<double>::quiet_NaN();
  for (int step = 1; step <= 30; ++step) progress.step(numbers(step, step == 1 || step == 20 ? nan : 2.5));
  EXPECT_NE(progress.plain_line().find("loss=2.5000 ema=2.5000"), std::string::npos) << progress.plain_line();
  progress.step(numbers(31, nan));
  EXPECT_NE(progress.plain_line().find("loss=nan ema=2.5000"), std::string::npos) << progress.plain_line();
}

TEST(Progress, AMessageStandsAboveTheLiveLineAndCannotForgeOne) {
  Screen screen;
  {
    Progress progress(100, screen.options(true));
    progress.step(numbers(1));
    progress.say("saved\nstep 99/100");
  }
  std::string text = screen.text();
  EXPECT_NE(text.find("\r\033[Ksaved\\x0astep 99/100\n\rstep 1/100"), std::string::npos) << text;
  EXPECT_EQ(text.back(), '\n');
}

}  // namespace
}  // namespace echelon
