// What an Exchange keeps between steps, in checkpoints.
#pragma once

#include <string>
#include <vector>

#include "runtime/checkpoint/load.h"
#include "runtime/trainer.h"

namespace echelon {

/// One tensor that this rank writes.
struct KeptByExchange {
  std::string name;
  Slice slice;       ///< where it stands in the tensor `name`
  at::Tensor value;  ///< [slice.sizes]
};

/// "exchange.<what>.<rank>.<tensor>" of this rank (what: "residual", …), and, once for the data parallel ranks,
/// "exchange.warm_start.<tp rank>.<tensor>".
std::vector<KeptByExchange> kept_by_exchange(Trainer& trainer);

/// What the exchange owns beside the masters is read as they are; what the checkpoint lacks of it starts from the
/// masters, which must have been read. Of summands: on as many ranks and the same `tp` as wrote the checkpoint, every
/// rank gets its own summands: the run goes on with the same bits. On others the owner of an element gets the sum over
/// the old ranks, and the rest get zero: the sum over ranks is kept to one rounding. Warm starts of another shape are
/// left as they were drawn.
void load_exchange_state(Trainer& trainer, CheckpointReader& reader);

}  // namespace echelon
