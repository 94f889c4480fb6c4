// Parameters of bn_stats. x is [outer, channels, inner] as in bn_act_params.h.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace rnk {

// stats = per channel count, mean and sum of squared distances from the mean.
struct BnStatsParams {
  const void* x;  // [outer, channels, inner] dtype
  void* stats;    // [3, channels] fp32 (fp64 for fp64)
  int64_t outer;
  int64_t channels;
  int64_t inner;
  DType dtype;
  void* workspace;  // bn_stats_workspace() bytes, aligned to 16, or null where that is 0
};

}  // namespace rnk
