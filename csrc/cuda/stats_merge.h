// Merges statistics of disjoint sets of elements, in a fixed order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace rnk::cuda {

// Rows of [3, channels] that merge_stats() needs behind the `parts` rows it merges.
int64_t merge_scratch_rows(int64_t parts);

// partials: [parts + merge_scratch_rows(parts), 3, channels] of count, mean and M2 (the sum of
// squared distances from the mean), by Chan's formula -> stats [3, channels]. dtype: fp32 or fp64.
// The scratch rows are overwritten. parts = 0 gives zeros.
void merge_stats(void* partials, int64_t parts, int64_t channels, void* stats, DType dtype,
                 cudaStream_t stream);

// The same for plain sums: partials [parts + merge_scratch_rows(parts), rows, channels] -> sums
// [rows, channels].
void merge_sums(void* partials, int64_t parts, int64_t rows, int64_t channels, void* sums,
                DType dtype, cudaStream_t stream);

}  // namespace rnk::cuda
