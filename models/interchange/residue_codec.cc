#include "models/interchange/residue_codec.h"

#include <ATen/ATen.h>
#include <zstd.h>

namespace echelon {

namespace {

constexpr int kLevel = 5;
constexpr int kLastShift = 63;  // of the tenth byte of 64 bits
constexpr size_t kPieceBytes = 1 << 16;

template <class Context, size_t (*Free)(Context*)>
struct Freed {
  void operator()(Context* context) const { Free(context); }
};

}  // namespace

struct ResiduePacker::Stream {
  std::unique_ptr<ZSTD_CCtx, Freed<ZSTD_CCtx, ZSTD_freeCCtx>> context{ZSTD_createCCtx()};
};

ResiduePacker::ResiduePacker() : stream_(std::make_unique<Stream>()) {
  ZSTD_CCtx_setParameter(stream_->context.get(), ZSTD_c_compressionLevel, kLevel);
}
ResiduePacker::ResiduePacker(ResiduePacker&&) noexcept = default;
ResiduePacker::~ResiduePacker() = default;

void ResiduePacker::add(const at::Tensor& given) {
  at::Tensor values = given.to(at::kLong).contiguous();
  const int64_t* data = values.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    uint64_t zigzag = (static_cast<uint64_t>(data[i]) << 1) ^ static_cast<uint64_t>(data[i] >> 63);
    for (; zigzag >= 0x80; zigzag >>= 7) varints_.push_back(static_cast<uint8_t>(zigzag | 0x80));
    varints_.push_back(static_cast<uint8_t>(zigzag));
    if (varints_.size() >= kPieceBytes) compress(/*last=*/false);
  }
}

void ResiduePacker::compress(bool last) {
  ZSTD_inBuffer in{varints_.data(), varints_.size(), 0};
  for (bool done = false; !done;) {
    size_t before = packed_.size();
    packed_.resize(before + ZSTD_CStreamOutSize());
    ZSTD_outBuffer out{packed_.data() + before, packed_.size() - before, 0};
    size_t left = ZSTD_compressStream2(stream_->context.get(), &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left)) throw Error::internal("residue", ZSTD_getErrorName(left));
    packed_.resize(before + out.pos);
    done = last ? left == 0 : in.pos == in.size;
  }
  varints_.clear();
}

std::vector<std::byte> ResiduePacker::finish() {
  compress(/*last=*/true);
  stream_.reset();
  packed_.shrink_to_fit();
  return std::move(packed_);
}

struct ResidueUnpacker::Stream {
  std::unique_ptr<ZSTD_DCtx, Freed<ZSTD_DCtx, ZSTD_freeDCtx>> context{ZSTD_createDCtx()};
  ZSTD_inBuffer in{};
  bool ended = false;  ///< the frame has
};

ResidueUnpacker::ResidueUnpacker(const std::byte* data, size_t size, std::string place)
    : stream_(std::make_unique<Stream>()), place_(std::move(place)) {
  stream_->in = {data, size, 0};
}
ResidueUnpacker::ResidueUnpacker(ResidueUnpacker&&) noexcept = default;
ResidueUnpacker::~ResidueUnpacker() = default;

Error ResidueUnpacker::damaged(const std::string& what) const {
  return Error::input(place_, "residue is damaged").got(what);
}

bool ResidueUnpacker::refill() {
  next_ = 0;
  varints_.resize(kPieceBytes);
  ZSTD_outBuffer out{varints_.data(), varints_.size(), 0};
  while (out.pos == 0 && !stream_->ended) {
    size_t consumed = stream_->in.pos;
    size_t left = ZSTD_decompressStream(stream_->context.get(), &out, &stream_->in);
    if (ZSTD_isError(left)) throw damaged(ZSTD_getErrorName(left));
    stream_->ended = left == 0;
    if (!stream_->ended && out.pos == 0 && stream_->in.pos == consumed) throw damaged("a frame that does not end");
  }
  varints_.resize(out.pos);
  return out.pos > 0;
}

int64_t ResidueUnpacker::number() {
  uint64_t zigzag = 0;
  for (int shift = 0;; shift += 7) {
    if (shift > kLastShift) throw damaged("a number that does not end");
    if (next_ == varints_.size() && !refill()) throw damaged("fewer numbers than elements");
    uint8_t byte = varints_[next_++];
    zigzag |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return static_cast<int64_t>((zigzag >> 1) ^ (~(zigzag & 1) + 1));
  }
}

at::Tensor ResidueUnpacker::next(int64_t count) {
  at::Tensor values = at::empty({count}, at::kLong);
  int64_t* out = values.data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) out[i] = number();
  return values;
}

void ResidueUnpacker::finish() {
  if (next_ < varints_.size() || refill()) throw damaged("more numbers than elements");
  if (stream_->in.pos < stream_->in.size) throw damaged("bytes behind its end");
}

}  // namespace echelon
