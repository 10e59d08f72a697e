// Groups: parts of groups, what is refused, what is counted, and how ranks that disagree are told so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "tests/comm/values.h"
#include "tests/comm/worlds.h"

namespace echelon::testing {

namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Groups : public OnEveryBackend {};
ECHELON_ON_EVERY_BACKEND(Groups);

/// What `action` throws; empty when it does not.
template <class Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_P(Groups, SplitOrdersByKeyThenRank) {
  on_ranks([](const Group& group) {
    Group reversed = group.split(0, -group.rank(), "reversed");
    EXPECT_EQ(reversed.rank(), group.size() - 1 - group.rank());
    EXPECT_EQ(reversed.size(), group.size());
    Group same = group.split(0, 7, "same");
    EXPECT_EQ(same.rank(), group.rank());
  });
}

TEST_P(Groups, PartsOfAGroupWorkApart) {
  on_ranks([](const Group& group) {
    int color = group.rank() % 2;
    Group part = group.split(color, group.rank(), color == 0 ? "even" : "odd");
    ASSERT_EQ(part.size(), (group.size() + 1 - color) / 2);
    Window window = part.allocate(1000, at::kFloat);
    std::vector<at::Tensor> members;
    for (int rank = color; rank < group.size(); rank += 2) members.push_back(values(rank, 1000, at::kFloat));
    // The two parts make different numbers of collectives.
    for (int round = 0; round <= color; ++round) {
      window.mine.copy_(values(group.rank(), 1000, at::kFloat));
      part.all_reduce(window.mine, {.name = "x"}).wait();
      EXPECT_TRUE(is_sum(window.mine, members));
    }
    group.barrier({.name = "together"});
  });
}

TEST_P(Groups, SeveralGroupsAreUsedInTurn) {
  on_ranks([](const Group& group) {
    Group one = group.split(0, 0, "one"), two = group.split(group.rank() / 2, 0, "two");
    for (int round = 0; round < 20; ++round) {
      at::Tensor a = zeros(group, {3}, at::kLong).add_(1), b = a.clone(), c = a.clone();
      one.all_reduce(a, {.name = "a"}).wait();
      two.all_reduce(b, {.name = "b"}).wait();
      group.all_reduce(c, {.name = "c"}).wait();
      EXPECT_EQ(a[0].item<int64_t>(), group.size());
      EXPECT_EQ(b[0].item<int64_t>(), two.size());
      EXPECT_EQ(c[0].item<int64_t>(), group.size());
    }
  });
}

// Collectives of random kind, size and memory, one after the other without a pause: whatever one leaves unread or
// overwrites too early shows as a wrong sum.
TEST_P(Groups, AnyOrderOfCollectivesGivesTheRightSums) {
  on_ranks([](const Group& group) {
    constexpr int64_t largest = 40'000;
    Window window = group.allocate(group.size() * largest, at::kFloat);
    at::Tensor plain = zeros(group, {group.size() * largest});
    std::mt19937 random(17);  // the same on every rank
    for (int round = 0; round < 150; ++round) {
      SCOPED_TRACE(round);
      int64_t elements = random() % 3 == 0 ? random() % 64 : random() % largest;
      at::Tensor& memory = random() % 2 == 0 ? window.mine : plain;
      at::Tensor full = memory.narrow(0, 0, group.size() * elements);
      full.copy_(values(group.rank(), full.numel(), at::kFloat, round % 8));
      auto slice = [&](int rank) {
        return values_of_all(group.size(), elements, at::kFloat, round % 8, rank * elements);
      };
      at::Tensor shard = zeros(group, {elements}), output = at::empty_like(full);
      switch (random() % 4) {
        case 0:
          group.all_reduce(full, {.name = "a"}).wait();
          EXPECT_TRUE(is_sum(full.narrow(0, 0, elements), slice(0)));
          break;
        case 1:
          group.reduce_scatter(full, shard, {.name = "b"}).wait();
          EXPECT_TRUE(is_sum(shard, slice(group.rank())));
          break;
        case 2:
          group.all_gather(full.narrow(0, 0, elements), output, {.name = "c"}).wait();
          EXPECT_TRUE(same_bits(output, at::cat(slice(0))));
          break;
        default:
          group.all_to_all(full, output, {.name = "d"}).wait();
          EXPECT_TRUE(same_bits(output, at::cat(slice(group.rank()))));
      }
    }
  });
}

TEST_P(Groups, RefuseWrongTensors) {
  on_ranks([](const Group& group) {
    Call call{.name = "layers.0"};
    int64_t size = group.size();
    at::Tensor full = zeros(group, {4 * size}), shard = zeros(group, {4}), none;
    at::Tensor halves = zeros(group, {4}, at::kHalf), bytes = zeros(group, {4}, at::kByte);
    at::Tensor longs = zeros(group, {4}, at::kLong), strided = zeros(group, {4, 2}).t();
    at::Tensor short_shard = zeros(group, {3});
    EXPECT_THAT(error_of([&] { group.all_reduce(none, call).wait(); }), HasSubstr("got no tensor"));
    EXPECT_THAT(error_of([&] { group.all_reduce(halves, call).wait(); }), HasSubstr("got Half, expected float64"));
    EXPECT_THAT(error_of([&] { group.all_reduce(bytes, call).wait(); }), HasSubstr("got uint8"));
    EXPECT_THAT(error_of([&] { group.all_reduce(strided, call).wait(); }),
                AllOf(HasSubstr("all_reduce \"layers.0\""), HasSubstr("expected a contiguous tensor")));
    EXPECT_THAT(error_of([&] { group.all_gather(short_shard, full, call).wait(); }),
                HasSubstr(fmt::format("expected {} elements, 3 for each of {} ranks", 3 * size, size)));
    EXPECT_THAT(error_of([&] { group.all_gather(longs, full, call).wait(); }),
                HasSubstr("got int64, expected float32"));
    EXPECT_THAT(error_of([&] { group.reduce_scatter(full, short_shard, call).wait(); }), HasSubstr("elements"));
    EXPECT_THAT(error_of([&] { group.all_to_all(full, short_shard, call).wait(); }),
                HasSubstr("as many elements in both"));
    EXPECT_THAT(error_of([&] { group.broadcast(full, static_cast<int>(size), call).wait(); }),
                HasSubstr("expected a rank below"));
    EXPECT_THAT(error_of([&] { group.send(full, group.rank(), call).wait(); }), HasSubstr("expected another rank"));
    EXPECT_THAT(error_of([&] { group.recv(full, -1, call).wait(); }), HasSubstr("expected a rank below"));
    EXPECT_THAT(error_of([&] { group.allocate(-1, at::kFloat); }), HasSubstr("expected 0 or more"));
    if (size == 1) return;
    EXPECT_THAT(error_of([&] { group.all_to_all(full, full, call).wait(); }), HasSubstr("separate memory"));
    at::Tensor wrong_slice = full.narrow(0, 4 * ((group.rank() + 1) % size), 4);
    EXPECT_THAT(error_of([&] { group.all_gather(wrong_slice, full, call).wait(); }), HasSubstr("its own slice"));
  });
}

/// Rank 1 makes another collective than the others: all of them must read of both.
template <class Usual, class Other>
void expect_both_named(const Group& world, const Usual& usual, const std::string& usual_text, const Other& other,
                       const std::string& other_text) {
  Group group = world.split(0, 0, "quarrel");
  std::string error = error_of([&] { group.rank() == 1 ? other(group) : usual(group); });
  EXPECT_THAT(error, AllOf(HasSubstr("ranks disagree"), HasSubstr("rank 1 in " + other_text),
                           HasSubstr("rank 0 in " + usual_text), HasSubstr("in group quarrel")));
}

TEST_P(Groups, NameBothSidesWhenRanksDisagree) {
  if (GetParam().ranks != 2) return;
  on_ranks([](const Group& group) {
    at::Tensor x = zeros(group, {8}), longer = zeros(group, {9}), full = zeros(group, {16});
    at::Tensor wider = zeros(group, {8}, at::kDouble);
    auto sum = [&](const Group& g) { g.all_reduce(x, {.name = "x"}).wait(); };
    std::string sum_text = "all_reduce \"x\" of 8 float32 (number 1)";
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.broadcast(x, 0, {.name = "x"}).wait(); },
        "broadcast \"x\" of 8 float32 from rank 0 (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.all_reduce(x, {.name = "y"}).wait(); },
        "all_reduce \"y\" of 8 float32 (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.all_reduce(longer, {.name = "x"}).wait(); },
        "all_reduce \"x\" of 9 float32 (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.all_reduce(wider, {.name = "x"}).wait(); },
        "all_reduce \"x\" of 8 float64 (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.all_gather(x, full, {.name = "x"}).wait(); },
        "all_gather \"x\" of 16 float32 (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.all_reduce(x, {.name = "x", .reduce = Reduce::max}).wait(); },
        "all_reduce \"x\" of 8 float32, max (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.barrier({.name = "x"}); }, "barrier \"x\" (number 1)");
    expect_both_named(
        group, sum, sum_text, [&](const Group& g) { g.allocate(4, at::kFloat); },
        "allocate \"window\" of 4 float32 (number 1)");
    expect_both_named(
        group, [&](const Group& g) { g.send(x, 1, {.name = "x"}).wait(); }, "send \"x\" of 8 float32 (number 1)",
        [&](const Group& g) { g.recv(longer, 0, {.name = "x"}).wait(); }, "recv \"x\" of 9 float32 (number 1)");
  });
}

