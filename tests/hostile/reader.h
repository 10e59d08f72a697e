// Readers of bytes that come from anywhere, and what each must refuse. The same entries serve the tests, which go
// through every attack, and the fuzzers, which begin with them.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace echelon::hostile {

/// Bytes that a reader must refuse, with words that its sentence must hold.
struct Attack {
  std::string name, words, bytes;
};

struct Reader {
  std::string name;
  int exit_code;      ///< of every refusal
  std::string place;  ///< the file's name, which stands in every sentence; "": the sentence repeats the bytes
  /// Accepts, or throws Error. Where we write the format too, what was accepted is written and read again, and a
  /// difference is a std::logic_error.
  std::function<void(const std::string& bytes)> read;
  std::vector<Attack> attacks;
  std::vector<std::string> good;  ///< accepted
};

Reader safetensors_reader();
Reader safetensors_index_reader();
Reader manifest_reader();
Reader metrics_reader();
Reader recipe_reader();
Reader override_reader();
Reader hosts_reader();
Reader hostfile_reader();
Reader token_index_reader();
Reader ledger_reader();
Reader rank_output_reader();

/// Those that need nothing of LibTorch.
std::vector<Reader> light_readers();

Reader model_config_reader();
Reader adapter_config_reader();
Reader checkpoint_state_reader();
Reader token_meta_reader();

std::vector<Reader> all_readers();

/// Throws std::logic_error unless both are equal.
void same(const std::string& written, const std::string& again, const std::string& what);

/// What any reader of a JSON object must refuse, made of a good one, and `more`.
std::vector<Attack> json_attacks(const std::string& good, const std::vector<Attack>& more);

std::string repeated(const std::string& text, int times);

}  // namespace echelon::hostile
