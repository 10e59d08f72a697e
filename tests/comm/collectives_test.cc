// What every collective does, on every backend, dtype and size, in windows and in other memory, to the bit.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "tests/comm/values.h"
#include "tests/comm/worlds.h"

namespace echelon::testing {

namespace {

class Collectives : public OnEveryBackend {};
ECHELON_ON_EVERY_BACKEND(Collectives);

constexpr at::ScalarType kSummed[] = {at::kDouble, at::kFloat, at::kBFloat16, at::kLong};
constexpr at::ScalarType kMoved[] = {at::kDouble, at::kFloat, at::kBFloat16, at::kLong, at::kInt, at::kByte};

// Elements of one slice: none, one, odd, and a few, which take one barrier.
constexpr int64_t kElements[] = {0, 1, 7, 1021};
// One MiB in float32, and a little: several chunks of the staging area.
constexpr int64_t kManyElements = 262'147;

/// Memory of `elements` in a window, or outside of any.
at::Tensor memory(const Group& group, bool in_window, int64_t elements, at::ScalarType dtype) {
  return in_window ? group.allocate(elements, dtype).mine : zeros(group, {elements}, dtype);
}

/// Runs `test(in_window, elements, dtype)` for all cases.
template <class Test>
void for_all(const Group& group, const auto& dtypes, const Test& test) {
  for (bool in_window : {false, true}) {
    for (at::ScalarType dtype : dtypes) {
      std::vector<int64_t> sizes(std::begin(kElements), std::end(kElements));
      // Many ranks on few cores: there one dtype stands for all.
      if (group.size() <= 2 || dtype == at::kFloat) sizes.push_back(kManyElements);
      for (int64_t elements : sizes) {
        SCOPED_TRACE(fmt::format("{} {} {}", in_window ? "window" : "plain", c10::toString(dtype), elements));
        test(in_window, elements, dtype);
      }
    }
  }
}

TEST_P(Collectives, AllReduceSumsInRankOrder) {
  on_ranks([](const Group& group) {
    for_all(group, kSummed, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      at::Tensor tensor = memory(group, in_window, elements, dtype);
      tensor.copy_(values(group.rank(), elements, dtype));
      group.all_reduce(tensor, {.name = "x"}).wait();
      EXPECT_TRUE(is_sum(tensor, values_of_all(group.size(), elements, dtype)));
    });
  });
}

TEST_P(Collectives, AllReduceFindsTheLargestAndTheSmallest) {
  on_ranks([](const Group& group) {
    for_all(group, kSummed, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      at::Tensor largest = memory(group, in_window, elements, dtype), smallest = largest.clone();
      largest.copy_(values(group.rank(), elements, dtype));
      smallest.copy_(largest);
      group.all_reduce(largest, {.name = "x", .reduce = Reduce::max}).wait();
      group.all_reduce(smallest, {.name = "x", .reduce = Reduce::min}).wait();
      at::Tensor all = at::stack(values_of_all(group.size(), elements, dtype));
      EXPECT_TRUE(same_bits(largest, all.amax(0)));
      EXPECT_TRUE(same_bits(smallest, all.amin(0)));
    });
  });
}

TEST_P(Collectives, AllGatherLaysShardsSideBySide) {
  on_ranks([](const Group& group) {
    for_all(group, kMoved, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      at::Tensor shard = memory(group, in_window, elements, dtype);
      shard.copy_(values(group.rank(), elements, dtype));
      at::Tensor full = zeros(group, {group.size() * elements}, dtype);
      group.all_gather(shard, full, {.name = "x"}).wait();
      EXPECT_TRUE(same_bits(full, at::cat(values_of_all(group.size(), elements, dtype))));
    });
  });
}

TEST_P(Collectives, AllGatherIntoTheTensorThatHoldsTheShard) {
  on_ranks([](const Group& group) {
    for_all(group, kMoved, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      at::Tensor full = memory(group, in_window, group.size() * elements, dtype);
      at::Tensor shard = full.narrow(0, group.rank() * elements, elements);
      shard.copy_(values(group.rank(), elements, dtype));
      group.all_gather(shard, full, {.name = "x"}).wait();
      EXPECT_TRUE(same_bits(full, at::cat(values_of_all(group.size(), elements, dtype))));
    });
  });
}

