#include "cluster/base/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "cluster/base/json.h"

namespace echelon {

namespace {

constexpr size_t most_tensors = 1'000'000, most_metadata = 100'000, longest_name = 4096, highest_rank = 64;

/// Takes the header apart as it is parsed: building a JSON value first would cost many times the header's size.
class HeaderReader {
 public:
  HeaderReader(const std::string& place, Error::Kind kind, SafetensorsHeader& header)
      : place_(place), kind_(kind), header_(header) {}

  bool null() { return refuse("null"); }
  bool boolean(bool) { return refuse("true or false"); }
  bool number_integer(int64_t) { return refuse("a negative number"); }
  bool number_float(double, const std::string&) { return refuse("a number that is no integer below 2^64"); }
  bool binary(Json::binary_t&) { return false; }

  bool number_unsigned(uint64_t value) {
    if (level_ == Level::shape) return add_size(value);
    if (level_ == Level::offsets) return add_offset(value);
    return refuse("a number");
  }

  bool string(std::string& value) {
    if (level_ == Level::metadata) {
      header_.metadata.emplace(key_, std::move(value));
    } else if (level_ == Level::tensor && field_ == dtype) {
      set_dtype(value);
    } else {
      refuse("a string");
    }
    return true;
  }

  bool start_object(size_t) {
    if (level_ == Level::start) return enter(Level::root);
    if (level_ != Level::root) return refuse("an object");
    if (key_ == "__metadata__") return enter_metadata();
    return enter_tensor();
  }

  bool end_object() {
    if (level_ == Level::tensor && seen_ != (dtype | shape | offsets)) {
      throw damaged(fmt::format("tensor \"{}\" lacks dtype, shape or data_offsets", shown_name()));
    }
    return enter(level_ == Level::root ? Level::end : Level::root);
  }

  bool start_array(size_t) {
    if (level_ == Level::tensor && field_ == shape) return enter(Level::shape);
    if (level_ == Level::tensor && field_ == offsets) return enter(Level::offsets);
    return refuse("an array");
  }

  bool end_array() {
    if (level_ == Level::offsets && offsets_read_ != 2) {
      throw damaged(fmt::format("tensor \"{}\": data_offsets are not two numbers", shown_name()));
    }
    return enter(Level::tensor);
  }

  bool key(std::string& key) {
    if (level_ == Level::metadata) check_metadata_key(key);
    if (level_ == Level::tensor) set_field(key);
    key_ = std::move(key);
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& mistake) {
    throw damaged(json_mistake(mistake));
  }

  Error damaged(const std::string& what) const { return Error(kind_, place_, "HEADER: " + what); }

 private:
  enum class Level { start, root, metadata, tensor, shape, offsets, end };
  enum Field { none = 0, dtype = 1, shape = 2, offsets = 4 };

  bool enter(Level level) {
    level_ = level;
    return true;
  }

  bool enter_metadata() {
    if (metadata_seen_) throw damaged("__metadata__ stands twice");
    metadata_seen_ = true;
    return enter(Level::metadata);
  }

  bool enter_tensor() {
    check_name(key_);
    if (header_.entries.size() == most_tensors) throw damaged(fmt::format("more than {} tensors", most_tensors));
    header_.entries.emplace_back().name = std::move(key_);
    seen_ = 0;
    offsets_read_ = 0;
    return enter(Level::tensor);
  }

  void check_name(const std::string& name) const {
    if (name.size() > longest_name) throw damaged(fmt::format("a tensor's name is longer than {} bytes", longest_name));
    if (std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
      throw damaged(fmt::format("tensor \"{}\" has control characters in its name", name));
    }
  }

  void check_metadata_key(const std::string& key) const {
    if (header_.metadata.count(key)) throw damaged(fmt::format("__metadata__ has \"{}\" twice", key.substr(0, 200)));
    if (header_.metadata.size() == most_metadata) {
      throw damaged(fmt::format("more than {} entries in __metadata__", most_metadata));
    }
  }

  void set_field(const std::string& key) {
    field_ = key == "dtype" ? dtype : key == "shape" ? shape : key == "data_offsets" ? offsets : none;
    if (field_ == none)
      throw damaged(fmt::format("tensor \"{}\" has an unknown field \"{}\"", shown_name(), key.substr(0, 200)));
    if (seen_ & field_) throw damaged(fmt::format("tensor \"{}\" has {} twice", shown_name(), key));
    seen_ |= field_;
  }

  void set_dtype(const std::string& value) {
    try {
      header_.entries.back().dtype = parse_dtype(value);
    } catch (const Error& error) {
      throw damaged(fmt::format("tensor \"{}\": unknown dtype \"{}\"", shown_name(), value.substr(0, 40)));
    }
  }

  bool add_size(uint64_t value) {
    TensorEntry& entry = header_.entries.back();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      throw damaged(fmt::format("tensor \"{}\": a size of its shape is beyond 2^63", shown_name()));
    }
    if (entry.shape.size() == highest_rank) {
      throw damaged(fmt::format("tensor \"{}\" has more than {} dimensions", shown_name(), highest_rank));
    }
    entry.shape.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool add_offset(uint64_t value) {
    TensorEntry& entry = header_.entries.back();
    if (offsets_read_ == 2) throw damaged(fmt::format("tensor \"{}\": data_offsets are not two numbers", shown_name()));
    (offsets_read_++ == 0 ? entry.begin : entry.end) = value;
    return true;
  }

