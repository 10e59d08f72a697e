#include "models/layers/block.h"

#include <ATen/ATen.h>

#include "comm/autograd.h"

namespace echelon {

Block::Block(Unit& unit, const std::string& name, const Architecture& a, int64_t layer)
    : architecture_(a),
      name_(name),
      unit_(unit),
      attention_norm_(unit, name + ".attention_norm", a),
      attention_(unit, name + ".attention", a, layer),
      feed_forward_norm_(unit, name + ".feed_forward_norm", a),
      feed_forward_(unit, name + ".feed_forward", a) {}

at::Tensor Block::whole(const at::Tensor& rows, const Pass& pass, const char* site) const {
  return gather_rows(rows, pass.rows(), pass.mesh.tp(), name_ + site);
}

at::Tensor Block::added(const at::Tensor& input, const at::Tensor& result, const Branches& branches, const Pass& pass,
                        const char* site) const {
  at::Tensor output = pass.dropout(result, architecture_.dropout, name_ + site);
  for (const Branch* branch : branches) output = branch->output(input, output, pass);
  return output;
}

at::Tensor Block::operator()(const at::Tensor& rows, const Pass& pass) const {
  bool before = architecture_.norm_place == NormPlace::before;
  at::Tensor in = before ? attention_norm_(rows) : rows;
  at::Tensor attended = attention_(whole(in, pass, ".attention"), pass);
  at::Tensor middle = rows + added(in, attended, attention_branches_, pass, ".attention.dropout");
  if (!before) middle = attention_norm_(middle);
  in = before ? feed_forward_norm_(middle) : middle;
  at::Tensor fed = feed_forward_(whole(in, pass, ".feed_forward"), pass);
  at::Tensor out = middle + added(in, fed, feed_forward_branches_, pass, ".feed_forward.dropout");
  return before ? out : feed_forward_norm_(out);
}

}  // namespace echelon