TEST_P(Collectives, AWindowIsGatheredWhereItLies) {
  on_ranks([](const Group& group) {
    for (int64_t elements : {int64_t{0}, int64_t{1}, int64_t{1021}, kManyElements}) {
      Window window = group.allocate(elements, at::kFloat);
      if (!window.all.defined()) continue;  // ranks of several nodes have no common window
      window.mine.copy_(values(group.rank(), elements, at::kFloat));
      group.all_gather(window.mine, window.all, {.name = "x"}).wait();
      EXPECT_TRUE(same_bits(window.all, at::cat(values_of_all(group.size(), elements, at::kFloat))));
      group.barrier({.name = "read"});
      at::Tensor elsewhere = own_values(group, elements, at::kFloat, 1);
      group.all_gather(elsewhere, window.all, {.name = "y"}).wait();
      EXPECT_TRUE(same_bits(window.all, at::cat(values_of_all(group.size(), elements, at::kFloat, 1))));
    }
  });
}

TEST_P(Collectives, ReduceScatterSumsInRankOrderAndKeepsItsInput) {
  on_ranks([](const Group& group) {
    for_all(group, kSummed, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      int64_t whole = group.size() * elements;
      at::Tensor full = memory(group, in_window, whole, dtype);
      full.copy_(values(group.rank(), whole, dtype));
      at::Tensor shard = zeros(group, {elements}, dtype);
      group.reduce_scatter(full, shard, {.name = "x"}).wait();
      EXPECT_TRUE(is_sum(shard, values_of_all(group.size(), elements, dtype, 0, group.rank() * elements)));
      EXPECT_TRUE(same_bits(full, values(group.rank(), whole, dtype)));
    });
  });
}

TEST_P(Collectives, ReduceScatterAddsToTheShardWithOneRounding) {
  on_ranks([](const Group& group) {
    for_all(group, kSummed, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      int64_t whole = group.size() * elements;
      at::Tensor full = memory(group, in_window, whole, dtype);
      full.copy_(values(group.rank(), whole, dtype));
      at::Tensor before = own_values(group, elements, dtype, 5), shard = before.clone();
      group.reduce_scatter(full, shard, {.name = "x", .accumulate = true}).wait();
      auto all = values_of_all(group.size(), elements, dtype, 0, group.rank() * elements);
      at::Tensor sum = wide_sum(all), start = before.cpu();
      all.push_back(start);
      EXPECT_TRUE(is_sum(shard, all, start.to(sum.scalar_type()).add(sum).to(dtype)));
    });
  });
}

TEST_P(Collectives, ReduceScatterIntoItsOwnSlice) {
  on_ranks([](const Group& group) {
    for_all(group, kSummed, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      int64_t whole = group.size() * elements;
      at::Tensor full = memory(group, in_window, whole, dtype);
      full.copy_(values(group.rank(), whole, dtype));
      at::Tensor shard = full.narrow(0, group.rank() * elements, elements);
      group.reduce_scatter(full, shard, {.name = "x"}).wait();
      EXPECT_TRUE(is_sum(shard, values_of_all(group.size(), elements, dtype, 0, group.rank() * elements)));
    });
  });
}

TEST_P(Collectives, SeveralMayBeUnderWayAndTakePlaceInOrder) {
  on_ranks([](const Group& group) {
    constexpr int64_t kLarge = 20'000;
    int64_t begin = group.rank() * kLarge;
    at::Tensor full = own_values(group, group.size() * kLarge, at::kDouble), shard = zeros(group, {kLarge}, at::kDouble),
               all = zeros(group, {group.size() * kLarge}, at::kDouble), few = own_values(group, 3, at::kDouble, 2);
    Work sums = group.reduce_scatter(full, shard, {.name = "sums"});
    Work once_more = group.reduce_scatter(full, shard, {.name = "sums", .accumulate = true});
    Work gathered = group.all_gather(full.narrow(0, begin, kLarge), all, {.name = "all"});
    group.all_reduce(few, {.name = "few"}).wait();
    gathered.wait();
    once_more.wait();
    sums.wait();
    EXPECT_TRUE(is_sum(few, values_of_all(group.size(), 3, at::kDouble, 2)));
    std::vector<at::Tensor> slices;
    for (int rank = 0; rank < group.size(); ++rank)
      slices.push_back(values(rank, kLarge, at::kDouble, 0, rank * kLarge));
    EXPECT_TRUE(same_bits(all, at::cat(slices)));
    auto summands = values_of_all(group.size(), kLarge, at::kDouble, 0, begin);
    at::Tensor sum = wide_sum(summands);
    std::vector<at::Tensor> twice = summands;
    twice.insert(twice.end(), summands.begin(), summands.end());
    EXPECT_TRUE(is_sum(shard, twice, sum + sum));
  });
}

