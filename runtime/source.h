// Where samples come from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "models/objective.h"

namespace echelon {

class Source {
 public:
  struct Context {
    int64_t lookahead = 0;   ///< tokens behind a sample's T that the objective also needs
  };
  virtual ~Source() = default;

  /// Samples; an incomplete last one is dropped.
  virtual int64_t size() const = 0;
  /// T, the input tokens of a sample.
  virtual int64_t length() const = 0;
  /// Writes the T + lookahead tokens of sample `index`.
  virtual void read(int64_t index, int64_t* tokens) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  /// Place of a sample, for messages.
  virtual std::string describe(int64_t index) const = 0;
  /// Folder of the tokenizer that made the ids; empty: unknown.
  virtual std::string tokenizer_folder() const = 0;
};

}  // namespace echelon
