// conv_generic_dgrad: dx = the transposed convolution of dy [+ branch], or with the batch norm in
// front g = dx * act'(scale * y + bias), rounded once, and the sums of g and g * (y - mean) * rstd.
// dy [N, P, Q, K], dx, branch, y [N, H, W, C] in Element; w [K, C / groups, R, S] in any strides.
// Any shape, groups and dtype. Taps that a stride skips cost a test of the pixel, no product.
#include "conv_generic.cuh"
#include "conv_generic_dgrad.h"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

// Adds what one element of g contributes to the sums of its channel, and returns it.
template <typename Element>
__device__ Element bn_gradient(const PreviousBn& bn, Compute<Element> dx, int64_t at, int channel,
                               Compute<Element> (&sums)[2]) {
  using T = Compute<Element>;
  const T y = to_compute(static_cast<const Element*>(bn.y)[at]);
  T t;
  if (bn.mask != nullptr) {
    t = static_cast<T>(bn.mask[at / 8] >> (at % 8) & 1);
  } else {
    t = static_cast<const T*>(bn.scale)[channel] * y + static_cast<const T*>(bn.bias)[channel];
  }
  const Element g = from_compute<Element>(act_grad(dx, t, bn.act, static_cast<T>(bn.slope)));
  const T mean = static_cast<const T*>(bn.mean)[channel];
  const T rstd = static_cast<const T*>(bn.rstd)[channel];
  sums[0] += to_compute(g);
  sums[1] += to_compute(g) * ((y - mean) * rstd);
  return g;
}

template <typename Element>
__global__ void __launch_bounds__(kLanes* kRows, kBlocksPerSm)
    conv_generic_dgrad_kernel(const Gather g, const ConvDgrad p) {
  using T = Compute<Element>;
  const GatherThread thread(g);
  T dx[kRowPixels];
  gather_sums<Element, true>(g, Plain<Element>{}, thread, dx);

  T sums[2] = {};
#pragma unroll
  for (int i = 0; i < kRowPixels; ++i) {
    const int64_t pixel = thread.first_pixel + i;
    if (pixel >= g.pixels || thread.channel >= g.channels) continue;
    const int64_t at = pixel * g.channels + thread.channel;
    if (p.branch != nullptr) dx[i] += to_compute(static_cast<const Element*>(p.branch)[at]);
    static_cast<Element*>(p.dx)[at] =
        p.bn.sums == nullptr ? from_compute<Element>(dx[i])
                             : bn_gradient<Element>(p.bn, dx[i], at, thread.channel, sums);
  }
  if (p.bn.sums == nullptr) return;
  sums[0] = column_sum(sums[0]);
  sums[1] = column_sum(sums[1]);
  if (threadIdx.y != 0 || thread.channel >= g.channels) return;
  T* partial = static_cast<T*>(p.workspace) + thread.tile * 2 * g.channels + thread.channel;
  partial[0] = sums[0];
  partial[g.channels] = sums[1];
}

Gather gather_of(const ConvDgrad& p) {
  const ConvShape& s = p.shape;
  Gather g{};
  g.in = p.dy;
  g.filter = p.w;
  g.h = gather_axis(s.h, s.p, s.r, s.stride_h, s.padding_h, s.dilation_h);
  g.w = gather_axis(s.w, s.q, s.s, s.stride_w, s.padding_w, s.dilation_w);
  g.pixels = s.n * s.h * s.w;
  g.channels = static_cast<int>(s.c);
  g.width = static_cast<int>(s.c / s.groups);
  g.depth = static_cast<int>(s.k / s.groups);
  g.in_channels = static_cast<int>(s.k);
  g.group_stride = g.depth * p.w_strides.k;
  g.lane_stride = p.w_strides.c;
  g.depth_stride = p.w_strides.k;
  g.stride_r = p.w_strides.r;
  g.stride_s = p.w_strides.s;
  return g;
}

template <typename Element>
void launch(const ConvDgrad& p, cudaStream_t stream) {
  const Gather g = gather_of(p);
  const int64_t blocks = g.pixel_tiles() * g.channel_tiles();
  if (blocks > 0) {
    conv_generic_dgrad_kernel<Element>
        <<<static_cast<unsigned>(blocks), dim3(kLanes, kRows), 0, stream>>>(g, p);
  }
  if (p.bn.sums != nullptr) {
    merge_sums(p.workspace, g.pixel_tiles(), 2, g.channels, p.bn.sums, p.dtype, stream);
  }
}

}  // namespace

int64_t conv_generic_dgrad_workspace(const ConvDgrad& params) {
  if (params.bn.sums == nullptr) return 0;
  const int64_t tiles = gather_of(params).pixel_tiles();
  const int64_t size = params.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  return (tiles + merge_scratch_rows(tiles)) * 2 * params.shape.c * size;
}

void conv_generic_dgrad(const ConvDgrad& params, cudaStream_t stream) {
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
