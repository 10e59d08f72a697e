#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "cluster/base/registry.h"
#include "models/objectives/causal_lm.pb.h"
#include "models/objectives/masked_lm.pb.h"
#include "runtime/data.h"
#include "runtime/trainer.h"

namespace echelon {
namespace {

/// Sample i is i·10, i·10 + 1, …
class Counting : public Source {
 public:
  explicit Counting(int64_t size, int64_t lookahead)
      : size_(size), lookahead_(lookahead), vocabulary_{.size = 1000, .mask = 4} {}
  int64_t size() const override { return size_; }
  int64_t length() const override { return 4; }
  void read(int64_t index, int64_t* tokens) const override {
    for (int64_t t = 0; t < length() + lookahead_; ++t) tokens[t] = index * 10 + t + 10;
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string describe(int64_t index) const override { return fmt::format("counting, sample {}", index); }
  std::string tokenizer_folder() const override { return ""; }

 private:
  int64_t size_, lookahead_;
  Vocabulary vocabulary_;
};

template <class Options>
std::unique_ptr<Objective> objective(const Options& options) {
  Registry registry;
  register_builtin_methods(registry);
  google::protobuf::Any any;
  any.PackFrom(options);
  return registry.make<Objective>(any, {Vocabulary{.size = 1000, .mask = 4, .special = {0, 1, 2, 3, 4}}});
}

Data data(const Objective& objective, Data::Options options, int64_t size = 10) {
  return Data(std::make_unique<Counting>(size, objective.lookahead()), objective, Seed(1), options);
}

std::vector<int64_t> samples(const std::vector<Batch>& batches) {
  std::vector<int64_t> all;
  for (const Batch& batch : batches) all.insert(all.end(), batch.samples.begin(), batch.samples.end());
  return all;
}

TEST(Data, InOrderStepTakesConsecutiveSamplesAndWraps) {
  auto causal = objective(CausalLm());
  Data in_order = data(*causal, {.shuffle = false, .global_batch = 4, .vocabulary = 1000});
  EXPECT_EQ(samples(in_order.step(1, 0, 1)), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(samples(in_order.step(3, 0, 1)), (std::vector<int64_t>{8, 9, 0, 1}));
}

TEST(Data, ARollBackLeavesSamplesOutAndNoneIsSeenTwice) {
  auto causal = objective(CausalLm());
  Data in_order = data(*causal, {.shuffle = false, .global_batch = 2, .vocabulary = 1000}, 100);
  RollBacks roll_backs;
  roll_backs.add(/*from_step=*/6, /*to_step=*/3, "", 2);
  in_order.leave_out(roll_backs);
  EXPECT_EQ(samples(in_order.step(3, 0, 1)), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(samples(in_order.step(4, 0, 1)), (std::vector<int64_t>{12, 13}));
  EXPECT_EQ(samples(in_order.step(5, 1, 2)), (std::vector<int64_t>{15}));
}

TEST(Data, LabelsOfACausalModelAreTheNextTokens) {
  auto causal = objective(CausalLm());
  Batch batch = data(*causal, {.shuffle = false, .global_batch = 2, .vocabulary = 1000}).step(1, 0, 1).front();
  EXPECT_TRUE(at::equal(batch.at("labels"), batch.at("input_ids") + 1));
  EXPECT_EQ(batch.targets, 8);
}

TEST(Data, RanksAndMicroBatchesSplitTheSameGlobalBatch) {
  auto causal = objective(CausalLm());
  Data whole = data(*causal, {.global_batch = 6, .vocabulary = 1000});
  Data parts = data(*causal, {.global_batch = 6, .micro_batch = 1, .vocabulary = 1000});
  std::vector<int64_t> joined;
  for (int rank = 0; rank < 3; ++rank) {
    std::vector<int64_t> mine = samples(parts.step(2, rank, 3));
    joined.insert(joined.end(), mine.begin(), mine.end());
  }
  EXPECT_EQ(joined, samples(whole.step(2, 0, 1)));
}

TEST(Data, EveryEpochVisitsEverySampleOnceInAnOrderOfItsOwn) {
  auto causal = objective(CausalLm());
  Data shuffled = data(*causal, {.global_batch = 5, .vocabulary = 1000});
  auto epoch = [&](int64_t first_step) {
    std::vector<int64_t> order = samples(shuffled.step(first_step, 0, 1));
    std::vector<int64_t> rest = samples(shuffled.step(first_step + 1, 0, 1));
    order.insert(order.end(), rest.begin(), rest.end());
    return order;
  };
  std::vector<int64_t> first = epoch(1), second = epoch(3);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 10u);
  EXPECT_NE(first, second);
}

TEST(Data, APassCountsEverySampleOnceThoughRanksRunOut) {
  auto causal = objective(CausalLm());
  Data in_order = data(*causal, {.global_batch = 8, .micro_batch = 1, .vocabulary = 1000});
  int64_t targets = 0;
  size_t micro_steps = 0;
  for (int64_t index = 0; index < in_order.batches_in_pass(); ++index) {
    for (int rank = 0; rank < 2; ++rank) {
      std::vector<Batch> mine = in_order.pass(index, rank, 2);
      micro_steps += mine.size();
      for (const Batch& batch : mine) targets += batch.targets;
    }
  }
  EXPECT_EQ(targets, 10 * 4);
  EXPECT_EQ(micro_steps, 16u);  // every rank takes part in every micro-step
}

TEST(Data, RefusesIdsBeyondTheModelsVocabulary) {
  auto causal = objective(CausalLm());
  Data small = data(*causal, {.shuffle = false, .global_batch = 2, .vocabulary = 13});
  try {
    small.step(1, 0, 1);
    FAIL() << "id 13 was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::input);
    EXPECT_NE(std::string(error.what()).find("token id 13 at position 3"), std::string::npos) << error.what();
  }
}

TEST(MaskedLm, MasksTheSameWhateverTheBatchAndAnewEveryStep) {
  MaskedLm options;
  options.set_mask_rate(0.5);
  auto masked = objective(options);
  Data whole = data(*masked, {.shuffle = false, .global_batch = 4, .vocabulary = 1000});
  Data parts = data(*masked, {.shuffle = false, .global_batch = 4, .micro_batch = 1, .vocabulary = 1000});
  Batch together = whole.step(1, 0, 1).front();
  std::vector<Batch> apart = parts.step(1, 0, 1);
  for (int64_t b = 0; b < 4; ++b) EXPECT_TRUE(at::equal(together.at("input_ids")[b], apart[b].at("input_ids")[0]));
  Data again = data(*masked, {.shuffle = false, .global_batch = 4, .vocabulary = 1000}, 4);
  EXPECT_FALSE(at::equal(again.step(1, 0, 1).front().at("labels"), again.step(2, 0, 1).front().at("labels")));
}

TEST(MaskedLm, ChoosesReplacesAndKeepsAtItsRates) {
  auto masked = objective(MaskedLm());
  std::vector<int64_t> ids(400);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i);
  at::Tensor tokens = at::full({400, 100}, 500, at::kLong);
  Batch batch = masked->prepare({tokens, ids}, Seed(1));
  double chosen = batch.at("labels").ne(-100).sum().item<double>();
  double as_mask = batch.at("input_ids").eq(4).sum().item<double>();
  double changed = batch.at("input_ids").ne(500).sum().item<double>() - as_mask;
  // 40,000 draws: four standard deviations.
  EXPECT_NEAR(chosen / 40000, 0.15, 0.0072);
  EXPECT_NEAR(as_mask / chosen, 0.8, 0.021);
  EXPECT_NEAR(changed / chosen, 0.1, 0.016);
  EXPECT_EQ(batch.targets, static_cast<int64_t>(chosen));
}

TEST(MaskedLm, LeavesSpecialTokensAlone) {
  MaskedLm options;
  options.set_mask_rate(1);
  auto masked = objective(options);
  Batch batch = masked->prepare({at::tensor({0, 1, 2, 3}, at::kLong).view({1, 4}), {7}}, Seed(1));
  EXPECT_EQ(batch.targets, 0);
}

}  // namespace
}  // namespace echelon
