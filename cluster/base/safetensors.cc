#include "cluster/base/safetensors.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cluster/base/text.h"

namespace echelon {

namespace {

bool begins_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

/// Other people's model files, told by their first bytes: the header check would refuse them too, but not by name.
void refuse_other_formats(const MappedFile& file, Error::Kind kind) {
  bool is_zip = begins_with(file.bytes(), "PK\x03\x04");
  bool is_pickle = begins_with(file.bytes(), "\x80\x02") || begins_with(file.bytes(), "\x80\x04");
  // A header of 640 or 1152 bytes begins with those two bytes as well; its JSON then begins at byte 8.
  bool has_header = file.size() > 8 && file.data()[8] == std::byte{'{'};
  if (is_zip || (is_pickle && !has_header)) {
    throw Error(kind, file.path(), "PICKLE_REFUSED: a PyTorch pickle can run code when it is read")
        .remedy("convert it to safetensors where you trust it");
  }
  if (begins_with(file.bytes(), "GGUF")) throw Error(kind, file.path(), "FORMAT: GGUF is not read, safetensors is");
}

Error no_such_tensor(Error::Kind kind, const std::string& place, std::string_view name,
                     const std::vector<std::string>& names) {
  return Error(kind, place, fmt::format("no tensor \"{}\"", name)).remedy(did_you_mean(name, names));
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path, Error::Kind kind) {
  return open(MappedFile::open(path, kind), kind);
}

SafetensorsFile SafetensorsFile::open(MappedFile mapped, Error::Kind kind) {
  SafetensorsFile file;
  file.file_ = std::move(mapped);
  file.kind_ = kind;
  refuse_other_formats(file.file_, kind);
  file.header_ = parse_safetensors(file.file_.bytes(), file.file_.path(), kind);
  const std::vector<TensorEntry>& entries = file.entries();
  file.by_name_.resize(entries.size());
  std::iota(file.by_name_.begin(), file.by_name_.end(), 0);
  std::sort(file.by_name_.begin(), file.by_name_.end(),
            [&](uint32_t a, uint32_t b) { return entries[a].name < entries[b].name; });
  return file;
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name, [&](uint32_t index, std::string_view wanted) {
    return entries()[index].name < wanted;
  });
  return found != by_name_.end() && entries()[*found].name == name ? &entries()[*found] : nullptr;
}

const TensorEntry& SafetensorsFile::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  std::vector<std::string> names;
  for (const TensorEntry& entry : entries()) names.push_back(entry.name);
  throw no_such_tensor(kind_, file_.path(), name, names);
}

const std::byte* SafetensorsFile::data(const TensorEntry& entry) const {
  if (!dtype_is_loadable(entry.dtype)) {
    throw Error(
        kind_, file_.path(),
        fmt::format("tensor \"{}\" has dtype {}, which Echelon does not load", entry.name, dtype_name(entry.dtype)));
  }
  return file_.data() + data_offset() + entry.begin;
}

const TensorEntry* SafetensorsFolder::find(std::string_view name) const {
  auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second.second;
}

const TensorEntry& SafetensorsFolder::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  std::vector<std::string> names;
  for (const auto& [known, entry] : by_name_) names.push_back(known);
  throw no_such_tensor(kind_, path_, name, names);
}

const std::byte* SafetensorsFolder::data(const TensorEntry& entry) const {
  return by_name_.find(entry.name)->second.first->data(entry);
}

std::vector<const TensorEntry*> SafetensorsFolder::entries() const {
  std::vector<const TensorEntry*> all;
  for (const auto& [name, place] : by_name_) all.push_back(place.second);
  return all;
}

}  // namespace echelon
