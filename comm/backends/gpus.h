// The GPUs of this machine.
#pragma once

namespace echelon {

int visible_gpus();

/// LibTorch's CUDA half registers its operators when it is loaded; programs that never see a GPU start without it.
/// Errors: Error::recipe.
void load_torch_cuda();

}  // namespace echelon
