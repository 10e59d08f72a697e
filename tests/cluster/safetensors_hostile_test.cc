// What a refusal of a safetensors file costs, and what is legal all the same. The attacks:
// tests/hostile/safetensors.cc.
#include <chrono>
#include <cstring>

#include "cluster/base/safetensors.h"
#include "tests/cluster/allocation_count.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

/// A file of that header, with its true length in front, and `data` bytes behind.
std::string file_of(const std::string& header, size_t data = 0) {
  uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\0');
}

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), 8) + rest;
}

/// A header of one tensor "a" with these fields.
std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"a\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
}

std::string two(const std::string& offsets_a, const std::string& offsets_b) {
  return "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + offsets_a +
         "},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + offsets_b + "}}";
}

TEST(HostileSafetensors, InACheckpointTheKindIsStorage) {
  EXPECT_REFUSED(parse_safetensors(bytes_of("short"), "x", Error::Kind::storage), storage, "shorter than 8 bytes");
}

TEST(HostileSafetensors, LegalOdditiesAreAccepted) {
  auto parse = [](const std::string& bytes) { return parse_safetensors(bytes_of(bytes), "x"); };
  EXPECT_TRUE(parse(file_of("{}")).entries.empty());
  EXPECT_TRUE(parse(file_of("{}      ")).entries.empty());
  EXPECT_EQ(parse(file_of(tensor("\"F32\"", "[]", "[0,4]"), 4)).entries[0].shape.size(), 0u);
  EXPECT_EQ(parse(file_of(tensor("\"F32\"", "[0,5]", "[0,0]"))).entries[0].size(), 0u);
  EXPECT_EQ(parse(file_of(two("[4,8]", "[0,4]"), 8)).entries[0].name, "b");  // any order in the header
  EXPECT_EQ(
      parse(file_of("{\"../../etc/passwd\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}")).entries.size(),
      1u);
}

TEST(HostileSafetensors, AMillionTensorsAreTheMost) {
  std::string header = "{";
  for (int i = 0; i <= 1'000'000; ++i) {
    header += fmt::format("{}\"{}\":{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,0]}}", i ? "," : "", i);
  }
  auto start = std::chrono::steady_clock::now();
  EXPECT_REFUSED(parse_safetensors(bytes_of(file_of(header + "}")), "x"), input, "more than 1000000 tensors");
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_LT(seconds, header.size() / 10e6);  // 1 s for each 10 MB
}

TEST(HostileSafetensors, RefusingUsesAtMostEightTimesTheHeader) {
  std::string metadata = "{\"__metadata__\":{", names = "{";
  for (int i = 0; i <= 200'000; ++i) {
    metadata += fmt::format("{}\"{}\":\"\"", i ? "," : "", i);
    names += fmt::format("{}\"{}\":{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,0]}}", i ? "," : "", i);
  }
  for (const std::string& header : {metadata + "}}", names + "}"}) {
    std::string bytes = file_of(header);
    int64_t peak = peak_bytes([&] { EXPECT_ANY_THROW(parse_safetensors(bytes_of(bytes), "x")); });
    EXPECT_LT(peak, 8 * static_cast<int64_t>(header.size()));
  }
}

TEST(HostileSafetensors, ALongLieAllocatesNothing) {
  std::string bytes = with_length(100'000'000, "{");
  int64_t peak = peak_bytes([&] { EXPECT_ANY_THROW(parse_safetensors(bytes_of(bytes), "x")); });
  EXPECT_LT(peak, 4096);
}

TEST(HostileSafetensors, OtherFormatsAreRefusedByName) {
  TemporaryFolder folder;
  auto open = [&](const std::string& bytes) {
    write_file_atomically(folder.at("x"), bytes);
    return SafetensorsFile::open(folder.at("x"));
  };
  EXPECT_REFUSED(open("PK\x03\x04 zip of a pickle"), input, "PICKLE_REFUSED");
  EXPECT_REFUSED(open("\x80\x02}q\x01."), input, "PICKLE_REFUSED");
  EXPECT_REFUSED(open("GGUF\x03 and more"), input, "FORMAT: GGUF is not read");
}

TEST(HostileSafetensors, EveryTruncationOfAGoodFileIsRefused) {
  std::string good = file_of(two("[0,4]", "[4,8]"), 8);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_ANY_THROW(parse_safetensors(bytes_of(good.substr(0, size)), "x")) << size;
  }
}

}  // namespace
}  // namespace echelon
