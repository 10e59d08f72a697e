// A mapped file that is cut short while it is read is a SIGBUS: here it gets the file's name and an exit code.
#pragma once

#include <cstddef>
#include <string>

#include "cluster/base/error.h"

namespace echelon {

/// From now on a SIGBUS within a mapped file ends the process with a sentence on stderr and the kind's exit code. Any
/// other SIGBUS does what it did. To be called before MPI starts, which leaves handlers alone that it finds.
void name_file_on_bus_error();

/// What MappedFile tells: a mapping is there, or gone.
void note_mapping(const void* data, size_t size, const std::string& path, Error::Kind kind);
void forget_mapping(const void* data);

}  // namespace echelon
