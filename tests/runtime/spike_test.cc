#include "runtime/metrics/spike.h"

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace echelon {
namespace {

/// Steps (from 0) that make a spike of what `curve` gives, with normal noise of deviation 0.1 on it.
std::vector<int> told(int steps, const std::function<double(int)>& curve) {
  Spike spike;
  std::mt19937 draws(7);
  std::normal_distribution<double> noise(0, 0.1);
  std::vector<int> told;
  for (int step = 0; step < steps; ++step) {
    if (spike.add(curve(step) + noise(draws))) told.push_back(step);
  }
  return told;
}

using Steps = std::vector<int>;

TEST(Spike, NoiseIsNone) {
  EXPECT_EQ(told(10000, [](int) { return 4.0; }), Steps{});
}

TEST(Spike, AFallingLossIsNone) {
  EXPECT_EQ(told(10000, [](int step) { return 2 + 8 / std::sqrt(1.0 + step); }), Steps{});
}

TEST(Spike, ASlowRiseIsNone) {
  EXPECT_EQ(told(3000, [](int step) { return 4 + 0.002 * step; }), Steps{});
}

TEST(Spike, AJumpIsToldOnceInItsSecondStep) {
  EXPECT_EQ(told(3000, [](int step) { return step < 500 ? 4.0 : 8.0; }), Steps{501});
}

TEST(Spike, AWaveIsToldOnceAndTheNextOneAgain) {
  EXPECT_EQ(told(3000, [](int step) { return step % 1000 < 990 ? 4.0 : 8.0; }), (Steps{991, 1991, 2991}));
}

TEST(Spike, ASingleOutlierIsNone) {
  EXPECT_EQ(told(3000, [](int step) { return step % 100 == 50 ? 40.0 : 4.0; }), Steps{});
}

TEST(Spike, NothingIsUsualBefore20Steps) {
  EXPECT_EQ(told(20, [](int step) { return step < 15 ? 4.0 : 40.0; }), Steps{});
}

TEST(Spike, NamesWhatIsUsualAndLeavesOutWhatIsNotFinite) {
  Spike spike;
  for (int step = 0; step < 100; ++step) EXPECT_FALSE(spike.add(4.6 + 0.02 * (step % 5)));
  EXPECT_FALSE(spike.add(9));
  EXPECT_FALSE(spike.add(std::numeric_limits<double>::quiet_NaN()));
  std::optional<double> usual = spike.add(9);
  ASSERT_TRUE(usual);
  EXPECT_NEAR(*usual, 4.64, 1e-9);
}

TEST(SpikeWatch, NamesTheFirstStepThatLaySoHigh) {
  SpikeWatch watch;
  auto usual = [](int64_t step) { return 4.6 + 0.02 * static_cast<double>(step % 5); };
  for (int64_t step = 1; step <= 50; ++step) EXPECT_FALSE(watch.add(step, usual(step), 1).loss);
  EXPECT_FALSE(watch.add(51, 9, 1).loss);  // alone
  EXPECT_FALSE(watch.add(52, 4.6, 1).loss);
  EXPECT_FALSE(watch.add(53, 9, 1).loss);
  EXPECT_FALSE(watch.add(54, std::nan(""), 1).loss);
  SpikeWatch::OfStep found = watch.add(55, 9.1, 1);
  ASSERT_TRUE(found.loss);
  EXPECT_EQ(found.loss->first_step, 53);
  EXPECT_EQ(found.loss->what, "the loss spikes: 9.1 where 4.64 is usual");
  EXPECT_FALSE(found.gradient_norm);
}

}  // namespace
}  // namespace echelon
