#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include "cluster/base/registry.h"
#include "runtime/schedule.h"
#include "runtime/schedules/constant.pb.h"
#include "runtime/schedules/warmup_cosine.pb.h"
#include "runtime/schedules/warmup_inverse_sqrt.pb.h"
#include "runtime/schedules/warmup_linear.pb.h"
#include "runtime/schedules/warmup_polynomial.pb.h"
#include "runtime/schedules/warmup_stable_decay.pb.h"
#include "runtime/trainer.h"

namespace echelon {
namespace {

template <class Options>
std::unique_ptr<Schedule> schedule(const Options& options, int64_t steps) {
  Registry registry;
  register_builtin_methods(registry);
  google::protobuf::Any any;
  any.PackFrom(options);
  return registry.make<Schedule>(any, {steps});
}

TEST(Schedule, ConstantStaysAtThePeak) {
  auto constant = schedule(Constant(), 10);
  EXPECT_EQ(constant->factor(1), 1);
  EXPECT_EQ(constant->factor(10), 1);
}

TEST(Schedule, WarmupRisesLinearlyToThePeak) {
  WarmupLinear options;
  options.set_warmup_steps(4);
  auto linear = schedule(options, 14);
  EXPECT_DOUBLE_EQ(linear->factor(1), 0.25);
  EXPECT_DOUBLE_EQ(linear->factor(4), 1);
  EXPECT_DOUBLE_EQ(linear->factor(9), 0.5);
  EXPECT_DOUBLE_EQ(linear->factor(14), 0);
}

TEST(Schedule, WithoutWarmupStartsBelowThePeakByOneStepOfDecay) {
  auto linear = schedule(WarmupLinear(), 10);
  EXPECT_DOUBLE_EQ(linear->factor(1), 0.9);
}

TEST(Schedule, CosineEndsAtItsFinalFraction) {
  WarmupCosine options;
  options.set_warmup_steps(2);
  options.set_final_fraction(0.1);
  auto cosine = schedule(options, 12);
  EXPECT_DOUBLE_EQ(cosine->factor(7), 0.55);
  EXPECT_DOUBLE_EQ(cosine->factor(12), 0.1);
  EXPECT_DOUBLE_EQ(cosine->factor(4), 0.1 + 0.9 * 0.5 * (1 + std::cos(std::numbers::pi * 0.2)));
}

TEST(Schedule, PolynomialFollowsItsPower) {
  WarmupPolynomial options;
  options.set_power(2);
  EXPECT_DOUBLE_EQ(schedule(options, 10)->factor(5), 0.25);
}

TEST(Schedule, InverseSqrtHalvesAtFourTimesTheWarmup) {
  WarmupInverseSqrt options;
  options.set_warmup_steps(100);
  auto inverse = schedule(options, 1000);
  EXPECT_DOUBLE_EQ(inverse->factor(50), 0.5);
  EXPECT_DOUBLE_EQ(inverse->factor(100), 1);
  EXPECT_DOUBLE_EQ(inverse->factor(400), 0.5);
  options.set_final_fraction(0.6);
  EXPECT_DOUBLE_EQ(schedule(options, 1000)->factor(400), 0.6);
}

TEST(Schedule, StableDecayHoldsThePeakUntilTheLastShare) {
  WarmupStableDecay options;
  options.set_warmup_steps(10);
  options.set_decay_fraction(0.2);
  auto stable = schedule(options, 100);
  EXPECT_DOUBLE_EQ(stable->factor(5), 0.5);
  EXPECT_DOUBLE_EQ(stable->factor(80), 1);
  EXPECT_DOUBLE_EQ(stable->factor(90), 0.5);
  EXPECT_DOUBLE_EQ(stable->factor(100), 0);
}

TEST(Schedule, StableDecayComesDownInItsShape) {
  WarmupStableDecay options;
  options.set_decay_fraction(0.2);
  options.set_shape(WarmupStableDecay::COSINE);
  EXPECT_DOUBLE_EQ(schedule(options, 100)->factor(85), 0.5 * (1 + std::cos(std::numbers::pi * 0.25)));
  options.set_shape(WarmupStableDecay::ONE_MINUS_SQRT);
  EXPECT_DOUBLE_EQ(schedule(options, 100)->factor(85), 0.5);
}

}  // namespace
}  // namespace echelon
