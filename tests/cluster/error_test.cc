#include "cluster/base/error.h"

#include <gtest/gtest.h>

namespace echelon {
namespace {

TEST(Printable, KeepsTextOfEveryScript) {
  for (const char* text : {"plain", "h\xc3\xb6st", "\xe6\xa8\xa1\xe5\x9e\x8b", "\xf0\x9f\x98\x80", "\xd7\xa9"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, ShowsWhatWouldSteerATerminal) {
  EXPECT_EQ(printable("a\nb\x1b[2J\x7f"), "a\\x0ab\\x1b[2J\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "2J"),
            "\\xc2\\x9b2J");                                                // CSI of Unicode
  EXPECT_EQ(printable("\xe2\x80\xa8"), "\\xe2\\x80\\xa8");                  // a line separator
  EXPECT_EQ(printable("a\xe2\x80\xaetxt.exe"), "a\\xe2\\x80\\xaetxt.exe");  // what follows would read backwards
}

TEST(Printable, ShowsBytesThatAreNoUtf8) {
  EXPECT_EQ(printable("\xff"), "\\xff");
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // half a surrogate
  EXPECT_EQ(printable("a\xe6\xa8"), "a\\xe6\\xa8");         // cut
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
}

TEST(Error, CutsWhatAHostileFileSays) {
  std::string what = Error::input("file", std::string(1 << 20, 'a')).got(std::string(1 << 20, 'b')).what();
  EXPECT_LT(what.size(), 5000u);
  EXPECT_NE(what.find("aaa…: got bbb"), std::string::npos);
}

}  // namespace
}  // namespace echelon
