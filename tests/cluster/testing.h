// What tests of stored things share: a folder that goes away, and errors as statements.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"
#include "cluster/base/files.h"

namespace echelon {

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent = testing::TempDir())
      : path_(join_path(parent, "echelon-" + random_name())) {
    make_folders(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string at(const std::string& name) const { return join_path(path_, name); }

 private:
  std::string path_;
};

/// "" when `action` throws an Error of that kind whose sentence contains `part`, else what happened instead.
inline std::string not_refused(const std::function<void()>& action, Error::Kind kind, const std::string& part) {
  try {
    action();
  } catch (const Error& error) {
    bool is_right = error.kind() == kind && std::string(error.what()).find(part) != std::string::npos;
    return is_right ? "" : fmt::format("wrong error: {}", error.what());
  }
  return "nothing was thrown";
}

#define EXPECT_REFUSED(action, kind, part) \
  EXPECT_EQ(::echelon::not_refused([&] { (void)(action); }, ::echelon::Error::Kind::kind, part), "")

inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string contents(const std::string& path) { return read_file(path, Error::Kind::input, 1 << 30); }

}  // namespace echelon
