#include "runtime/checkpoint/save.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/files.h"
#include "comm/agree.h"
#include "comm/together.h"
#include "runtime/checkpoint/exchange_state.h"
#include "runtime/checkpoint/names.h"
#include "runtime/recipe/text.h"

namespace echelon {

namespace {

/// A quantity that is kept for every tensor: masters (prefix "") and the optimizer's state.
struct Quantity {
  std::string prefix;
  std::function<at::Tensor(Owned&)> owned;
};

/// Copies of masters and optimizer state that differ.
int copies_of(Trainer& trainer) { return trainer.zero().exchange->synchronous() ? 1 : trainer.mesh().replicas(); }

/// Those that this rank's replica saves.
std::vector<Quantity> quantities(Trainer& trainer) {
  int replica = trainer.mesh().replica();
  if (replica >= copies_of(trainer)) return {};
  std::string before = replica_prefix(replica);
  std::vector<Quantity> all{{before, [](Owned& owned) { return owned.shard->master(); }}};
  for (const std::string& name : trainer.optimizer().state_names()) {
    all.push_back({before + state_prefix(name), [name](Owned& owned) { return owned.state.at(name); }});
  }
  if (replica > 0 || trainer.owned().empty()) return all;
  Exchange& exchange = *trainer.zero().exchange;
  for (const auto& [name, _] : exchange.owned_state(*trainer.owned().front().shard)) {
    all.push_back({exchange_prefix(name), [&exchange, name = name](Owned& owned) { return exchange.owned_state(*owned.shard).at(name); }});
  }
  return all;
}

/// This rank's file: which rows of which tensors.
struct Plan {
  std::vector<TensorEntry> tensors;
  Json offsets = Json::object();
  int64_t bytes = 0;
};

Plan plan(Trainer& trainer, const std::vector<Quantity>& all) {
  Plan plan;
  bool wide = trainer.zero().options.master == at::kDouble;
  auto add = [&](const std::string& name, const Slice& slice) {
    plan.tensors.push_back({name, wide ? DType::F64 : DType::F32, slice.sizes, 0, 0});
    plan.offsets[name] = {{"saved_offsets", slice.offsets}};
    plan.bytes += slice.elements() * (wide ? 8 : 4);
  };
  for (const Owned& owned : trainer.owned()) {
    for (const FlatShard::Rows& rows : owned.shard->rows_to_save()) {
      for (const Quantity& quantity : all) add(quantity.prefix + rows.parameter->name(), rows.slice);
    }
  }
  for (const KeptByExchange& kept : kept_by_exchange(trainer)) add(kept.name, kept.slice);
  return plan;
}

void write(SafetensorsWriter& writer, const std::string& name, const at::Tensor& value) {
  at::Tensor values = value.contiguous().cpu();
  writer.write(name, values.const_data_ptr(), values.nbytes());
}

void write_rows(Trainer& trainer, const std::vector<Quantity>& all, SafetensorsWriter* writer) {
  for (Owned& owned : trainer.owned()) {
    for (const Quantity& quantity : all) {
      at::Tensor whole = owned.shard->whole(quantity.owned(owned));
      if (!writer) continue;
      for (const FlatShard::Rows& rows : owned.shard->rows_to_save()) {
        write(*writer, quantity.prefix + rows.parameter->name(), rows.values(whole));
      }
    }
  }
  if (!writer) return;
  for (const KeptByExchange& kept : kept_by_exchange(trainer)) write(*writer, kept.name, kept.value);
}

std::string state_text(Trainer& trainer, int64_t step) {
  Json state{{"step", step},
             {"samples", step * trainer.recipe().batch().global()},
             {"optimizer_state", trainer.optimizer().state_names()},
             {"exchange", {{"ranks", trainer.mesh().world().size()}, {"tp", trainer.mesh().tp().size()}}},
             {"replicas", copies_of(trainer)},
             {"recipe", recipe_text(trainer.recipe())},
             {"config", trainer.source().config}};
  return dump_json(state, 2) + "\n";
}

std::string layout_text(const Trainer& trainer) {
  const Mesh& mesh = trainer.mesh();
  return fmt::format("ranks={} dp={} tp={} zero={}", mesh.world().size(), mesh.dp().size(), mesh.tp().size(),
                     trainer.recipe().sharding().zero());
}

/// Writes this rank's file, and rank 0 the state; the votes of this rank.
std::vector<FileRecord> write_files(Trainer& trainer, const std::string& folder, const Plan& plan,
                                    const std::vector<Quantity>& all, int64_t step) {
  const Group& world = trainer.mesh().world();
  std::string file = shard_name(world.rank(), world.size());
  std::map<std::string, std::string> metadata{
      {"format", "pt"}, {"DCP_VERSION", "1.0"}, {"DCP_SHARDING_INFO", dump_json(plan.offsets)}};
  std::optional<SafetensorsWriter> writer;
  // The gathers inside are collective: a rank that cannot write goes through them too, and fails afterwards.
  on_every_rank(world, "checkpoint files", [&] {
    writer.emplace(join_path(folder, file), plan.tensors, metadata, Error::Kind::storage);
  });
  std::optional<Error> failed;
  try {
    write_rows(trainer, all, &*writer);
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::storage) throw;
    failed = error;
  }
  std::vector<FileRecord> votes;
  on_every_rank(world, "checkpoint written", [&] {
    if (failed) throw *failed;
    writer->finish();
    std::string who = fmt::format("rank {}", world.rank());
    votes.push_back(hash_file(join_path(folder, file), who));
    if (world.rank() == 0) {
      write_file_atomically(join_path(folder, kStateFile), state_text(trainer, step));
      votes.push_back(hash_file(join_path(folder, kStateFile), who));
    }
    fsync_folder(folder);
  });
  return votes;
}

std::vector<FileRecord> gather_votes(const Group& world, const std::vector<FileRecord>& mine) {
  std::vector<FileRecord> all;
  for (int rank = 0; rank < world.size(); ++rank) {
    std::string text = agree_text(world, rank == world.rank() ? encode_records(mine) : "", rank, "checkpoint votes");
    for (const FileRecord& record : decode_records(text)) all.push_back(record);
  }
  return all;
}

}  // namespace

void save_checkpoint(Trainer& trainer, const CheckpointStore& store, int64_t step, int64_t keep) {
  const Group& world = trainer.mesh().world();
  std::vector<Quantity> all = quantities(trainer);
  Plan mine = plan(trainer, all);
  int64_t bytes = agree_sum(world, mine.bytes, "checkpoint bytes");
  std::string folder = on_first_rank(world, "checkpoint folder", [&] { return store.begin(step, bytes); });
  try {
    std::vector<FileRecord> votes = gather_votes(world, write_files(trainer, folder, mine, all, step));
    on_first_rank(world, "checkpoint commit", [&] {
      store.commit(folder, step, votes, layout_text(trainer));
      store.retire(keep);
      return std::string();
    });
  } catch (const Error& error) {
    if (world.rank() == 0 && error.kind() == Error::Kind::storage) store.abandon(folder);
    throw;
  }
}

}  // namespace echelon
