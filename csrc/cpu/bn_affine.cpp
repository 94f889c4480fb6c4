// bn_affine: running statistics -> mean, rstd, scale, bias of an evaluated or frozen batch norm.
#include "bn_affine.h"

#include "scalar.h"

namespace rnk::cpu {

void bn_affine(const BnAffineParams& p, ParallelFor) {
  for (int64_t c = 0; c < p.channels; ++c) {
    const double mean = get(p.running_mean, c, 0) - get(p.conv_bias, c, 0);
    store_affine(p, c, mean, get(p.running_var, c, 1));
  }
}

}  // namespace rnk::cpu
