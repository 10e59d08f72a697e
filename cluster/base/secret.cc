#include "cluster/base/secret.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <optional>

namespace echelon {

namespace {

constexpr std::string_view kRedacted = "<redacted>";
constexpr size_t kShortestToken = 16, kShortestValue = 8, kShortestRandom = 32;
constexpr double kRandomBits = 4.2;  // of entropy for each character; a path or a sentence has less

constexpr std::array<std::string_view, 18> kPrefixes = {"hf_",    "ghp_",  "gho_",   "ghs_", "ghu_",  "github_pat_",
                                                        "glpat-", "sk-",   "AKIA",   "ASIA", "AIza",  "xoxb-",
                                                        "xoxp-",  "xapp-", "wandb_", "npm_", "pypi-", "eyJ"};
constexpr std::array<std::string_view, 9> kNames = {"token",  "secret",  "password",   "passwd",    "api_key",
                                                    "apikey", "api-key", "access_key", "credential"};

bool is_letter_of_word(char c) {
  auto byte = static_cast<unsigned char>(c);
  return std::isalnum(byte) || c == '_' || c == '-' || c == '+' || c == '.' || c == '~' || byte >= 0x80;
}

std::string lower(std::string_view text) {
  std::string low(text);
  std::transform(low.begin(), low.end(), low.begin(), [](unsigned char c) { return std::tolower(c); });
  return low;
}

bool has(std::string_view word, int (*kind)(int)) {
  return std::any_of(word.begin(), word.end(), [&](unsigned char c) { return kind(c) != 0; });
}

/// Whether letters and digits stand in one long run, as they do in a token and not in a name like hf_models_2024.
bool has_long_run(std::string_view word) {
  for (size_t begin = 0; begin < word.size();) {
    size_t end = begin;
    while (end < word.size() && std::isalnum(static_cast<unsigned char>(word[end]))) ++end;
    std::string_view run = word.substr(begin, end - begin);
    if (run.size() >= kShortestToken && has(run, std::isdigit) && has(run, std::isalpha)) return true;
    begin = end + 1;
  }
  return false;
}

bool is_token(std::string_view word) {
  return std::any_of(kPrefixes.begin(), kPrefixes.end(), [&](std::string_view prefix) {
    return word.starts_with(prefix) && has_long_run(word.substr(prefix.size()));
  });
}

double entropy(std::string_view word) {
  std::array<int, 256> counts{};
  for (unsigned char c : word) ++counts[c];
  double bits = 0;
  for (int count : counts) {
    double share = static_cast<double>(count) / static_cast<double>(word.size());
    if (count > 0) bits -= share * std::log2(share);
  }
  return bits;
}

/// Letters of both cases and digits, without the dots and hyphens that names of files have.
bool is_random(std::string_view word) {
  bool is_plain = std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isalnum(c) || c == '+'; });
  return word.size() >= kShortestRandom && is_plain && has(word, std::isupper) && has(word, std::islower) &&
         has(word, std::isdigit) && entropy(word) > kRandomBits;
}

bool names_secret(std::string_view word) {
  std::string low = lower(word);
  return std::any_of(kNames.begin(), kNames.end(), [&](std::string_view name) { return low.ends_with(name); });
}

/// A piece of a text that is to be hidden.
struct Piece {
  size_t begin, end;
};

/// Goes through a text word by word.
class Search {
 public:
  Search(std::string_view text, bool random) : text_(text), random_(random) {}

  std::optional<Piece> next() {
    while (at_ < text_.size()) {
      if (std::optional<Piece> user = user_of_url()) return take(*user);
      if (!is_letter_of_word(text_[at_])) {
        ++at_;
        continue;
      }
      while (at_ + 1 < text_.size() && text_[at_] == '-' && is_letter_of_word(text_[at_ + 1])) ++at_;  // of a flag
      size_t end = end_of_word(at_);
      std::string_view word = text_.substr(at_, end - at_);
      if (is_token(word) || (random_ && is_random(word))) return take({at_, end});
      std::optional<Piece> value = value_of(word, end);
      at_ = end;
      if (value) return take(*value);
    }
    return {};
  }

 private:
  size_t end_of_word(size_t begin) const {
    size_t end = begin;
    while (end < text_.size() && is_letter_of_word(text_[end])) ++end;
    return end;
  }

  Piece take(Piece piece) {
    at_ = piece.end;
    return piece;
  }

  /// `//user:password@`.
  std::optional<Piece> user_of_url() const {
    if (!text_.substr(at_).starts_with("//")) return {};
    size_t end = text_.find_first_of("/ \t\n\"'<>", at_ + 2);
    size_t host = text_.substr(0, end).rfind('@');
    if (host == std::string_view::npos || host <= at_ + 2) return {};
    return Piece{at_ + 2, host};
  }

  /// What stands behind `token=`, `"password": "` or `Bearer `.
  std::optional<Piece> value_of(std::string_view word, size_t end) const {
    size_t begin = end;
    bool is_bearer = word == "Bearer" || word == "bearer";
    if (is_bearer) {
      begin = text_.find_first_not_of(' ', end);
    } else if (names_secret(word)) {
      size_t sign = text_.find_first_not_of("\"' ", end);
      if (sign == std::string_view::npos || (text_[sign] != '=' && text_[sign] != ':')) return {};
      begin = text_.find_first_not_of("\"' ", sign + 1);
    } else {
      return {};
    }
    if (begin == std::string_view::npos || begin == end) return {};
    size_t stop = std::min(text_.size(), text_.find_first_of(" \t\n\"',;&<>{}[]()", begin));
    while (stop > begin && (text_[stop - 1] == ':' || text_[stop - 1] == '.')) --stop;  // of the sentence around it
    std::string_view value = text_.substr(begin, stop - begin);
    bool is_said = text_.substr(end, begin - end).find_first_of("=\"") != std::string_view::npos;
    // `pad_token: unknown` is a sentence.
    if (value.size() < kShortestValue || (!is_said && !is_bearer && !has(value, std::isdigit))) return {};
    return Piece{begin, stop};
  }

  std::string_view text_;
  bool random_;
  size_t at_ = 0;
};

}  // namespace

std::string redacted(std::string_view text) {
  std::string out;
  size_t done = 0;
  Search search(text, /*random=*/true);
  while (std::optional<Piece> piece = search.next()) {
    out += text.substr(done, piece->begin - done);
    out += kRedacted;
    done = piece->end;
  }
  return out += text.substr(done);
}

bool holds_secret(std::string_view text) { return Search(text, /*random=*/false).next().has_value(); }

}  // namespace echelon
