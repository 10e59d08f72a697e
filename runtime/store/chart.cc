#include "runtime/store/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "cluster/base/text.h"

namespace echelon {

namespace {

using Points = std::vector<std::pair<double, double>>;

constexpr double width = 640, height = 250, left = 58, right = 14, top = 10, bottom = 26;

/// 1, 2 or 5 times a power of ten, so that about `count` ticks fit into `span`.
double tick_step(double span, int count) {
  double rough = span / count, power = std::pow(10, std::floor(std::log10(rough)));
  double lead = rough / power;
  return (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10) * power;
}

std::string tick_text(double value, double step) {
  if (std::abs(value) < step / 1e6) return "0";
  return std::abs(value) >= 10000 ? human_count(value) : fmt::format("{:.6g}", value);
}

struct Axes {
  double x_min = std::numeric_limits<double>::infinity(), x_max = -x_min, y_min = x_min, y_max = -x_min;

  void hold(double x, double y) {
    x_min = std::min(x_min, x);
    x_max = std::max(x_max, x);
    y_min = std::min(y_min, y);
    y_max = std::max(y_max, y);
  }
  void pad(bool from_zero) {
    if (from_zero) y_min = std::min(y_min, 0.0);
    double span = y_max - y_min;
    double room = span > 0 ? 0.06 * span : std::max(std::abs(y_max) * 0.1, 1e-12);
    y_max += room;
    if (!from_zero) y_min -= room;
    if (x_max == x_min) x_max = x_min + 1;
  }
  double x(double value) const { return left + (value - x_min) / (x_max - x_min) * (width - left - right); }
  double y(double value) const { return height - bottom - (value - y_min) / (y_max - y_min) * (height - top - bottom); }
};

std::string grid(const Axes& axes) {
  std::string svg;
  double step = tick_step(axes.y_max - axes.y_min, 5);
  for (double value = std::ceil(axes.y_min / step) * step; value <= axes.y_max; value += step) {
    double y = axes.y(value);
    svg += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", left, width - right, y,
                       y);
    svg += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", left - 7, y + 3.5,
                       tick_text(value, step));
  }
  step = std::max(1.0, tick_step(axes.x_max - axes.x_min, 7));
  for (double value = std::ceil(axes.x_min / step) * step; value <= axes.x_max; value += step) {
    svg += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>", axes.x(value),
                       height - 8, tick_text(value, step));
  }
  return svg;
}

std::string line_path(const Points& points, const Axes& axes) {
  std::string path;
  bool is_drawing = false;
  for (const auto& [x, y] : points) {
    bool is_finite = std::isfinite(y);
    if (is_finite) path += fmt::format("{}{:.1f} {:.1f}", is_drawing ? "L" : "M", axes.x(x), axes.y(y));
    is_drawing = is_finite;
  }
  return path;
}

std::string draw_dots(const Points& points, const Axes& axes, size_t colour, const std::string& name) {
  std::string svg;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(y)) continue;
    svg += fmt::format(
        "<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.2\"><title>{} {:.5g} at step "
        "{:.0f}</title></circle>",
        colour, axes.x(x), axes.y(y), html_text(name), y, x);
  }
  return svg;
}

std::string draw_series(const Series& series, const Axes& axes, size_t colour) {
  std::string svg;
  if (series.look != Series::Look::dots) {
    svg = fmt::format("<path class=\"curve{} c{}\" d=\"{}\"/>", series.look == Series::Look::faint ? " faint" : "",
                      colour, line_path(series.points, axes));
  }
  // One point alone draws no line.
  bool has_dots = series.look == Series::Look::dots || series.points.size() == 1;
  return has_dots ? svg + draw_dots(series.points, axes, colour, series.name) : svg;
}

std::string draw_lines(const Chart& chart) {
  Axes axes;
  for (const Series& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (std::isfinite(y)) axes.hold(x, y);
    }
  }
  if (!std::isfinite(axes.x_min)) return "";
  axes.pad(chart.from_zero);
  std::string faint, clear;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    bool is_faint = chart.series[i].look == Series::Look::faint;
    (is_faint ? faint : clear) += draw_series(chart.series[i], axes, i);
  }
  return grid(axes) + faint + clear;
}