TEST_P(Groups, EveryRankHearsOfADisagreement) {
  if (GetParam().ranks == 1) return;
  on_ranks([](const Group& group) {
    Group part = group.split(0, 0, "quarrel");
    at::Tensor x = zeros(group, {8});
    std::string name = part.rank() == part.size() - 1 ? "theirs" : "ours";
    std::string error = error_of([&] { part.all_reduce(x, {.name = name}).wait(); });
    EXPECT_THAT(error, AllOf(HasSubstr("\"theirs\""), HasSubstr("\"ours\"")));
  });
}

TEST_P(Groups, CountBytesToTheByte) {
  on_ranks([](const Group& group) {
    int64_t n = group.size(), r = group.rank();
    auto counted = [&](Purpose purpose, const auto& action) {
      int64_t before = group.bytes_sent(purpose);
      action();
      return group.bytes_sent(purpose) - before;
    };
    at::Tensor full = zeros(group, {12 * n}), shard = zeros(group, {12}), output = zeros(group, {12 * n});
    at::Tensor odd = zeros(group, {7});
    Call gradients{.name = "g", .purpose = Purpose::gradients};
    EXPECT_EQ(counted(Purpose::gradients, [&] { group.all_reduce(full, gradients).wait(); }), 2 * (n - 1) * 48);
    EXPECT_EQ(counted(Purpose::gradients, [&] { group.reduce_scatter(full, shard, gradients).wait(); }), (n - 1) * 48);
    Call parameters{.name = "p", .purpose = Purpose::parameters};
    EXPECT_EQ(counted(Purpose::parameters, [&] { group.all_gather(shard, full, parameters).wait(); }), (n - 1) * 48);
    EXPECT_EQ(counted(Purpose::parameters, [&] { group.all_to_all(full, output, parameters).wait(); }), (n - 1) * 48);
    EXPECT_EQ(counted(Purpose::parameters, [&] { group.broadcast(shard, 0, parameters).wait(); }),
              r == 0 ? (n - 1) * 48 : 0);
    EXPECT_EQ(counted(Purpose::gradients, [&] { group.barrier(gradients); }), 0);
    EXPECT_EQ(counted(Purpose::updates, [&] { group.account({.name = "u", .purpose = Purpose::updates}, 5); }), 5);
    // 28 bytes are not divisible by every number of ranks: their shares still add up.
    int64_t sent = counted(Purpose::control, [&] { group.all_reduce(odd, {.name = "odd"}).wait(); });
    at::Tensor total = zeros(group, {1}, at::kLong).add_(sent);
    group.all_reduce(total, {.name = "total"}).wait();
    EXPECT_EQ(total.item<int64_t>(), 2 * (n - 1) * 28);
  });
}

TEST_P(Groups, CountBytesOfMessagesAtTheSender) {
  if (GetParam().ranks == 1) return;
  on_ranks([](const Group& group) {
    at::Tensor x = zeros(group, {10});
    Call call{.name = "x", .purpose = Purpose::activations};
    int64_t before = group.bytes_sent(Purpose::activations);
    if (group.rank() == 0) group.send(x, 1, call).wait();
    if (group.rank() == 1) group.recv(x, 0, call).wait();
    EXPECT_EQ(group.bytes_sent(Purpose::activations) - before, group.rank() == 0 ? 40 : 0);
  });
}

TEST_P(Groups, SecondsInsideCollectivesAreCounted) {
  on_ranks([](const Group& group) {
    double before = group.seconds();
    group.barrier({.name = "x"});
    EXPECT_EQ(group.seconds() > before, group.size() > 1);
  });
}

}  // namespace

}  // namespace echelon::testing
