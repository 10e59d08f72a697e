// A profile of one step: what it shows, and that the step does not notice.
#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "runtime/profile.h"
#include "runtime/run.h"
#include "runtime/trainer.h"
#include "tests/runtime/corpus.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/test_session.h"

namespace echelon::testing {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::StartsWith;

const Group& world() { return session().world(); }

Recipe recipe() {
  return tiny_recipe("base/tiny_decoder_clm", {"precision=FP32", "steps=3", "checkpoint.background=false"});
}

/// A folder that all ranks share.
std::string shared_folder(const std::string& name) {
  std::string folder = temporary_folder() + "/" + name;
  if (world().rank() == 0) make_folders(folder);
  world().barrier({.name = "folder"});
  return folder;
}

std::string file_in(const std::string& folder) {
  return join_path(folder, fmt::format("rank-{:05}.json", world().rank()));
}

struct Span {
  std::string category, name;
  int64_t track;
  double start, end;
};

std::vector<Span> spans_of(const std::string& path) {
  std::vector<Span> spans;
  Json trace = parse_json(read_file(path, Error::Kind::input, 64 << 20), path);
  for (const Json& event : trace.at("traceEvents")) {
    EXPECT_EQ(event.at("pid"), world().rank());
    if (event.at("ph") != "X") continue;
    double start = event.at("ts"), seconds = event.at("dur");
    spans.push_back({event.at("cat"), event.at("name"), event.at("tid"), start, start + seconds});
  }
  return spans;
}

std::vector<std::string> names_of(const std::vector<Span>& spans, const std::string& category) {
  std::vector<std::string> names;
  for (const Span& span : spans) {
    if (span.category == category) names.push_back(span.name);
  }
  return names;
}

struct Step {
  Step() : mesh(world(), {}), trainer(recipe(), mesh) {}
  void operator()() { report = trainer.step(1); }
  Mesh mesh;
  Trainer trainer;
  Report report;
};

std::vector<Span> spans_of_a_step() {
  std::string path = file_in(shared_folder("step"));
  Step step;
  record_profile(world(), path, [&] { step(); });
  return spans_of(path);
}

TEST(Profile, ShowsPhasesUnitsKernelsAndOperators) {
  std::vector<Span> spans = spans_of_a_step();
  EXPECT_THAT(names_of(spans, "phase"),
              IsSupersetOf({"input", "compute", "forward", "backward", "update", "norm", "optimizer"}));
  EXPECT_THAT(names_of(spans, "unit"), IsSupersetOf({"layers.0 forward", "layers.0 backward"}));
  EXPECT_THAT(names_of(spans, "kernel"), IsSupersetOf({"attention forward", "attention backward", "cross-entropy"}));
  EXPECT_THAT(names_of(spans, "operator"), Contains(StartsWith("aten::")));
}

TEST(Profile, ShowsCollectivesWithPurposeAndBytes) {
  std::vector<std::string> names = names_of(spans_of_a_step(), "collective");
  if (world().size() == 1) {
    EXPECT_THAT(names, IsEmpty());  // a group of one returns at once
    return;
  }
  EXPECT_THAT(names, Contains(StartsWith("all_reduce \"losses and norm\" in group world, control, ")));
  EXPECT_THAT(names, Contains(StartsWith("reduce_scatter \"layers.0\" in group dp, gradients, ")));
  EXPECT_THAT(names, Not(Contains(StartsWith("all_reduce \"losses and norm\" in group world, control, 0 bytes"))));
}

std::map<std::string, int64_t> counts_of(const std::vector<std::string>& names) {
  std::map<std::string, int64_t> counts;
  for (const std::string& name : names) ++counts[name.substr(0, name.find(" \""))];
  return counts;
}

TEST(Profile, CountsNoMoreKernelsAndCollectivesThanAStepNeeds) {
  constexpr int64_t kLayers = 2, kUnits = kLayers + 2;
  int64_t micro_steps = 12 / world().size();
  std::vector<Span> spans = spans_of_a_step();
  std::map<std::string, int64_t> kernels{{"attention forward", kLayers * micro_steps},
                                         {"attention backward", kLayers * micro_steps},
                                         {"activation forward", kLayers * micro_steps},
                                         {"activation backward", kLayers * micro_steps},
                                         {"norm forward", (2 * kLayers + 1) * micro_steps},
                                         {"norm backward", (2 * kLayers + 1) * micro_steps},
                                         {"rows of a lookup", 2 * micro_steps},
                                         {"cross-entropy", micro_steps}};
  EXPECT_EQ(counts_of(names_of(spans, "kernel")), kernels);
  if (world().size() == 1) return;
  // Of a step: targets, losses with the norm, the fence behind the update, and what is reported.
  std::map<std::string, int64_t> collectives{{"in shared memory", 2 * kUnits * micro_steps},
                                             {"reduce_scatter", kUnits * micro_steps},
                                             {"all_reduce", 4},
                                             {"barrier", 1}};
  EXPECT_EQ(counts_of(names_of(spans, "collective")), collectives);
}

TEST(Profile, SpansOfATrackNest) {
  std::map<int64_t, std::vector<Span>> tracks;
  for (const Span& span : spans_of_a_step()) tracks[span.track].push_back(span);
  EXPECT_GE(tracks.size(), 3);
  for (auto& [track, spans] : tracks) {
    std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
      return a.start != b.start ? a.start < b.start : a.end > b.end;
    });
    std::vector<Span> open;
    for (const Span& span : spans) {
      EXPECT_GE(span.start, 0);
      while (!open.empty() && open.back().end <= span.start) open.pop_back();
      if (!open.empty()) {
        EXPECT_LE(span.end, open.back().end + 1e-3) << span.name << " leaves " << open.back().name;
      }
      open.push_back(span);
    }
  }
}

TEST(Profile, LeavesTheBitsOfTheStepAsTheyAre) {
  Step plain, profiled;
  plain();
  record_profile(world(), file_in(shared_folder("bits")), [&] { profiled(); });
  EXPECT_EQ(profiled.report.loss, plain.report.loss);
  EXPECT_EQ(profiled.report.gradient_norm, plain.report.gradient_norm);
  EXPECT_EQ(profiled.report.bytes_sent, plain.report.bytes_sent);
  for (size_t i = 0; i < plain.trainer.owned().size(); ++i) {
    EXPECT_TRUE(at::equal(profiled.trainer.owned()[i].shard->master(), plain.trainer.owned()[i].shard->master()));
  }
}

TEST(Profile, OfARunIsInItsFolderAndOfOneStepOnly) {
  std::string folder = shared_folder("run");
  Mesh mesh(world(), {});
  ASSERT_EQ(run_training(recipe(), mesh, {.folder = folder, .profile_step = 2}), 0);
  std::vector<std::string> inputs = names_of(spans_of(file_in(folder + "/profile")), "phase");
  EXPECT_EQ(std::count(inputs.begin(), inputs.end(), "input"), 1);
}

TEST(Profile, OfAStepThatIsDoneIsNotTaken) {
  std::string folder = shared_folder("done");
  Mesh mesh(world(), {});
  ASSERT_EQ(run_training(recipe(), mesh, {.folder = folder}), 0);
  ASSERT_EQ(run_training(recipe(), mesh, {.folder = folder, .profile_step = 2}), 0);
  EXPECT_FALSE(exists(folder + "/profile"));
}

}  // namespace
}  // namespace echelon::testing
