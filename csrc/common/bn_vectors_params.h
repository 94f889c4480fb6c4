// Parameters of the ops on per-channel vectors. Vectors are [channels] and contiguous.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace rnk {

// A vector of any float dtype, or absent (null).
struct VectorIn {
  const void* data;
  DType dtype;
};
struct VectorInOut {
  void* data;
  DType dtype;
};

// Merges `groups` statistics, gives mean, rstd = 1/sqrt(var + eps), scale = gamma * rstd,
// bias = beta - mean * scale, and updates the running statistics as torch does.
struct BnFinalizeParams {
  const void* stats;   // [groups, 3, channels] dtype
  VectorIn gamma;      // absent: 1
  VectorIn beta;       // absent: 0
  VectorIn conv_bias;  // of the convolution before, not contained in the statistics
  VectorInOut running_mean;
  VectorInOut running_var;
  int64_t* num_batches_tracked;      // [] or null
  void *mean, *rstd, *scale, *bias;  // [channels] dtype
  void* count;                       // [1] dtype
  int64_t groups;
  int64_t channels;
  bool has_momentum;  // else 1 / num_batches_tracked
  double momentum;
  double eps;
  DType dtype;  // fp32 or fp64
};

// The same vectors from running statistics.
struct BnAffineParams {
  VectorIn running_mean;
  VectorIn running_var;
  VectorIn gamma;
  VectorIn beta;
  VectorIn conv_bias;
  void *mean, *rstd, *scale, *bias;  // [channels] dtype
  int64_t channels;
  double eps;
  DType dtype;  // fp32 or fp64
};

// abc: A = gamma * rstd, B = -gamma * rstd^2 * sums[1] / count, C = -gamma * rstd * sums[0] /
// count.
struct BnBwdFinalizeParams {
  const void* sums;   // [2, channels] dtype
  VectorIn gamma;     // absent: 1
  const void* rstd;   // [channels] dtype
  const void* count;  // [1] dtype
  void* abc;          // [3, channels] dtype
  int64_t channels;
  DType dtype;  // fp32 or fp64
};

}  // namespace rnk
