// Values and gradients that travel while others are computed: the same step, and not a byte more.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/session.h"
#include "runtime/trainer.h"
#include "tests/comm/worlds.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/runtime/ranks/trace.h"

namespace echelon::testing {

namespace {

struct Case {
  int zero;
  std::string precision = "FP32", exchange = "", parent = "base/tiny_decoder_clm";
  std::vector<std::string> more = {};
};

class Overlap : public ::testing::TestWithParam<Case> {
 protected:
  /// Wide enough for most Units to be worth a journey in the background.
  static Recipe recipe(bool overlap) {
    const Case& c = GetParam();
    std::vector<std::string> fields{fmt::format("sharding.zero={}", c.zero), fmt::format("precision={}", c.precision),
                                    fmt::format("sharding.overlap={}", overlap), "batch.micro=1",
                                    "model.architecture.width=64", "model.architecture.layers=3"};
    if (!c.exchange.empty()) fields.push_back("exchange=" + c.exchange);
    fields.insert(fields.end(), c.more.begin(), c.more.end());
    return tiny_recipe(c.parent, fields);
  }
};

TEST_P(Overlap, ChangesNoBit) {
  for (const Session* nodes : {&network_session(), &nodes_session()}) {
    Trace apart = train(recipe(false), nodes->world(), {}, 3), together = train(recipe(true), nodes->world(), {}, 3);
    EXPECT_EQ(together.losses, apart.losses);
    EXPECT_EQ(together.norms, apart.norms);
    for (const auto& [name, weight] : apart.weights) EXPECT_TRUE(same_bits(together.weights.at(name), weight)) << name;
  }
}

TEST_P(Overlap, FetchesNothingInVain) {
  Mesh mesh(network_session().world(), {});
  Trainer apart(recipe(false), mesh), together(recipe(true), mesh);
  for (int64_t step = 1; step <= 4; ++step)
    EXPECT_EQ(together.step(step).bytes_sent, apart.step(step).bytes_sent) << "step " << step;
}

INSTANTIATE_TEST_SUITE_P(
    AllStages, Overlap,
    ::testing::Values(Case{0}, Case{1}, Case{2}, Case{3}, Case{.zero = 3, .precision = "BF16"},
                      Case{.zero = 2, .exchange = "[echelon/Exact] { wire: BF16 }"},
                      Case{.zero = 3, .exchange = "[echelon/TopK] { fraction: 0.1 exact_steps: 2 }"},
                      Case{.zero = 3, .parent = "base/tiny_encoder_mlm"},
                      Case{.zero = 3, .more = {"sharding.recompute=FULL"}}));

}  // namespace

}  // namespace echelon::testing
