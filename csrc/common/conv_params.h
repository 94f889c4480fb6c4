// The geometry of a convolution. Dimensions as in docs/math/convolution.md.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace rnk {

struct ConvShape {
  int64_t n, c, h, w, k, r, s, p, q;
  int64_t stride_h, stride_w;
  int64_t padding_h, padding_w;
  int64_t dilation_h, dilation_w;
  int64_t groups;
};

// Strides in elements.
struct FilterStrides {
  int64_t k, c, r, s;
};

}  // namespace rnk
