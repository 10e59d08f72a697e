// What decides which elements dropout drops, for single words and for vectors of them.
#pragma once

#include <cstdint>

#include "models/kernels/kernel_math.h"

namespace echelon {

/// Finaliser of MurmurHash3 (Appleby 2011), 32 bits.
template <class Word>
ECHELON_INLINE Word dropout_finalised(Word x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

/// Of the element in `column` of a row whose key has these halves; it is dropped if its hash is below
/// dropped_below(rate).
template <class Word>
ECHELON_INLINE Word dropout_hash(Word key_low, Word key_high, uint32_t column) {
  return dropout_finalised(dropout_finalised(column * 0x9e3779b1u + key_low) ^ key_high);
}

}  // namespace echelon
