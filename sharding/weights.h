// Named tensors with their layouts: what a model is made of, and the currency between rooms.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "sharding/layout.h"
#include "sharding/seed.h"

namespace echelon {

class FlatShard;
class Unit;

/// How a tensor is drawn when no file holds it.
struct Init {
  double constant = 0;            ///< value of every element, when it is not drawn
  double standard_deviation = 0;  ///< of a normal distribution with mean 0
  double bound = 0;               ///< of a uniform distribution in [-bound, bound]
};

/// One named tensor of a model; its memory belongs to a FlatShard of its Unit.
class Parameter {
 public:
  Parameter(std::string name, Layout layout, Init init, const Mesh& mesh);

  const std::string& name() const { return name_; }
  const Layout& layout() const { return layout_; }
  const Init& init() const { return init_; }
  /// This rank's slice on the tensor parallel axis.
  const Slice& local() const { return local_; }
  FlatShard& shard() const { return *shard_; }
  /// False: it has no gradient and never changes.
  bool trained() const;
  /// Position of the local slice in its flat memory, in elements.
  int64_t offset() const { return offset_; }
  bool is_matrix() const { return layout_.sizes.size() > 1; }

  /// The local slice, as the flat memory holds it. Readable between Unit::enter and Unit::leave.
  const at::Tensor& value() const { return value_; }
  /// value() for stock operators: the gradient that autograd computes for it is added to the flat gradient.
  at::Tensor use() const;
  /// Adds `gradient` (shape of the local slice) to the flat gradient; the first of a step overwrites it.
  void add_gradient(const at::Tensor& gradient) const;
  /// The place of this tensor's gradient, for kernels that write it themselves; `fresh` says whether to overwrite. In
  /// the dtype of gradients, which may be wider than that of values.
  at::Tensor gradient_place(bool& fresh) const;

 private:
  friend class FlatShard;
  std::string name_;
  Layout layout_;
  Init init_;
  Slice local_;
  FlatShard* shard_ = nullptr;
  int64_t offset_ = 0;
  at::Tensor value_;
  mutable bool has_gradient_ = false;
};

/// Where the values of named tensors come from: a Hugging Face folder, a checkpoint, a draw.
class TensorReader {
 public:
  virtual ~TensorReader() = default;
  virtual bool has(const std::string& name) const = 0;
  /// The part `slice` of the whole tensor `name`, in any floating dtype. Reads no more than it must.
  virtual at::Tensor read(const std::string& name, const Slice& slice) = 0;
};

/// The elements of one parameter that a flat shard holds.
struct Segment {
  const Parameter* parameter;
  int64_t offset;  ///< first element, in the shard
  int64_t begin;   ///< the same element's index in the local slice, row-major
  int64_t length;
};

/// All tensors of a model, Unit by Unit in the order of the forward pass.
class Weights {
 public:
  std::vector<std::unique_ptr<Unit>> units;

  std::vector<const Parameter*> parameters() const;
  const Parameter& at(const std::string& name) const;
  /// Elements of all tensors, each counted once.
  int64_t elements() const;
  /// The flat shards that hold trained tensors, and those that hold any.
  std::vector<FlatShard*> trained() const;
  std::vector<FlatShard*> shards() const;
  /// Fills every rank's shards from `reader`, and publishes. Collective.
  void load(TensorReader& reader);
  /// Sets those tensors of which `whole`, the same on every rank, has the values, and publishes. Collective.
  void assign(const std::map<std::string, at::Tensor>& whole);
  /// Hands every whole tensor of an owned quantity (masters, gradients, a moment: what `owned` picks from a shard) to
  /// `visit` on every rank, one after the other in order, valid during the call; shards for which it is undefined are
  /// left out. Collective.
  void visit_whole(const std::function<at::Tensor(FlatShard&)>& owned,
                   const std::function<void(const Parameter&, const at::Tensor&)>& visit) const;
  /// Makes the masters of trained tensors, or of these shards, the values of the next forward. Collective; afterwards
  /// all ranks may gather.
  void publish();
  void publish(const std::vector<FlatShard*>& shards);
};

/// What `first` does not have comes from `second`.
class LayeredTensors : public TensorReader {
 public:
  LayeredTensors(TensorReader& first, TensorReader& second) : first_(first), second_(second) {}
  bool has(const std::string& name) const override { return first_.has(name) || second_.has(name); }
  at::Tensor read(const std::string& name, const Slice& slice) override {
    return (first_.has(name) ? first_ : second_).read(name, slice);
  }

 private:
  TensorReader &first_, &second_;
};

/// Draws every tensor from (seed, name, index of the element in the whole tensor).
class DrawnTensors : public TensorReader {
 public:
  DrawnTensors(const Weights& weights, const Seed& seed) : weights_(weights), seed_(seed) {}
  bool has(const std::string& name) const override { return true; }
  at::Tensor read(const std::string& name, const Slice& slice) override;

 private:
  const Weights& weights_;
  Seed seed_;
};

}  // namespace echelon
