// Definitions in a program come before those of the shared libraries: ours stand in front of the C library's.
#include "tests/store/faults/file_calls.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace echelon {
namespace {

thread_local FileCallHook* watching = nullptr;

/// The hook's own calls are not watched.
int answer_to(const FileCall& call) {
  FileCallHook* hook = std::exchange(watching, nullptr);
  if (!hook) return 0;
  int reply = (*hook)(call);
  watching = hook;
  return reply;
}

template <class Result, class... Arguments>
Result pass_on(std::string_view name, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(::dlsym(RTLD_NEXT, name.data()))(arguments...);
}

template <class Result, class... Arguments>
Result ask(const FileCall& call, Result failed, Arguments... arguments) {
  int reply = answer_to(call);
  if (reply <= 0) return pass_on<Result>(call.name, arguments...);
  errno = reply;
  return failed;
}

template <class Bytes, class... Offset>
ssize_t transfer(const FileCall& call, Bytes bytes, size_t size, Offset... offset) {
  int reply = answer_to(call);
  if (reply == cut_short && size > 1) size /= 2;
  if (reply <= 0) return pass_on<ssize_t>(call.name, call.file, bytes, size, offset...);
  errno = reply;
  return -1;
}

/// What is closed is closed, also where closing reports a failure.
template <class Handle>
int close_and_report(const FileCall& call, Handle handle) {
  int reply = answer_to(call);
  int result = pass_on<int>(call.name, handle);
  if (reply <= 0) return result;
  errno = reply;
  return -1;
}

mode_t mode_of(int flags, std::va_list& arguments) { return flags & O_CREAT ? va_arg(arguments, mode_t) : 0; }

}  // namespace

WatchedCalls::WatchedCalls(FileCallHook hook) : hook_(std::move(hook)) { watching = &hook_; }
WatchedCalls::~WatchedCalls() { watching = nullptr; }

}  // namespace echelon

using echelon::ask;
using echelon::transfer;

extern "C" {

int open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  mode_t mode = echelon::mode_of(flags, arguments);
  va_end(arguments);
  return ask<int>({.name = "open", .changes = (flags & O_CREAT) != 0}, -1, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  mode_t mode = echelon::mode_of(flags, arguments);
  va_end(arguments);
  return ask<int>({.name = "openat", .changes = (flags & O_CREAT) != 0}, -1, folder, path, flags, mode);
}
int close(int file) { return echelon::close_and_report({.name = "close", .file = file}, file); }

ssize_t read(int file, void* bytes, size_t size) {
  return transfer({.name = "read", .transfers = true, .file = file}, bytes, size);
}
ssize_t pread(int file, void* bytes, size_t size, off_t offset) {
  return transfer({.name = "pread", .transfers = true, .file = file}, bytes, size, offset);
}
ssize_t pwrite(int file, const void* bytes, size_t size, off_t offset) {
  return transfer({.name = "pwrite", .changes = true, .transfers = true, .file = file}, bytes, size, offset);
}

int fsync(int file) { return ask<int>({.name = "fsync", .changes = true, .file = file}, -1, file); }
int ftruncate(int file, off_t size) __THROW {
  return ask<int>({.name = "ftruncate", .changes = true, .file = file}, -1, file, size);
}
int fallocate(int file, int mode, off_t offset, off_t size) {
  return ask<int>({.name = "fallocate", .changes = true, .file = file}, -1, file, mode, offset, size);
}
int futimens(int file, const struct timespec times[2]) __THROW {
  return ask<int>({.name = "futimens", .changes = true, .file = file}, -1, file, times);
}
void* mmap(void* place, size_t size, int protection, int flags, int file, off_t offset) __THROW {
  if (file < 0) return echelon::pass_on<void*>("mmap", place, size, protection, flags, file, offset);
  return ask<void*>({.name = "mmap", .file = file}, MAP_FAILED, place, size, protection, flags, file, offset);
}

int rename(const char* from, const char* to) __THROW {
  return ask<int>({.name = "rename", .changes = true}, -1, from, to);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned int flags) __THROW {
  return ask<int>({.name = "renameat2", .changes = true}, -1, from_folder, from, to_folder, to, flags);
}
int mkdir(const char* path, mode_t mode) __THROW {
  return ask<int>({.name = "mkdir", .changes = true}, -1, path, mode);
}
int unlink(const char* path) __THROW { return ask<int>({.name = "unlink", .changes = true}, -1, path); }
int unlinkat(int folder, const char* path, int flags) __THROW {
  return ask<int>({.name = "unlinkat", .changes = true}, -1, folder, path, flags);
}
int remove(const char* path) __THROW { return ask<int>({.name = "remove", .changes = true}, -1, path); }

int stat(const char* path, struct stat* status) __THROW { return ask<int>({.name = "stat"}, -1, path, status); }
int lstat(const char* path, struct stat* status) __THROW { return ask<int>({.name = "lstat"}, -1, path, status); }
int fstat(int file, struct stat* status) __THROW { return ask<int>({.name = "fstat", .file = file}, -1, file, status); }
int statvfs(const char* path, struct statvfs* status) __THROW {
  return ask<int>({.name = "statvfs"}, -1, path, status);
}

DIR* opendir(const char* path) { return ask<DIR*>({.name = "opendir"}, nullptr, path); }
DIR* fdopendir(int file) { return ask<DIR*>({.name = "fdopendir", .file = file}, nullptr, file); }
struct dirent* readdir(DIR* folder) {
  return ask<struct dirent*>({.name = "readdir"}, nullptr, folder);
}
int closedir(DIR* folder) { return echelon::close_and_report({.name = "closedir"}, folder); }

}  // extern "C"
