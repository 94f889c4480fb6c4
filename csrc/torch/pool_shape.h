// Arguments of the pooling ops -> PoolShape. Refuses what would make a kernel read outside its
// tensors.
#pragma once

#include "../common/pool_params.h"
#include "backend.h"

namespace rnk {

// Kernel, stride (0: the kernel), padding and dilation of a pooling; heights first.
struct PoolWindow {
  Ints kernel, stride, padding, dilation;
};

inline void check_window(PoolWindow& window) {
  for (const Ints* pair : {&window.kernel, &window.stride, &window.padding, &window.dilation}) {
    STD_TORCH_CHECK(pair->size() == 2, "kernel, stride, padding, dilation: expected 2 values each");
  }
  for (int i = 0; i < 2; ++i) {
    if (window.stride[i] == 0) window.stride[i] = window.kernel[i];
    STD_TORCH_CHECK(window.kernel[i] > 0 && window.stride[i] > 0 && window.dilation[i] > 0 &&
                        window.padding[i] >= 0,
                    "kernel, stride, dilation: expected positive values; padding: not negative");
  }
}

// Number of windows along a dimension, as torch counts them.
inline int64_t pool_out(int64_t in, const PoolWindow& w, int i, bool ceil_mode) {
  const int64_t span = in + 2 * w.padding[i] - w.dilation[i] * (w.kernel[i] - 1) - 1;
  STD_TORCH_CHECK(span >= 0, "kernel: larger than the padded input");
  int64_t out = (span + (ceil_mode ? w.stride[i] - 1 : 0)) / w.stride[i] + 1;
  if (ceil_mode && (out - 1) * w.stride[i] >= in + w.padding[i]) --out;
  return out;
}

inline PoolShape pool_shape(const PoolWindow& w, const Ints& in, int64_t p, int64_t q,
                            bool channels_last, DType dtype) {
  for (int i = 0; i < 2; ++i) {  // the CUDA kernels count along a dimension in 32 bits
    const int64_t span = in[i + 2] + 2 * w.padding[i] + w.stride[i] + w.dilation[i] * w.kernel[i];
    STD_TORCH_CHECK(span < INT32_MAX, "x: more than 2^31 rows or columns");
  }
  return {in[0],
          in[1],
          in[2],
          in[3],
          p,
          q,
          w.kernel[0],
          w.kernel[1],
          w.stride[0],
          w.stride[1],
          w.padding[0],
          w.padding[1],
          w.dilation[0],
          w.dilation[1],
          channels_last,
          dtype};
}

// The layout kernels work in: the one empty_activation(t) has. A single pixel or channel fits both,
// and the other side of the pooling need not.
inline bool pool_channels_last(const Tensor& t, const char* name) {
  activation_view(t, name);
  return !is_dense(t, {3, 2, 1, 0});
}

// The shape of a forward pooling of x.
inline PoolShape pool_fwd_shape(const Tensor& x, PoolWindow window, bool ceil_mode) {
  check_window(window);
  const bool channels_last = pool_channels_last(x, "x");
  const Ints in{x.size(0), x.size(1), x.size(2), x.size(3)};
  return pool_shape(window, in, pool_out(in[2], window, 0, ceil_mode),
                    pool_out(in[3], window, 1, ceil_mode), channels_last, dtype_of(x, "x"));
}

// The shape of a backward pooling of dz to `in` [N, C, H, W].
inline PoolShape pool_bwd_shape(const Tensor& dz, const Ints& in, PoolWindow window) {
  check_window(window);
  const bool channels_last = pool_channels_last(dz, "dz");
  STD_TORCH_CHECK(in.size() == 4, "input_size: expected 4 values");
  STD_TORCH_CHECK(in[0] == dz.size(0) && in[1] == dz.size(1) && in[2] >= 0 && in[3] >= 0,
                  "input_size: expected N and C of dz");
  return pool_shape(window, in, dz.size(2), dz.size(3), channels_last, dtype_of(dz, "dz"));
}

inline void check_pool_prologue(const Tensor& x, const OptionalTensor& scale,
                                const OptionalTensor& bias) {
  STD_TORCH_CHECK(scale.has_value() == bias.has_value(), "scale and bias: give both or none");
  check_vector(scale, x.size(1), stats_type(x), x, "scale");
  check_vector(bias, x.size(1), stats_type(x), x, "bias");
}

inline Tensor empty_pooled(const Tensor& x, const PoolShape& s, ScalarType type) {
  return empty_activation(x, {s.n, s.c, s.p, s.q}, type);
}

}  // namespace rnk
