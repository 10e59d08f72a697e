#include "cluster/base/files.h"

#include <csignal>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/tiles.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

TEST(Files, WrittenBytesAreReadBack) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "one");
  write_file_atomically(folder.at("a"), "two\0zero");
  EXPECT_EQ(contents(folder.at("a")), "two\0zero");
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"a"});  // no temporary file remains
}

TEST(Files, AFileOverTheLimitIsRefusedBeforeItIsRead) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "");
  std::filesystem::resize_file(folder.at("a"), uint64_t{1} << 40);  // sparse: reading it would fail or take for ever
  EXPECT_REFUSED(read_file(folder.at("a"), Error::Kind::input, 1000), input, "too large: got 1099511627776 bytes");
}

TEST(Files, AMissingFileHasTheGivenKindAndTheSystemsReason) {
  EXPECT_REFUSED(read_file("/nowhere/a", Error::Kind::recipe, 10), recipe, "/nowhere/a: cannot open: no such file");
}

TEST(Files, APipeIsRefusedWithoutWaitingForAWriter) {
  TemporaryFolder folder;
  ASSERT_EQ(::mkfifo(folder.at("pipe").c_str(), 0600), 0);
  EXPECT_REFUSED(MappedFile::open(folder.at("pipe"), Error::Kind::input), input, "not a regular file");
  EXPECT_REFUSED(read_file(folder.at("pipe"), Error::Kind::input, 10), input, "not a regular file");
}

TEST(Files, FoldersAndDevicesAreNoFiles) {
  TemporaryFolder folder;
  EXPECT_REFUSED(MappedFile::open(folder.path(), Error::Kind::input), input, "is a folder");
  EXPECT_REFUSED(MappedFile::open("/dev/zero", Error::Kind::input), input, "not a regular file");
}

TEST(Files, AMappedFileShowsItsBytesAndMoves) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "hello");
  MappedFile first = MappedFile::open(folder.at("a"), Error::Kind::input);
  MappedFile second = std::move(first);
  EXPECT_EQ(first.size(), 0u);
  ASSERT_EQ(second.size(), 5u);
  EXPECT_EQ(std::memcmp(second.data(), "hello", 5), 0);
}

TEST(Files, AnEmptyFileMapsToNothing) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "");
  EXPECT_EQ(MappedFile::open(folder.at("a"), Error::Kind::input).size(), 0u);
}

TEST(Files, AFileThatChangesWhileMappedIsNoticed) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "hello");
  MappedFile file = MappedFile::open(folder.at("a"), Error::Kind::storage);
  EXPECT_NO_THROW(file.check_unchanged());
  std::ofstream(folder.at("a"), std::ios::app) << "more";
  EXPECT_REFUSED(file.check_unchanged(), storage, "CHANGED");
}

TEST(Files, AFullDiskKeepsTheOldFileAndSaysSo) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a"), "old");
  // A file-size limit fails write() in the same place as a full disk does.
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = {4096, before.rlim_max};
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string problem = not_refused([&] { write_file_atomically(folder.at("a"), std::string(100000, 'x')); },
                                    Error::Kind::storage, "cannot write: file too large");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(problem, "");
  EXPECT_EQ(contents(folder.at("a")), "old");
  EXPECT_EQ(list_folder(folder.path()).size(), 1u);
}

TEST(Files, NoSpaceLeftIsSaidInTheSystemsWords) {
  Descriptor full(::open("/dev/full", O_WRONLY));
  EXPECT_REFUSED(write_at(full, "x", 1, 0, "weights"), storage,
                 "storage: weights: cannot write: no space left on device");
}

TEST(Files, BareNamesLeadNowhereElse) {
  EXPECT_TRUE(is_bare_name("model-00001-of-00002.safetensors"));
  for (const char* name : {"", ".", "..", "a/b", "/a", "a\nb", "../a"}) EXPECT_FALSE(is_bare_name(name)) << name;
  EXPECT_FALSE(is_bare_name(std::string("a\0b", 3)));
  EXPECT_FALSE(is_bare_name(std::string(256, 'a')));
}

TEST(Tiles, TheHashIsXxh3OfEachFourMebibytes) {
  // XXH3-128 of nothing, from the algorithm's own test vectors.
  EXPECT_EQ(hash_bytes({}), "99aa06d3014798d86001c324468d497f");
  std::string bytes(tile_bytes + 1, 'a');
  std::vector<std::string> tiles = hash_tiles(bytes_of(bytes));
  ASSERT_EQ(tiles.size(), 2u);
  EXPECT_EQ(tiles[0], hash_bytes(bytes_of(std::string(tile_bytes, 'a'))));
  EXPECT_EQ(tiles[1], hash_bytes(bytes_of("a")));
  EXPECT_TRUE(hash_tiles(bytes_of("")).empty());
}

}  // namespace
}  // namespace echelon
