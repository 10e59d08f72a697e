// Exchanges over rank threads: what is exact, how far the others err, and that nothing gets lost on the way.
#include <gtest/gtest.h>

#include "comm/session.h"
#include "sharding/exchange/exact.pb.h"
#include "sharding/exchange/int8.pb.h"
#include "sharding/exchange/power_sgd.pb.h"
#include "sharding/exchange/sign.pb.h"
#include "sharding/exchange/top_k.pb.h"
#include "tests/sharding/exchange_toy.h"

namespace echelon {
namespace {

using testing::exact_sum;
using testing::ExchangeToy;
using testing::Gradients;
using testing::gradients_of;
using testing::make_exchange;

Exact bfloat16() {
  Exact options;
  options.set_wire(Exact::BF16);
  return options;
}

Int8 int8(int64_t block = 32) {
  Int8 options;
  options.set_block(block);
  return options;
}

Sign sign(int64_t block = 64) {
  Sign options;
  options.set_block(block);
  return options;
}

TopK top_k(double fraction = 0.1) {
  TopK options;
  options.set_fraction(fraction);
  return options;
}

PowerSgd power_sgd(int64_t rank = 2, double minimum_saving = 1) {
  PowerSgd options;
  options.set_rank(rank);
  options.set_minimum_saving(minimum_saving);
  return options;
}

template <class Options>
Options between_nodes(Options options) {
  options.set_between_nodes_only(true);
  return options;
}

using Maker = std::function<std::unique_ptr<Exchange>()>;

/// A new Exchange, at options that make it approximate on the toy.
const std::map<std::string, Maker>& exchanges() {
  static const std::map<std::string, Maker> all{
      {"Exact", [] { return make_exchange(Exact()); }},
      {"Bfloat16", [] { return make_exchange(bfloat16()); }},
      {"Int8", [] { return make_exchange(int8()); }},
      {"Sign", [] { return make_exchange(sign()); }},
      {"TopK", [] { return make_exchange(top_k()); }},
      {"PowerSgd", [] { return make_exchange(power_sgd()); }},
      {"Int8BetweenNodes", [] { return make_exchange(between_nodes(int8())); }},
      {"SignBetweenNodes", [] { return make_exchange(between_nodes(sign())); }},
      {"TopKBetweenNodes", [] { return make_exchange(between_nodes(top_k())); }},
      {"PowerSgdBetweenNodes", [] { return make_exchange(between_nodes(power_sgd())); }}};
  return all;
}

void expect_near(const Gradients& got, const Gradients& expected, double relative, const std::string& place = "") {
  for (const auto& [name, gradient] : expected) {
    double tolerance = relative * gradient.abs().max().item<double>();
    EXPECT_LE((got.at(name) - gradient).abs().max().item<double>(), tolerance) << name << " " << place;
  }
}

void expect_equal(const Gradients& got, const Gradients& expected, const std::string& place) {
  for (const auto& [name, gradient] : expected) EXPECT_TRUE(at::equal(got.at(name), gradient)) << name << " " << place;
}

class EveryExchange : public ::testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<Exchange> make() { return exchanges().at(GetParam())(); }
};

TEST_P(EveryExchange, GivesEveryStageTheSameBits) {
  for (int ranks : {2, 3, 8}) {
    Gradients first;
    for (int stage = 0; stage <= 3; ++stage) {
      run_thread_ranks(ranks, [&, ranks, stage](const Group& world) {
        Mesh mesh(world, {.nodes = ranks % 2 == 0 ? 2 : 1});
        ExchangeToy toy(mesh, stage, make());
        for (int step = 1; step <= 3; ++step) toy.reduce(step);
        Gradients whole = toy.whole();
        if (stage > 0)
          expect_equal(whole, first, fmt::format("at ZeRO-{} on rank {} of {}", stage, world.rank(), ranks));
        if (stage == 0 && world.rank() == 0) first = whole;
      });
    }
  }
}

TEST_P(EveryExchange, SendsTheBytesOfItsFormula) {
  for (int stage = 0; stage <= 3; ++stage) {
    for (auto [ranks, tp, nodes] : {std::tuple(1, 1, 1), {3, 1, 1}, {3, 1, 3}, {8, 1, 2}, {4, 2, 2}}) {
      run_thread_ranks(ranks, [&, ranks = ranks, tp = tp, nodes = nodes](const Group& world) {
        Mesh mesh(world, {.tp = tp, .nodes = nodes});
        ExchangeToy toy(mesh, stage, make());
        int64_t before = world.bytes_sent(Purpose::gradients);
        toy.reduce(1, /*micro_steps=*/2);
        int64_t partial = world.bytes_sent(Purpose::gradients);
        toy.shard().sum_partial_gradients();
        int64_t of_partial = world.bytes_sent(Purpose::gradients) - partial;
        at::Tensor sent = at::tensor({partial - before - of_partial});
        world.all_reduce(sent, {.name = "sent"}).wait();
        Placement placement{.dp = ranks / tp, .tp = tp, .stage = stage, .nodes = nodes, .micro_steps = 2};
        EXPECT_EQ(sent.item<int64_t>(), toy.zero.exchange->bytes_sent(toy.shard(), placement))
            << "ZeRO-" << stage << " on " << ranks << " ranks with tp " << tp << " on " << nodes << " nodes";
      });
    }
  }
}

TEST_P(EveryExchange, OfOneRankIsExact) {
  run_thread_ranks(1, [&](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 2, make());
    toy.reduce(1, /*micro_steps=*/2);
    expect_near(toy.whole(), exact_sum(1, 1, 2), 1e-6);
  });
}