std::string area_path(const Points& lower, const Points& upper, const Axes& axes) {
  std::string path = line_path(upper, axes);
  for (auto point = lower.rbegin(); point != lower.rend(); ++point) {
    path += fmt::format("L{:.1f} {:.1f}", axes.x(point->first), axes.y(point->second));
  }
  return path + "Z";
}

std::string draw_stack(const Chart& chart) {
  std::vector<Points> edges(1);
  for (const auto& point : chart.series.front().points) edges[0].emplace_back(point.first, 0);
  Axes axes;
  for (const Series& series : chart.series) {
    Points upper = edges.back();
    for (size_t i = 0; i < std::min(upper.size(), series.points.size()); ++i) {
      double part = series.points[i].second;
      upper[i].second += std::isfinite(part) ? std::max(part, 0.0) : 0;
      axes.hold(upper[i].first, upper[i].second);
    }
    edges.push_back(std::move(upper));
  }
  if (!std::isfinite(axes.x_min)) return "";
  axes.pad(true);
  std::string svg;
  for (size_t i = 0; i + 1 < edges.size(); ++i) {
    svg += fmt::format("<path class=\"area c{}\" d=\"{}\"/>", i, area_path(edges[i], edges[i + 1], axes));
  }
  return grid(axes) + svg;
}

std::string legend(const Chart& chart) {
  if (chart.series.size() < 2) return "";
  std::string html = "<div class=\"legend\">";
  for (size_t i = 0; i < chart.series.size(); ++i) {
    html += fmt::format("<span><i class=\"c{}{}\"></i>{}</span>", i,
                        chart.series[i].look == Series::Look::faint ? " faint" : "", html_text(chart.series[i].name));
  }
  return html + "</div>";
}

}  // namespace

std::string html_text(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

namespace {

Points finite_points(const Points& points, size_t begin, size_t end) {
  Points finite;
  for (size_t i = begin; i < std::min(end, points.size()); ++i) {
    if (std::isfinite(points[i].second)) finite.push_back(points[i]);
  }
  return finite;
}

}  // namespace

Points thin_out(const Points& points, size_t most) {
  if (points.size() <= most) return points;
  size_t stretch = (2 * points.size() + most - 1) / most;
  Points thin;
  for (size_t begin = 0; begin < points.size(); begin += stretch) {
    Points finite = finite_points(points, begin, begin + stretch);
    if (finite.empty()) {
      thin.push_back(points[begin]);  // the line breaks
      continue;
    }
    auto [low, high] = std::minmax_element(finite.begin(), finite.end(),
                                           [](const auto& a, const auto& b) { return a.second < b.second; });
    thin.push_back(std::min(low, high)[0]);
    if (low != high) thin.push_back(std::max(low, high)[0]);
  }
  return thin;
}

Points average_out(const Points& points, size_t most) {
  if (points.size() <= most) return points;
  size_t stretch = (points.size() + most - 1) / most;
  Points thin;
  for (size_t begin = 0; begin < points.size(); begin += stretch) {
    size_t end = std::min(begin + stretch, points.size());
    Points finite = finite_points(points, begin, end);
    double sum = 0;
    for (const auto& point : finite) sum += point.second;
    thin.emplace_back(points[(begin + end) / 2].first, sum / static_cast<double>(finite.size()));  // of none: NaN
  }
  return thin;
}

std::string draw_chart(const Chart& chart) {
  if (chart.series.empty()) return "";
  std::string curves = chart.stacked ? draw_stack(chart) : draw_lines(chart);
  if (curves.empty()) return "";
  std::string unit = chart.unit.empty() ? "" : fmt::format(" <small>{}</small>", html_text(chart.unit));
  return fmt::format(
      "<figure{}><figcaption>{}{}</figcaption>{}<svg viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">{}</svg></figure>\n",
      chart.wide ? " class=\"wide\"" : "", html_text(chart.title), unit, legend(chart), width, height,
      html_text(chart.title), curves);
}

}  // namespace echelon
