// Every way in which a safetensors file can be damaged or hostile, with the words that refuse it.
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

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

struct Hostile {
  const char* sentence;
  std::string bytes;
};

std::vector<Hostile> broken_lengths() {
  return {
      {"shorter than 8 bytes: got 0", ""},
      {"shorter than 8 bytes: got 7", "1234567"},
      {"header length is beyond the limit: got 100000001", with_length(100000001, "{}")},
      {"header length is beyond the limit: got 18446744073709551615", with_length(UINT64_MAX, "{}")},
      {"header is longer than the file: got 3, expected at most 2", with_length(3, "{}")},
      {"header does not begin with {", file_of("")},
      {"header does not begin with {", file_of(" {}")},
      {"header does not begin with {", file_of("[]")},
  };
}

std::vector<Hostile> broken_json() {
  return {
      {"not valid JSON", file_of("{")},
      {"not valid JSON", file_of("{} {}")},
      {"not valid JSON", file_of(std::string("{}\0", 3))},
      {"not valid JSON", file_of("{\"a\":nope}")},
      {"not valid JSON", file_of("{\"\xff\":{}}")},
      {"not valid JSON", file_of("{\"\\ud800\":{}}")},
      {"has the wrong type: got an array", file_of("{\"a\":" + std::string(100000, '['))},
      {"has the wrong type: got an object", file_of("{\"a\":{\"shape\":{\"b\":")},
      {"the value of \"a\" has the wrong type: got a number", file_of("{\"a\":1}")},
      {"the value of \"a\" has the wrong type: got null", file_of("{\"a\":null}")},
  };
}

std::vector<Hostile> repeated_keys() {
  std::string a = "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  return {
      {"tensor \"a\" stands twice", file_of("{" + a + "," + a + "}")},
      {"tensor \"a\" has dtype twice",
       file_of("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}")},
      {"tensor \"a\" has shape twice",
       file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[0],\"data_offsets\":[0,0]}}")},
      {"__metadata__ stands twice", file_of("{\"__metadata__\":{},\"__metadata__\":{}}")},
      {"__metadata__ has \"k\" twice", file_of("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}")},
  };
}

std::vector<Hostile> broken_fields() {
  return {
      {"tensor \"a\" lacks dtype, shape or data_offsets", file_of("{\"a\":{}}")},
      {"tensor \"a\" lacks dtype, shape or data_offsets", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}")},
      {"tensor \"a\" has an unknown field \"extra\"", file_of("{\"a\":{\"extra\":1}}")},
      {"dtype has the wrong type: got a number, expected a string", file_of(tensor("7", "[0]", "[0,0]"))},
      {"unknown dtype \"F31\"", file_of(tensor("\"F31\"", "[0]", "[0,0]"))},
      {"shape has the wrong type: got a string", file_of(tensor("\"U8\"", "\"[0]\"", "[0,0]"))},
      {"shape has the wrong type: got a negative number", file_of(tensor("\"U8\"", "[-1]", "[0,0]"))},
      {"shape has the wrong type: got a number that is no integer", file_of(tensor("\"U8\"", "[1.0]", "[0,1]"), 1)},
      {"shape has the wrong type: got a number that is no integer", file_of(tensor("\"U8\"", "[1e0]", "[0,1]"), 1)},
      {"shape has the wrong type: got a number that is no integer",
       file_of(tensor("\"U8\"", "[18446744073709551616]", "[0,0]"))},
      {"shape has the wrong type: got an array", file_of(tensor("\"U8\"", "[[1]]", "[0,1]"), 1)},
      {"a size of its shape is beyond 2^63", file_of(tensor("\"U8\"", "[9223372036854775808]", "[0,0]"))},
      {"has more than 64 dimensions", file_of(tensor("\"U8\"", "[1" + repeated(",1", 64) + "]", "[0,1]"), 1)},
      {"data_offsets are not two numbers", file_of(tensor("\"U8\"", "[0]", "[0]"))},
      {"data_offsets are not two numbers", file_of(tensor("\"U8\"", "[0]", "[0,0,0]"))},
      {"data_offsets has the wrong type: got a negative number", file_of(tensor("\"U8\"", "[0]", "[-1,-1]"))},
      {"data_offsets has the wrong type: got a number that is no integer",
       file_of(tensor("\"U8\"", "[1]", "[0,1.0]"), 1)},
  };
}

