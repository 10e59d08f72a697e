// Small integers, mostly zero, as few bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace echelon {

/// int32 values as zigzag varints under zstd.
std::vector<std::byte> pack_residue(const at::Tensor& residue);
/// `count` values. Errors: Error::input naming `place` for damage; nothing larger than count says is allocated.
at::Tensor unpack_residue(const std::byte* data, size_t size, int64_t count, const std::string& place);

}  // namespace echelon
