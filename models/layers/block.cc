#include "models/layers/block.h"

#include <ATen/ATen.h>

#include "comm/autograd.h"
#include "models/layers/discarded.h"

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
  return architecture_.norm_place == NormPlace::before ? norms_before(rows, pass) : norms_after(rows, pass);
}

NormedRows Block::normed(const NormLayer& norm, const at::Tensor& rows, const Pass& pass) const {
  NormedRows both = norm.beside(rows);
  if (pass.discarded) pass.discarded->discard(both.normed, [&norm, rows = rows.detach()] { return norm(rows); });
  return both;
}

at::Tensor Block::norms_before(const at::Tensor& rows, const Pass& pass) const {
  auto [first, in] = normed(attention_norm_, rows, pass);
  auto [middle, between] = normed(feed_forward_norm_, first + attended(in, pass), pass);
  return middle + fed(between, pass);
}

at::Tensor Block::norms_after(const at::Tensor& rows, const Pass& pass) const {
  at::Tensor middle = normed(attention_norm_, rows + attended(rows, pass), pass).normed;
  return feed_forward_norm_(middle + fed(middle, pass));
}

at::Tensor Block::attended(const at::Tensor& in, const Pass& pass) const {
  at::Tensor result = attention_(whole(in, pass, ".attention"), pass);
  return added(in, result, attention_branches_, pass, ".attention.dropout");
}

at::Tensor Block::fed(const at::Tensor& in, const Pass& pass) const {
  at::Tensor result = feed_forward_(whole(in, pass, ".feed_forward"), pass);
  return added(in, result, feed_forward_branches_, pass, ".feed_forward.dropout");
}

}  // namespace echelon
