// Every way in which a safetensors file can be damaged or hostile.
#include "cluster/base/safetensors.h"

#include <cstdint>

#include "cluster/base/safetensors_header.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), 8) + rest;
}

/// A file of that header, with its true length in front, and `data` bytes behind.
std::string file_of(const std::string& header, size_t data = 0) {
  return with_length(header.size(), header + std::string(data, '\0'));
}

std::string fields(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

/// A header of one tensor "a" with these fields.
std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"a\":" + fields(dtype, shape, offsets) + "}";
}

std::string two(const std::string& offsets_a, const std::string& offsets_b) {
  return "{\"a\":" + fields("\"U8\"", "[4]", offsets_a) + ",\"b\":" + fields("\"U8\"", "[4]", offsets_b) + "}";
}

std::string named(const std::string& name) { return "{\"" + name + "\":" + fields("\"U8\"", "[0]", "[0,0]") + "}"; }

const std::vector<Attack> lengths = {
    {"empty file", "shorter than 8 bytes: got 0", ""},
    {"seven bytes", "shorter than 8 bytes: got 7", "1234567"},
    {"length over the limit", "header length is beyond the limit: got 100000001", with_length(100000001, "{}")},
    {"length of 2^63", "header length is beyond the limit", with_length(uint64_t{1} << 63, "{}")},
    {"length of 2^64 - 1", "beyond the limit: got 18446744073709551615", with_length(UINT64_MAX, "{}")},
    {"length that wraps", "header length is beyond the limit", with_length(UINT64_MAX - 7, "{}        ")},
    {"length beyond the file", "header is longer than the file: got 3, expected at most 2", with_length(3, "{}")},
    {"length of the largest header, no header", "header is longer than the file", with_length(100000000, "{")},
    {"no header", "header does not begin with {", file_of("")},
    {"no header, and bytes", "header does not begin with {", file_of("", 8)},
    {"space before the header", "header does not begin with {", file_of(" {}")},
    {"line break before the header", "header does not begin with {", file_of("\n{}")},
    {"byte order mark", "header does not begin with {", file_of("\xef\xbb\xbf{}")},
    {"array", "header does not begin with {", file_of("[]")},
    {"string", "header does not begin with {", file_of("\"{}\"")},
    {"zip", "header length is beyond the limit", "PK\x03\x04 zip of a pickle"},
    {"pickle", "header length is beyond the limit", "\x80\x02}q\x01(X\x04"},
    {"GGUF", "header length is beyond the limit", "GGUF\x03 and more"},
};

const std::vector<Attack> json = {
    {"cut after {", "not valid JSON", file_of("{")},
    {"two objects", "not valid JSON", file_of("{} {}")},
    {"bracket too many", "not valid JSON", file_of("{}}")},
    {"zero byte behind", "not valid JSON", file_of(std::string("{}\0", 3))},
    {"zero byte in a name", "not valid JSON", file_of(std::string("{\"a\0\":1}", 8))},
    {"no JSON word", "not valid JSON", file_of("{\"a\":nope}")},
    {"no UTF-8", "not valid JSON", file_of("{\"\xff\":{}}")},
    {"overlong UTF-8", "not valid JSON", file_of("{\"\xc0\xaf\":{}}")},
    {"half a surrogate", "not valid JSON", file_of("{\"\\ud800\":{}}")},
    {"surrogate in UTF-8", "not valid JSON", file_of("{\"\xed\xa0\x80\":{}}")},
    {"bad escape", "not valid JSON", file_of("{\"\\x41\":{}}")},
    {"tab in a name", "not valid JSON", file_of("{\"a\tb\":{}}")},
    {"single quotes", "not valid JSON", file_of("{'a':{}}")},
    {"comma at the end", "not valid JSON", file_of("{\"a\":" + fields("\"U8\"", "[0]", "[0,0]") + ",}")},
    {"comment", "not valid JSON", file_of("{/* a */}")},
    {"NaN", "not valid JSON", file_of(tensor("\"U8\"", "[NaN]", "[0,0]"))},
    {"hexadecimal size", "not valid JSON", file_of(tensor("\"U8\"", "[0x4]", "[0,4]"), 4)},
    {"leading zero", "not valid JSON", file_of(tensor("\"U8\"", "[04]", "[0,4]"), 4)},
    {"plus sign", "not valid JSON", file_of(tensor("\"U8\"", "[+4]", "[0,4]"), 4)},
    {"100,000 arrays", "has the wrong type: got an array", file_of("{\"a\":" + std::string(100000, '['))},
    {"100,000 objects", "has an unknown field \"a\"", file_of(repeated("{\"a\":", 100000))},
    {"object in a shape", "has the wrong type: got an object", file_of("{\"a\":{\"shape\":{\"b\":")},
    {"tensor is a number", "the value of \"a\" has the wrong type: got a number", file_of("{\"a\":1}")},
    {"tensor is null", "the value of \"a\" has the wrong type: got null", file_of("{\"a\":null}")},
    {"tensor is text", "the value of \"a\" has the wrong type: got a string", file_of("{\"a\":\"b\"}")},
    {"tensor is an array", "the value of \"a\" has the wrong type: got an array", file_of("{\"a\":[]}")},
    {"tensor is true", "the value of \"a\" has the wrong type: got true or false", file_of("{\"a\":true}")},
};