TEST_P(Collectives, AllToAllHandsEachRankItsSlice) {
  on_ranks([](const Group& group) {
    for_all(group, kMoved, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      int64_t whole = group.size() * elements;
      at::Tensor input = memory(group, in_window, whole, dtype);
      input.copy_(values(group.rank(), whole, dtype));
      at::Tensor output = zeros(group, {whole}, dtype);
      group.all_to_all(input, output, {.name = "x"}).wait();
      EXPECT_TRUE(same_bits(output, at::cat(values_of_all(group.size(), elements, dtype, 0, group.rank() * elements))));
    });
  });
}

TEST_P(Collectives, BroadcastComesFromAnyRoot) {
  on_ranks([](const Group& group) {
    for (int root = 0; root < group.size(); root += 3) {
      for_all(group, kMoved, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
        at::Tensor tensor = memory(group, in_window, elements, dtype);
        tensor.copy_(values(group.rank(), elements, dtype));
        group.broadcast(tensor, root, {.name = "x"}).wait();
        EXPECT_TRUE(same_bits(tensor, values(root, elements, dtype)));
      });
    }
  });
}

TEST_P(Collectives, MessagesGoRoundTheRingInOrder) {
  on_ranks([](const Group& group) {
    if (group.size() == 1) return;
    int next = (group.rank() + 1) % group.size(), last = (group.rank() + group.size() - 1) % group.size();
    for_all(group, kMoved, [&](bool in_window, int64_t elements, at::ScalarType dtype) {
      at::Tensor first = own_values(group, elements, dtype), second = own_values(group, elements + 1, dtype, 1);
      at::Tensor first_in = memory(group, in_window, elements, dtype), second_in = zeros(group, {elements + 1}, dtype);
      // Nobody receives before all have begun to send two messages, however large.
      Work sending_first = group.send(first, next, {.name = "first"});
      Work sending_second = group.send(second, next, {.name = "second"});
      group.recv(first_in, last, {.name = "first"}).wait();
      group.recv(second_in, last, {.name = "second"}).wait();
      sending_second.wait();
      sending_first.wait();
      EXPECT_TRUE(same_bits(first_in, values(last, elements, dtype)));
      EXPECT_TRUE(same_bits(second_in, values(last, elements + 1, dtype, 1)));
    });
  });
}

TEST_P(Collectives, AMessageArrivesWhileItsSenderWaitsInABarrier) {
  on_ranks([](const Group& group) {
    if (group.size() == 1) return;
    constexpr int64_t elements = 1 << 20;  // more than fits into the mailbox
    at::Tensor out = values(0, elements, at::kFloat).to(group.device()), in = zeros(group, {elements});
    Work work;
    if (group.rank() == 0) work = group.send(out, group.size() - 1, {.name = "x"});
    if (group.rank() == group.size() - 1) group.recv(in, 0, {.name = "x"}).wait();
    group.barrier({.name = "all"});
    work.wait();
    EXPECT_TRUE(group.rank() < group.size() - 1 || same_bits(in, out));
  });
}

TEST_P(Collectives, ABarrierMakesWritesToAWindowVisible) {
  on_ranks([](const Group& group) {
    Window window = group.allocate(64, at::kLong);
    if (!window.all.defined()) return;
    for (int64_t round = 1; round <= 50; ++round) {
      window.mine.fill_(round * (group.rank() + 1));
      group.barrier({.name = "written"});
      int64_t expected = 64 * round * group.size() * (group.size() + 1) / 2;
      EXPECT_EQ(window.all.sum().item<int64_t>(), expected);
      group.barrier({.name = "read"});
    }
  });
}

TEST_P(Collectives, AWindowIsZeroAndAligned) {
  on_ranks([](const Group& group) {
    Window window = group.allocate(48, at::kFloat);  // 192 bytes
    EXPECT_EQ(reinterpret_cast<uintptr_t>(window.mine.data_ptr()) % 64, 0u);
    EXPECT_TRUE(same_bits(window.mine, at::zeros({48}, at::kFloat)));
    EXPECT_EQ(window.all.defined() ? window.all.numel() : 48 * group.size(), 48 * group.size());
  });
}

TEST_P(Collectives, AWindowOutlivesItsGroup) {
  on_ranks([](const Group& group) {
    Window window;
    {
      Group other = group.split(0, 0, "short-lived");
      window = other.allocate(1000, at::kFloat);
    }
    window.mine.fill_(group.rank() + 1);
    EXPECT_EQ(window.mine.sum().item<double>(), 1000.0 * (group.rank() + 1));
  });
}

