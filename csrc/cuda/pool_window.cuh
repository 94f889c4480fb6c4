// Where a pooling window lies, and how threads share the pixels. Both layouts are rows of pixels: a
// row of channels_last has C neighbours, one of a contiguous plane [N * C, H, W] has one.
#pragma once

#include "../common/pool_params.h"
#include "act.cuh"
#include "row_walk.cuh"

namespace rnk::cuda {

struct Range {
  int begin, end;
};

// One spatial dimension of a pooling.
struct PoolAxis {
  int in, out, kernel, stride, padding, dilation;

  // Input coordinate of tap 0 of an output; may be negative.
  __device__ int start(int output) const { return output * stride - padding; }

  // The taps of an output that lie inside the input.
  __device__ Range taps(int output) const {
    const int first = start(output);
    const int begin = first < 0 ? (dilation - 1 - first) / dilation : 0;
    const int end = first < in ? (in - 1 - first) / dilation + 1 : 0;
    return {min(begin, kernel), min(end, kernel)};
  }

  // The outputs whose window, from its first tap to its last, spans input coordinate `at`.
  __device__ Range outputs_over(int at) const {
    const int first = at + padding - dilation * (kernel - 1);
    return {first > 0 ? (first + stride - 1) / stride : 0, min(out, (at + padding) / stride + 1)};
  }

  // The tap by which an output out of outputs_over() sees `at`, or -1.
  __device__ int tap_of(int at, int output) const {
    const int distance = at - start(output);
    return distance % dilation == 0 ? distance / dilation : -1;
  }

  // Length of an output's window inside the padded input.
  __device__ int padded_length(int output) const {
    return min(start(output) + kernel, in + padding) - start(output);
  }
};

// A pooling as the kernels see it: images [images, h, w, width], width = C or 1.
struct PoolPlan {
  PoolAxis rows, columns;
  int64_t width;
  int64_t channels;  // a prologue's vector of a contiguous plane is that of plane % channels
  RowPlan walk;      // over the pixels of the side that is written
};

inline PoolPlan plan_pool(const PoolShape& s, int64_t height, int64_t width, int access) {
  constexpr int kBlocksPerSm = 8;  // 2048 threads a multiprocessor: full occupancy
  const auto axis = [](int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding,
                       int64_t dilation) {
    return PoolAxis{static_cast<int>(in),      static_cast<int>(out),
                    static_cast<int>(kernel),  static_cast<int>(stride),
                    static_cast<int>(padding), static_cast<int>(dilation)};
  };
  PoolPlan plan;
  plan.rows = axis(s.h, s.p, s.kernel_h, s.stride_h, s.padding_h, s.dilation_h);
  plan.columns = axis(s.w, s.q, s.kernel_w, s.stride_w, s.padding_w, s.dilation_w);
  plan.width = s.channels_last ? s.c : 1;
  plan.channels = s.c;
  const int64_t images = s.n * s.c / plan.width, blocks = int64_t{kBlocksPerSm} * multiprocessors();
  plan.walk = s.channels_last ? plan_rows(images * height * width, s.c, 1, access, blocks, 1)
                              : plan_rows(images, 1, height * width, 1, blocks, 1);
  return plan;
}

// A pixel of the side that a launch writes.
struct Pixel {
  int64_t image;
  int row, column;

  __device__ Pixel(int64_t index, int height, int width) {
    const int64_t line = index / width;
    column = static_cast<int>(index - line * width);
    image = line / height;
    row = static_cast<int>(line - image * height);
  }
};

// act(scale * x + bias) in front of a pooling, rounded as if stored; or x itself.
template <typename Element, int kWidth>
struct PoolReader {
  using T = Compute<Element>;
  T scale[kWidth], bias[kWidth];
  bool affine;
  Act act;
  T slope;

  template <typename Params>
  __device__ PoolReader(const Params& p, int64_t channel)
      : affine(p.scale != nullptr), act(p.act), slope(static_cast<T>(p.slope)) {
    load(p, channel);
  }

  template <typename Params>
  __device__ void load(const Params& p, int64_t channel) {
    if (!affine) return;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      scale[i] = static_cast<const T*>(p.scale)[channel + i];
      bias[i] = static_cast<const T*>(p.bias)[channel + i];
    }
  }

  __device__ void read(T (&out)[kWidth], const Element* x) const {
    load_vec(out, x);
    if (!affine) return;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const T t = apply_act(scale[i] * out[i] + bias[i], act, slope);
      out[i] = to_compute(from_compute<Element>(t));
    }
  }
};

// Whether vectors of 16 bytes serve a pooling of tensors a and b.
template <typename Element>
bool is_wide(const PoolShape& s, const void* a, const void* b) {
  return s.channels_last && s.c % kAccess<Element> == 0 && is_aligned(a) && is_aligned(b);
}

}  // namespace rnk::cuda
