// Which convolution kernels may run, by the environment.
#pragma once

#include <cstdlib>
#include <cstring>

namespace rnk::cuda {

// RNK_CUDA_CONV=generic: the generic kernels alone; auto or unset: the fastest that serves a shape.
// Read at every call, so that a process can compare.
inline bool generic_is_wanted() {
  const char* choice = std::getenv("RNK_CUDA_CONV");
  return choice != nullptr && std::strcmp(choice, "generic") == 0;
}

}  // namespace rnk::cuda
