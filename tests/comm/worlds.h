// The backends that the conformance suite runs over.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/session.h"
#include "tests/comm/values.h"
#include "tests/test_session.h"

namespace echelon::testing {

/// A backend at a number of ranks.
struct World {
  std::string name;
  int ranks;
  std::function<void(const std::function<void(const Group&)>&)> run;   ///< runs a function on every rank

  friend std::ostream& operator<<(std::ostream& out, const World& world) { return out << world.name << world.ranks; }
};

/// A further session of the same processes, as if on nodes of so many neighbours.
inline Session session_of_nodes(int ranks_per_node) {
  static char name[] = "test";
  static char* arguments[] = {name, nullptr};
  int argc = 1;
  char** argv = arguments;
  return Session::join(argc, argv, {.backend = "mpi", .timeout_seconds = 60, .ranks_per_node = ranks_per_node});
}
inline const Session& network_session() {
  static Session session = session_of_nodes(1);
  return session;
}
inline const Session& nodes_session() {
  static Session session = session_of_nodes(2);
  return session;
}

inline bool on_gpus() { return session().world().device().is_cuda(); }

/// On GPUs, all processes. Else all processes on one node, each on its own, and on nodes of two; on one process also
/// ranks that need no launcher.
inline std::vector<World> worlds() {
  int ranks = session().world().size();
  if (on_gpus()) return {{"nccl", ranks, [](const auto& on_rank) { on_rank(session().world()); }}};
  std::vector<World> worlds{{"mpi", ranks, [](const auto& on_rank) { on_rank(session().world()); }},
                            {"network", ranks, [](const auto& on_rank) { on_rank(network_session().world()); }}};
  if (ranks > 2 && ranks % 2 == 0) {
    worlds.push_back({"nodes", ranks, [ranks](const auto& on_rank) {
                        NeighboursFirst order(2, static_cast<size_t>(ranks));
                        on_rank(nodes_session().world());
                      }});
  }
  if (ranks > 1) return worlds;
  worlds.push_back({"self", 1, [](const auto& on_rank) { on_rank(Session::alone().world()); }});
  for (int threads : {1, 2, 3, 4, 8}) {
    worlds.push_back({"thread", threads, [threads](const auto& on_rank) {
                        run_thread_ranks(threads, on_rank, {.timeout_seconds = 60});
                      }});
  }
  return worlds;
}

/// Zeroes where the group's tensors live.
inline at::Tensor zeros(const Group& group, at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  return at::zeros(sizes, at::TensorOptions(dtype).device(group.device()));
}

/// values() of this rank, there.
inline at::Tensor own_values(const Group& group, int64_t elements, at::ScalarType dtype, int salt = 0) {
  return values(group.rank(), elements, dtype, salt).to(group.device());
}

/// A suite that runs on every rank of every world.
class OnEveryBackend : public ::testing::TestWithParam<World> {
 protected:
  void on_ranks(const std::function<void(const Group&)>& on_rank) const { GetParam().run(on_rank); }
};

#define ECHELON_ON_EVERY_BACKEND(Suite)                                          \
  INSTANTIATE_TEST_SUITE_P(Worlds, Suite, ::testing::ValuesIn(worlds()),         \
                           [](const auto& info) { return fmt::format("{}{}", info.param.name, info.param.ranks); })

}  // namespace echelon::testing
