// Block-wise quantisation to eight bits.
#include <limits>

#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "sharding/codec.h"
#include "sharding/exchange/int8.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

class EightBits : public Codec {
 public:
  using Codec::Codec;

 protected:
  int64_t code_bytes(int64_t elements) const override { return elements; }

  at::Tensor scales(const at::Tensor& blocks, int64_t) const override {
    // Above zero, so that a block of zeros divides; a gradient below has no influence on float32 weights.
    return blocks.abs().amax(2).div_(127).clamp_min_(std::numeric_limits<float>::min());
  }
  at::Tensor code(const at::Tensor& values, const at::Tensor& scales) const override {
    return values.div(scales).round_().clamp_(-127, 127).to(at::kChar).view(at::kByte);
  }
  at::Tensor decode_code(const at::Tensor& code, int64_t, const at::TensorOptions& options) const override {
    return code.view(at::kChar).to(options);
  }
};

class Int8Sum : public Exchange {
 public:
  explicit Int8Sum(const Int8& options)
      : codec_(std::make_shared<EightBits>(checked_block(options))),
        between_nodes_only_(options.between_nodes_only()) {}

  std::shared_ptr<const Codec> codec() const override { return codec_; }

  Work reduce(const Reduction& reduction) override {
    Route route(reduction, between_nodes_only_);
    at::Tensor pieces = route.gradient();
    if (route.ranks() == 1) {
      route.store(pieces[0]);
    } else {
      sum_encoded(*codec_, codec_->encode(pieces), reduction, route);
    }
    return {};
  }

  int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    return bytes_of_encoded_sum(*codec_, shard, placement, between_nodes_only_, placement.reductions());
  }

 private:
  static int64_t checked_block(const Int8& options) {
    if (options.block() >= 1) return options.block();
    throw Error::recipe("exchange.block", "Int8 needs blocks of at least 1 element").got(options.block());
  }

  std::shared_ptr<const EightBits> codec_;
  bool between_nodes_only_;
};

}  // namespace

void register_int8(Registry& registry) {
  registry.add<Exchange, Int8>(
      [](const Int8& options, const Exchange::Context&) { return std::make_unique<Int8Sum>(options); });
}

}  // namespace echelon