TEST_P(EveryExchange, CarriesWhatIsNotFiniteToTheOwner) {
  run_thread_ranks(2, [&](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 3, make());
    Gradients gradients = gradients_of(world.rank(), 1);
    if (world.rank() == 1) gradients["matrix"].view({-1})[5] = std::numeric_limits<double>::infinity();
    toy.reduce({gradients});
    EXPECT_FALSE(at::isfinite(toy.whole().at("matrix")).all().item<bool>());
  });
}

TEST_P(EveryExchange, PointsWhereTheGradientPoints) {
  // The mean over steps of the same gradient: what one step leaves out comes with a later one.
  run_thread_ranks(2, [&](const Group& world) {
    Mesh mesh(world, {.tp = 1});
    ExchangeToy toy(mesh, 1, make());
    Gradients mean;
    constexpr int kSteps = 200;
    for (int step = 1; step <= kSteps; ++step) {
      toy.reduce({gradients_of(world.rank(), 1)});
      for (const auto& [name, gradient] : toy.whole()) mean[name] = mean.count(name) ? mean[name] + gradient : gradient;
    }
    for (auto& [_, gradient] : mean) gradient.div_(kSteps);
    // The matrix only: top-k sends the largest first, and the other tensors are small.
    expect_near(mean, {{"matrix", exact_sum(2, 1).at("matrix")}}, 0.15);
  });
}

INSTANTIATE_TEST_SUITE_P(Parts, EveryExchange,
                         ::testing::Values("Exact", "Bfloat16", "Int8", "Sign", "TopK", "PowerSgd", "Int8BetweenNodes",
                                           "SignBetweenNodes", "TopKBetweenNodes", "PowerSgdBetweenNodes"),
                         [](const auto& info) { return info.param; });

/// Every stage, with and without tensor parallelism.
void on_every_layout(const std::function<void(const Mesh&, int stage)>& check) {
  for (int stage = 0; stage <= 3; ++stage) {
    for (int tp : {1, 2}) {
      run_thread_ranks(4, [&, stage, tp](const Group& world) {
        SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", stage, tp));
        Mesh mesh(world, {.tp = tp, .nodes = 2});
        check(mesh, stage);
      });
    }
  }
}

