// model.safetensors.index.json: shards are names of files, and a name must not lead anywhere.
#include "cluster/base/json.h"
#include "cluster/base/safetensors.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

std::string map_of(const std::string& shard) { return "{\"weight_map\":{\"a\":" + shard + "}}"; }

std::string many_shards(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += fmt::format("{}\"{}\":\"{}.safetensors\"", i ? "," : "", i, i);
  return "{\"weight_map\":{" + text + "}}";
}

std::string many_tensors(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += fmt::format("{}\"{}\":\"a.safetensors\"", i ? "," : "", i);
  return "{\"weight_map\":{" + text + "}}";
}

std::vector<Attack> attacks() {
  std::vector<Attack> all = {
      {"empty", "not valid JSON", ""},
      {"cut", "not valid JSON", "{\"weight_map\":{"},
      {"zero byte", "zero byte", std::string("{\"weight_map\":{\"a\":\"b.safetensors\"}}\0", 37)},
      {"no UTF-8", "not valid JSON", map_of("\"\xff.safetensors\"")},
      {"deep", "nested deeper than 8", "{\"a\":" + repeated("[", 100'000)},
      {"array", "no weight_map", "[]"},
      {"number", "no weight_map", "7"},
      {"no map", "no weight_map", "{\"metadata\":{}}"},
      {"map is an array", "no weight_map", "{\"weight_map\":[]}"},
      {"map is text", "no weight_map", "{\"weight_map\":\"a.safetensors\"}"},
      {"map is null", "no weight_map", "{\"weight_map\":null}"},
      {"map is empty", "weight_map is empty", "{\"weight_map\":{}}"},
      {"tensor twice", "\"a\" stands twice", "{\"weight_map\":{\"a\":\"b.safetensors\",\"a\":\"c.safetensors\"}}"},
      {"map twice", "\"weight_map\" stands twice", "{\"weight_map\":{},\"weight_map\":{\"a\":\"b.safetensors\"}}"},
      {"shard is a number", "shard of \"a\" is not a string", map_of("7")},
      {"shard is null", "shard of \"a\" is not a string", map_of("null")},
      {"shard is an array", "shard of \"a\" is not a string", map_of("[\"b.safetensors\"]")},
      {"too many shards", "more than 100000 shards", many_shards(100'001)},
      {"too many tensors", "more than 1000000 tensors", many_tensors(1'000'001)},
  };
  for (const char* name : {"../b.safetensors",
                           "/etc/b.safetensors",
                           "x/b.safetensors",
                           "./b.safetensors",
                           "..",
                           ".",
                           "",
                           "b.bin",
                           "b.safetensors/",
                           "b.safetensors/../../c.safetensors",
                           "\\u0000.safetensors",
                           "b\\u0000.safetensors",
                           "b\\n.safetensors",
                           "\\u001b[2J.safetensors",
                           "~/.ssh/id_rsa",
                           "b.safetensors ",
                           "b.SAFETENSORS",
                           "b.pt",
                           "file:///b.safetensors/",
                           "//b.safetensors",
                           "..\\u002fb.safetensors"}) {
    all.push_back({std::string("shard named ") + name, "INDEX_PATH", map_of("\"" + std::string(name) + "\"")});
  }
  all.push_back({"shard of 256 bytes", "INDEX_PATH", map_of("\"" + std::string(244, 'n') + ".safetensors\"")});
  return all;
}

std::string text_of(const SafetensorsIndex& index) {
  return dump_json(Json{{"metadata", {{"total_size", index.total_size}}}, {"weight_map", Json(index.weight_map)}});
}

void read(const std::string& bytes) {
  SafetensorsIndex index = SafetensorsIndex::parse(bytes, "model.safetensors.index.json");
  std::string written = text_of(index);
  same(written, text_of(SafetensorsIndex::parse(written, "again")), "an index");
}

}  // namespace

Reader safetensors_index_reader() {
  return {"safetensors_index",
          4,
          "model.safetensors.index.json",
          read,
          attacks(),
          {map_of("\"b.safetensors\""),
           "{\"metadata\":{\"total_size\":12,\"total_parameters\":3},\"weight_map\":{\"a\":\"..b.safetensors\"}}",
           "{\"metadata\":{\"total_size\":1e99},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}"}};
}

}  // namespace echelon::hostile
