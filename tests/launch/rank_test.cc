// What `forward` and `generate` do around a model.
#include "launch/rank/forward_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include <ATen/ATen.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/safetensors.h"
#include "launch/rank/generate.h"

namespace echelon {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const Architecture kModel{.vocabulary = 10, .max_positions = 4, .token_types = 2};

class ForwardInputs : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove(path_); }

  /// The sentence with which a file of these tensors is refused; "" when it is not.
  std::string refusal(const std::map<std::string, at::Tensor>& tensors, DType dtype = DType::I64) {
    std::vector<TensorEntry> entries;
    for (const auto& [name, values] : tensors)
      entries.push_back({.name = name, .dtype = dtype, .shape = values.sizes().vec()});
    SafetensorsWriter writer(path_, entries, {});
    for (const auto& [name, values] : tensors) writer.write(name, values.const_data_ptr(), values.nbytes());
    writer.finish();
    try {
      batch_ = read_forward_inputs(path_, kModel);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::input);
      return error.what();
    }
    return "";
  }

  std::string path_ = fs::temp_directory_path() / ("echelon-forward-" + random_name());
  Batch batch_;
};

at::Tensor ids(std::vector<int64_t> values, int64_t rows = 1) { return at::tensor(values, at::kLong).view({rows, -1}); }

TEST_F(ForwardInputs, AreReadByTheirNames) {
  EXPECT_EQ(refusal({{"input_ids", ids({0, 9, 3, 1}, 2)},
                     {"attention_mask", ids({1, 0, 1, 1}, 2)},
                     {"labels", ids({-100, 2, 3, 4}, 2)}}),
            "");
  EXPECT_EQ(batch_.size(), 2);
  EXPECT_TRUE(at::equal(batch_.at("labels"), ids({-100, 2, 3, 4}, 2)));
  EXPECT_EQ(batch_.samples, (std::vector<int64_t>{0, 1}));
}

TEST_F(ForwardInputs, ThatDoNotFitTheModelAreRefused) {
  at::Tensor good = ids({1, 2});
  EXPECT_THAT(refusal({{"labels", good}}), HasSubstr("\"input_ids\" is missing"));
  EXPECT_THAT(refusal({{"input_ids", ids({1, 10})}}), HasSubstr("input_ids: out of range: got 10, expected 0 to 9"));
  EXPECT_THAT(refusal({{"input_ids", ids({1, -1})}}), HasSubstr("input_ids: out of range: got -1"));
  EXPECT_THAT(refusal({{"input_ids", ids({1, 1, 1, 1, 1})}}),
              HasSubstr("too long for the model: got 5, expected at most 4"));
  EXPECT_THAT(refusal({{"input_ids", at::zeros({2, 0}, at::kLong)}}), HasSubstr("input_ids: wrong shape: got [2, 0]"));
  EXPECT_THAT(refusal({{"input_ids", at::zeros({2}, at::kLong)}}), HasSubstr("input_ids: wrong shape: got [2]"));
  EXPECT_THAT(refusal({{"input_ids", good}, {"attention_mask", ids({1})}}),
              HasSubstr("attention_mask: wrong shape: got [1, 1], expected [1, 2]"));
  EXPECT_THAT(refusal({{"input_ids", good}, {"attention_mask", ids({1, 2})}}),
              HasSubstr("attention_mask: out of range: got 2"));
  EXPECT_THAT(refusal({{"input_ids", good}, {"token_type_ids", ids({0, 2})}}),
              HasSubstr("token_type_ids: out of range: got 2"));
  EXPECT_THAT(refusal({{"input_ids", good}, {"labels", ids({-1, 2})}}), HasSubstr("labels: out of range: got -1"));
  EXPECT_THAT(refusal({{"input_ids", good}, {"label", good}}), HasSubstr("label: no input of this model"));
  EXPECT_THAT(refusal({{"input_ids", at::zeros({1, 2}, at::kDouble)}}, DType::F64),
              HasSubstr("input_ids: wrong dtype: got F64, expected I64"));
}

TEST(Labels, OfACausalModelMoveToThePositionThatPredictsThem) {
  Batch batch{.tensors = {{"input_ids", ids({1, 2, 3})}, {"labels", ids({5, -100, 7})}}};
  align_labels(batch, /*causal=*/true);
  EXPECT_TRUE(at::equal(batch.at("labels"), ids({-100, 7, -100})));
  EXPECT_EQ(batch.targets, 1);
}

TEST(Labels, OfAnEncoderStay) {
  Batch batch{.tensors = {{"input_ids", ids({1, 2, 3})}, {"labels", ids({5, -100, 7})}}};
  align_labels(batch, /*causal=*/false);
  EXPECT_EQ(batch.targets, 2);
}

TEST(Labels, WithoutATargetAreRefused) {
  Batch batch{.tensors = {{"input_ids", ids({1, 2})}, {"labels", ids({5, -100})}}};
  EXPECT_THROW(align_labels(batch, /*causal=*/true), Error);
}

TEST(Shares, SplitRowsThatDivideAndCountTheOthersOnce) {
  Batch batch{.tensors = {{"input_ids", ids({1, 2, 3, 4}, 4)}, {"labels", ids({1, 2, 3, 4}, 4)}},
              .samples = {0, 1, 2, 3}};
  Batch second = share_of(batch, 1, 2);
  EXPECT_TRUE(at::equal(second.at("input_ids"), ids({3, 4}, 2)));
  EXPECT_EQ(second.samples, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(at::equal(share_of(batch, 0, 3).at("labels"), batch.at("labels")));
  EXPECT_TRUE(at::equal(share_of(batch, 2, 3).at("input_ids"), batch.at("input_ids")));
  EXPECT_TRUE(share_of(batch, 2, 3).at("labels").eq(-100).all().item<bool>());
}

TEST(Sampling, WithoutTemperatureTakesTheLikeliest) { EXPECT_EQ(choose(at::tensor({0.1, 2.0, 1.9}), 0, 1, 0.99), 1); }

TEST(Sampling, DrawsInProportionToProbability) {
  at::Tensor logits = at::tensor({0.2, 0.5, 0.3}, at::kDouble).log();
  std::map<int64_t, int> drawn;
  for (int i = 0; i < 1000; ++i) ++drawn[choose(logits, 1, 1, (i + 0.5) / 1000)];
  EXPECT_EQ(drawn, (std::map<int64_t, int>{{0, 200}, {1, 500}, {2, 300}}));
}

TEST(Sampling, TopPKeepsTheTokenThatCrossesItAndNoneBehind) {
  at::Tensor logits = at::tensor({0.2, 0.5, 0.3}, at::kDouble).log();
  EXPECT_EQ(choose(logits, 1, 0.6, 0.9999), 2);
  EXPECT_EQ(choose(logits, 1, 0.5 - 1e-9, 0.9999), 1);
  EXPECT_EQ(choose(logits, 1, 0, 0.9999), 1);
}

TEST(Sampling, AHighTemperatureFlattensAndALowOneSharpens) {
  at::Tensor logits = at::tensor({0.0, 1.0}, at::kDouble);
  EXPECT_EQ(choose(logits, 100, 1, 0.51), 0);
  EXPECT_EQ(choose(logits, 0.1, 1, 0.99), 1);
}

}  // namespace
}  // namespace echelon
