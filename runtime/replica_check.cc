#include "runtime/replica_check.h"

#include <algorithm>
#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "cluster/base/tiles.h"

namespace echelon {

namespace {

/// One tensor that every rank of a group has.
struct Copy {
  std::string name;
  at::Tensor memory;
};

int64_t hash_of(const at::Tensor& memory) {
  at::Tensor here = memory.contiguous().cpu();
  std::string digits = hash_bytes({static_cast<const std::byte*>(here.const_data_ptr()), here.nbytes()});
  return static_cast<int64_t>(std::stoull(digits.substr(0, 16), nullptr, 16));
}

/// This rank's number in the job and the hashes of its copies, of every rank of the group. [ranks, 1 + copies]
at::Tensor hashes_of_all(const Group& group, int rank, const std::vector<Copy>& copies) {
  std::vector<int64_t> mine{rank};
  for (const Copy& copy : copies) mine.push_back(hash_of(copy.memory));
  at::Tensor own = at::tensor(mine, at::kLong).to(group.device());
  at::Tensor all = at::empty({group.size(), own.numel()}, own.options());
  group.all_gather(own, all, {.name = "hashes of replicas"}).wait();
  return all.cpu();
}

/// Ranks whose hash differs from that of most; all of them where no hash is that of more than half.
std::vector<int64_t> odd_ones(const at::Tensor& ranks, const at::Tensor& hashes) {
  std::map<int64_t, std::vector<int64_t>> by_hash;
  for (int64_t i = 0; i < ranks.numel(); ++i)
    by_hash[hashes[i].item<int64_t>()].push_back(ranks[i].item<int64_t>());
  if (by_hash.size() == 1) return {};
  std::vector<int64_t> odd;
  for (const auto& [hash, holders] : by_hash) {
    if (2 * std::ssize(holders) <= ranks.numel()) odd.insert(odd.end(), holders.begin(), holders.end());
  }
  std::sort(odd.begin(), odd.end());
  return odd;
}

/// The first copy that differs; none where all are alike. Collective, whatever it finds.
std::optional<Error> compare(const Group& group, const Mesh& mesh, const std::vector<Copy>& copies) {
  if (group.size() == 1) return {};
  at::Tensor all = hashes_of_all(group, mesh.world().rank(), copies);
  for (size_t i = 0; i < copies.size(); ++i) {
    auto odd = odd_ones(all.select(1, 0), all.select(1, static_cast<int64_t>(i) + 1));
    if (odd.empty()) continue;
    bool one = odd.size() == 1;
    Error error = Error::comm(copies[i].name, fmt::format("rank{} {} no longer hold{} what the others hold",
                                                          one ? "" : "s", fmt::join(odd, ", "), one ? "s" : ""));
    return error.remedy("memory or processor may be faulty; the run goes on from its last checkpoint");
  }
  return {};
}

/// Of the segments that `counts`, masters and state.
std::vector<Copy> state_copies(Trainer& trainer, const auto& counts) {
  std::vector<Copy> copies;
  for (Owned& owned : trainer.owned()) {
    visit_state(owned, [&](const std::string& suffix, const at::Tensor& memory) {
      for (const Segment& segment : owned.shard->segments()) {
        if (!counts(*segment.parameter)) continue;
        copies.push_back({segment.parameter->name() + suffix, memory.narrow(0, segment.offset, segment.length)});
      }
    });
  }
  return copies;
}

std::vector<Copy> copies_in_a_replica(Trainer& trainer) {
  const Zero& zero = trainer.zero();
  std::vector<Copy> copies;
  if (!zero.shards_state()) copies = state_copies(trainer, [](const Parameter&) { return true; });
  if (zero.shards_values()) return copies;
  // Where every rank has every master, and they are the values, those are there already.
  bool masters_are_values = !zero.shards_state() && !zero.keeps_master();
  for (FlatShard* shard : trainer.model().weights().shards()) {
    if (masters_are_values && shard->trained()) continue;
    for (const Parameter* parameter : shard->parameters()) copies.push_back({parameter->name(), parameter->value()});
  }
  return copies;
}

}  // namespace

void compare_replicas(Trainer& trainer) {
  at::NoGradGuard no_gradients;
  const Mesh& mesh = trainer.mesh();
  auto on_every_tp_rank = [](const Parameter& parameter) { return !parameter.layout().is_sharded_on("tp"); };
  std::vector found{compare(mesh.dp_in_replica(), mesh, copies_in_a_replica(trainer)),
                    compare(mesh.tp(), mesh, state_copies(trainer, on_every_tp_rank))};
  if (mesh.replicas() > 1 && trainer.zero().exchange->synchronous()) {
    auto all = [](const Parameter&) { return true; };
    found.push_back(compare(mesh.dp_between_replicas(), mesh, state_copies(trainer, all)));
  }
  for (const std::optional<Error>& error : found) {
    if (error) throw *error;
  }
}

}  // namespace echelon
