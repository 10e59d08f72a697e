// Signs with error feedback.
#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "sharding/codec.h"
#include "sharding/error_feedback.h"
#include "sharding/exchange/sign.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

/// Bit i of byte j is the sign of element i * bytes + j: eight contiguous runs, packed without a transpose.
class Signs : public Codec {
 public:
  using Codec::Codec;

 protected:
  int64_t code_bytes(int64_t elements) const override { return (elements + 7) / 8; }

  at::Tensor scales(const at::Tensor& blocks, int64_t elements) const override {
    // The last block may be filled up: its mean is over what it holds.
    at::Tensor counts = at::full({blocks.size(1)}, static_cast<double>(block()), blocks.options());
    counts.narrow(0, counts.numel() - 1, 1).fill_(static_cast<double>(elements - (counts.numel() - 1) * block()));
    return blocks.abs().sum(2).div_(counts);
  }

  at::Tensor code(const at::Tensor& values, const at::Tensor&) const override {
    int64_t pieces = values.size(0), bytes = code_bytes(values.size(1));
    at::Tensor bits =
        at::constant_pad_nd(values.ge(0).to(at::kByte), {0, 8 * bytes - values.size(1)}).view({pieces, 8, bytes});
    at::Tensor packed = bits.select(1, 0).clone();
    for (int64_t i = 1; i < 8; ++i) packed.bitwise_or_(bits.select(1, i).bitwise_left_shift(i));
    return packed;
  }

  at::Tensor decode_code(const at::Tensor& code, int64_t elements, const at::TensorOptions& options) const override {
    at::Tensor bits = at::empty({8, code.numel()}, code.options());
    for (int64_t i = 0; i < 8; ++i) bits.select(0, i).copy_(code.bitwise_right_shift(i).bitwise_and_(1));
    return bits.view({-1}).narrow(0, 0, elements).to(options).mul_(2).sub_(1);
  }
};

class SignSum : public ErrorFeedback {
 public:
  SignSum(int64_t block, bool between_nodes_only, int64_t exact_steps)
      : ErrorFeedback(between_nodes_only, exact_steps), codec_(block) {
    if (block >= 8 && block % 8 == 0) return;
    throw Error::recipe("block", "signs need blocks of a multiple of 8 elements").got(block);
  }

 protected:
  int64_t approximate_bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    return bytes_of_encoded_sum(codec_, shard, placement, between_nodes_only(), /*reductions=*/1);
  }

  void send(const Reduction& reduction, const Route& route, at::Tensor& rest) override {
    at::Tensor pieces = route.pieces(rest), encoded = codec_.encode(pieces);
    sum_encoded(codec_, encoded, reduction, route);
    for (int64_t p = 0; p < pieces.size(0); ++p) {
      pieces[p].sub_(codec_.decode(encoded[p], pieces.size(1), rest.options()));
    }
  }

 private:
  Signs codec_;
};

}  // namespace

std::unique_ptr<Exchange> sign_exchange(int64_t block, bool between_nodes_only) {
  return std::make_unique<SignSum>(block, between_nodes_only, /*exact_steps=*/0);
}

void register_sign(Registry& registry) {
  registry.add<Exchange, Sign>([](const Sign& options, const Exchange::Context&) {
    return std::make_unique<SignSum>(options.block(), options.between_nodes_only(), options.exact_steps());
  });
}

}  // namespace echelon