void expect_exact(const Maker& make, double relative) {
  on_every_layout([&](const Mesh& mesh, int stage) {
    ExchangeToy toy(mesh, stage, make());
    for (int step = 1; step <= 3; ++step) {
      toy.reduce(step, /*micro_steps=*/2);
      expect_near(toy.whole(), exact_sum(mesh.dp().size(), step, 2), relative);
    }
  });
}

TEST(Exact, SumsToTheLastBits) {
  expect_exact([] { return make_exchange(Exact()); }, 1e-6);  // float32 sums
}

TEST(Exact, RoundedToBfloat16KeepsEightBits) {
  expect_exact([] { return make_exchange(bfloat16()); }, 0x1p-6);  // two roundings of each of two micro-steps
}

TEST(TopK, OfAllElementsIsExact) {
  expect_exact([] { return make_exchange(top_k(1)); }, 1e-6);
}

TEST(PowerSgd, AtFullRankIsExact) {
  // A bias is no matrix; without a minimum saving all others travel as P and Q.
  expect_exact([] { return make_exchange(power_sgd(100, 0)); }, 1e-5);  // a QR factorisation and two products
}

TEST(Int8, ErrsByHalfAStepOfEachBlock) {
  // Blocks of 32 never hold elements of two tensors, which differ by a factor of ten.
  on_every_layout([](const Mesh& mesh, int stage) {
    ExchangeToy toy(mesh, stage, make_exchange(int8(32)));
    toy.reduce(1);
    Gradients bound, exact = exact_sum(mesh.dp().size(), 1);
    for (int rank = 0; rank < mesh.dp().size(); ++rank) {
      for (const auto& [name, gradient] : gradients_of(rank, 1)) {
        double half_step = gradient.abs().max().item<double>() / 254;
        bound[name] = at::full_like(gradient, half_step) + (bound.count(name) ? bound[name] : at::zeros_like(gradient));
      }
    }
    for (const auto& [name, gradient] : toy.whole()) {
      EXPECT_TRUE((gradient - exact[name]).abs().le(bound[name] * 1.0001).all().item<bool>()) << name;
      EXPECT_FALSE(at::equal(gradient, exact[name])) << name;
    }
  });
}

TEST(Sign, OfEqualMagnitudesIsExact) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 3, make_exchange(sign(8)));
    Gradients gradients = gradients_of(world.rank(), 1), sum;
    for (auto& [name, gradient] : gradients) gradient = gradient.sign() * 0.5;
    // A block that ends with padding has a smaller mean: 37 elements are 4 blocks of 8 and one of 5.
    toy.reduce({gradients});
    at::Tensor expected = gradients_of(0, 1)["bias"].sign() * 0.5 + gradients_of(1, 1)["bias"].sign() * 0.5;
    EXPECT_TRUE(at::equal(toy.whole()["bias"].narrow(0, 0, 32), expected.narrow(0, 0, 32)));
    EXPECT_EQ(toy.residual().narrow(0, 0, 32).abs().max().item<double>(), 0);
  });
}

TEST(Sign, SendsTheMeanMagnitudeOfEachBlock) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 1, make_exchange(sign(8)));
    toy.reduce(1);
    at::Tensor expected = at::zeros({4, 8}, at::kDouble);  // the bias, whose first four blocks are its own
    for (int rank : {0, 1}) {
      at::Tensor blocks = gradients_of(rank, 1)["bias"].narrow(0, 0, 32).view({4, 8});
      expected.add_(blocks.sign() * blocks.abs().mean(1, /*keepdim=*/true));
    }
    EXPECT_TRUE(at::allclose(toy.whole()["bias"].narrow(0, 0, 32).view({4, 8}), expected, 1e-5, 1e-9));
  });
}

TEST(Sign, LeavesBlocksOfZerosZero) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 0, make_exchange(sign(8)));
    Gradients gradients = gradients_of(world.rank(), 1);
    gradients["matrix"].narrow(0, 3, 10).zero_();
    toy.reduce({gradients});
    // But for blocks at the ends of these rows.
    EXPECT_EQ(toy.whole()["matrix"].view({-1}).narrow(0, 3 * 29 + 8, 10 * 29 - 16).abs().max().item<double>(), 0);
  });
}