const std::string a = "\"a\":" + fields("\"U8\"", "[0]", "[0,0]");

const std::vector<Attack> repeats = {
    {"tensor twice", "tensor \"a\" stands twice", file_of("{" + a + "," + a + "}")},
    {"tensor twice, escaped", "tensor \"a\" stands twice", file_of("{" + a + ",\"\\u0061" + a.substr(2) + "}")},
    {"dtype twice", "tensor \"a\" has dtype twice", file_of("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\"}}")},
    {"shape twice", "tensor \"a\" has shape twice", file_of("{\"a\":{\"shape\":[1],\"shape\":[0]}}")},
    {"offsets twice", "data_offsets twice", file_of("{\"a\":{\"data_offsets\":[0,0],\"data_offsets\":[0,1]}}")},
    {"metadata twice", "__metadata__ stands twice", file_of("{\"__metadata__\":{},\"__metadata__\":{}}")},
    {"metadata key twice", "__metadata__ has \"k\" twice", file_of("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}")},
};

const std::vector<Attack> wrong_fields = {
    {"no fields", "tensor \"a\" lacks dtype, shape or data_offsets", file_of("{\"a\":{}}")},
    {"no offsets", "tensor \"a\" lacks", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}")},
    {"no dtype", "tensor \"a\" lacks", file_of("{\"a\":{\"shape\":[0],\"data_offsets\":[0,0]}}")},
    {"no shape", "tensor \"a\" lacks", file_of("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}")},
    {"unknown field", "tensor \"a\" has an unknown field \"extra\"", file_of("{\"a\":{\"extra\":1}}")},
    {"dtype in capitals", "unknown field \"Dtype\"", file_of("{\"a\":{\"Dtype\":\"U8\"}}")},
    {"dtype is a number", "dtype has the wrong type: got a number", file_of(tensor("7", "[0]", "[0,0]"))},
    {"dtype is null", "dtype has the wrong type: got null", file_of(tensor("null", "[0]", "[0,0]"))},
    {"dtype unknown", "unknown dtype \"F31\"", file_of(tensor("\"F31\"", "[0]", "[0,0]"))},
    {"dtype in small letters", "unknown dtype \"f32\"", file_of(tensor("\"f32\"", "[0]", "[0,0]"))},
    {"dtype with a line break", "unknown dtype \"F32\\x0a", file_of(tensor("\"F32\\n\"", "[0]", "[0,0]"))},
    {"dtype of a megabyte", "unknown dtype", file_of(tensor("\"" + std::string(1 << 20, 'F') + "\"", "[0]", "[0,0]"))},
    {"shape is text", "shape has the wrong type: got a string", file_of(tensor("\"U8\"", "\"[0]\"", "[0,0]"))},
    {"shape is null", "shape has the wrong type: got null", file_of(tensor("\"U8\"", "null", "[0,0]"))},
    {"negative size", "shape has the wrong type: got a negative number", file_of(tensor("\"U8\"", "[-1]", "[0,0]"))},
    {"size of minus zero", "shape has the wrong type", file_of(tensor("\"U8\"", "[-0]", "[0,0]"))},
    {"size with a point", "got a number that is no integer", file_of(tensor("\"U8\"", "[1.0]", "[0,1]"), 1)},
    {"size with an exponent", "got a number that is no integer", file_of(tensor("\"U8\"", "[1e0]", "[0,1]"), 1)},
    {"size of 2^64", "got a number that is no integer", file_of(tensor("\"U8\"", "[18446744073709551616]", "[0,0]"))},
    {"size of 10^400", "not valid JSON", file_of(tensor("\"U8\"", "[1" + std::string(400, '0') + "]", "[0,0]"))},
    {"size of text", "shape has the wrong type: got a string", file_of(tensor("\"U8\"", "[\"1\"]", "[0,1]"), 1)},
    {"size of true", "shape has the wrong type: got true or false", file_of(tensor("\"U8\"", "[true]", "[0,1]"), 1)},
    {"shape in a shape", "shape has the wrong type: got an array", file_of(tensor("\"U8\"", "[[1]]", "[0,1]"), 1)},
    {"size of 2^63", "a size of its shape is beyond 2^63", file_of(tensor("\"U8\"", "[9223372036854775808]", "[0,0]"))},
    {"65 dimensions", "more than 64 dimensions",
     file_of(tensor("\"U8\"", "[1" + repeated(",1", 64) + "]", "[0,1]"), 1)},
    {"a million dimensions", "more than 64 dimensions",
     file_of(tensor("\"U8\"", "[1" + repeated(",1", 1'000'000) + "]", "[0,1]"), 1)},
    {"no offset", "data_offsets are not two numbers", file_of(tensor("\"U8\"", "[0]", "[]"))},
    {"one offset", "data_offsets are not two numbers", file_of(tensor("\"U8\"", "[0]", "[0]"))},
    {"three offsets", "data_offsets are not two numbers", file_of(tensor("\"U8\"", "[0]", "[0,0,0]"))},
    {"negative offsets", "got a negative number", file_of(tensor("\"U8\"", "[0]", "[-1,-1]"))},
    {"offset with a point", "got a number that is no integer", file_of(tensor("\"U8\"", "[1]", "[0,1.0]"), 1)},
    {"offset of null", "data_offsets has the wrong type: got null", file_of(tensor("\"U8\"", "[0]", "[0,null]"))},
};

