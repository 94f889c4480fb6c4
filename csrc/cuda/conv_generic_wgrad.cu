// conv_generic_wgrad: dw[k, c, r, s] = sum over pixels of dy[n, p, q, k] * in(x)[n, ih, iw, c].
// dy [N, P, Q, K], x [N, H, W, C] in Element; dw [K, C / groups, R, S] in any strides, in Element
// or fp32. A block sums one part of the pixels for one tap and 128 neighbours of (k, c); parts are
// added in order. The cut follows from the shape alone, so the sums do on every device.
#include <algorithm>

#include "conv_generic.cuh"
#include "conv_generic_wgrad.h"

namespace rnk::cuda {
namespace {

constexpr int kLaneOutputs = 4;  // of a thread, kLanes apart
constexpr int kBlockOutputs = kLanes * kLaneOutputs;
constexpr int64_t kPartPixels = 256;     // at least, so that a thread adds 32 products
constexpr int64_t kWantedBlocks = 1024;  // parts are cut until there are so many: 7 a H100 SM

struct WgradPlan {
  int64_t pixels;       // N * P * Q
  int64_t parts, part;  // how many, pixels of each
  int outputs, tiles;   // K * (C / groups), and blocks for them
  int taps;             // R * S

  explicit WgradPlan(const ConvShape& s) {
    pixels = s.n * s.p * s.q;
    outputs = static_cast<int>(s.k * (s.c / s.groups));
    tiles = (outputs + kBlockOutputs - 1) / kBlockOutputs;
    taps = static_cast<int>(s.r * s.s);
    const int64_t wanted = std::max<int64_t>(kWantedBlocks / std::max(tiles * taps, 1), 1);
    part = std::max((pixels + wanted - 1) / wanted, kPartPixels);
    parts = std::max<int64_t>((pixels + part - 1) / part, 1);
  }
};

// partials [parts, taps, K, C / groups].
template <typename Element>
__global__ void __launch_bounds__(kLanes* kRows, kBlocksPerSm)
    conv_generic_wgrad_parts(const WgradPlan plan, const ConvWgrad p, int depth, int width) {
  using T = Compute<Element>;
  const ConvShape& shape = p.shape;
  const unsigned tile = blockIdx.x % plan.tiles, slice = blockIdx.x / plan.tiles;
  const int64_t part = slice / plan.taps;
  const int tap = static_cast<int>(slice % plan.taps);
  const int first = static_cast<int>(tile * kBlockOutputs + threadIdx.x);
  int k[kLaneOutputs], c[kLaneOutputs];
#pragma unroll
  for (int i = 0; i < kLaneOutputs; ++i) {
    // Beyond the last output: the first one again, which is not stored.
    const int output = first + i * kLanes < plan.outputs ? first + i * kLanes : 0;
    k[i] = output / depth;
    c[i] = k[i] / width * depth + output % depth;
  }

  const Activated<Element> load{p.in};
  const int q = static_cast<int>(shape.q), rows = static_cast<int>(shape.p);
  const int r = tap / static_cast<int>(shape.s), column = tap % static_cast<int>(shape.s);
  const int64_t offset_h = r * shape.dilation_h - shape.padding_h;
  const int64_t offset_w = column * shape.dilation_w - shape.padding_w;
  const int64_t begin = part * plan.part + threadIdx.y;
  const int64_t end = min((part + 1) * plan.part, plan.pixels);
  T sums[kLaneOutputs] = {};
  if (begin < end) {
    PixelWalk at(begin, rows, q);
#pragma unroll 1
    for (int64_t pixel = begin; pixel < end; pixel += kRows, at.advance(kRows, rows, q)) {
      const int64_t ih = at.row * shape.stride_h + offset_h;
      const int64_t iw = at.column * shape.stride_w + offset_w;
      if (ih < 0 || ih >= shape.h || iw < 0 || iw >= shape.w) continue;
      const Element* dy = static_cast<const Element*>(p.dy) + pixel * shape.k;
      const Element* x =
          static_cast<const Element*>(p.x) + ((at.image * shape.h + ih) * shape.w + iw) * shape.c;
#pragma unroll
      for (int i = 0; i < kLaneOutputs; ++i) {
        sums[i] += to_compute(dy[k[i]]) * load(x[c[i]], c[i]);
      }
    }
  }
  T* partial = static_cast<T*>(p.workspace) + static_cast<int64_t>(slice) * plan.outputs;
#pragma unroll
  for (int i = 0; i < kLaneOutputs; ++i) {
    const T sum = column_sum(sums[i]);
    const int output = first + i * kLanes;
    if (threadIdx.y == 0 && output < plan.outputs) partial[output] = sum;
  }
}

// A thread adds up one element's parts.
template <typename T, typename Out>
__global__ void __launch_bounds__(kLanes* kRows)
    conv_generic_wgrad_sum(const WgradPlan plan, const ConvWgrad p, int depth) {
  const int size = plan.taps * plan.outputs;
  const unsigned i = blockIdx.x * (kLanes * kRows) + threadIdx.x;
  if (i >= size) return;
  const T* partials = static_cast<const T*>(p.workspace) + i;
  T sum = 0;
#pragma unroll 1
  for (int64_t part = 0; part < plan.parts; ++part) sum += partials[part * size];
  const int tap = static_cast<int>(i) / plan.outputs, output = static_cast<int>(i) % plan.outputs;
  const int columns = static_cast<int>(p.shape.s);
  const int64_t at = output / depth * p.dw_strides.k + output % depth * p.dw_strides.c +
                     tap / columns * p.dw_strides.r + tap % columns * p.dw_strides.s;
  static_cast<Out*>(p.dw)[at] = from_compute<Out>(sum);
}

template <typename Element>
void launch(const ConvWgrad& p, cudaStream_t stream) {
  using T = Compute<Element>;
  const WgradPlan plan(p.shape);
  const int size = plan.taps * plan.outputs;
  if (size == 0) return;
  const int depth = static_cast<int>(p.shape.c / p.shape.groups);
  const int width = static_cast<int>(p.shape.k / p.shape.groups);
  const auto blocks = static_cast<unsigned>(plan.parts * plan.taps * plan.tiles);
  conv_generic_wgrad_parts<Element>
      <<<blocks, dim3(kLanes, kRows), 0, stream>>>(plan, p, depth, width);
  constexpr int kThreads = kLanes * kRows;
  const unsigned sum_blocks = (static_cast<unsigned>(size) + kThreads - 1) / kThreads;
  if (p.dw_dtype == p.dtype) {
    conv_generic_wgrad_sum<T, Element><<<sum_blocks, kThreads, 0, stream>>>(plan, p, depth);
  } else {
    conv_generic_wgrad_sum<T, T><<<sum_blocks, kThreads, 0, stream>>>(plan, p, depth);
  }
}

}  // namespace

int64_t conv_generic_wgrad_workspace(const ConvWgrad& params) {
  const WgradPlan plan(params.shape);
  const int64_t size = params.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  return plan.parts * plan.taps * plan.outputs * size;
}

void conv_generic_wgrad(const ConvWgrad& params, cudaStream_t stream) {
  switch (params.dtype) {
    case DType::kFloat32:
      return launch<float>(params, stream);
    case DType::kFloat64:
      return launch<double>(params, stream);
    case DType::kFloat16:
      return launch<__half>(params, stream);
    case DType::kBFloat16:
      return launch<__nv_bfloat16>(params, stream);
  }
}

}  // namespace rnk::cuda
