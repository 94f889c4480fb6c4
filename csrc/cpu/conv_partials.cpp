#include "conv_partials.h"

#include <vector>

#include "stats_columns.h"

namespace rnk::cpu {

void merge_partial_stats(const float* partial, const int64_t* counts, int64_t blocks,
                         int64_t channels, float* stats) {
  std::vector<double> total(2 * channels, 0.0), block(2 * channels);
  StatsColumns into{0, total.data(), total.data() + channels};
  for (int64_t b = 0; b < blocks; ++b, partial += kPartialRows * channels) {
    for (int64_t c = 0; c < channels; ++c) {
      block[c] = static_cast<double>(partial[c]) + partial[channels + c];
      block[channels + c] = partial[2 * channels + c];
    }
    merge_stats(into, counts[b], block.data(), block.data() + channels, channels);
  }
  for (int64_t c = 0; c < channels; ++c) stats[c] = static_cast<float>(into.count);
  for (int64_t i = 0; i < 2 * channels; ++i) stats[channels + i] = static_cast<float>(total[i]);
}

void merge_partial_sums(const float* partial, int64_t blocks, int64_t channels, const float* rstd,
                        float* sums) {
  std::vector<double> total(2 * channels, 0.0);
  for (int64_t b = 0; b < blocks; ++b, partial += kPartialRows * channels) {
    for (int64_t i = 0; i < 2 * channels; ++i) total[i] += partial[i];
  }
  for (int64_t c = 0; c < channels; ++c) {
    sums[c] = static_cast<float>(total[c]);
    sums[channels + c] = static_cast<float>(total[channels + c] * rstd[c]);
  }
}

}  // namespace rnk::cpu
