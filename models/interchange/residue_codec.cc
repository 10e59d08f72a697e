#include "models/interchange/residue_codec.h"

#include <ATen/ATen.h>
#include <zstd.h>

#include "cluster/base/error.h"

namespace echelon {

namespace {

constexpr int kLevel = 5;
constexpr int kLongestVarint = 5;

}  // namespace

std::vector<std::byte> pack_residue(const at::Tensor& residue) {
  at::Tensor values = residue.to(at::kInt).contiguous();
  std::vector<uint8_t> varints;
  varints.reserve(values.numel());
  const int32_t* data = values.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    uint32_t zigzag = (static_cast<uint32_t>(data[i]) << 1) ^ static_cast<uint32_t>(data[i] >> 31);
    for (; zigzag >= 0x80; zigzag >>= 7) varints.push_back(static_cast<uint8_t>(zigzag | 0x80));
    varints.push_back(static_cast<uint8_t>(zigzag));
  }
  std::vector<std::byte> packed(ZSTD_compressBound(varints.size()));
  size_t size = ZSTD_compress(packed.data(), packed.size(), varints.data(), varints.size(), kLevel);
  if (ZSTD_isError(size)) throw Error::internal("residue", ZSTD_getErrorName(size));
  packed.resize(size);
  return packed;
}

at::Tensor unpack_residue(const std::byte* data, size_t size, int64_t count, const std::string& place) {
  auto damaged = [&](const std::string& what) { return Error::input(place, "residue is damaged").got(what); };
  unsigned long long length = ZSTD_getFrameContentSize(data, size);
  if (length == ZSTD_CONTENTSIZE_ERROR || length == ZSTD_CONTENTSIZE_UNKNOWN) throw damaged("no zstd frame");
  if (length < static_cast<uint64_t>(count) || length > static_cast<uint64_t>(count) * kLongestVarint)
    throw damaged("a wrong length");
  std::vector<uint8_t> varints(length);
  size_t got = ZSTD_decompress(varints.data(), varints.size(), data, size);
  if (ZSTD_isError(got)) throw damaged(ZSTD_getErrorName(got));
  at::Tensor values = at::empty({count}, at::kInt);
  int32_t* out = values.data_ptr<int32_t>();
  size_t next = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t zigzag = 0;
    int shift = 0;
    do {
      if (next == got || shift == 7 * kLongestVarint) throw damaged("a number that does not end");
      zigzag |= static_cast<uint64_t>(varints[next] & 0x7f) << shift;
      shift += 7;
    } while (varints[next++] & 0x80);
    uint32_t bits = static_cast<uint32_t>(zigzag);
    out[i] = static_cast<int32_t>((bits >> 1) ^ (~(bits & 1) + 1));
  }
  if (next != got) throw damaged("more numbers than elements");
  return values;
}

}  // namespace echelon
