// Saves that are written while training goes on: what they hold, and what becomes of them when a rank cannot write.
#include <csignal>
#include <future>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "cluster/base/files.h"
#include "comm/agree.h"
#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/save.h"
#include "tests/runtime/corpus.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/test_session.h"

namespace echelon::testing {

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Group& world() { return session().world(); }

/// A trainer and a folder for its checkpoints.
struct SavedRun {
  explicit SavedRun(const std::string& name, std::vector<std::string> more = {}, int64_t keep = 3)
      : recipe(tiny_recipe("base/tiny_decoder_clm", more)),
        mesh(world(), {.tp = recipe.mesh().tp(), .replicas = recipe.mesh().replicas()}),
        trainer(recipe, mesh),
        folder(folder_of(name)),
        store(folder),
        saver(trainer, store, keep) {}

  static std::string folder_of(const std::string& name) {
    std::string folder = temporary_folder() + "/" + name;
    if (world().rank() == 0) make_folders(folder);
    world().barrier({.name = "folder"});
    return folder;
  }
  void take(int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; ++step) trainer.step(step);
  }
  /// Of every file of a committed step.
  std::vector<FileRecord> files(int64_t step) const { return open_checkpoint(store.folder(step)).manifest.files; }

  Recipe recipe;
  Mesh mesh;
  Trainer trainer;
  std::string folder;
  CheckpointStore store;
  CheckpointSaver saver;
};

std::vector<std::vector<std::string>> layouts() {
  std::vector<std::vector<std::string>> all{
      {"sharding.zero=0"}, {"sharding.zero=1"}, {"sharding.zero=3"}, {"sharding.zero=3", "precision=BF16"}};
  if (world().size() % 2 == 0) all.push_back({"sharding.zero=3", "mesh.tp=2"});
  return all;
}

TEST(CheckpointsOnRanks, WrittenWhileTrainingGoesOnHoldTheStepThatWasAsked) {
  for (size_t i = 0; i < layouts().size(); ++i) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(layouts()[i], " ")));
    SavedRun run(fmt::format("background-{}", i), layouts()[i]);
    CheckpointStore at_once(SavedRun::folder_of(fmt::format("at-once-{}", i)));
    run.take(1, 2);
    save_checkpoint(run.trainer, at_once, 2, 3);
    run.saver.start(2);
    run.take(3, 5);
    EXPECT_EQ(run.saver.finish(), 2);
    EXPECT_EQ(run.files(2), open_checkpoint(at_once.folder(2)).manifest.files);
  }
}

TEST(CheckpointsOnRanks, ASnapshotIsOfItsStepHoweverFarItWasReadBeforeTheUpdate) {
  SavedRun run("snapshot");
  run.take(1, 1);
  ShardPlan plan = shard_plan(run.trainer, 1);
  Snapshot snapshot;
  snapshot.reserve(plan.bytes);
  using Bytes = std::map<std::string, std::string>;
  auto read = [&](size_t pieces_before_update) {
    snapshot.take(run.trainer, plan);
    Bytes all;
    std::future<void> update;
    size_t pieces = 0;
    auto visit = [&](const std::string& name, const std::byte* bytes, size_t size, size_t) {
      if (pieces++ == pieces_before_update) {
        // Waits for us, who have this piece.
        update = std::async(std::launch::async, [&] {
          snapshot.let_go();
          for (Owned& owned : run.trainer.owned()) owned.shard->master().zero_();
        });
        EXPECT_EQ(update.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
      }
      all[name].append(reinterpret_cast<const char*>(bytes), size);
    };
    snapshot.visit(visit);
    return all;
  };
  std::vector<at::Tensor> masters;
  for (Owned& owned : run.trainer.owned()) masters.push_back(owned.shard->master().clone());
  Bytes undisturbed = read(1000);
  EXPECT_EQ(undisturbed.size(), plan.tensors.size());
  for (size_t pieces : {0, 1, 5}) {
    EXPECT_EQ(read(pieces), undisturbed) << pieces;
    for (size_t i = 0; i < masters.size(); ++i) run.trainer.owned()[i].shard->master().copy_(masters[i]);
  }
}

TEST(CheckpointsOnRanks, AreDecidedAtTheEndOfStepsWithoutWaiting) {
  SavedRun run("decided");
  run.take(1, 1);
  run.saver.start(1);
  EXPECT_THAT(run.store.steps(), IsEmpty());
  std::optional<int64_t> durable;
  for (int64_t step = 2; !durable; ++step) {
    run.take(step, step);
    if (!agree_any(world(), run.saver.busy(), "a checkpoint is being written")) durable = run.saver.advance();
  }
  EXPECT_EQ(durable, 1);
  EXPECT_THAT(run.store.steps(), ElementsAre(1));
  EXPECT_EQ(run.saver.advance(), std::nullopt);
}

TEST(CheckpointsOnRanks, UseTheirMemoryAgain) {
  SavedRun run("again", {}, 2);
  run.saver.prepare();
  for (int64_t step = 1; step <= 3; ++step) {
    run.take(step, step);
    run.saver.start(step);
    EXPECT_EQ(run.saver.finish(), step);
    world().barrier({.name = "looked"});
  }
  EXPECT_THAT(run.store.steps(), ElementsAre(2, 3));
  EXPECT_NE(run.files(2), run.files(3));
}

/// Files of this process end after some bytes.
class ShortFiles {
 public:
  explicit ShortFiles(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit shorter{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &shorter);
  }
  ~ShortFiles() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

void expect_storage_error(const std::string& step, const std::function<void()>& save) {
  try {
    save();
    FAIL() << "saved, though the last rank could not write";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::storage) << error.what();
    EXPECT_THAT(error.what(), ::testing::HasSubstr(step));
  }
}

TEST(CheckpointsOnRanks, ARankThatCannotWriteUndoesTheSaveOnAll) {
  SavedRun run("undone");
  run.take(1, 1);
  run.saver.save(1);
  {
    std::optional<ShortFiles> limit;
    if (world().rank() == world().size() - 1) limit.emplace(1000);
    run.take(2, 2);
    run.saver.start(2);
    expect_storage_error("step-00000002", [&] { run.saver.finish(); });
    expect_storage_error("step-00000003", [&] { run.saver.save(3); });
  }
  world().barrier({.name = "undone"});
  EXPECT_THAT(run.store.steps(), ElementsAre(1));
  EXPECT_THAT(find_damage(open_checkpoint(run.store.folder(1))), IsEmpty());
  EXPECT_THAT(list_folder(run.folder + "/inflight"), IsEmpty());
  run.saver.start(2);
  EXPECT_EQ(run.saver.finish(), 2);
}

TEST(CheckpointsOnRanks, ASaveThatIsGivenUpCommitsNothing) {
  std::string folder;
  {
    SavedRun run("given-up");
    folder = run.folder;
    run.take(1, 1);
    run.saver.start(1);
  }
  EXPECT_THAT(CheckpointStore(folder).steps(), IsEmpty());
}

}  // namespace

}  // namespace echelon::testing