const std::vector<Attack> sizes = {
    {"product of 2^64", "overflows", file_of(tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]"))},
    {"bits of 2^64", "overflows", file_of(tensor("\"F64\"", "[2305843009213693952]", "[0,0]"))},  // 2^61 doubles
    {"product that wraps to 4", "overflows", file_of(tensor("\"U8\"", "[9223372036854775807,2,4]", "[0,4]"), 4)},
    {"zero behind an overflow", "overflows", file_of(tensor("\"U8\"", "[4294967296,4294967296,0]", "[0,0]"))},
    {"half a byte", "does not fill whole bytes", file_of(tensor("\"F4\"", "[3]", "[0,2]"), 2)},
    {"six bits", "does not fill whole bytes", file_of(tensor("\"F6_E2M3\"", "[1]", "[0,1]"), 1)},
    {"offsets too near", "got 4 bytes, expected 8 for F32 [2]", file_of(tensor("\"F32\"", "[2]", "[0,4]"), 4)},
    {"offsets too far", "got 16 bytes, expected 8 for F32 [2]", file_of(tensor("\"F32\"", "[2]", "[0,16]"), 16)},
    {"scalar without bytes", "got 0 bytes, expected 4 for F32 []", file_of(tensor("\"F32\"", "[]", "[0,0]"))},
    {"nothing with bytes", "got 4 bytes, expected 0", file_of(tensor("\"F32\"", "[0]", "[0,4]"), 4)},
    {"end before begin", "ends before it begins", file_of(tensor("\"U8\"", "[4]", "[4,0]"), 4)},
    {"end beyond the file", "ends beyond the file", file_of(tensor("\"U8\"", "[4]", "[0,4]"), 3)},
    {"offsets near 2^64", "ends beyond the file",
     file_of(tensor("\"U8\"", "[4]", "[18446744073709551611,18446744073709551615]"), 4)},
    {"begins at 4", "first tensor does not begin at 0", file_of(tensor("\"U8\"", "[4]", "[4,8]"), 8)},
    {"empty tensor behind a gap", "first tensor does not begin at 0", file_of(tensor("\"U8\"", "[0]", "[4,4]"), 4)},
    {"gap", "gap before tensor \"b\"", file_of(two("[0,4]", "[5,9]"), 9)},
    {"overlap", "tensor \"b\" overlaps the one before it", file_of(two("[0,4]", "[3,7]"), 7)},
    {"the same bytes", "tensor \"b\" overlaps the one before it", file_of(two("[0,4]", "[0,4]"), 4)},
    {"five bytes for four", "bytes follow the last tensor: got 5, expected 4",
     file_of(tensor("\"U8\"", "[4]", "[0,4]"), 5)},
    {"no tensors and a byte", "bytes follow the last tensor", file_of("{}", 1)},
    {"zip behind the tensors", "bytes follow the last tensor",
     file_of(tensor("\"U8\"", "[4]", "[0,4]"), 4) + "PK\x05\x06"},
};

const std::vector<Attack> names = {
    {"metadata of numbers", "__metadata__ \"format\" has the wrong type: got a number",
     file_of("{\"__metadata__\":{\"format\":1}}")},
    {"metadata of null", "__metadata__ \"format\" has the wrong type: got null",
     file_of("{\"__metadata__\":{\"format\":null}}")},
    {"metadata of objects", "__metadata__ \"format\" has the wrong type: got an object",
     file_of("{\"__metadata__\":{\"format\":{}}}")},
    {"metadata of arrays", "__metadata__ \"format\" has the wrong type: got an array",
     file_of("{\"__metadata__\":{\"format\":[]}}")},
    {"metadata is text", "has the wrong type: got a string", file_of("{\"__metadata__\":\"pt\"}")},
    {"zero in a name", "control characters", file_of(named("a\\u0000b"))},
    {"line break in a name", "control characters", file_of(named("a\\nb"))},
    {"escape in a name", "control characters", file_of(named("\\u001b[2J"))},
    {"DEL in a name", "control characters", file_of(named("\\u007f"))},
    {"name of 4097 bytes", "a tensor's name is longer than 4096 bytes", file_of(named(std::string(4097, 'n')))},
    {"name of a megabyte", "a tensor's name is longer than 4096 bytes", file_of(named(std::string(1 << 20, 'n')))},
};

std::vector<std::string> legal() {
  return {file_of("{}"),
          file_of("{}      "),
          file_of("{\"__metadata__\":{\"format\":\"pt\"},\"a\":" + fields("\"F32\"", "[2,3]", "[0,24]") + "}", 24),
          file_of(tensor("\"F32\"", "[]", "[0,4]"), 4),
          file_of(tensor("\"F32\"", "[0,5]", "[0,0]")),
          file_of(tensor("\"F8_E8M0\"", "[3]", "[0,3]"), 3),
          file_of(tensor("\"F4\"", "[4]", "[0,2]"), 2),
          file_of(two("[4,8]", "[0,4]"), 8),
          file_of(named("../../etc/passwd"))};
}

/// Written as we write, its bytes apart.
std::string rewritten(const SafetensorsHeader& header) {
  std::vector<TensorEntry> entries = header.entries;
  arrange_entries(entries);
  return encode_header(entries, header.metadata);
}

void read(const std::string& bytes) {
  SafetensorsHeader header = parse_safetensors(std::as_bytes(std::span(bytes)), "attack.safetensors");
  std::string written = rewritten(header);
  uint64_t data = header.entries.empty() ? 0 : header.entries.back().end;
  std::string file = written + std::string(data, '\0');
  same(written, rewritten(parse_safetensors(std::as_bytes(std::span(file)), "again.safetensors")), "a header");
}

}  // namespace

Reader safetensors_reader() {
  std::vector<Attack> all;
  for (const auto* part : {&lengths, &json, &repeats, &wrong_fields, &sizes, &names})
    all.insert(all.end(), part->begin(), part->end());
  return {"safetensors", 4, "attack.safetensors", read, all, legal()};
}

}  // namespace echelon::hostile
