#include "runtime/store/metrics_file.h"

#include <fstream>
#include <limits>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

class MetricsFileTest : public testing::Test {
 protected:
  MetricsFile open(int64_t last_step) { return MetricsFile::open(path_, last_step); }
  void append_raw(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  std::vector<int64_t> steps() {
    std::vector<int64_t> found;
    for (const Json& line : read_metrics(path_)) found.push_back(line["step"]);
    return found;
  }
  TemporaryFolder folder_;
  std::string path_ = folder_.at("metrics.jsonl");
};

using Steps = std::vector<int64_t>;

TEST_F(MetricsFileTest, DoublesHaveSeventeenDigits) {
  open(0).append({{"step", 1}, {"loss", 0.1}, {"targets", 128}, {"rate", std::numeric_limits<double>::infinity()}});
  EXPECT_EQ(contents(path_), "{\"step\":1,\"loss\":0.10000000000000001,\"targets\":128,\"rate\":null}\n");
}

TEST_F(MetricsFileTest, AResumedRunDropsTheLinesBeyondItsCheckpoint) {
  {
    MetricsFile metrics = open(0);
    for (int step = 1; step <= 5; ++step) metrics.append({{"step", step}});
    metrics.append({{"step", 5}, {"eval", {{"loss", 1.5}}}});
  }
  open(3).append({{"step", 4}, {"again", true}});
  EXPECT_EQ(steps(), (Steps{1, 2, 3, 4}));
}

TEST_F(MetricsFileTest, AnEvaluationOfTheLastStepStays) {
  {
    MetricsFile metrics = open(0);
    metrics.append({{"step", 5}});
    metrics.append({{"step", 5}, {"eval", {{"loss", 1.5}}}});
    metrics.append({{"step", 6}});
  }
  open(5);
  EXPECT_EQ(steps(), (Steps{5, 5}));
}

TEST_F(MetricsFileTest, StepsLeftOutAreCountedUpToTheLastOneThatWasTaken) {
  MetricsFile metrics = open(0);
  EXPECT_EQ(skipped_at_end(path_), 0);
  for (int step = 1; step <= 6; ++step) {
    step == 2 || step > 3 ? metrics.append({{"step", step}, {"skipped", true}}) : metrics.append({{"step", step}});
    metrics.append({{"step", step}, {"eval", {{"loss", 1.5}}}});
  }
  EXPECT_EQ(skipped_at_end(path_), 3);
  open(4);
  EXPECT_EQ(skipped_at_end(path_), 1);
  open(3);
  EXPECT_EQ(skipped_at_end(path_), 0);
}

TEST_F(MetricsFileTest, ATornLastLineIsDropped) {
  open(0).append({{"step", 1}});
  for (const char* torn : {"{\"step\": 2, \"lo", "{\"step\": 2}", "\0\0\0", "{\"step\"\n"}) {
    append_raw(torn);
    EXPECT_EQ(steps(), Steps{1}) << torn;
    open(100);
    EXPECT_EQ(contents(path_), "{\"step\":1}\n") << torn;
  }
}

TEST_F(MetricsFileTest, ADamagedLineBeforeTheLastIsNamed) {
  open(0).append({{"step", 1}});
  append_raw("damage\n{\"step\": 3}\n");
  EXPECT_REFUSED(open(100), storage, "metrics.jsonl:2: not valid JSON");
}

TEST_F(MetricsFileTest, ANewRunStartsWithAnEmptyFile) {
  append_raw("{\"step\": 1}\n");
  open(0);
  EXPECT_EQ(contents(path_), "");
}

TEST_F(MetricsFileTest, ALineWithoutAStepIsABug) {
  EXPECT_REFUSED(open(0).append({{"loss", 1.0}}), internal, "no step");
}

TEST_F(MetricsFileTest, TakenStepsAreThoseThatWereNotLeftOut) {
  MetricsFile metrics = open(0);
  metrics.append({{"step", 1}, {"loss", 0.1}, {"grad_norm", 2.0}});
  metrics.append({{"step", 1}, {"eval", {{"loss", 1.5}}}});
  metrics.append({{"step", 2}, {"loss", nullptr}, {"grad_norm", 3.0}, {"skipped", true}});
  metrics.append({{"step", 3}, {"loss", 0.3}, {"grad_norm", 1.0}});
  std::vector<TakenStep> taken = taken_steps(path_);
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].step, 1);
  EXPECT_EQ(taken[0].loss, 0.1);
  EXPECT_EQ(taken[1].gradient_norm, 1.0);
}

}  // namespace
}  // namespace echelon
