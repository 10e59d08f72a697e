// Scattered sums, exactly: small integers have no rounding.
#include "models/kernels/add_rows_kernel.h"

#include <gtest/gtest.h>

#include "tests/models/kernels/values.h"

namespace echelon {
namespace {

template <class T>
void check(int64_t width, bool with_mute) {
  std::vector<int64_t> ids{2, 0, 2, 1};
  bool mute[] = {false, false, false, true};
  testing::Values<T> rows(4 * width);
  for (int64_t i = 0; i < 4 * width; ++i) rows.set(i, static_cast<float>(i % 100));
  std::vector<float> table(3 * width, 1);
  int64_t middle = width / 2;
  for (auto [begin, end] : {std::pair(int64_t{0}, middle), std::pair(middle, width)}) {
    add_rows(table.data(), rows.data(), ids.data(), with_mute ? mute : nullptr, 4, width, begin, end);
  }
  for (int64_t c = 0; c < width; ++c) {
    EXPECT_EQ(table[c], 1 + rows.at(width + c));
    EXPECT_EQ(table[width + c], with_mute ? 1 : 1 + rows.at(3 * width + c));
    EXPECT_EQ(table[2 * width + c], 1 + rows.at(c) + rows.at(2 * width + c));
  }
}

TEST(AddRows, RowsOfOneIdAddUpAndMuteOnesAreLeftOut) {
  for (int64_t width : testing::kLengths) {
    for (bool with_mute : {false, true}) {
      check<float>(width, with_mute);
      check<Bfloat16>(width, with_mute);
    }
  }
}

}  // namespace
}  // namespace echelon
