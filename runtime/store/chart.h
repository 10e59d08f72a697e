// Line charts as SVG text, coloured by the page's style sheet.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace echelon {

struct Series {
  enum class Look { line, faint, dots };
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< x rising; a y that is not finite breaks the line
  Look look = Look::line;
};

struct Chart {
  std::string title;
  std::string unit;  ///< of y, shown behind the title
  std::vector<Series> series;
  bool stacked = false;    ///< series are parts of a whole, at the same x, drawn on top of each other
  bool from_zero = false;  ///< y begins at 0
  bool wide = false;       ///< takes the whole width of the page
};

/// A <figure> with title, legend and curves. "" when no series has a finite point.
std::string draw_chart(const Chart& chart);

/// `text` with &, <, > and quotes written so that a page shows them.
std::string html_text(const std::string& text);

/// At most about `most` points. Each stretch keeps its lowest and its highest, so that a spike stays visible;
/// without a finite one it stays a break.
std::vector<std::pair<double, double>> thin_out(const std::vector<std::pair<double, double>>& points, size_t most);

/// Averages of what is finite in equal stretches, at most `most` of them.
std::vector<std::pair<double, double>> average_out(const std::vector<std::pair<double, double>>& points, size_t most);

}  // namespace echelon
