// Watches the calls by which this program reaches files, and makes them fail.
#pragma once

#include <functional>
#include <string_view>

namespace echelon {

/// One call of the C library that reaches files: `open`, `pwrite`, `fsync`, `rename`, …
struct FileCall {
  std::string_view name;
  bool changes = false;    ///< changes a file or a folder, or makes a change durable
  bool transfers = false;  ///< moves bytes: may also move fewer than asked for
  int file = -1;           ///< open file, where the call has one
};

/// What a hook answers: 0 lets the call go on, an errno makes it fail, `cut_short` moves half of the bytes.
constexpr int cut_short = -1;
using FileCallHook = std::function<int(const FileCall&)>;

/// While it lives, `hook` is asked before each such call of this thread, libstdc++'s included.
class WatchedCalls {
 public:
  explicit WatchedCalls(FileCallHook hook);
  ~WatchedCalls();

 private:
  FileCallHook hook_;
};

}  // namespace echelon
