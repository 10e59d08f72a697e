// Between nodes a collective goes on while the rank does something else.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/comm/worlds.h"

namespace echelon::testing {

namespace {

/// Whether the memory behind `element` is written within ten seconds in which this rank calls no collective.
bool written_meanwhile(const at::Tensor& element) {
  const volatile float* place = element.const_data_ptr<float>();
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (*place == 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return *place != 0;
}

TEST(Network, ALargeCollectiveEndsThoughNobodyWaits) {
  if (on_gpus() || session().world().size() == 1) return;
  for (const Session* nodes : {&network_session(), &nodes_session()}) {
    const Group& group = nodes->world();
    constexpr int64_t kLarge = 50'000;
    at::Tensor shard = at::ones({kLarge}), all = at::zeros({group.size() * kLarge});
    Work work = group.all_gather(shard, all, {.name = "x"});
    bool alone = group.size() == 2 && nodes == &nodes_session();  // one node
    EXPECT_TRUE(work.done() == alone);
    int other = (group.rank() + 1) % group.size();
    EXPECT_TRUE(written_meanwhile(all[(other + 1) * kLarge - 1]));
    work.wait();
    EXPECT_TRUE(all.eq(1).all().item<bool>());
  }
}

TEST(Network, ASmallCollectiveIsDoneAtOnce) {
  if (on_gpus() || session().world().size() == 1) return;
  at::Tensor x = at::ones({8});
  EXPECT_TRUE(network_session().world().all_reduce(x, {.name = "x"}).done());
}

}  // namespace

}  // namespace echelon::testing
