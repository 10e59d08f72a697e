// A small token file for tests.
#pragma once

#include <cstdint>
#include <string>

namespace echelon::testing {

/// Writes PREFIX.{bin,idx,meta.json}: `tokens` ids below `vocabulary` (ids 0 to 4 are special, 4 is the mask), drawn
/// from a first-order chain so that there is something to learn. The same arguments give the same files.
void write_corpus(const std::string& prefix, int64_t tokens, int64_t vocabulary, int64_t seed);

/// A folder of this test's own, gone at exit; the same on all ranks of an mpirun.
std::string temporary_folder();

}  // namespace echelon::testing
