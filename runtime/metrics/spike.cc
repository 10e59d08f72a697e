#include "runtime/metrics/spike.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

namespace echelon {

namespace {

constexpr size_t kWindow = 100, kEnough = 20;
constexpr double kHigh = 6, kOver = 3;
constexpr int kInARow = 2;
/// Of the usual value: a run whose numbers hardly differ has no spike in the fourth digit.
constexpr double kLeastDeviation = 1e-3;

double median_of(std::vector<double> values) {
  auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

double Spike::height(double value, double usual) const {
  std::vector<double> distances;
  for (double before : values_) distances.push_back(std::abs(before - usual));
  double deviation = 1.4826 * median_of(std::move(distances));  // of a normal distribution: its standard deviation
  deviation = std::max(deviation, kLeastDeviation * std::abs(usual));
  return deviation > 0 ? (value - usual) / deviation : 0;
}

std::optional<double> Spike::add(double value) {
  if (!std::isfinite(value)) return {};
  std::optional<double> usual;
  double above = 0;
  if (values_.size() >= kEnough) {
    usual = median_of({values_.begin(), values_.end()});
    above = height(value, *usual);
  }
  values_.push_back(value);
  if (values_.size() > kWindow) values_.pop_front();
  high_in_a_row_ = above > kHigh ? high_in_a_row_ + 1 : 0;
  if (above < kOver) told_ = false;
  if (told_ || high_in_a_row_ < kInARow) return {};
  told_ = true;
  return usual;
}

SpikeWatch::OfStep SpikeWatch::add(int64_t step, double loss, double gradient_norm) {
  auto look_at = [step](Spike& spike, int64_t& since, double value) {
    std::optional<double> usual = spike.add(value);
    if (std::isfinite(value) && spike.in_a_row() == 1) since = step;
    return usual;
  };
  auto found = [](const char* name, int64_t since, double value, double usual) {
    return Found{since, fmt::format("the {} spikes: {:.4g} where {:.4g} is usual", name, value, usual)};
  };
  OfStep of_step;
  if (auto usual = look_at(loss_, loss_high_since_, loss)) of_step.loss = found("loss", loss_high_since_, loss, *usual);
  // Of a norm it is the ratio to the usual one that counts.
  if (auto usual = look_at(log_norm_, norm_high_since_, std::log(gradient_norm)))
    of_step.gradient_norm = found("gradient norm", norm_high_since_, gradient_norm, std::exp(*usual));
  return of_step;
}

}  // namespace echelon
