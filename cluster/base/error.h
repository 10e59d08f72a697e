// The one exception of Echelon: what went wrong, where, what was expected, what to do, and the exit code that follows.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace echelon {

/// Thrown for everything that ends a command. Reads as one sentence:
///   `<kind>: <place>: <what>, expected <expected>; <remedy>`
/// The kind decides the exit code. Context is added as the error passes up:
///   `catch (Error& error) { throw error.within("step 17"); }`
class Error : public std::exception {
 public:
  /// Values are exit codes, a promise to scripts.
  enum class Kind {
    internal = 1,  ///< a bug in Echelon
    usage = 2,     ///< unknown command, flag or argument
    recipe = 3,    ///< recipe or environment
    input = 4,     ///< model folders, adapters, data: missing, damaged, hostile
    storage = 5,   ///< checkpoints and run folders
    comm = 6,      ///< ranks disagree, or a rank, node or link failed
    numerics = 7,  ///< training diverged
    memory = 8,    ///< out of memory
    stopped = 75,  ///< stopped on request after a durable checkpoint
  };

  Error(Kind kind, std::string place, std::string what);

  static Error internal(std::string place, std::string what) {
    return {Kind::internal, std::move(place), std::move(what)};
  }
  static Error usage(std::string place, std::string what) { return {Kind::usage, std::move(place), std::move(what)}; }
  static Error recipe(std::string place, std::string what) { return {Kind::recipe, std::move(place), std::move(what)}; }
  static Error input(std::string place, std::string what) { return {Kind::input, std::move(place), std::move(what)}; }
  static Error storage(std::string place, std::string what) {
    return {Kind::storage, std::move(place), std::move(what)};
  }
  static Error comm(std::string place, std::string what) { return {Kind::comm, std::move(place), std::move(what)}; }
  static Error numerics(std::string place, std::string what) {
    return {Kind::numerics, std::move(place), std::move(what)};
  }
  static Error memory(std::string place, std::string what) { return {Kind::memory, std::move(place), std::move(what)}; }

  /// A tensor of the wrong shape, dtype or contiguity handed to `operation`: a bug of the caller.
  static Error shape(std::string_view operation, std::string_view tensor);

  /// What was found and what should have been there; anything that fmt can print, shapes included.
  template <class T>
  Error& got(const T& value) {
    return set_got(fmt::format("{}", value));
  }
  template <class T>
  Error& expected(const T& value) {
    return set_expected(fmt::format("{}", value));
  }
  /// What the reader can do about it.
  Error& remedy(std::string text);
  /// Adds an outer place: `within("step 17")` makes "step 17: layers.0.mlp.up.weight: …".
  Error& within(std::string_view outer_place);

  Kind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }
  const std::string& place() const { return place_; }
  /// The whole sentence, on one line: control characters of foreign text are escaped.
  const char* what() const noexcept override { return sentence_.c_str(); }
  /// The sentence without the kind in front.
  std::string message() const;

 private:
  Error& set_got(std::string text);
  Error& set_expected(std::string text);
  void compose();

  Kind kind_;
  std::string place_, what_, got_, expected_, remedy_;
  std::string sentence_;
};

/// "internal", "usage", "recipe", …: the word that stands in messages.
std::string_view name_of(Error::Kind kind);

/// `text` with what is not to be seen written as \xNN, so that a hostile name can neither forge a line, nor steer a
/// terminal, nor turn text around: control characters, those of Unicode too, line separators, marks of direction, and
/// bytes that are no UTF-8.
std::string printable(std::string_view text);

}  // namespace echelon
