// A checkpoint's manifest, by somebody who can compute hashes too.
#include "runtime/store/manifest.h"

#include "cluster/base/json.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

Manifest example() {
  FileRecord shard{"shard-00001-of-00001.safetensors", 10, {std::string(32, '0')}, "rank 0"};
  return seal({.step = 7, .layout = "dp 1", .files = {shard, {"state.json", 0, {}, ""}}});
}

std::string good() { return dump_manifest(example()); }

/// The good text with `from` in place of `to`; its root hash stays that of the good one.
std::string replaced(const std::string& from, const std::string& to) {
  std::string text = good();
  return text.replace(text.find(from), from.size(), to);
}

/// A change of the parsed manifest, written as we write.
std::string changed(const std::function<void(Json&)>& change) {
  Json json = Json::parse(good());
  change(json);
  return dump_json(json, 1) + "\n";
}

std::string with(const std::string& key, Json value) {
  return changed([&](Json& json) { json[key] = std::move(value); });
}

std::string with_file(const std::string& key, Json value) {
  return changed([&](Json& json) { json["files"][0][key] = std::move(value); });
}

std::vector<Attack> attacks() {
  std::vector<Attack> all = {
      {"empty", "not valid JSON", ""},
      {"cut in half", "not valid JSON", good().substr(0, good().size() / 2)},
      {"zero byte behind", "zero byte", good() + std::string(1, '\0')},
      {"deep", "nested deeper than 8", repeated("[", 100'000)},
      {"array", "not a JSON object", "[]"},
      {"null", "not a JSON object", "null"},
      {"key twice", "stands twice", replaced("\"step\": 7", "\"step\": 7, \"step\": 8")},
      {"no schema", "\"schema\" is missing", changed([](Json& json) { json.erase("schema"); })},
      {"no root", "\"root\" is missing", changed([](Json& json) { json.erase("root"); })},
      {"no files", "no list of files", changed([](Json& json) { json.erase("files"); })},
      {"schema 0", "schema: out of range", with("schema", 0)},
      {"later schema", "written by a later Echelon", with("schema", 2)},
      {"schema of 2^64 - 1", "schema: out of range", with("schema", UINT64_MAX)},
      {"schema is text", "schema: wrong type", with("schema", "1")},
      {"step below 0", "step: out of range", with("step", -1)},
      {"step with a point", "step: wrong type", with("step", 7.0)},
      {"step of 2^64 - 1", "step: out of range", with("step", UINT64_MAX)},
      {"another step", "root hash does not fit", with("step", 8)},
      {"epoch below 0", "epoch: out of range", with("epoch", -1)},
      {"another epoch", "root hash does not fit", with("epoch", 3)},
      {"layout is a number", "layout: wrong type", with("layout", 1)},
      {"another layout", "root hash does not fit", with("layout", "dp 2")},
      {"root is a number", "root: wrong type", with("root", 1)},
      {"root of zeros", "root hash does not fit", with("root", std::string(32, '0'))},
      {"files are an object", "no list of files", with("files", Json::object())},
      {"files are text", "no list of files", with("files", "a")},
      {"files without the shard", "root hash does not fit", changed([](Json& json) { json["files"].erase(0); })},
      {"file is a number", "not a JSON object", changed([](Json& json) { json["files"][0] = 7; })},
      {"file without a name", "\"name\" is missing", changed([](Json& json) { json["files"][0].erase("name"); })},
      {"size below 0", "size: out of range", with_file("size", -1)},
      {"size of 2^62", "size: out of range", with_file("size", int64_t{1} << 62)},
      {"size of a terabyte", "count of tiles", with_file("size", int64_t{1} << 40)},
      {"another size", "root hash does not fit", with_file("size", 11)},
      {"no tiles", "no tiles of", changed([](Json& json) { json["files"][0].erase("tiles"); })},
      {"tiles are text", "no tiles of", with_file("tiles", "0")},
      {"tile is a number", "a tile's hash is not one", with_file("tiles", {7})},
      {"short tile", "a tile's hash is not one", with_file("tiles", {"00"})},
      {"tile too many", "count of tiles", with_file("tiles", {std::string(32, '0'), std::string(32, '0')})},
      {"another tile", "root hash does not fit", with_file("tiles", {std::string(32, '1')})},
      {"writer is a number", "writer: wrong type", with_file("writer", 7)},
      {"another writer", "root hash does not fit", with_file("writer", "rank 1")},
      {"unknown key", "text is not the one that was written", with("extra", 1)},
      {"spaces behind", "text is not the one that was written", good() + " "},
      {"no line break behind", "text is not the one that was written", good().substr(0, good().size() - 1)},
      {"other white space", "text is not the one that was written", replaced("\"step\": 7", "\"step\":  7")},
  };
  for (const char* name : {"../a", "/etc/passwd", "a/b", "", ".", "..", "a\nb", "\x1b[2J"})
    all.push_back({"file named " + std::string(name), "not a bare name", with_file("name", name)});
  return all;
}

void read(const std::string& bytes) {
  Manifest manifest = parse_manifest(bytes, "manifest.json");
  same(bytes, dump_manifest(manifest), "a manifest");
}

}  // namespace

Reader manifest_reader() {
  return {"manifest", 5, "manifest.json", read, attacks(), {good(), dump_manifest(seal({.step = 1}))}};
}

}  // namespace echelon::hostile
