// Chan's formula for merging means and sums of squared distances.
#pragma once

#include <cstdint>

namespace rnk::cpu {

// Statistics of `size` columns, all of the same count.
struct StatsColumns {
  int64_t count;
  double* mean;  // [size]
  double* m2;    // [size]
};

// into = into merged with (count, mean[i], m2[i]).
inline void merge_stats(StatsColumns& into, int64_t count, const double* mean, const double* m2,
                        int64_t size) {
  const double all = static_cast<double>(into.count + count);
  const double share = static_cast<double>(count) / all;
  const double weight = static_cast<double>(into.count) * share;
  for (int64_t i = 0; i < size; ++i) {
    const double delta = mean[i] - into.mean[i];
    into.mean[i] += delta * share;
    into.m2[i] += m2[i] + delta * delta * weight;
  }
  into.count += count;
}

}  // namespace rnk::cpu
