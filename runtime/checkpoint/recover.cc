#include "runtime/checkpoint/recover.h"

#include <cstdio>
#include <optional>

#include <fmt/format.h>

#include "cluster/base/error.h"
#include "comm/together.h"

namespace echelon {

namespace {

/// Every rank hashes its share of the files. Gives what was found, the same on every rank; "" when all is right.
std::string damage_of(const std::string& folder, const Group& world) {
  try {
    on_every_rank(world, "verify checkpoint", [&] {
      Checkpoint share = open_checkpoint(folder);
      std::vector<FileRecord> files = std::move(share.manifest.files);
      share.manifest.files.clear();
      for (size_t i = static_cast<size_t>(world.rank()); i < files.size(); i += static_cast<size_t>(world.size())) {
        share.manifest.files.push_back(files[i]);
      }
      std::vector<std::string> damage = find_damage(share);
      if (!damage.empty()) throw Error::storage(folder, "CKPT_INTEGRITY: " + damage.front());
    });
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::storage) throw;
    return error.what();
  }
  return "";
}

/// Tells people, and renames what is damaged: a step with wrong bytes must never count among those that are kept.
void pass_over(const CheckpointStore& store, const Checkpoint& start) {
  for (const std::string& reason : start.passed_over) {
    std::string name = reason.substr(0, reason.find(':'));
    std::fprintf(stderr, "warning: %s was passed over, the run goes on from %s: %s\n", name.c_str(),
                 step_name(start.step).c_str(), reason.c_str());
  }
  for (int64_t step : store.steps()) {
    if (step > start.step) store.set_aside(step);
  }
}

}  // namespace

std::string newest_whole_step(const CheckpointStore& store, const Group& world, int64_t before_step) {
  std::optional<Checkpoint> candidate;   // rank 0's, as are the reasons
  std::vector<std::string> reasons;
  std::optional<int64_t> below;
  if (before_step > 0) {
    below = before_step;
    reasons.push_back(fmt::format("{}: what followed failed the same way twice", step_name(before_step)));
  }
  while (true) {
    std::string folder = on_first_rank(world, "checkpoint to start from", [&] {
      candidate = store.recover(below, reasons);
      return candidate ? candidate->folder : "";
    });
    std::string damage = folder.empty() ? "" : damage_of(folder, world);
    if (damage.empty()) {
      on_first_rank(world, "checkpoints passed over", [&] {
        if (candidate) pass_over(store, *candidate);
        return std::string();
      });
      return folder;
    }
    if (!candidate) continue;
    below = candidate->step;
    reasons = candidate->passed_over;
    reasons.push_back(fmt::format("{}: {}", step_name(candidate->step), damage));
  }
}

}  // namespace echelon
