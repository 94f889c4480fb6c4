// Every stride-th pixel with zeros for new channels in front and behind, and the gradient of that.
#pragma once

#include "parallel.h"

namespace rnk::cpu {

// x is [N, C, H, W], z [N, front + C + back, P, Q], both channels_last; P = ceil(H / stride).
struct PadShortcutParams {
  int64_t n, c, h, w, p, q;
  int64_t stride, front, back;
  int64_t element_size;
};

void pad_shortcut_fwd(const PadShortcutParams& params, const void* x, void* z,
                      ParallelFor parallel_for);

// Writes all of dx.
void pad_shortcut_bwd(const PadShortcutParams& params, const void* dz, void* dx,
                      ParallelFor parallel_for);

}  // namespace rnk::cpu
