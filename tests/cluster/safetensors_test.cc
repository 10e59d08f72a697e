#include "cluster/base/safetensors.h"

#include <cstring>
#include <thread>

#include "cluster/base/tiles.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

const std::string golden = from_hex(
    "38000000000000007b2261223a7b226474797065223a22463332222c227368617065223a5b315d2c22646174615f6f666673657473223a5b30"
    "2c"
    "345d7d7d20200000803f");

TEST(Safetensors, ReadsTheGoldenFile) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a.safetensors"), golden);
  SafetensorsFile file = SafetensorsFile::open(folder.at("a.safetensors"));
  ASSERT_EQ(file.entries().size(), 1u);
  const TensorEntry& a = file.at("a");
  EXPECT_EQ(a.dtype, DType::F32);
  EXPECT_EQ(a.shape, std::vector<int64_t>{1});
  float value;
  std::memcpy(&value, file.data(a), sizeof value);
  EXPECT_EQ(value, 1.0f);
}

TEST(Safetensors, WritesTheGoldenFile) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.at("a.safetensors"), {{"a", DType::F32, {1}}}, {});
  float one = 1;
  writer.write("a", &one, sizeof one);
  writer.finish();
  EXPECT_EQ(contents(folder.at("a.safetensors")), golden);
  EXPECT_EQ(writer.size(), golden.size());
  EXPECT_EQ(writer.tiles(), hash_tiles(bytes_of(golden)));
}

TEST(Safetensors, StoresWideTypesFirstThenByName) {
  TemporaryFolder folder;
  SafetensorsWriter writer(
      folder.at("f"),
      {{"u8", DType::U8, {3}}, {"b", DType::F32, {}}, {"a", DType::F32, {2}}, {"none", DType::I64, {0, 7}}},
      {{"format", "pt"}});
  writer.write("u8", "xyz", 3);
  writer.write("a", "AAAAaaaa", 8);
  writer.write("b", "BBBB", 4);
  writer.finish();
  SafetensorsFile file = SafetensorsFile::open(folder.at("f"));
  std::string order;
  for (const TensorEntry& entry : file.entries()) order += entry.name + " ";
  EXPECT_EQ(order, "none a b u8 ");
  EXPECT_EQ(file.data_offset() % 8, 0u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(std::memcmp(file.data(file.at("a")), "AAAAaaaaBBBBxyz", 15), 0);
}

TEST(Safetensors, PiecesMayComeInAnyOrderFromAnyThread) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.at("f"), {{"w", DType::U8, {1000, 100}}}, {});
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&writer, thread] {
      for (int row = 999 - thread; row >= 0; row -= 4)
        writer.write("w", std::string(100, static_cast<char>(row)).data(), 100, row * 100);
    });
  }
  for (std::thread& thread : threads) thread.join();
  writer.finish();
  SafetensorsFile file = SafetensorsFile::open(folder.at("f"));
  for (int row = 0; row < 1000; ++row) ASSERT_EQ(file.data(file.at("w"))[row * 100 + 99], static_cast<std::byte>(row));
}

TEST(Safetensors, AnUnfinishedFileNeverHasItsName) {
  TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder.at("f"), {{"a", DType::U8, {2}}}, {});
    writer.write("a", "x", 1);
    EXPECT_REFUSED(writer.finish(), internal, "\"a\" is not written whole: got 1, expected 2");
    EXPECT_FALSE(exists(folder.at("f")));
  }
  EXPECT_TRUE(list_folder(folder.path()).empty());
}

TEST(Safetensors, TheWriterRefusesWhatWasNotAnnounced) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.at("f"), {{"a", DType::U8, {2}}}, {});
  EXPECT_REFUSED(writer.write("b", "x", 1), internal, "no tensor \"b\" was announced");
  EXPECT_REFUSED(writer.write("a", "xxx", 3), internal, "beyond its end");
  EXPECT_REFUSED(writer.write("a", "x", 1, SIZE_MAX), internal, "beyond its end");
  EXPECT_REFUSED(SafetensorsWriter(folder.at("g"), {{"a", DType::U8, {2}}, {"a", DType::U8, {2}}}, {}), internal,
                 "written twice");
}

TEST(Safetensors, AFullDiskShowsBeforeAnythingIsWritten) {
  TemporaryFolder folder;
  TensorEntry huge{"w", DType::U8, {int64_t{1} << 55}};
  EXPECT_EQ(
      not_refused([&] { SafetensorsWriter(folder.at("f"), {huge}, {}); }, Error::Kind::storage, "cannot allocate"), "");
  EXPECT_TRUE(list_folder(folder.path()).empty());
}

TEST(Safetensors, AnUnknownNameComesWithTheNearest) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.at("f"), {{"layers.0.weight", DType::U8, {0}}, {"layers.0.bias", DType::U8, {0}}},
                           {});
  writer.finish();
  SafetensorsFile file = SafetensorsFile::open(folder.at("f"), Error::Kind::storage);
  EXPECT_EQ(file.find("layers.0.wieght"), nullptr);
  EXPECT_REFUSED(file.at("layers.0.wieght"), storage,
                 "no tensor \"layers.0.wieght\"; did you mean \"layers.0.weight\"?");
}

TEST(Safetensors, ATypeThatEchelonCannotLoadIsListedButNotRead) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.at("f"), {{"packed", DType::F4, {4}}}, {});
  writer.write("packed", "xx", 2);
  writer.finish();
  SafetensorsFile file = SafetensorsFile::open(folder.at("f"));
  EXPECT_EQ(dtype_name(file.at("packed").dtype), "F4");
  EXPECT_REFUSED(file.data(file.at("packed")), input, "dtype F4, which Echelon does not load");
}

TEST(Safetensors, ATypeNameSurvivesTheRoundTrip) {
  for (int dtype = 0; dtype <= static_cast<int>(DType::U64); ++dtype) {
    EXPECT_EQ(parse_dtype(dtype_name(static_cast<DType>(dtype))), static_cast<DType>(dtype));
  }
  EXPECT_REFUSED(parse_dtype("BF61"), input, "did you mean \"BF16\"");
}

TEST(Safetensors, NamesAreWrittenAsTheyAre) {
  TemporaryFolder folder;
  std::string name = "quote\" back\\slash ü 模型";
  SafetensorsWriter writer(folder.at("f"), {{name, DType::U8, {0}}}, {{"k\"", "v\n"}});
  writer.finish();
  SafetensorsFile file = SafetensorsFile::open(folder.at("f"));
  EXPECT_NE(file.find(name), nullptr);
  EXPECT_EQ(file.metadata().at("k\""), "v\n");
}

}  // namespace
}  // namespace echelon
