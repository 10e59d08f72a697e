// Activation functions of feed-forward networks.
#pragma once

namespace echelon {

enum class Activation { gelu, gelu_tanh, silu, relu };

}  // namespace echelon
