// Small integers, mostly zero, as few bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "cluster/base/error.h"

namespace echelon {

/// Packs int64 values as zigzag varints under one frame of zstd, piece by piece.
class ResiduePacker {
 public:
  ResiduePacker();
  ResiduePacker(ResiduePacker&&) noexcept;
  ~ResiduePacker();

  void add(const at::Tensor& values);
  /// The packed bytes of all that was added; nothing may be added after it.
  std::vector<std::byte> finish();

 private:
  void compress(bool last);

  struct Stream;
  std::unique_ptr<Stream> stream_;
  std::vector<uint8_t> varints_;
  std::vector<std::byte> packed_;
};

/// Gives the values back, in pieces of any size. Errors: Error::input naming `place` for damage; no more is allocated
/// than is asked for.
class ResidueUnpacker {
 public:
  /// `data` must outlive this.
  ResidueUnpacker(const std::byte* data, size_t size, std::string place);
  ResidueUnpacker(ResidueUnpacker&&) noexcept;
  ~ResidueUnpacker();

  /// The next `count` values, int64.
  at::Tensor next(int64_t count);
  /// Refuses what is left over.
  void finish();

 private:
  bool refill();
  int64_t number();
  Error damaged(const std::string& what) const;

  struct Stream;
  std::unique_ptr<Stream> stream_;
  std::string place_;
  std::vector<uint8_t> varints_;
  size_t next_ = 0;  ///< in varints_
};

}  // namespace echelon
