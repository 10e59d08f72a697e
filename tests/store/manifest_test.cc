#include "runtime/store/manifest.h"

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

const std::string hash_a(32, 'a'), hash_b(32, 'b');

Manifest example() {
  return seal(
      {.step = 50,
       .layout = "dp=2 zero=3",
       .previous_root = hash_a,
       .files = {{"state.json", 3, {hash_b}, "rank 0"}, {"a.safetensors", 5 << 20, {hash_a, hash_b}, "rank 1"}}});
}

TEST(Manifest, IsReadBackAsItWasWritten) {
  Manifest manifest = example();
  Manifest again = parse_manifest(dump_manifest(manifest), "m");
  EXPECT_EQ(again.step, 50);
  EXPECT_EQ(again.layout, "dp=2 zero=3");
  EXPECT_EQ(again.root, manifest.root);
  EXPECT_EQ(again.files, manifest.files);
  EXPECT_EQ(again.files.front().name, "a.safetensors");  // sorted
  EXPECT_EQ(again.total_bytes(), (5 << 20) + 3);
}

TEST(Manifest, TheOrderOfVotesDoesNotMatter) {
  Manifest manifest = example(), turned = manifest;
  std::swap(turned.files[0], turned.files[1]);
  EXPECT_EQ(seal(turned).root, manifest.root);
}

TEST(Manifest, EveryChangedBitIsFound) {
  std::string text = dump_manifest(example());
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      EXPECT_EQ(not_refused([&] { parse_manifest(flipped, "m"); }, Error::Kind::storage, "m"), "") << i << " " << bit;
    }
  }
}

TEST(Manifest, EveryTruncationIsFound) {
  std::string text = dump_manifest(example());
  for (size_t size = 0; size < text.size(); ++size) EXPECT_ANY_THROW(parse_manifest(text.substr(0, size), "m")) << size;
}

TEST(Manifest, ALaterSchemaIsRefusedAsSuch) {
  std::string text = dump_manifest(example());
  text.replace(text.find("\"schema\": 1"), 11, "\"schema\": 2");
  EXPECT_REFUSED(parse_manifest(text, "m"), storage, "written by a later Echelon: got schema 2, expected at most 1");
}

TEST(Manifest, TwoWritersOfOneFileAndPathsAreRefused) {
  EXPECT_REFUSED(seal({.files = {{"a", 0, {}, "rank 0"}, {"a", 0, {}, "rank 1"}}}), storage, "two writers of a");
  EXPECT_REFUSED(seal({.files = {{"../a", 0, {}, ""}}}), storage, "not a bare name");
}

TEST(FileRecord, VotesTravelAsText) {
  std::vector<FileRecord> votes = example().files;
  EXPECT_EQ(decode_records(encode_records(votes)), votes);
  EXPECT_TRUE(decode_records(encode_records({})).empty());
  EXPECT_REFUSED(decode_records("{"), storage, "vote: not valid JSON");
  EXPECT_REFUSED(decode_records(R"([{"name":"../a","size":0,"writer":"","tiles":[]}])"), storage, "bare name");
  EXPECT_REFUSED(decode_records(R"([{"name":"a","size":1,"writer":"","tiles":[]}])"), storage, "count of tiles");
}

TEST(FileRecord, HashesAFile) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "hello");
  FileRecord record = hash_file(folder.at("a"), "rank 2");
  EXPECT_EQ(record.name, "a");
  EXPECT_EQ(record.size, 5);
  EXPECT_EQ(record.tiles, hash_tiles(bytes_of("hello")));
  EXPECT_EQ(record.writer, "rank 2");
}

}  // namespace
}  // namespace echelon
