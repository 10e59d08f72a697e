#include "runtime/checkpoint/save.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cluster/base/log.h"
#include "comm/agree.h"
#include "comm/together.h"
#include "runtime/checkpoint/shard_files.h"

namespace echelon {

namespace {

std::vector<FileRecord> gather_votes(const Group& world, const std::vector<FileRecord>& mine) {
  std::vector<FileRecord> all;
  for (int rank = 0; rank < world.size(); ++rank) {
    std::string text = agree_text(world, rank == world.rank() ? encode_records(mine) : "", rank, "checkpoint votes");
    for (const FileRecord& record : decode_records(text)) all.push_back(record);
  }
  return all;
}

/// Writes straight from the trainer's memory. Collective inside: a rank that cannot write goes through all of it, and
/// its error is the future's.
std::future<std::vector<FileRecord>> write_values(Trainer& trainer, const std::string& folder, const ShardPlan& plan) {
  std::promise<std::vector<FileRecord>> votes;
  std::optional<Error> failed;
  auto unless_failed = [&](auto&& action) {
    try {
      if (!failed) action();
    } catch (const Error& error) {
      if (error.kind() != Error::Kind::storage) throw;
      failed = error;
    }
  };
  std::optional<ShardFiles> files;
  unless_failed([&] { files.emplace(folder, plan); });
  visit_planned(trainer, [&](const std::string& name, const at::Tensor& values, Lasts) {
    unless_failed([&] {
      at::Tensor here = values.contiguous().cpu();
      files->write(name, here.const_data_ptr(), here.nbytes());
    });
  });
  unless_failed([&] { votes.set_value(files->finish()); });
  if (failed) votes.set_exception(std::make_exception_ptr(*failed));
  return votes.get_future();
}

constexpr int kNice = 10;

bool is_ready(const auto& future) { return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

}  // namespace

CheckpointSaver::CheckpointSaver(Trainer& trainer, CheckpointStore store, int64_t keep)
    : trainer_(trainer), store_(std::move(store)), keep_(keep) {
  trainer_.before_update([this] { snapshot_.let_go(); });
}

CheckpointSaver::~CheckpointSaver() {
  given_up_ = true;
  trainer_.before_update({});
}

void CheckpointSaver::begin(const ShardPlan& plan, int64_t step) {
  EC_CHECK(!pending_, "the save of step {} is undecided", pending_->step);
  int64_t bytes = agree_sum(world(), plan.bytes, "checkpoint bytes");
  pending_ = {.step = step};
  try {
    pending_->folder = on_first_rank(world(), "checkpoint folder", [&] { return store_.begin(step, bytes); });
  } catch (const Error& error) {
    undo(error);
  }
}

void CheckpointSaver::prepare() {
  int64_t bytes = shard_plan(trainer_, 0).bytes;
  room_ = std::async(std::launch::async, [this, bytes] { snapshot_.reserve(bytes); });
}

void CheckpointSaver::save(int64_t step) {
  ShardPlan plan = shard_plan(trainer_, step);
  begin(plan, step);
  pending_->votes = write_values(trainer_, pending_->folder, plan);
  finish();
}

void CheckpointSaver::start(int64_t step) {
  ShardPlan plan = shard_plan(trainer_, step);
  on_every_rank(world(), "copy for a checkpoint", [&] {
    if (room_.valid()) room_.get();
    snapshot_.reserve(plan.bytes);
  });
  begin(plan, step);
  snapshot_.take(trainer_, std::move(plan));
  pending_->votes = std::async(std::launch::async, [this] { return write_snapshot(); });
}

std::vector<FileRecord> CheckpointSaver::write_snapshot() {
  // Training goes first: this thread takes what its threads leave of the processor.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  ShardFiles files(pending_->folder, snapshot_.plan());
  snapshot_.visit([&](const std::string& name, const std::byte* bytes, size_t size, size_t offset) {
    if (given_up_) throw Error::storage(pending_->folder, "the save was given up");
    files.write(name, bytes, size, offset);
  });
  return files.finish();
}

bool CheckpointSaver::busy() const {
  if (!pending_) return false;
  if (pending_->votes.valid()) return !is_ready(pending_->votes);
  return pending_->commit.valid() && !is_ready(pending_->commit);
}

std::optional<int64_t> CheckpointSaver::advance() {
  if (!pending_) return {};
  try {
    if (pending_->votes.valid()) {
      count_votes();
      return {};
    }
    on_first_rank(world(), "checkpoint commit", [&] {
      pending_->commit.get();
      return std::string();
    });
  } catch (const Error& error) {
    undo(error);
  }
  int64_t step = pending_->step;
  pending_.reset();
  return step;
}

std::optional<int64_t> CheckpointSaver::finish() {
  std::optional<int64_t> durable;
  while (pending_) durable = advance();
  return durable;
}

void CheckpointSaver::count_votes() {
  std::vector<FileRecord> mine;
  on_every_rank(world(), "checkpoint written", [&] { mine = pending_->votes.get(); });
  std::vector<FileRecord> all = gather_votes(world(), mine);
  if (world().rank() != 0) return;
  pending_->commit = std::async(std::launch::async, [this, all = std::move(all), layout = layout_text(trainer_)] {
    store_.commit(pending_->folder, pending_->step, all, layout);
    store_.retire(keep_);
  });
}

void CheckpointSaver::undo(const Error& error) {
  Pending failed = std::move(*pending_);
  pending_.reset();
  Error within = error;
  within.within(step_name(failed.step));
  if (error.kind() == Error::Kind::storage && world().rank() == 0 && !failed.folder.empty())
    store_.abandon(failed.folder);
  throw within;
}

void save_checkpoint(Trainer& trainer, const CheckpointStore& store, int64_t step, int64_t keep) {
  CheckpointSaver(trainer, store, keep).save(step);
}

}  // namespace echelon
