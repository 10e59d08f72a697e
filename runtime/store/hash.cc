#include "runtime/store/hash.h"

#include <algorithm>

#include "cluster/base/files.h"

namespace echelon {

std::string name_of_tile(const FileRecord& record, size_t tile) {
  uint64_t begin = tile * tile_bytes, end = std::min<uint64_t>(begin + tile_bytes, record.size);
  std::string writer = record.writer.empty() ? "" : fmt::format(", written by {}", record.writer);
  return fmt::format("tile {} of {} (bytes {} to {}{})", tile, record.name, begin, end, writer);
}

FileRecord hash_file(const std::string& path, const std::string& writer) {
  MappedFile file = MappedFile::open(path, Error::Kind::storage);
  return {name_of_file(path), static_cast<int64_t>(file.size()), hash_tiles(file), writer};
}

Json to_json(const FileRecord& record) {
  return {{"name", record.name}, {"size", record.size}, {"writer", record.writer}, {"tiles", record.tiles}};
}

FileRecord record_from_json(const Json& json, const std::string& place) {
  constexpr Error::Kind kind = Error::Kind::storage;
  FileRecord record;
  record.name = json_string(json, "name", place, kind);
  if (!is_bare_name(record.name))
    throw Error(kind, place, "CKPT_INTEGRITY: a file's name is not a bare name").got(record.name);
  record.size = json_integer(json, "size", place, 0, int64_t{1} << 60, kind);
  record.writer = json_string(json, "writer", place, kind);
  if (!json.contains("tiles") || !json["tiles"].is_array())
    throw Error(kind, place, "CKPT_INTEGRITY: no tiles of " + record.name);
  for (const Json& tile : json["tiles"]) {
    if (!tile.is_string() || tile.get_ref<const std::string&>().size() != 32) {
      throw Error(kind, place, "CKPT_INTEGRITY: a tile's hash is not one, of " + record.name);
    }
    record.tiles.push_back(tile.get<std::string>());
  }
  if (record.tiles.size() != (record.size + tile_bytes - 1) / tile_bytes) {
    throw Error(kind, place, "CKPT_INTEGRITY: count of tiles does not fit the size of " + record.name)
        .got(record.tiles.size())
        .expected((record.size + tile_bytes - 1) / tile_bytes);
  }
  return record;
}

std::string encode_records(const std::vector<FileRecord>& records) {
  Json json = Json::array();
  for (const FileRecord& record : records) json.push_back(to_json(record));
  return dump_json(json);
}

std::vector<FileRecord> decode_records(std::string_view text) {
  Json json = parse_json(text, "vote", Error::Kind::storage, 4);
  if (!json.is_array()) throw Error::storage("vote", "is not a list of files");
  std::vector<FileRecord> records;
  for (const Json& record : json) records.push_back(record_from_json(record, "vote"));
  return records;
}

}  // namespace echelon
