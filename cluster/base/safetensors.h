// Safetensors: one file read and written, a folder of shards with its index read as one, shards planned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"
#include "cluster/base/files.h"

namespace echelon {

/// In the format's own order, by which a writer aligns: tensors are stored from the last to the first.
enum class DType {
  BOOL,
  F4,
  F6_E2M3,
  F6_E3M2,
  U8,
  I8,
  F8_E5M2,
  F8_E4M3,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64,
};

/// "F32".
std::string_view dtype_name(DType dtype);
int64_t dtype_bits(DType dtype);
/// Whether Echelon computes with it; the others can be listed only.
bool dtype_is_loadable(DType dtype);
/// Errors: Error::input, "unknown dtype", with the nearest names.
DType parse_dtype(std::string_view name);

/// One tensor of a file. Shape [] is a scalar. Bytes [begin, end) count from the first byte after the header.
struct TensorEntry {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t size() const { return end - begin; }
};

/// Bytes of a tensor. Errors: Error::internal when the product overflows or does not fill whole bytes.
uint64_t tensor_bytes(DType dtype, const std::vector<int64_t>& shape);

/// What stands before the tensors' bytes.
struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<TensorEntry> entries;  ///< in the order of their bytes
  uint64_t data_offset = 0;          ///< where the tensors' bytes begin in the file
};

/// Reads and checks the header of a whole file. Nothing it says is believed before it is checked, nothing is allocated
/// in proportion to anything but the header itself. Errors: of `kind`, one message for each kind of damage.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& place,
                                    Error::Kind kind = Error::Kind::input);

/// A mapped file.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path, Error::Kind kind = Error::Kind::input);
  static SafetensorsFile open(MappedFile file, Error::Kind kind);

  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// In the order of their bytes.
  const std::vector<TensorEntry>& entries() const { return header_.entries; }
  const TensorEntry* find(std::string_view name) const;
  /// Errors: naming the nearest tensors.
  const TensorEntry& at(std::string_view name) const;
  /// Bytes of the tensor, C order, little-endian. Valid as long as this object; not aligned to more than a byte.
  /// Errors: when the dtype is one that Echelon cannot load.
  const std::byte* data(const TensorEntry& entry) const;
  uint64_t data_offset() const { return header_.data_offset; }
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  Error::Kind kind_ = Error::Kind::input;
  SafetensorsHeader header_;
  std::vector<uint32_t> by_name_;  ///< indices into entries, sorted by name
};

/// Writes one file, byte for byte as the format's own library does: by dtype from wide to narrow, then by name.
/// The bytes go into a temporary file beside `path`, whose extents are allocated at once, so that a full disk shows
/// before anything is written. Destroyed before finish(), nothing remains.
class SafetensorsWriter {
 public:
  /// Offsets of `tensors` are ignored. Errors: of `kind`; Error::internal for a name twice or one that is not allowed.
  SafetensorsWriter(std::string path, std::vector<TensorEntry> tensors, std::map<std::string, std::string> metadata,
                    Error::Kind kind = Error::Kind::storage);
  SafetensorsWriter(SafetensorsWriter&&) = default;
  ~SafetensorsWriter();

  /// In any order, from any thread; each byte once.
  void write(const std::string& name, const void* bytes, size_t size, size_t offset_in_tensor = 0);
  /// Makes the file durable under its name. Errors: of `kind`; Error::internal when bytes of a tensor are missing.
  void finish();
  /// Hashes of the finished file's tiles, header included.
  std::vector<std::string> tiles() const;
  /// Size of the whole file in bytes.
  uint64_t size() const { return data_offset_ + data_bytes_; }

 private:
  struct State;

  std::string path_, temporary_;
  Error::Kind kind_;
  std::vector<TensorEntry> entries_;
  uint64_t data_offset_ = 0, data_bytes_ = 0;
  Descriptor file_;
  std::unique_ptr<State> state_;
};

/// `model.safetensors.index.json`: which shard holds which tensor.
struct SafetensorsIndex {
  std::map<std::string, std::string> weight_map;  ///< tensor -> bare file name
  int64_t total_size = 0;                         ///< bytes of all tensors; advisory
  int64_t total_parameters = 0;

  static SafetensorsIndex read(const std::string& path, Error::Kind kind = Error::Kind::input);
  static SafetensorsIndex parse(std::string_view text, const std::string& place, Error::Kind kind = Error::Kind::input);
  void write(const std::string& path) const;
};

/// Which tensors (indices into `sizes`, bytes) stand together, shard by shard: greedy in the given order; a tensor
/// larger than `limit` has a shard of its own.
std::vector<std::vector<size_t>> plan_shards(const std::vector<int64_t>& sizes, int64_t limit);

/// "model.safetensors" of one shard, else "model-00001-of-00003.safetensors" (shard counts from 0).
std::string shard_name(size_t shard, size_t shards);

/// One view of a folder's `model.safetensors`, or of all shards that its index names.
class SafetensorsFolder {
 public:
  /// Errors: of `kind`, for any damaged file, a shard outside the folder, or tensors of shards and index that differ.
  static SafetensorsFolder open(const std::string& folder, Error::Kind kind = Error::Kind::input);

  /// All tensors, by name.
  std::vector<const TensorEntry*> entries() const;
  const TensorEntry* find(std::string_view name) const;
  const TensorEntry& at(std::string_view name) const;
  const std::byte* data(const TensorEntry& entry) const;
  /// Of the first shard.
  const std::map<std::string, std::string>& metadata() const { return files_.front().metadata(); }
  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  void open_shards(const SafetensorsIndex& index, const std::string& index_path);
  void build_index();

  std::string path_;
  Error::Kind kind_ = Error::Kind::input;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::pair<const SafetensorsFile*, const TensorEntry*>, std::less<>> by_name_;
};

}  // namespace echelon
