// Words for people: nearest names, and numbers with units.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace echelon {

/// The candidates that `word` may have been meant to be, nearest first (edit distance, a swap of neighbours counts
/// one); those too far away are left out.
std::vector<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates, size_t count = 2);

/// `did you mean "x" or "y"?`, or "" when nothing is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

/// "512 B", "1.50 MiB", "61.3 GiB".
std::string human_bytes(int64_t bytes);
/// "950", "41.2k", "124M", "8.03B".
std::string human_count(double count);
/// "0.41 s", "12.3 s", "4m05s", "5h12m", "3d04h".
std::string human_seconds(double seconds);

}  // namespace echelon
