// What torch divides the sum of an average pooling's window by.
#pragma once

#include "pool_window.cuh"

namespace rnk::cuda {

__device__ inline int pool_divisor(const PoolAxis& rows, const PoolAxis& columns, int p, int q,
                                   bool count_include_pad) {
  if (count_include_pad) return rows.padded_length(p) * columns.padded_length(q);
  const Range r = rows.taps(p), s = columns.taps(q);
  return (r.end - r.begin) * (s.end - s.begin);
}

}  // namespace rnk::cuda
