// What a file of a checkpoint must hold: name, size and the hashes of its tiles.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/base/error.h"
#include "cluster/base/json.h"
#include "cluster/base/tiles.h"

namespace echelon {

/// One file as its writer saw it; ranks send these to rank 0 as their votes for a commit.
struct FileRecord {
  std::string name;                ///< bare, in the checkpoint's folder
  int64_t size = 0;                ///< bytes
  std::vector<std::string> tiles;  ///< XXH3-128 of each 4 MiB
  std::string writer;              ///< who wrote it, "rank 3": named when it turns out damaged

  bool operator==(const FileRecord&) const = default;
};

/// "tile 2 of F (bytes 8388608 to 12582912, written by rank 1)".
std::string name_of_tile(const FileRecord& record, size_t tile);

/// Reads the whole file. Errors: Error::storage.
FileRecord hash_file(const std::string& path, const std::string& writer = "");

/// Votes as text, to be sent between ranks. Errors of decoding: Error::storage.
std::string encode_records(const std::vector<FileRecord>& records);
std::vector<FileRecord> decode_records(std::string_view text);

Json to_json(const FileRecord& record);
FileRecord record_from_json(const Json& json, const std::string& place);

}  // namespace echelon