TEST(PowerSgd, FindsAMatrixOfLowRankAfterAStepWithoutGradient) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 3, make_exchange(power_sgd(2)));
    at::Tensor matrix = gradients_of(0, 1)["matrix"];
    Gradients zero = gradients_of(0, 1);
    for (auto& [_, gradient] : zero) gradient = at::zeros_like(gradient);
    Gradients low = zero;
    low["matrix"] = at::outer(matrix.select(1, 0), matrix[0]);
    toy.reduce({zero});  // leaves a Q of zeros
    toy.reduce({low});   // finds rows
    toy.reduce({low});   // finds the direction, and has nothing left
    double rest = toy.residual().abs().max().item<double>();
    EXPECT_LE(rest, 1e-5 * low["matrix"].abs().max().item<double>());
  });
}

TEST(PowerSgd, SendsSmallAndNamedTensorsExactly) {
  PowerSgd options = power_sgd(2, 1.5);  // a filter of 6 by 15: 90 elements against 2 * 21
  PowerSgd::Override* pattern = options.add_override();
  pattern->set_pattern("^mat");
  pattern->set_rank(0);
  run_thread_ranks(2, [&](const Group& world) {
    Mesh mesh(world, {});
    ExchangeToy toy(mesh, 3, make_exchange(options));
    toy.reduce(1);
    Gradients whole = toy.whole(), exact = exact_sum(2, 1);
    expect_near({{"matrix", whole["matrix"]}, {"bias", whole["bias"]}},
                {{"matrix", exact["matrix"]}, {"bias", exact["bias"]}}, 1e-6);
    EXPECT_GT((whole["filter"] - exact["filter"]).abs().max().item<double>(), 1e-3);
  });
}

class Feedback : public ::testing::TestWithParam<std::string> {};

TEST_P(Feedback, LosesNothing) {
  on_every_layout([](const Mesh& mesh, int stage) {
    ExchangeToy toy(mesh, stage, exchanges().at(GetParam())());
    Gradients applied, exact;
    for (int step = 1; step <= 5; ++step) {
      toy.reduce(step, /*micro_steps=*/2);
      for (const auto& [name, gradient] : toy.whole())
        applied[name] = applied.count(name) ? applied[name] + gradient : gradient;
      for (const auto& [name, gradient] : exact_sum(mesh.dp().size(), step, 2)) {
        exact[name] = exact.count(name) ? exact[name] + gradient : gradient;
      }
    }
    at::Tensor residual = toy.residual().clone();
    EXPECT_GT(residual.abs().max().item<double>(), 1e-3);
    mesh.dp().all_reduce(residual, {.name = "residual"}).wait();
    for (const auto& parameter : toy.unit().parameters()) {
      const Slice& local = parameter->local();
      at::Tensor rest = residual.narrow(0, parameter->offset(), local.elements()).to(at::kDouble).view(local.sizes);
      if (parameter->name() == "bias") mesh.tp().all_reduce(rest, {.name = "partial"}).wait();
      at::Tensor sum = applied[parameter->name()].narrow(0, local.offsets[0], local.sizes[0]) + rest;
      at::Tensor expected = exact[parameter->name()].narrow(0, local.offsets[0], local.sizes[0]);
      // float32 roundings of five steps, of values up to the largest that was sent.
      EXPECT_LE((sum - expected).abs().max().item<double>(), 1e-5 * expected.abs().max().item<double>())
          << parameter->name();
    }
  });
}

