#include "runtime/store/manifest.h"

#include <algorithm>
#include <limits>

#include "cluster/base/files.h"

namespace echelon {

namespace {

constexpr int64_t newest_schema = 1;

Json body(const Manifest& manifest) {
  Json files = Json::array();
  for (const FileRecord& record : manifest.files) files.push_back(to_json(record));
  Json json{{"schema", manifest.schema}, {"step", manifest.step}};
  if (manifest.epoch > 0) json["epoch"] = manifest.epoch;
  json["layout"] = manifest.layout;
  json["previous_root"] = manifest.previous_root;
  json["files"] = files;
  return json;
}

std::string root_of(const Manifest& manifest) {
  std::string text = dump_json(body(manifest));
  return hash_bytes(std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace

const FileRecord* Manifest::find(std::string_view name) const {
  auto found = std::find_if(files.begin(), files.end(), [&](const FileRecord& record) { return record.name == name; });
  return found == files.end() ? nullptr : &*found;
}

int64_t Manifest::total_bytes() const {
  int64_t bytes = 0;
  for (const FileRecord& record : files) bytes += record.size;
  return bytes;
}

Manifest seal(Manifest manifest) {
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const FileRecord& a, const FileRecord& b) { return a.name < b.name; });
  const std::string* before = nullptr;
  for (const FileRecord& record : manifest.files) {
    if (!is_bare_name(record.name))
      throw Error::storage("manifest", "a file's name is not a bare name").got(record.name);
    if (before && *before == record.name) throw Error::storage("manifest", "two writers of " + record.name);
    before = &record.name;
  }
  manifest.root = root_of(manifest);
  return manifest;
}

std::string dump_manifest(const Manifest& manifest) {
  Json json = body(manifest);
  json["root"] = manifest.root;
  return dump_json(json, 1) + "\n";
}

Manifest parse_manifest(std::string_view text, const std::string& place) {
  constexpr Error::Kind kind = Error::Kind::storage;
  Json json = parse_json(text, place, kind, 8);
  Manifest manifest;
  manifest.schema = json_integer(json, "schema", place, 1, std::numeric_limits<int64_t>::max(), kind);
  if (manifest.schema > newest_schema) {
    throw Error(kind, place, "CKPT_INTEGRITY: written by a later Echelon")
        .got(fmt::format("schema {}", manifest.schema))
        .expected(fmt::format("at most {}", newest_schema));
  }
  manifest.step = json_integer(json, "step", place, 0, std::numeric_limits<int64_t>::max(), kind);
  manifest.epoch = json_integer(json, "epoch", place, 0, std::numeric_limits<int64_t>::max(), 0, kind);
  manifest.layout = json_string(json, "layout", place, kind);
  manifest.previous_root = json_string(json, "previous_root", place, kind);
  manifest.root = json_string(json, "root", place, kind);
  if (!json.contains("files") || !json["files"].is_array())
    throw Error(kind, place, "CKPT_INTEGRITY: no list of files");
  for (const Json& record : json["files"]) manifest.files.push_back(record_from_json(record, place));
  if (root_of(manifest) != manifest.root)
    throw Error(kind, place, "CKPT_INTEGRITY: root hash does not fit the content");
  if (dump_manifest(manifest) != text) throw Error(kind, place, "CKPT_INTEGRITY: text is not the one that was written");
  return manifest;
}

}  // namespace echelon