TEST_P(Collectives, WindowsOnSomeRanksOnlyGiveTheSameResult) {
  on_ranks([](const Group& group) {
    for (int64_t elements : {int64_t{0}, int64_t{1}, int64_t{1021}, kManyElements}) {
      Window one = group.allocate(elements, at::kFloat), other = group.allocate(elements, at::kFloat);
      at::Tensor plain = zeros(group, {elements});
      at::Tensor tensor = group.rank() % 3 == 0 ? one.mine : group.rank() % 3 == 1 ? plain : other.mine;
      tensor.copy_(values(group.rank(), elements, at::kFloat));
      group.all_reduce(tensor, {.name = "x"}).wait();
      EXPECT_TRUE(is_sum(tensor, values_of_all(group.size(), elements, at::kFloat)));
    }
  });
}

/// Small whole numbers over and over: the sums of eight ranks are exact in bfloat16. Their period is a prime, so that
/// no chunk looks like another one.
class Numbers {
 public:
  explicit Numbers(at::ScalarType dtype)
      : piece_(values(0, kPeriod, at::kDouble).abs().remainder(7).floor().add(1).to(dtype).repeat({1 + kPeriods})) {}

  /// Writes the numbers from `begin` on, times `factor`.
  void write(const at::Tensor& to, int factor, int64_t begin = 0) const {
    at::Tensor piece = from(begin, factor);
    for_pieces(to, [&](const at::Tensor& part) { part.copy_(piece.narrow(0, 0, part.numel())); });
  }
  /// Whether a tensor holds just these.
  ::testing::AssertionResult hold(const at::Tensor& tensor, int factor, int64_t begin = 0) const {
    at::Tensor piece = from(begin, factor);
    auto result = ::testing::AssertionSuccess();
    for_pieces(tensor, [&](const at::Tensor& part) {
      if (result) result = same_bits(part, piece.narrow(0, 0, part.numel()));
    });
    return result;
  }

 private:
  static constexpr int64_t kPeriod = 1009, kPeriods = 256, kPiece = kPeriod * kPeriods;
  at::Tensor from(int64_t begin, int factor) const { return piece_.narrow(0, begin % kPeriod, kPiece).mul(factor); }
  static void for_pieces(const at::Tensor& tensor, const auto& action) {
    for (int64_t at = 0; at < tensor.numel(); at += kPiece)
      action(tensor.narrow(0, at, std::min(kPiece, tensor.numel() - at)));
  }
  at::Tensor piece_;
};

/// Elements of a rank's slice of 64 MiB; rounded up, so that all slices are equal.
int64_t large_slice(int ranks, at::ScalarType dtype) {
  return ((64 << 20) / static_cast<int64_t>(c10::elementSize(dtype)) + ranks - 1) / ranks;
}

TEST_P(Collectives, SixtyFourMebibytesPassThrough) {
  bool in_window = GetParam().name != "network";  // between nodes there are none
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    Numbers numbers(dtype);
    on_ranks([&](const Group& group) {
      int64_t slice = large_slice(group.size(), dtype);
      int all = group.size() * (group.size() + 1) / 2;
      at::Tensor tensor = memory(group, in_window, group.size() * slice, dtype), shard = zeros(group, {slice}, dtype);
      numbers.write(tensor, group.rank() + 1);
      group.reduce_scatter(tensor, shard, {.name = "x"}).wait();
      EXPECT_TRUE(numbers.hold(shard, all, group.rank() * slice));
      group.all_reduce(tensor, {.name = "x"}).wait();
      EXPECT_TRUE(numbers.hold(tensor, all));
      tensor.zero_();
      group.all_gather(shard, tensor, {.name = "x"}).wait();
      EXPECT_TRUE(numbers.hold(tensor, all));
    });
  }
}

TEST_P(Collectives, SixtyFourMebibytesMove) {
  Numbers numbers(at::kFloat);
  on_ranks([&](const Group& group) {
    int last = group.size() - 1;
    int64_t slice = large_slice(group.size(), at::kFloat);
    at::Tensor mine = zeros(group, {group.size() * slice}), got = at::zeros_like(mine);
    numbers.write(mine, group.rank() + 1);
    group.all_to_all(mine, got, {.name = "x"}).wait();
    for (int rank = 0; rank < group.size(); ++rank) {
      EXPECT_TRUE(numbers.hold(got.narrow(0, rank * slice, slice), rank + 1, group.rank() * slice))
          << "from rank " << rank;
    }
    group.broadcast(mine, last, {.name = "x"}).wait();
    EXPECT_TRUE(numbers.hold(mine, group.size()));
    if (group.size() == 1) return;
    Work sending;
    if (group.rank() == 0) sending = group.send(mine, last, {.name = "x"});
    if (group.rank() == last) group.recv(got.zero_(), 0, {.name = "x"}).wait();
    sending.wait();
    EXPECT_TRUE(group.rank() < last || numbers.hold(got, group.size()));
  });
}

}  // namespace

}  // namespace echelon::testing
