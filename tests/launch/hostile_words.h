// Words that a shell, a terminal, an option parser or Slurm would take for something else.
#pragma once

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace echelon {

/// `count` words; what stands in one, if it were ever run, would make the file `canary`.
inline std::vector<std::string> hostile_words(int count, unsigned seed = 5) {
  static const std::vector<std::string> pieces = {"'",
                                                  "\"",
                                                  "$(touch canary)",
                                                  "`touch canary`",
                                                  "\\",
                                                  "\n",
                                                  ";",
                                                  "&",
                                                  "|",
                                                  "*",
                                                  " ",
                                                  "-",
                                                  "$HOME",
                                                  "\x1b[31m",
                                                  "%s",
                                                  "#",
                                                  "a",
                                                  "\xff",
                                                  "=",
                                                  "'\\''",
                                                  ":",
                                                  "--",
                                                  "-oProxyCommand=touch canary",
                                                  "\n#SBATCH --wrap=touch\\ canary\n",
                                                  "\r",
                                                  "\t",
                                                  "%j",
                                                  "{}",
                                                  "$IFS",
                                                  "!!",
                                                  "~",
                                                  "<(touch canary)",
                                                  "\xe2\x80\xae"};
  std::mt19937 random(seed);
  std::vector<std::string> words;
  for (int i = 0; i < count; ++i) {
    std::string word;
    for (unsigned length = random() % 8; length > 0; --length) word += pieces[random() % pieces.size()];
    words.push_back(word);
  }
  return words;
}

/// Words in each field of a launch: ECHELON_HOSTILE_WORDS, or what takes a second.
inline int hostile_trials(int otherwise) {
  const char* asked = std::getenv("ECHELON_HOSTILE_WORDS");
  return asked ? std::atoi(asked) : otherwise;
}

}  // namespace echelon
