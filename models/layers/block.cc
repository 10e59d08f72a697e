#include "models/layers/block.h"

#include <ATen/ATen.h>

#include "comm/autograd.h"

namespace echelon {

Block::Block(Unit& unit, const std::string& name, const Architecture& a, int64_t layer)
    : architecture_(a), name_(name),
      attention_norm_(unit, name + ".attention_norm", a),
      attention_(unit, name + ".attention", a, layer),
      feed_forward_norm_(unit, name + ".feed_forward_norm", a),
      feed_forward_(unit, name + ".feed_forward", a) {}

at::Tensor Block::whole(const at::Tensor& rows, const Pass& pass, const char* site) const {
  return gather_rows(rows, pass.rows(), pass.mesh.tp(), name_ + site);
}

at::Tensor Block::operator()(const at::Tensor& rows, const Pass& pass) const {
  double rate = architecture_.dropout;
  if (architecture_.norm_place == NormPlace::before) {
    at::Tensor attended = attention_(whole(attention_norm_(rows), pass, ".attention"), pass);
    at::Tensor middle = rows + pass.dropout(attended, rate, name_ + ".attention.dropout");
    at::Tensor fed = feed_forward_(whole(feed_forward_norm_(middle), pass, ".feed_forward"), pass);
    return middle + pass.dropout(fed, rate, name_ + ".feed_forward.dropout");
  }
  at::Tensor attended = attention_(whole(rows, pass, ".attention"), pass);
  at::Tensor middle = attention_norm_(rows + pass.dropout(attended, rate, name_ + ".attention.dropout"));
  at::Tensor fed = feed_forward_(whole(middle, pass, ".feed_forward"), pass);
  return feed_forward_norm_(middle + pass.dropout(fed, rate, name_ + ".feed_forward.dropout"));
}

}  // namespace echelon