TEST_P(Feedback, OfAStepWithManyMicroStepsIsThatOfTheirSum) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {.nodes = 2});
    ExchangeToy many(mesh, 3, exchanges().at(GetParam())()), one(mesh, 3, exchanges().at(GetParam())());
    Gradients sum = gradients_of(world.rank(), 1, 0);
    for (auto& [name, gradient] : sum)
      gradient = (gradient.to(at::kFloat) + gradients_of(world.rank(), 1, 1)[name].to(at::kFloat)).to(at::kDouble);
    many.reduce(1, 2);
    one.reduce({sum});
    expect_equal(many.whole(), one.whole(), "");
  });
}

INSTANTIATE_TEST_SUITE_P(Parts, Feedback,
                         ::testing::Values("Sign", "TopK", "PowerSgd", "SignBetweenNodes", "TopKBetweenNodes",
                                           "PowerSgdBetweenNodes"),
                         [](const auto& info) { return info.param; });

TEST(BetweenNodes, OneNodeIsExact) {
  for (const char* name : {"Int8BetweenNodes", "SignBetweenNodes", "TopKBetweenNodes", "PowerSgdBetweenNodes"}) {
    for (int stage = 0; stage <= 3; ++stage) {
      run_thread_ranks(3, [&, stage](const Group& world) {
        Mesh mesh(world, {});
        ExchangeToy toy(mesh, stage, exchanges().at(name)());
        toy.reduce(1, /*micro_steps=*/2);
        expect_near(toy.whole(), exact_sum(3, 1, 2), 1e-6, name);
      });
    }
  }
}

TEST(BetweenNodes, AreTheStepsOfRanksThatHoldTheSumsOfTheirNodes) {
  // Codes by blocks depend on where pieces begin, a low rank does not: four ranks on two nodes are two ranks.
  Gradients of_two;
  for (int ranks : {2, 4}) {
    run_thread_ranks(ranks, [&, ranks](const Group& world) {
      Mesh mesh(world, {.nodes = 2});
      ExchangeToy toy(mesh, 3, exchanges().at("PowerSgdBetweenNodes")());
      for (int step = 1; step <= 3; ++step) {
        Gradients mine = gradients_of(world.rank() * 4 / ranks, step);
        if (ranks == 2) {
          for (auto& [name, gradient] : gradients_of(world.rank() * 2 + 1, step)) mine[name].add_(gradient);
        }
        toy.reduce({mine});
      }
      Gradients whole = toy.whole();
      if (ranks == 4) expect_near(whole, of_two, 1e-5);  // float32 sums in another order
      if (ranks == 2 && world.rank() == 0) of_two = whole;
    });
  }
}

TEST(BetweenNodes, RefusesNodesOfUnequalSize) {
  run_thread_ranks(3, [](const Group& world) {
    Mesh mesh(world, {.nodes = 2});
    ExchangeToy toy(mesh, 3, exchanges().at("SignBetweenNodes")());
    EXPECT_THROW(toy.reduce(1), Error);
  });
}

template <class Options>
std::string refusal(const Options& options) {
  try {
    make_exchange(options);
  } catch (const Error& error) {
    return error.kind() == Error::Kind::recipe ? error.what() : "of another kind";
  }
  return "none";
}

TEST(Exchange, RefusesOptionsThatCannotWork) {
  EXPECT_NE(refusal(power_sgd(0)).find("PowerSgd needs a rank of at least 1"), std::string::npos)
      << refusal(power_sgd(0));
  EXPECT_NE(refusal(top_k(1.5)).find("got 1.5, expected above 0, at most 1"), std::string::npos) << refusal(top_k(1.5));
  EXPECT_NE(refusal(top_k(0)).find("expected above 0, at most 1"), std::string::npos) << refusal(top_k(0));
  EXPECT_NE(refusal(int8(0)).find("at least 1 element"), std::string::npos) << refusal(int8(0));
  EXPECT_NE(refusal(sign(12)).find("multiple of 8"), std::string::npos) << refusal(sign(12));
  PowerSgd options = power_sgd();
  options.add_override()->set_pattern("(");
  EXPECT_NE(refusal(options).find("is no regular expression"), std::string::npos) << refusal(options);
}

}  // namespace
}  // namespace echelon
