// What looks like a password or a token, kept out of logs, sentences and recipes.
#pragma once

#include <string>
#include <string_view>

namespace echelon {

/// `text` with secrets replaced by `<redacted>`: tokens of known services, what follows a word like `token=` or
/// `Bearer`, the user of a URL, and long random words. Hashes in hexadecimal stay: files are named after them.
std::string redacted(std::string_view text);

/// Whether `text` holds one of those, random words aside: they may be an honest name.
bool holds_secret(std::string_view text);

}  // namespace echelon
