#include "runtime/store/report.h"

#include <algorithm>
#include <cmath>

#include "runtime/store/chart.h"
#include "runtime/store/metrics_file.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

void write_metrics(const std::string& path, int steps) {
  MetricsFile metrics = MetricsFile::open(path, 0);
  for (int step = 1; step <= steps; ++step) {
    double loss = 3 + 5 * std::exp(-step / 60.0);
    metrics.append(
        {{"step", step},
         {"loss", loss},
         {"learning_rate", 1e-3},
         {"grad_norm", 0.5},
         {"tokens", 4096},
         {"step_seconds", 0.5},
         {"tokens_per_second", 8192.0},
         {"seconds",
          {{"compute", 0.3}, {"communication", 0.1}, {"optimizer", 0.05}, {"data", 0.01}, {"other", 0.04}}}});
    if (step % 50 == 0)
      metrics.append(
          {{"step", step}, {"eval", {{"loss", loss + 0.1}, {"perplexity", std::exp(loss + 0.1)}}}, {"seconds", 2.0}});
  }
}

class ReportTest : public testing::Test {
 protected:
  std::string report(int steps, const ReportText& text = {"run", {}, ""}) {
    write_metrics(folder_.at("metrics.jsonl"), steps);
    write_report(folder_.at("metrics.jsonl"), folder_.at("report.html"), text);
    return contents(folder_.at("report.html"));
  }
  TemporaryFolder folder_;
};

TEST_F(ReportTest, HasAllCurvesAndTheTimeTable) {
  std::string html = report(300);
  for (const char* part :
       {"Loss", "Learning rate", "Gradient norm", "Tokens per second", "Where a step&#39;s time goes",
        "Evaluation: perplexity", "best evaluation loss", "<td class=\"n\">60.0 %</td>", "evaluations and saves"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
}

TEST_F(ReportTest, NeedsNoNetwork) {
  std::string html = report(100);
  for (const char* part : {"http:", "https:", "src=", "href=", "url(", "@import"})
    EXPECT_EQ(html.find(part), std::string::npos) << part;
}

TEST_F(ReportTest, StaysSmallHoweverLongTheRun) { EXPECT_LT(report(20000).size(), 300'000u); }

TEST_F(ReportTest, OfOneStepOrNoneIsStillAPage) {
  EXPECT_NE(report(1).find("Loss"), std::string::npos);
  EXPECT_NE(report(0).find("No step is recorded"), std::string::npos);
}

TEST_F(ReportTest, ShowsForeignTextAsText) {
  std::string html = report(1, {"<script>", {{"corpus", "a & b"}}, "name: \"<x>\""});
  EXPECT_EQ(html.find("<script>"), std::string::npos);
  EXPECT_NE(html.find("a &amp; b"), std::string::npos);
  EXPECT_NE(html.find("&lt;x&gt;"), std::string::npos);
}

TEST(Chart, BreaksTheLineWhereAValueIsNotFinite) {
  std::string svg = draw_chart({"x", "", {{"x", {{1, 1}, {2, NAN}, {3, 2}}}}});
  size_t path = svg.find(" d=\"");
  std::string line = svg.substr(path, svg.find('"', path + 4) - path);
  EXPECT_EQ(std::count(line.begin(), line.end(), 'M'), 2);
}

TEST(Chart, WithoutAFinitePointIsNotDrawn) { EXPECT_EQ(draw_chart({"x", "", {{"x", {{1, NAN}}}}}), ""); }

TEST(ThinOut, AndAverageOutPassOverWhatIsNotFinite) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 1000; ++i) points.emplace_back(i, i % 10 == 0 || i >= 900 ? NAN : i == 437 ? 50 : 1);
  double highest = 0;
  int breaks = 0;
  for (const auto& [x, y] : thin_out(points, 100)) {
    highest = std::fmax(highest, y);
    breaks += std::isnan(y);
  }
  EXPECT_EQ(highest, 50);
  EXPECT_EQ(breaks, 5);  // the stretches of 20 behind point 900
  auto averages = average_out(points, 100);
  EXPECT_TRUE(std::all_of(averages.begin(), averages.begin() + 43, [](const auto& p) { return p.second == 1; }));
  EXPECT_TRUE(std::isnan(averages.back().second));
}

TEST(ThinOut, KeepsASpike) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 10000; ++i) points.emplace_back(i, i == 4321 ? 100 : 1);
  auto thin = thin_out(points, 100);
  EXPECT_LE(thin.size(), 102u);
  EXPECT_NE(std::find(thin.begin(), thin.end(), std::pair<double, double>(4321, 100)), thin.end());
  EXPECT_TRUE(std::is_sorted(thin.begin(), thin.end()));
}

}  // namespace
}  // namespace echelon
