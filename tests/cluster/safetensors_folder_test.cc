#include <cstring>

#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/safetensors.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

void write_shard(const std::string& path, const std::vector<std::string>& names) {
  std::vector<TensorEntry> entries;
  for (const std::string& name : names) entries.push_back({name, DType::U8, {1}});
  SafetensorsWriter writer(path, entries, {{"format", "pt"}});
  for (const std::string& name : names) writer.write(name, name.data(), 1);
  writer.finish();
}

/// Two shards that hold a, b and c, with their index.
class SafetensorsFolderTest : public testing::Test {
 protected:
  SafetensorsFolderTest() {
    write_shard(folder_.at("model-00001-of-00002.safetensors"), {"a", "b"});
    write_shard(folder_.at("model-00002-of-00002.safetensors"), {"c"});
    index_.weight_map = {{"a", "model-00001-of-00002.safetensors"},
                         {"b", "model-00001-of-00002.safetensors"},
                         {"c", "model-00002-of-00002.safetensors"}};
    index_.total_size = index_.total_parameters = 3;
  }
  SafetensorsFolder open() {
    index_.write(folder_.at("model.safetensors.index.json"));
    return SafetensorsFolder::open(folder_.path());
  }
  TemporaryFolder folder_;
  SafetensorsIndex index_;
};

TEST_F(SafetensorsFolderTest, ShardsAreSeenAsOne) {
  SafetensorsFolder folder = open();
  SafetensorsFolder moved = std::move(folder);
  ASSERT_EQ(moved.entries().size(), 3u);
  EXPECT_EQ(*moved.data(moved.at("c")), std::byte{'c'});
  EXPECT_EQ(moved.metadata().at("format"), "pt");
  EXPECT_EQ(moved.find("d"), nullptr);
  EXPECT_REFUSED(moved.at("d"), input, "no tensor \"d\"");
}

TEST_F(SafetensorsFolderTest, TheIndexIsWrittenAsTheHubsLibraryDoes) {
  index_.write(folder_.at("i"));
  EXPECT_EQ(contents(folder_.at("i")),
            "{\n  \"metadata\": {\n    \"total_parameters\": 3,\n    \"total_size\": 3\n  },\n  \"weight_map\": {\n"
            "    \"a\": \"model-00001-of-00002.safetensors\",\n    \"b\": \"model-00001-of-00002.safetensors\",\n"
            "    \"c\": \"model-00002-of-00002.safetensors\"\n  }\n}\n");
  EXPECT_EQ(SafetensorsIndex::read(folder_.at("i")).weight_map, index_.weight_map);
}

TEST_F(SafetensorsFolderTest, AShardOutsideTheFolderIsRefused) {
  for (const char* name :
       {"../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..", "model.bin", "a\nb.safetensors"}) {
    index_.weight_map["a"] = name;
    EXPECT_EQ(not_refused([&] { open(); }, Error::Kind::input, "INDEX_PATH"), "") << name;
  }
}

TEST_F(SafetensorsFolderTest, ALinkOutOfTheFolderIsRefused) {
  TemporaryFolder other;
  write_shard(other.at("secret.safetensors"), {"c"});
  ASSERT_EQ(::unlink(folder_.at("model-00002-of-00002.safetensors").c_str()), 0);
  ASSERT_EQ(::symlink(other.at("secret.safetensors").c_str(), folder_.at("model-00002-of-00002.safetensors").c_str()),
            0);
  EXPECT_REFUSED(open(), input, "INDEX_PATH: a link that leads out of the folder");
}

TEST_F(SafetensorsFolderTest, TheHubsCacheLinksToItsBlobs) {
  TemporaryFolder cache;
  make_folders(cache.at("blobs"));
  make_folders(cache.at("snapshots/abc"));
  write_shard(cache.at("blobs/0123"), {"a"});
  ASSERT_EQ(::symlink("../../blobs/0123", cache.at("snapshots/abc/model.safetensors").c_str()), 0);
  EXPECT_NE(SafetensorsFolder::open(cache.at("snapshots/abc")).find("a"), nullptr);
}

