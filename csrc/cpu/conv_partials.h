// What blocks of rows leave for statistics and gradient sums, merged in the order of the blocks.
#pragma once

#include <cstdint>

namespace rnk::cpu {

constexpr int64_t kPartialRows = 3;

// partial [blocks, kPartialRows, channels]: a pivot, the mean's distance from it, which has digits
// of its own, and M2 of counts[block] values -> stats [3, channels].
void merge_partial_stats(const float* partial, const int64_t* counts, int64_t blocks,
                         int64_t channels, float* stats);

// partial likewise: sums of g and g * (y - mean), and an unused row -> sums [2, channels], the
// second times rstd.
void merge_partial_sums(const float* partial, int64_t blocks, int64_t channels, const float* rstd,
                        float* sums);

}  // namespace rnk::cpu
