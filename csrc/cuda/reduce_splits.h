// Sums the partial filter gradients of all splits, in order, into the filter's own layout.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"

namespace rnk::cuda {

// dw[k, c, r, s] = sum over splits of partials[split, k, (r * taps_w + s) * channels + c].
struct ReduceSplits {
  const float* partials;
  void* dw;
  FilterStrides strides;
  DType dtype;  // fp32, fp16 or bf16
  int64_t splits, rows, taps_h, taps_w, channels;
};

void reduce_splits(const ReduceSplits& params, cudaStream_t stream);

}  // namespace rnk::cuda
