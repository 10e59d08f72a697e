#include "cluster/base/json.h"

#include <limits>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

Json parse(const std::string& text) { return parse_json(text, "config.json"); }

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(dump_json(parse(R"({"z": 1, "a": [true, null, "x"], "m": {}})")), R"({"z":1,"a":[true,null,"x"],"m":{}})");
}

TEST(Json, SortsKeysAndIndentsLikePython) {
  EXPECT_EQ(dump_json(parse(R"({"b": [], "a": {"c": [1, 2]}})"), {.indent = 2, .sort_keys = true}),
            "{\n  \"a\": {\n    \"c\": [\n      1,\n      2\n    ]\n  },\n  \"b\": []\n}");
}

TEST(Json, RefusesAKeyThatStandsTwice) {
  EXPECT_REFUSED(parse(R"({"a": 1, "b": {"c": 1, "c": 2}})"), input, "config.json: key \"c\" stands twice");
  EXPECT_REFUSED(parse(R"({"a": 1, "\u0061": 2})"), input, "key \"a\" stands twice");
}

TEST(Json, RefusesDeepNestingWithoutOverflowingTheStack) {
  std::string deep(1'000'000, '[');
  EXPECT_REFUSED(parse(deep), input, "nested deeper than 64 levels");
  EXPECT_NO_THROW(parse(std::string(64, '[') + std::string(64, ']')));
  EXPECT_REFUSED(parse(std::string(65, '[') + std::string(65, ']')), input, "nested deeper");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "{} x", "{\"a\":}", "[1,]", "{'a':1}", "// c\n{}", "NaN", "[01]", "\"\xff\"",
                           "\"\\ud800\"", "[1e999]"}) {
    EXPECT_EQ(not_refused([&] { parse(text); }, Error::Kind::input, "config.json: not valid JSON: "), "") << text;
  }
}

TEST(Json, AZeroByteDoesNotEndTheText) { EXPECT_REFUSED(parse(std::string("{}\0 hidden", 10)), input, "a zero byte"); }

TEST(Json, AMistakeIsOneShortLine) {
  try {
    parse("{\"a\": " + std::string(1'000'000, 'x') + "\n}");
    FAIL();
  } catch (const Error& error) {
    std::string sentence = error.what();
    EXPECT_LT(sentence.size(), 500u);
    EXPECT_EQ(sentence.find('\n'), std::string::npos);
  }
}

TEST(Json, AFloatStaysAFloat) {
  // What Python's json.dumps writes for the same doubles.
  EXPECT_EQ(dump_json(Json(0.0)), "0.0");
  EXPECT_EQ(dump_json(Json(10000.0)), "10000.0");
  EXPECT_EQ(dump_json(Json(1e-05)), "1e-05");
  EXPECT_EQ(dump_json(Json(0.0001)), "0.0001");
  EXPECT_EQ(dump_json(Json(1e16)), "1e+16");
  EXPECT_EQ(dump_json(Json(123456789012345.0)), "123456789012345.0");
  EXPECT_EQ(dump_json(Json(0.1)), "0.1");
  EXPECT_EQ(dump_json(Json(-0.0)), "-0.0");
  EXPECT_EQ(dump_json(Json(7)), "7");
}

TEST(Json, SeventeenDigitsTellAllDoublesApart) {
  EXPECT_EQ(dump_json(Json(0.1), {.seventeen_digits = true}), "0.10000000000000001");
  EXPECT_EQ(dump_json(Json(3.0), {.seventeen_digits = true}), "3.0");
}

TEST(Json, FloatsReadBackTheSame) {
  for (double value : {1.0 / 3, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, -1e22, 9007199254740993.0}) {
    EXPECT_EQ(parse(dump_json(Json(value))).get<double>(), value);
    EXPECT_EQ(parse(dump_json(Json(value), {.seventeen_digits = true})).get<double>(), value);
  }
}

TEST(Json, WhatIsNotFiniteIsRefusedOrNull) {
  Json json = {{"loss", std::numeric_limits<double>::quiet_NaN()}};
  EXPECT_REFUSED(dump_json(json), internal, "not finite");
  EXPECT_EQ(dump_json(json, {.non_finite_as_null = true}), "{\"loss\":null}");
}

TEST(JsonMembers, GiveTypedValues) {
  Json json = parse(R"({"n": 3, "x": 0.5, "name": "llama", "tied": true, "none": null})");
  EXPECT_EQ(json_integer(json, "n", "c", 1, 10), 3);
  EXPECT_EQ(json_number(json, "n", "c", 0, 10), 3.0);
  EXPECT_EQ(json_number(json, "x", "c", 0, 1), 0.5);
  EXPECT_EQ(json_string(json, "name", "c"), "llama");
  EXPECT_TRUE(json_bool(json, "tied", "c"));
}

TEST(JsonMembers, FallBackWhenMissingOrNullOnly) {
  Json json = parse(R"({"none": null, "wrong": "3"})");
  EXPECT_EQ(json_integer(json, "none", "c", 1, 10, 7), 7);
  EXPECT_EQ(json_string(json, "missing", "c", "gpt2"), "gpt2");
  EXPECT_FALSE(json_bool(json, "missing", "c", false));
  EXPECT_REFUSED(json_integer(json, "wrong", "c", 1, 10, 7), input,
                 "c: wrong: wrong type: got \"3\", expected an integer");
}

TEST(JsonMembers, SayWhatIsWrong) {
  Json json = parse(R"({"layers": 3.0, "heads": -2, "big": 18446744073709551615, "rate": "fast"})");
  EXPECT_REFUSED(json_integer(json, "layers", "config.json", 1, 10), input, "got 3.0, expected an integer");
  EXPECT_REFUSED(json_integer(json, "heads", "config.json", 1, 10), input, "out of range: got -2, expected 1 to 10");
  EXPECT_REFUSED(json_integer(json, "big", "config.json", 1, 10), input, "out of range");
  EXPECT_REFUSED(json_integer(json, "width", "config.json", 1, 10), input, "config.json: \"width\" is missing");
  EXPECT_REFUSED(json_number(json, "rate", "config.json", 0, 1, Error::Kind::storage), storage, "expected a number");
  EXPECT_REFUSED(json_bool(json, "heads", "config.json"), input, "expected true or false");
  EXPECT_REFUSED(json_integer(Json::array(), "a", "config.json", 1, 10), input, "not a JSON object");
}

}  // namespace
}  // namespace echelon
