// bn_bwd_finalize: sums of g and g * xhat -> A, B, C of dy = A * g + B * (y - mean) + C.
#include "bn_bwd_finalize.h"

#include "scalar.h"

namespace rnk::cpu {

void bn_bwd_finalize(const BnBwdFinalizeParams& p, ParallelFor) {
  const double count = get(p.count, p.dtype, 0);
  const double m = count < 1 ? 1 : count;
  for (int64_t c = 0; c < p.channels; ++c) {
    const double rstd = get(p.rstd, p.dtype, c);
    const double a = get(p.gamma, c, 1) * rstd;
    put(p.abc, p.dtype, c, a);
    put(p.abc, p.dtype, p.channels + c, -a * rstd * get(p.sums, p.dtype, p.channels + c) / m);
    put(p.abc, p.dtype, 2 * p.channels + c, -a * get(p.sums, p.dtype, c) / m);
  }
}

}  // namespace rnk::cpu
