// Typed reading of a config.json whose keys may be left out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/base/json.h"
#include "models/architecture.h"

namespace echelon {

/// Reads one config. Errors: of the given kind, with the place, the key and the range.
class ConfigReader {
 public:
  ConfigReader(const Json& config, std::string place, Error::Kind kind);

  /// A number of things: 1 to 2^31 - 1.
  int64_t size(const std::string& key, int64_t otherwise) const;
  int64_t layers(const std::string& key, int64_t otherwise) const;
  /// A probability below 1.
  double rate(const std::string& key, double otherwise) const;
  double number(const std::string& key, double min, double max, double otherwise) const;
  bool flag(const std::string& key, bool otherwise) const;
  std::string text(const std::string& key, const std::string& otherwise) const;
  Activation activation(const std::string& key, const std::string& otherwise) const;
  /// The id of padding, or -1.
  int64_t padding_id(int64_t vocabulary, int64_t otherwise) const;
  /// A member, or null when it is not there or is a null of JSON.
  const Json* find(const std::string& key) const { return has(key) ? &config_.at(key) : nullptr; }
  /// A list of texts; a missing one is empty.
  std::vector<std::string> texts(const std::string& key) const;
  std::vector<int64_t> sizes(const std::string& key) const;
  /// A member that is an object, or null.
  const Json* object(const std::string& key) const;
  ConfigReader within(const std::string& key) const;
  bool has(const std::string& key) const;

  /// Throws when `key` is there with another value: it changes the maths and is not implemented.
  void require(const std::string& key, const Json& only) const;
  /// Throws when `key` is there and is neither null nor false nor empty.
  void refuse(const std::string& key) const;
  /// An error about one key.
  Error mistake(const std::string& key, std::string what) const;
  /// Something that the user should know and that is not an error.
  void warn(std::string sentence) const { warnings_.push_back(place_ + ": " + std::move(sentence)); }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  const Json& config_;
  std::string place_;
  Error::Kind kind_;
  mutable std::vector<std::string> warnings_;
};

/// Throws unless heads divide the width, key heads divide the heads, and the whole model has a size that can exist.
void check_shape(const Architecture& architecture, const ConfigReader& config, const std::string& width_key,
                 const std::string& heads_key, const std::string& kv_heads_key);

}  // namespace echelon
