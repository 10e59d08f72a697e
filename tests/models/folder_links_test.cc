// A folder's author must not choose which of the reader's files is opened, and copied into what is exported.
#include <unistd.h>

#include "models/interchange/model_folder.h"
#include "models/interchange/peft_folder.h"
#include "models/interchange/tokenizer_files.h"
#include "tests/models/model_folders.h"

namespace echelon {
namespace {

using ::testing::HasSubstr;
using namespace testing;

class FolderLinks : public ModelFolders {
 protected:
  void SetUp() override {
    ModelFolders::SetUp();
    make_folders(path("model"));
    make_folders(path("copy"));
    write_file_atomically(path("private"), "{\"key\": \"of the reader\"}");
  }
  void link(const std::string& to, const std::string& name) { ASSERT_EQ(::symlink(to.c_str(), path(name).c_str()), 0); }
};

TEST_F(FolderLinks, OfTokenizersLeadNowhere) {
  link(path("private"), "model/tokenizer.json");
  EXPECT_THAT(sentence_of([&] { copy_tokenizer(path("model"), path("copy")); }), HasSubstr("INDEX_PATH"));
  EXPECT_FALSE(exists(path("copy/tokenizer.json")));
}

TEST_F(FolderLinks, OfConfigsLeadNowhere) {
  link(path("private"), "model/config.json");
  EXPECT_THAT(sentence_of([&] { ModelFolder::open(path("model")); }), HasSubstr("INDEX_PATH"));
}

TEST_F(FolderLinks, OfAdaptersLeadNowhere) {
  link(path("private"), "model/adapter_config.json");
  EXPECT_THAT(sentence_of([&] { PeftFolder::open(path("model")); }), HasSubstr("INDEX_PATH"));
}

TEST_F(FolderLinks, OfTheHubsCacheAreFollowed) {
  make_folders(path("cache/blobs"));
  make_folders(path("cache/snapshots/1"));
  write_file_atomically(path("cache/blobs/abc"), "{}");
  link("../../blobs/abc", "cache/snapshots/1/tokenizer.json");
  copy_tokenizer(path("cache/snapshots/1"), path("copy"));
  EXPECT_TRUE(exists(path("copy/tokenizer.json")));
}

}  // namespace
}  // namespace echelon
