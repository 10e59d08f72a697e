#include "runtime/store/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/text.h"
#include "runtime/store/chart.h"
#include "runtime/store/metrics_file.h"

namespace echelon {

namespace {

using Points = std::vector<std::pair<double, double>>;

constexpr size_t most_points = 600;
constexpr const char* parts_of_a_step[] = {"compute", "communication", "optimizer", "data", "other"};

constexpr char style[] = R"css(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#667385;--line:#e4e8ee;
--c0:#2f6fde;--c1:#e0762f;--c2:#2f9e63;--c3:#8a5cd6;--c4:#9aa5b4}
@media(prefers-color-scheme:dark){:root{--page:#0f141a;--card:#171e27;--ink:#e6ebf2;--soft:#93a1b3;
--line:#27313d;
--c0:#6ba1ff;--c1:#f39a5b;--c2:#5ac78d;--c3:#b392f0;--c4:#6b7787}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 20px 60px}h1{font-size:26px;margin:0 0 2px}h2{font-size:17px;
margin:34px 0 12px}
p.sub{color:var(--soft);margin:0 0 22px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:12px;margin-bottom:18px}
.tile,figure,table,details{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 16px}.tile b{display:block;font-size:22px;font-weight:650;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:14px}
figure{margin:0;padding:14px 16px 8px}figure.wide{grid-column:1/-1}figcaption{font-weight:600;margin-bottom:4px}
figcaption small{color:var(--soft);font-weight:400}svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line);stroke-width:1}.tick{fill:var(--soft);font-size:11px}
.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}.faint{opacity:.33}.area{opacity:.85}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}
.curve{stroke:var(--c)}.area,.dot{fill:var(--c)}.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;
color:var(--soft)}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px;background:var(--c);
vertical-align:-1px}
table{border-collapse:separate;border-spacing:0;width:100%;overflow:hidden}td,th{padding:7px 16px;
text-align:left;
border-top:1px solid var(--line)}tr:first-child>*{border-top:0}th{color:var(--soft);font-weight:500}
td.n{text-align:right;
font-variant-numeric:tabular-nums}.two{display:grid;
grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:14px;
align-items:start}details{padding:10px 16px}summary{cursor:pointer;font-weight:600}pre{overflow:auto;
font-size:13px}
)css";