TEST_F(SafetensorsFolderTest, APipeInPlaceOfAShardDoesNotHang) {
  ASSERT_EQ(::unlink(folder_.at("model-00002-of-00002.safetensors").c_str()), 0);
  ASSERT_EQ(::mkfifo(folder_.at("model-00002-of-00002.safetensors").c_str(), 0600), 0);
  EXPECT_REFUSED(open(), input, "not a regular file");
}

TEST_F(SafetensorsFolderTest, IndexAndShardsMustHoldTheSameTensors) {
  index_.weight_map["d"] = "model-00002-of-00002.safetensors";
  EXPECT_REFUSED(open(), input, "in the index but not in its shard: d; in a shard but not there by the index: none");
  index_.weight_map.erase("d");
  index_.weight_map.erase("b");
  EXPECT_REFUSED(open(), input, "in a shard but not there by the index: b (in model-00001-of-00002.safetensors)");
}

TEST_F(SafetensorsFolderTest, ATensorInAnotherShardThanTheIndexSaysIsRefused) {
  index_.weight_map["b"] = "model-00002-of-00002.safetensors";
  EXPECT_REFUSED(open(), input, "in the index but not in its shard: b");
}

TEST_F(SafetensorsFolderTest, ATensorInTwoShardsIsRefused) {
  write_shard(folder_.at("model-00002-of-00002.safetensors"), {"a", "c"});
  EXPECT_REFUSED(open(), input, "a (in model-00002-of-00002.safetensors)");
}

TEST_F(SafetensorsFolderTest, AMissingShardIsNamed) {
  ASSERT_EQ(::unlink(folder_.at("model-00002-of-00002.safetensors").c_str()), 0);
  EXPECT_REFUSED(open(), input, "model-00002-of-00002.safetensors: cannot open: no such file");
}

TEST(SafetensorsIndex, RefusesWhatIsNoIndex) {
  for (const char* text : {"[]", "{}", "{\"weight_map\": []}", "{\"weight_map\": {}}", "{\"weight_map\": {\"a\": 1}}",
                           "{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"y.safetensors\"}}"}) {
    EXPECT_EQ(not_refused([&] { SafetensorsIndex::parse(text, "i"); }, Error::Kind::input, "i: "), "") << text;
  }
  EXPECT_EQ(SafetensorsIndex::parse(R"({"weight_map": {"a": "x.safetensors"}, "metadata": null})", "i").total_size, 0);
}

TEST(SafetensorsFolder, PicklesAreRefusedByName) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("pytorch_model.bin"), "x");
  EXPECT_REFUSED(SafetensorsFolder::open(folder.path()), input, "pytorch_model.bin: PICKLE_REFUSED");
}

TEST(SafetensorsFolder, AFolderWithoutWeightsSaysWhatIsMissing) {
  TemporaryFolder folder;
  EXPECT_REFUSED(SafetensorsFolder::open(folder.path()), input, "neither model.safetensors nor");
  EXPECT_REFUSED(SafetensorsFolder::open(folder.at("none")), input, "no such folder");
}

TEST(PlanShards, IsGreedyAndGivesLargeTensorsTheirOwn) {
  using Plan = std::vector<std::vector<size_t>>;
  EXPECT_EQ(plan_shards({4, 4, 4, 4}, 10), (Plan{{0, 1}, {2, 3}}));
  EXPECT_EQ(plan_shards({4, 20, 4}, 10), (Plan{{1}, {0, 2}}));
  EXPECT_EQ(plan_shards({5, 5, 1}, 10), (Plan{{0, 1}, {2}}));
  EXPECT_TRUE(plan_shards({}, 10).empty());
}

TEST(ShardName, CountsFromOneAndLeavesASingleFilePlain) {
  EXPECT_EQ(shard_name(0, 1), "model.safetensors");
  EXPECT_EQ(shard_name(1, 12), "model-00002-of-00012.safetensors");
}

}  // namespace
}  // namespace echelon
