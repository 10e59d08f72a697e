#include "runtime/store/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cluster/base/error.h"
#include "cluster/base/text.h"

namespace echelon {

namespace {

constexpr size_t window = 50, enough_for_time_left = 5, enough_for_z_score = 10;
constexpr double spike = 4;  ///< z-scores beyond this are shown
constexpr std::chrono::milliseconds redraw_interval(100);

double median_of(std::vector<double> values) {
  auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// "2.9e-4".
std::string short_exponent(double value) {
  std::string text = fmt::format("{:.1e}", value);
  size_t zero = text.find("e-0") != std::string::npos ? text.find("e-0") : text.find("e+0");
  return zero == std::string::npos ? text : text.erase(zero + 2, 1);
}

/// Ten columns, in eighths.
std::string bar(double done) {
  constexpr int columns = 10;
  constexpr const char* eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  int filled = static_cast<int>(std::clamp(done, 0.0, 1.0) * columns * 8);
  std::string text = "▕";
  for (int column = 0; column < columns; ++column) {
    int here = std::clamp(filled - column * 8, 0, 8);
    text += here == 8 ? "█" : eighths[here];
  }
  return text + "▏";
}

/// Columns of UTF-8 text: every character here is one column wide.
size_t width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

int columns_of(std::FILE* out) {
  winsize size = {};
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// Of `newest`, which has just been added unless it is not finite.
double z_score(double newest, const RecentValues& values) { return std::isfinite(newest) ? values.z_score() : 0; }

std::string z_text(double newest, const RecentValues& values) {
  double z = z_score(newest, values);
  return std::abs(z) < spike ? "" : fmt::format(" (z {:+.1f})", z);
}

}  // namespace

void RecentValues::add(double value) {
  values_.push_back(value);
  if (values_.size() > window) values_.pop_front();
}

double RecentValues::median() const { return median_of({values_.begin(), values_.end()}); }

double RecentValues::z_score() const {
  if (values_.size() <= enough_for_z_score) return 0;
  std::vector<double> before(values_.begin(), values_.end() - 1);
  double middle = median_of(before);
  for (double& value : before) value = std::abs(value - middle);
  double deviation = 1.4826 * median_of(before);  // Of a normal distribution, that is its standard deviation.
  double distance = values_.back() - middle;
  return deviation > 0 ? distance / deviation : 0;
}

Progress::Progress(int64_t last_step, ProgressOptions options) : last_step_(last_step), options_(std::move(options)) {}

Progress::~Progress() {
  if (line_is_up_) print("\n");
}

void Progress::step(const StepNumbers& numbers) {
  bool is_first = numbers_.step == 0;
  numbers_ = numbers;
  step_seconds_.add(numbers.step_seconds);
  // A number that is not finite is shown, and forgotten: averages go on without it.
  if (std::isfinite(numbers.loss)) {
    loss_ema_ = losses_.size() == 0 ? numbers.loss : 0.95 * loss_ema_ + 0.05 * numbers.loss;
    losses_.add(numbers.loss);
  }
  if (numbers.grad_norm && std::isfinite(*numbers.grad_norm)) grad_norms_.add(*numbers.grad_norm);
  bool is_last = numbers.step == last_step_;
  if (!options_.terminal) {
    bool is_due = is_first || is_last || numbers.step % std::max<int64_t>(options_.every, 1) == 0;
    if (is_due) print(plain_line() + "\n");
  } else if (is_first || is_last || std::chrono::steady_clock::now() - drawn_ >= redraw_interval) {
    draw();
  }
}

void Progress::say(const std::string& line) {
  if (line_is_up_) print("\r\033[K");
  print(printable(line) + "\n");
  if (line_is_up_) draw();
}

void Progress::pause(const std::string& what, double seconds, int64_t interval) {
  auto known = std::find_if(pauses_.begin(), pauses_.end(), [&](const Pause& pause) { return pause.what == what; });
  if (known == pauses_.end()) known = pauses_.insert(known, {what, 0, 1});
  known->seconds = seconds;
  known->interval = std::max<int64_t>(interval, 1);
}

std::optional<double> Progress::seconds_left() const {
  if (step_seconds_.size() < enough_for_time_left) return {};
  int64_t steps = std::max<int64_t>(last_step_ - numbers_.step, 0);
  double seconds = static_cast<double>(steps) * step_seconds_.median();
  for (const Pause& pause : pauses_) {
    seconds += static_cast<double>(last_step_ / pause.interval - numbers_.step / pause.interval) * pause.seconds;
  }
  return seconds;
}

double Progress::done() const { return last_step_ > 0 ? static_cast<double>(numbers_.step) / last_step_ : 1; }

std::vector<Progress::Part> Progress::live_parts() const {
  const StepNumbers& n = numbers_;
  std::vector<Part> parts;
  parts.push_back({fmt::format("step {}/{} {} {:.1f}%", n.step, last_step_, bar(done()), 100 * done()), 0});
  parts.push_back({fmt::format(" | loss {:.4f}{}", n.loss, z_text(n.loss, losses_)), 0});
  parts.push_back({fmt::format(" (ema {:.4f})", loss_ema_), 4});
  if (n.grad_norm)
    parts.push_back({fmt::format(" | gnorm {:.3g}{}", *n.grad_norm, z_text(*n.grad_norm, grad_norms_)), 5});
  parts.push_back({fmt::format(" | lr {}", short_exponent(n.learning_rate)), 3});
  parts.push_back({fmt::format(" | {} tok/s", human_count(n.tokens_per_second)), 1});
  if (options_.ranks > 1) {
    parts.push_back(
        {fmt::format(" ({}/{})", human_count(n.tokens_per_second / options_.ranks), options_.rank_word), 6});
  }
  if (n.mfu) parts.push_back({fmt::format(" | MFU {:.1f}%", 100 * *n.mfu), 7});
  if (n.memory_peak_bytes) {
    std::string total = n.memory_total_bytes ? " of " + human_bytes(*n.memory_total_bytes) : "";
    parts.push_back({fmt::format(" | mem {}{}", human_bytes(*n.memory_peak_bytes), total), 8});
  }
  if (n.step_seconds > 0) parts.push_back({fmt::format(" | data {:.1f}%", 100 * n.data_seconds / n.step_seconds), 9});
  if (std::optional<double> left = seconds_left()) parts.push_back({" | ETA " + human_seconds(*left), 2});
  return parts;
}

std::string Progress::live_line(int columns) const {
  std::vector<Part> parts = live_parts();
  size_t total = 0;
  for (const Part& part : parts) total += width(part.text);
  auto by_rank = [](const Part& a, const Part& b) { return a.rank < b.rank; };
  while (total > static_cast<size_t>(columns)) {
    auto least = std::max_element(parts.begin(), parts.end(), by_rank);
    if (least->rank == 0) break;
    total -= width(least->text);
    parts.erase(least);
  }
  std::string line;
  for (const Part& part : parts) line += part.text;
  return line;
}

std::string Progress::plain_line() const {
  const StepNumbers& n = numbers_;
  std::string line = fmt::format("step={} steps={} done={:.1f}% loss={:.4f} ema={:.4f}", n.step, last_step_,
                                 100 * done(), n.loss, loss_ema_);
  auto add = [&](std::string_view key, const std::string& value) { line += fmt::format(" {}={}", key, value); };
  double loss_z = z_score(n.loss, losses_), norm_z = z_score(n.grad_norm.value_or(0), grad_norms_);
  if (std::abs(loss_z) >= spike) add("loss_z", fmt::format("{:.1f}", loss_z));
  if (n.grad_norm) add("grad_norm", fmt::format("{:.4g}", *n.grad_norm));
  if (std::abs(norm_z) >= spike) add("grad_norm_z", fmt::format("{:.1f}", norm_z));
  add("learning_rate", fmt::format("{:.4g}", n.learning_rate));
  add("tokens_per_second", fmt::format("{:.0f}", n.tokens_per_second));
  if (n.mfu) add("mfu", fmt::format("{:.3f}", *n.mfu));
  if (n.memory_peak_bytes) add("memory_peak_bytes", fmt::format("{}", *n.memory_peak_bytes));
  if (n.step_seconds > 0) add("data", fmt::format("{:.1f}%", 100 * n.data_seconds / n.step_seconds));
  if (std::optional<double> left = seconds_left()) add("eta_seconds", fmt::format("{:.0f}", *left));
  return line;
}

void Progress::draw() {
  int columns = options_.columns > 0 ? options_.columns : columns_of(options_.out);
  // One column stays free: a full line would wrap, and could not be drawn over.
  print(fmt::format("\r{}\033[K", live_line(columns - 1)));
  line_is_up_ = true;
  drawn_ = std::chrono::steady_clock::now();
}

void Progress::print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), options_.out);
  std::fflush(options_.out);
}

bool is_live_terminal(std::FILE* out) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(out)) && term && std::string_view(term) != "dumb";
}

}  // namespace echelon