double number_or_nan(const Json& object, const std::string& key) {
  auto found = object.is_object() ? object.find(key) : object.end();
  bool is_there = object.is_object() && found != object.end() && found->is_number();
  return is_there ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// What metrics.jsonl tells, as curves over steps.
struct Curves {
  std::map<std::string, Points> steps;  ///< by field
  std::map<std::string, Points> parts;  ///< of a step's seconds
  std::map<std::string, Points> evals;  ///< by metric
  double pause_seconds = 0;             ///< evaluations and saves

  static Curves read(const std::string& metrics_path) {
    Curves curves;
    for (const Json& line : read_metrics(metrics_path))
      line.contains("eval") ? curves.add_eval(line) : curves.add_step(line);
    return curves;
  }

  void add_eval(const Json& line) {
    double step = number_or_nan(line, "step"), seconds = number_or_nan(line, "seconds");
    if (std::isfinite(seconds)) pause_seconds += seconds;
    for (const auto& [name, value] : line["eval"].items()) {
      if (value.is_number()) evals[name].emplace_back(step, value.get<double>());
    }
  }

  void add_step(const Json& line) {
    double step = number_or_nan(line, "step");
    for (const char* field : {"loss", "learning_rate", "grad_norm", "tokens_per_second", "step_seconds", "tokens"}) {
      steps[field].emplace_back(step, number_or_nan(line, field));
    }
    double saving = number_or_nan(line, "checkpoint_seconds");
    if (std::isfinite(saving)) pause_seconds += saving;
    auto seconds = line.find("seconds");
    for (const char* part : parts_of_a_step) {
      double value = seconds == line.end() ? 0 : number_or_nan(*seconds, part);
      parts[part].emplace_back(step, std::isfinite(value) ? value : 0);
    }
  }
};

double last_finite(const Points& points) {
  auto found =
      std::find_if(points.rbegin(), points.rend(), [](const auto& point) { return std::isfinite(point.second); });
  return found == points.rend() ? std::numeric_limits<double>::quiet_NaN() : found->second;
}

double finite_sum(const Points& points) {
  double sum = 0;
  for (const auto& point : points) sum += std::isfinite(point.second) ? point.second : 0;
  return sum;
}

double median(const Points& points) {
  std::vector<double> values;
  for (const auto& point : points) {
    if (std::isfinite(point.second)) values.push_back(point.second);
  }
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

double lowest(const Points& points) {
  double low = std::numeric_limits<double>::infinity();
  for (const auto& point : points) low = std::isfinite(point.second) ? std::min(low, point.second) : low;
  return low;
}

/// Exponential average over about a fiftieth of the run, over less at its begin so that it follows the first fall.
Points smooth(const Points& points) {
  double most = std::max(2.0, points.size() / 50.0), average = std::numeric_limits<double>::quiet_NaN(), seen = 0;
  Points out;
  for (const auto& [x, y] : points) {
    if (std::isfinite(y)) {
      double share = 1 / std::min(most, 1 + ++seen / 8);
      average = seen == 1 ? y : (1 - share) * average + share * y;
    }
    out.emplace_back(x, average);
  }
  return out;
}

std::string tile(const std::string& value, const std::string& name) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>", html_text(value), html_text(name));
}

std::string tiles(const Curves& curves) {
  auto curve = [&](const std::string& name) -> const Points& {
    static const Points none;
    auto found = curves.steps.find(name);
    return found == curves.steps.end() ? none : found->second;
  };
  std::string html;
  auto add = [&](double value, const std::string& text, const std::string& name) {
    if (std::isfinite(value)) html += tile(text, name);
  };
  const Points& losses = curve("loss");
  html += tile(losses.empty() ? "0" : fmt::format("{:.0f}", losses.back().first), "steps");
  double loss = last_finite(losses.empty() ? losses : smooth(losses));
  add(loss, fmt::format("{:.4f}", loss), "training loss, smoothed");
  if (auto eval = curves.evals.find("loss"); eval != curves.evals.end()) {
    double best = lowest(eval->second);
    add(best, fmt::format("{:.4f}", best), "best evaluation loss");
    add(best, fmt::format("{:.4g}", std::exp(best)), "best perplexity");
  }
  double rate = median(curve("tokens_per_second")), seconds = median(curve("step_seconds"));
  add(rate, human_count(rate), "tokens per second, median");
  add(seconds, human_seconds(seconds), "step, median");
  html += tile(human_count(finite_sum(curve("tokens"))), "tokens seen");
  html += tile(human_seconds(finite_sum(curve("step_seconds")) + curves.pause_seconds),
               "time, evaluations and saves included");
  return "<div class=\"tiles\">" + html + "</div>\n";
}

Chart loss_chart(const Curves& curves) {
  Chart chart{.title = "Loss", .unit = "mean over targets"};
  const Points& raw = curves.steps.at("loss");
  chart.series.push_back({"training, smoothed", average_out(smooth(raw), most_points)});
  chart.series.push_back({"training", thin_out(raw, most_points), Series::Look::faint});
  if (auto eval = curves.evals.find("loss"); eval != curves.evals.end()) {
    chart.series.push_back({"evaluation", eval->second, Series::Look::dots});
  }
  return chart;
}

std::string charts(const Curves& curves) {
  if (curves.steps.empty()) return "<p>No step is recorded.</p>";
  auto simple = [&](const char* title, const char* unit, const char* field, bool from_zero) {
    return draw_chart({title, unit, {{title, thin_out(curves.steps.at(field), most_points)}}, false, from_zero});
  };
  std::string html = draw_chart(loss_chart(curves));
  html += simple("Learning rate", "", "learning_rate", true);
  html += simple("Gradient norm", "before clipping", "grad_norm", true);
  html += simple("Tokens per second", "all ranks", "tokens_per_second", true);
  Chart stack{.title = "Where a step's time goes", .unit = "seconds", .stacked = true, .wide = curves.evals.size() < 2};
  for (const char* part : parts_of_a_step)
    stack.series.push_back({part, average_out(curves.parts.at(part), most_points / 3)});
  html += draw_chart(stack);
  for (const auto& [name, points] : curves.evals) {
    if (name != "loss") html += draw_chart({"Evaluation: " + name, "", {{name, points}}});
  }
  return "<div class=\"charts\">" + html + "</div>\n";
}

std::string time_table(const Curves& curves) {
  double total = 0;
  for (const auto& [part, points] : curves.parts) total += finite_sum(points);
  if (total <= 0) return "";
  std::string rows;
  for (const char* part : parts_of_a_step) {
    double seconds = finite_sum(curves.parts.at(part));
    rows += fmt::format("<tr><th>{}</th><td class=\"n\">{}</td><td class=\"n\">{:.1f} %</td></tr>", part,
                        human_seconds(seconds), 100 * seconds / total);
  }
  rows +=
      fmt::format("<tr><th>evaluations and saves</th><td class=\"n\">{}</td><td class=\"n\">beside the steps</td></tr>",
                  human_seconds(curves.pause_seconds));
  return "<div><h2>Time</h2><table>" + rows + "</table></div>";
}

std::string fact_table(const ReportText& text) {
  std::string rows;
  for (const auto& [name, value] : text.facts) {
    rows += fmt::format("<tr><th>{}</th><td>{}</td></tr>", html_text(name), html_text(value));
  }
  return rows.empty() ? "" : "<div><h2>Run</h2><table>" + rows + "</table></div>";
}

}  // namespace

void write_report(const std::string& metrics_path, const std::string& html_path, const ReportText& text) {
  Curves curves = Curves::read(metrics_path);
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<title>{}</title><style>{}</style></head><body><main>\n",
      html_text(text.title), style);
  html += fmt::format("<h1>{}</h1><p class=\"sub\">Training report by Echelon</p>\n", html_text(text.title));
  html += tiles(curves) + charts(curves);
  html += "<div class=\"two\">" + time_table(curves) + fact_table(text) + "</div>\n";
  if (!text.recipe.empty()) {
    html += fmt::format("<h2>Recipe</h2><details><summary>as it was run</summary><pre>{}</pre></details>\n",
                        html_text(text.recipe));
  }
  write_file_atomically(html_path, html + "</main></body></html>\n");
}

}  // namespace echelon