std::vector<Hostile> broken_sizes() {
  return {
      {"overflows", file_of(tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]"))},
      {"overflows", file_of(tensor("\"F64\"", "[2305843009213693952]", "[0,0]"))},  // 2^61 doubles: the bits wrap to 0
      {"does not fill whole bytes", file_of(tensor("\"F4\"", "[3]", "[0,2]"), 2)},
      {"does not fill whole bytes", file_of(tensor("\"F6_E2M3\"", "[1]", "[0,1]"), 1)},
      {"offsets do not fit its shape: got 4 bytes, expected 8 for F32 [2]",
       file_of(tensor("\"F32\"", "[2]", "[0,4]"), 4)},
      {"ends before it begins", file_of(tensor("\"U8\"", "[4]", "[4,0]"), 4)},
      {"ends beyond the file", file_of(tensor("\"U8\"", "[4]", "[0,4]"), 3)},
      {"first tensor does not begin at 0", file_of(tensor("\"U8\"", "[4]", "[4,8]"), 8)},
      {"gap before tensor \"b\"", file_of(two("[0,4]", "[5,9]"), 9)},
      {"tensor \"b\" overlaps the one before it", file_of(two("[0,4]", "[3,7]"), 7)},
      {"tensor \"b\" overlaps the one before it",
       file_of(two("[0,4]", "[0,4]"), 4)},  // many tensors over the same bytes
      {"bytes follow the last tensor: got 5, expected 4", file_of(tensor("\"U8\"", "[4]", "[0,4]"), 5)},
      {"bytes follow the last tensor", file_of("{}", 1)},
  };
}

std::vector<Hostile> broken_names() {
  std::string fields = "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
  return {
      {"__metadata__ \"format\" has the wrong type: got a number, expected a string",
       file_of("{\"__metadata__\":{\"format\":1}}")},
      {"__metadata__ \"format\" has the wrong type: got null", file_of("{\"__metadata__\":{\"format\":null}}")},
      {"__metadata__ \"format\" has the wrong type: got an object", file_of("{\"__metadata__\":{\"format\":{}}}")},
      {"control characters", file_of("{\"a\\u0000b" + fields)},
      {"control characters", file_of("{\"a\\nb" + fields)},
      {"a tensor's name is longer than 4096 bytes", file_of("{\"" + std::string(4097, 'n') + fields)},
  };
}

void expect_all_refused(const std::vector<Hostile>& files) {
  for (const Hostile& hostile : files) {
    auto parse = [&] { parse_safetensors(bytes_of(hostile.bytes), "x.safetensors"); };
    EXPECT_EQ(not_refused(parse, Error::Kind::input, hostile.sentence), "") << hostile.sentence;
    EXPECT_EQ(not_refused(parse, Error::Kind::input, "HEADER"), "");
  }
}

TEST(HostileSafetensors, LengthsAreRefused) { expect_all_refused(broken_lengths()); }
TEST(HostileSafetensors, BadJsonIsRefused) { expect_all_refused(broken_json()); }
TEST(HostileSafetensors, RepeatedKeysAreRefused) { expect_all_refused(repeated_keys()); }
TEST(HostileSafetensors, WrongFieldsAreRefused) { expect_all_refused(broken_fields()); }
TEST(HostileSafetensors, SizesAndOffsetsThatLieAreRefused) { expect_all_refused(broken_sizes()); }
TEST(HostileSafetensors, NamesAndMetadataAreRefused) { expect_all_refused(broken_names()); }

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
