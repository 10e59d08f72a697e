#include "cluster/base/log.h"

#include <mutex>

#include <fcntl.h>
#include <sys/stat.h>

#include <glog/logging.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"
#include "cluster/base/secret.h"

namespace echelon {

namespace {

/// glog by itself writes to the shared temporary folder, under names that anyone can guess, and links to them.
void start_glog() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (int severity = 0; severity < google::NUM_SEVERITIES; ++severity) {
      google::SetLogDestination(severity, "");
      google::SetLogSymlink(severity, "");
    }
    FLAGS_logtostderr = true;
    google::InitGoogleLogging("echelon");
  });
}

/// glog opens the file itself, follows links and only complains on stderr: we open first and refuse.
void check_log_file(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0640));
  if (!file.is_open()) throw system_error(Error::Kind::storage, path, "open the log");
  if (::fchmod(file.get(), 0640) != 0) throw system_error(Error::Kind::storage, path, "restrict the log");
}

}  // namespace

void log_to_file(const std::string& path) {
  start_glog();
  check_log_file(path);
  FLAGS_logfile_mode = 0640;
  FLAGS_timestamp_in_logfile_name = false;
  FLAGS_logtostderr = false;
  FLAGS_logbuflevel = -1;  // Every line reaches the file: the last ones before a crash are the ones that count.
  google::SetLogDestination(google::GLOG_INFO, path.c_str());
}

void log_line(LogLevel level, const char* file, int line, const std::string& text) {
  start_glog();
  constexpr int severities[] = {google::GLOG_INFO, google::GLOG_WARNING, google::GLOG_ERROR};
  google::LogMessage(file, line, severities[static_cast<int>(level)]).stream() << printable(redacted(text));
}

}  // namespace echelon
