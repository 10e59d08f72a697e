// Logging. glog stays behind this header: its macros clash with LibTorch's.
#pragma once

#include <string>

#include <fmt/format.h>

#include "cluster/base/error.h"

namespace echelon {

enum class LogLevel { info, warning, error };

/// Sends lines to `path` (created with mode 0640); before the call, and for errors always, lines go to stderr.
void log_to_file(const std::string& path);
void log_line(LogLevel level, const char* file, int line, const std::string& text);

}  // namespace echelon

#define EC_LOG(level, ...) \
  ::echelon::log_line(::echelon::LogLevel::level, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__))

/// An internal check: false is a bug in Echelon.
#define EC_CHECK(condition, ...)                                                                \
  do {                                                                                          \
    if (!(condition)) throw ::echelon::Error::internal(#condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
