#include "launch/command/rank_output.h"

#include <algorithm>
#include <csignal>
#include <regex>
#include <utility>

namespace echelon {

namespace {

constexpr size_t kMostNoiseBytes = 1 << 20;
constexpr size_t kLongestBlockBytes = 1 << 13;
constexpr std::string_view kSentenceStart = "echelon: ";
// What ends a progress line, which has no line break: the starter's words may stand right behind it.
constexpr std::string_view kDrawn = "\033[K";

// Open MPI frames each of its messages in such lines.
bool is_frame(const std::string& text) { return text.size() >= 60 && text.find_first_not_of('-') == std::string::npos; }

// "[host:4711] …"
bool is_tagged(const std::string& text) {
  static const std::regex tag(R"(\[[A-Za-z0-9._-]+:\d+\] .*)");
  return text.size() < 2000 && text.starts_with('[') && std::regex_match(text, tag);
}

int signal_of_words(const std::string& words) {
  if (words.starts_with("Killed")) return SIGKILL;
  if (words.starts_with("Segmentation fault")) return SIGSEGV;
  if (words.starts_with("Aborted")) return SIGABRT;
  if (words.starts_with("Bus error")) return SIGBUS;
  if (words.starts_with("Terminated")) return SIGTERM;
  return 0;
}

}  // namespace

void RankOutput::take(const std::string& piece) {
  pending_ += piece;
  size_t start = 0;
  while (true) {
    size_t broken = pending_.find_first_of("\n\r", start), drawn = pending_.find(kDrawn, start);
    size_t end = std::min(broken, drawn);
    if (end == std::string::npos) break;
    size_t length = drawn < broken ? kDrawn.size() : 1;
    line(pending_.substr(start, end - start), pending_.substr(end, length));
    start = end + length;
  }
  pending_.erase(0, start);
}

void RankOutput::rest() {
  bool may_be_ours = !inside_block_ && !pending_.starts_with('-') && !pending_.starts_with('[') &&
                     !pending_.starts_with(kSentenceStart);
  if (pending_.empty() || !may_be_ours) return;
  write(pending_);
  mid_line_ = true;
  pending_.clear();
}

void RankOutput::finish() {
  if (!pending_.empty()) line(pending_, "\n");
  pending_.clear();
  release_block();
  if (mid_line_) write("\n");
  mid_line_ = false;
}

void RankOutput::say(const std::string& text) {
  write((mid_line_ ? "\n" : "") + text + "\n");
  mid_line_ = false;
}

void RankOutput::line(const std::string& text, const std::string& end) {
  if (is_noise(text)) return;
  if (text.starts_with(kSentenceStart)) {
    sentence_ = text.substr(kSentenceStart.size());
    return;
  }
  write(text + end);
  mid_line_ = end != "\n";
}

bool RankOutput::is_noise(const std::string& text) {
  if (starter_ == Starter::direct) return false;
  bool slurm = starter_ == Starter::srun;
  bool prefixed = slurm ? text.starts_with("srun: ") || text.starts_with("slurmstepd") : text.starts_with("mpirun: ");
  bool frame = !slurm && is_frame(text);
  if (!frame && !inside_block_ && !is_tagged(text) && !prefixed) return false;
  if (frame && !inside_block_) block_ = {};
  read_noise(text);
  if (noise_.size() + block_text_.size() < kMostNoiseBytes) block_text_ += text + "\n";
  if (frame) inside_block_ = !inside_block_;
  if (!inside_block_) noise_ += std::exchange(block_text_, "");
  if (block_text_.size() > kLongestBlockBytes) release_block();
  return true;
}

// What began like a message of the starter and did not end like one was somebody else's.
void RankOutput::release_block() {
  write(std::exchange(block_text_, ""));
  inside_block_ = false;
}

// The first verdict names the rank that failed; later ones are those that were ended for it.
void RankOutput::read_noise(const std::string& text) {
  static const std::regex by_signal(
      R"(.*process rank (\d{1,9}) with PID \d+ on node (\S+) exited on signal (\d{1,9}).*)");
  static const std::regex aborted(R"(MPI_ABORT was invoked on rank (\d{1,9}) .*)");
  static const std::regex with_code(R"(with errorcode (\d{1,9})\.?)");
  static const std::regex process(R"(\s*Process name: \[\[\d+,\d+\],(\d{1,9})\])");
  static const std::regex exit_code(R"(\s*Exit code:\s+(\d{1,9}))");
  static const std::regex slurm(R"(srun: error: (\S+): tasks? (\d{1,9})[^:]*: (.*))");
  static const std::regex slurm_code(R"(Exited with exit code (\d{1,9}).*)");
  if (verdict_ || text.size() > 2000) return;
  std::smatch match, code;
  if (std::regex_match(text, match, by_signal)) {
    verdict_ = {std::stoi(match[1]), match[2], std::stoi(match[3]), 0};
  } else if (std::regex_match(text, match, aborted) || std::regex_match(text, match, process)) {
    block_.rank = std::stoi(match[1]);
  } else if (std::regex_match(text, match, with_code) || std::regex_match(text, match, exit_code)) {
    block_.exit_code = std::stoi(match[1]);
    if (block_.rank >= 0) verdict_ = block_;
  } else if (std::regex_match(text, match, slurm)) {
    std::string words = match[3];
    bool coded = std::regex_match(words, code, slurm_code);
    verdict_ = {std::stoi(match[2]), match[1], coded ? 0 : signal_of_words(words), coded ? std::stoi(code[1]) : 0};
  }
}

void RankOutput::write(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
}

}  // namespace echelon