  bool refuse(std::string_view found) const {
    std::string where = level_ == Level::start      ? "the header"
                        : level_ == Level::root     ? fmt::format("the value of \"{}\"", key_.substr(0, 200))
                        : level_ == Level::metadata ? fmt::format("__metadata__ \"{}\"", key_.substr(0, 200))
                        : level_ == Level::tensor   ? fmt::format("tensor \"{}\", {}", shown_name(), key_)
                        : level_ == Level::shape    ? fmt::format("tensor \"{}\", shape", shown_name())
                                                    : fmt::format("tensor \"{}\", data_offsets", shown_name());
    throw damaged(where + " has the wrong type").got(found).expected(expected_here());
  }

  std::string_view expected_here() const {
    switch (level_) {
      case Level::metadata:
        return "a string";
      case Level::tensor:
        return field_ == dtype ? "a string" : "an array";
      case Level::shape:
      case Level::offsets:
        return "an integer that is not negative";
      default:
        return "an object";
    }
  }

  std::string shown_name() const { return header_.entries.back().name.substr(0, 200); }

  const std::string& place_;
  Error::Kind kind_;
  SafetensorsHeader& header_;
  Level level_ = Level::start;
  std::string key_;
  int field_ = none, seen_ = 0, offsets_read_ = 0;
  bool metadata_seen_ = false;
};

std::string_view header_text(std::span<const std::byte> file, const HeaderReader& reader) {
  uint64_t length = 0;
  if (file.size() < sizeof length) throw reader.damaged("file is shorter than 8 bytes").got(file.size());
  std::memcpy(&length, file.data(), sizeof length);
  if (length > safetensors_header_limit) {
    throw reader.damaged("header length is beyond the limit")
        .got(length)
        .expected(fmt::format("at most {}", safetensors_header_limit));
  }
  if (length > file.size() - sizeof length) {
    throw reader.damaged("header is longer than the file")
        .got(length)
        .expected(fmt::format("at most {}", file.size() - sizeof length));
  }
  std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof length, length);
  if (text.empty() || text[0] != '{') throw reader.damaged("header does not begin with {");
  return text;
}

void check_duplicates(const std::vector<TensorEntry>& entries, const HeaderReader& reader) {
  std::vector<uint32_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return entries[a].name < entries[b].name; });
  auto same = [&](uint32_t a, uint32_t b) { return entries[a].name == entries[b].name; };
  auto twice = std::adjacent_find(order.begin(), order.end(), same);
  if (twice != order.end()) throw reader.damaged(fmt::format("tensor \"{}\" stands twice", entries[*twice].name));
}

void check_size(const TensorEntry& entry, const HeaderReader& reader) {
  uint64_t bytes = 0;
  try {
    bytes = tensor_bytes(entry.dtype, entry.shape);
  } catch (const Error& error) {
    std::string_view problem = error.what();
    throw reader.damaged(fmt::format("tensor \"{}\": {}", entry.name, problem.substr(problem.find(": ") + 2)));
  }
  if (entry.begin > entry.end) throw reader.damaged(fmt::format("tensor \"{}\" ends before it begins", entry.name));
  if (entry.end - entry.begin != bytes) {
    throw reader.damaged(fmt::format("tensor \"{}\": offsets do not fit its shape", entry.name))
        .got(fmt::format("{} bytes", entry.end - entry.begin))
        .expected(fmt::format("{} for {} [{}]", bytes, dtype_name(entry.dtype), fmt::join(entry.shape, ", ")));
  }
}

/// Tensors must follow each other without gap or overlap and fill the file: no byte is used twice, none is hidden.
void check_tiling(const std::vector<TensorEntry>& entries, uint64_t buffer, const HeaderReader& reader) {
  uint64_t at = 0;
  for (const TensorEntry& entry : entries) {
    if (entry.end > buffer) {
      throw reader.damaged(fmt::format("tensor \"{}\" ends beyond the file", entry.name))
          .got(fmt::format("end {}", entry.end))
          .expected(fmt::format("at most {}: the file may be truncated", buffer));
    }
    if (entry.begin < at) throw reader.damaged(fmt::format("tensor \"{}\" overlaps the one before it", entry.name));
    if (entry.begin > at) {
      throw reader.damaged(fmt::format("{} before tensor \"{}\"",
                                       at == 0 ? "first tensor does not begin at 0: unused bytes" : "gap", entry.name));
    }
    at = entry.end;
  }
  if (at != buffer) throw reader.damaged("bytes follow the last tensor").got(buffer).expected(at);
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& place, Error::Kind kind) {
  SafetensorsHeader header;
  HeaderReader reader(place, kind, header);
  std::string_view text = header_text(file, reader);
  parse_json_events(text, reader);
  header.data_offset = 8 + text.size();
  check_duplicates(header.entries, reader);
  for (const TensorEntry& entry : header.entries) check_size(entry, reader);
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_tiling(header.entries, file.size() - header.data_offset, reader);
  return header;
}

uint64_t arrange_entries(std::vector<TensorEntry>& entries) {
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  uint64_t at = 0;
  for (TensorEntry& entry : entries) {
    entry.begin = at;
    at += tensor_bytes(entry.dtype, entry.shape);
    entry.end = at;
  }
  return at;
}

std::string encode_header(const std::vector<TensorEntry>& entries, const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + dump_json(Json(metadata));
  for (const TensorEntry& entry : entries) {
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                        dump_json(Json(entry.name)), dtype_name(entry.dtype), fmt::join(entry.shape, ","), entry.begin,
                        entry.end);
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > safetensors_header_limit)
    throw Error::internal("safetensors header", "beyond its limit").got(text.size());
  uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace echelon
