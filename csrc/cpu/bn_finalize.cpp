// bn_finalize: statistics of several groups -> mean, rstd, scale, bias, count; running statistics
// updated as torch does, with the unbiased variance. Computed in fp64.
#include "bn_finalize.h"

#include "scalar.h"

namespace rnk::cpu {
namespace {

struct Moments {
  double count, mean, m2;
};

// All groups of channel c, merged by Chan's formula.
Moments merge_groups(const BnFinalizeParams& p, int64_t c) {
  Moments all{0, 0, 0};
  for (int64_t g = 0; g < p.groups; ++g) {
    const int64_t at = g * 3 * p.channels + c;
    const double count = get(p.stats, p.dtype, at);
    if (count == 0) continue;
    const double delta = get(p.stats, p.dtype, at + p.channels) - all.mean;
    const double share = count / (all.count + count);
    all.m2 += get(p.stats, p.dtype, at + 2 * p.channels) + delta * delta * all.count * share;
    all.mean += delta * share;
    all.count += count;
  }
  return all;
}

// running += factor * (value - running), in the form that torch computes.
void blend(const VectorInOut& running, int64_t c, double value, double factor) {
  if (running.data == nullptr) return;
  const double old = get(running.data, running.dtype, c);
  put(running.data, running.dtype, c, old * (1 - factor) + value * factor);
}

}  // namespace

void bn_finalize(const BnFinalizeParams& p, ParallelFor) {
  if (p.num_batches_tracked != nullptr) ++*p.num_batches_tracked;
  double factor = p.has_momentum ? p.momentum : 0;
  if (!p.has_momentum && p.num_batches_tracked != nullptr) {
    factor = 1 / static_cast<double>(*p.num_batches_tracked);
  }
  put(p.count, p.dtype, 0, 0);
  for (int64_t c = 0; c < p.channels; ++c) {
    const Moments all = merge_groups(p, c);
    store_affine(p, c, all.mean, all.m2 / std::max(all.count, 1.0));
    if (c == 0) put(p.count, p.dtype, 0, all.count);
    if (all.count == 0) continue;
    blend(p.running_mean, c, all.mean + get(p.conv_bias, c, 0), factor);
    blend(p.running_var, c, all.m2 / (all.count - 1), factor);
  }
}

}  // namespace rnk::cpu
