#include "cluster/base/bus_error.h"

#include <array>
#include <atomic>
#include <csignal>

#include <unistd.h>

namespace echelon {

namespace {

struct Mapping {
  const char* begin;
  size_t size;
  std::string sentence;
  int exit_code;
};

/// Read by a signal's handler, so without a lock. More mappings than places are not named.
std::array<std::atomic<Mapping*>, 4096> mappings;

void handle(int signal, siginfo_t* info, void*) {
  const char* address = static_cast<const char*>(info->si_addr);
  for (const std::atomic<Mapping*>& each : mappings) {
    const Mapping* mapping = each.load();
    if (!mapping || address < mapping->begin || address >= mapping->begin + mapping->size) continue;
    ssize_t written = ::write(STDERR_FILENO, mapping->sentence.data(), mapping->sentence.size());
    ::_exit(written < 0 ? 1 : mapping->exit_code);
  }
  std::signal(signal, SIG_DFL);  // and again, when this returns
}

}  // namespace

void name_file_on_bus_error() {
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

void note_mapping(const void* data, size_t size, const std::string& path, Error::Kind kind) {
  Error error(kind, path, "CHANGED: file was cut short, or could not be read, while it was in use");
  auto* mapping = new Mapping{static_cast<const char*>(data), size, "echelon: " + std::string(error.what()) + "\n",
                              error.exit_code()};
  for (std::atomic<Mapping*>& each : mappings) {
    Mapping* none = nullptr;
    if (each.compare_exchange_strong(none, mapping)) return;
  }
  delete mapping;
}

void forget_mapping(const void* data) {
  for (std::atomic<Mapping*>& each : mappings) {
    Mapping* mapping = each.load();
    if (!mapping || mapping->begin != data) continue;
    each.store(nullptr);
    delete mapping;
    return;
  }
}

}  // namespace echelon
