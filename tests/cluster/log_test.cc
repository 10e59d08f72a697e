#include "cluster/base/log.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

// glog can be pointed at its file once per process: what it must do is asked of one file.
TEST(Log, GoesToItsOwnFileOnlyAndCannotBeForged) {
  TemporaryFolder folder;
  ::setenv("TMPDIR", folder.path().c_str(), 1);
  std::string path = folder.at("rank-00003.log");
  log_to_file(path);
  EC_LOG(info, "loading {}", "evil\nI20250101 forged line\x1b[31m");
  EC_LOG(error, "went wrong");
  std::string text = contents(path);
  EXPECT_NE(text.find("loading evil\\x0aI20250101 forged line\\x1b[31m"), std::string::npos) << text;
  EXPECT_NE(text.find("went wrong"), std::string::npos);
  EXPECT_NE(text.find("log_test.cc:"), std::string::npos);
  struct stat status;
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"rank-00003.log"});  // no links, no file per severity
}

TEST(Log, RefusesALinkInPlaceOfTheFile) {
  TemporaryFolder folder;
  ASSERT_EQ(::symlink("/etc/passwd", folder.at("log").c_str()), 0);
  EXPECT_REFUSED(log_to_file(folder.at("log")), storage, "cannot open the log");
}

TEST(Check, AFalseOneIsAnInternalError) {
  EXPECT_REFUSED([] { EC_CHECK(1 == 2, "ranks {}", 3); }(), internal, "1 == 2: ranks 3");
}

}  // namespace
}  // namespace echelon
