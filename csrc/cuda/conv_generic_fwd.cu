// conv_generic_fwd: y = act(scale * conv(in(x), w) + bias + residual), or y = conv(in(x), w) and
// the statistics of y as stored. x [N, H, W, C], y [N, P, Q, K] in Element; w [K, C / groups, R, S]
// in any strides. Any shape, groups and dtype, in the arithmetic of Compute<Element>.
#include "conv_generic.cuh"
#include "conv_generic_fwd.h"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

// y of one pixel and channel, before rounding.
template <typename Element>
__device__ Compute<Element> epilogue(const ConvFwd& p, Compute<Element> t, int64_t at,
                                     int channel) {
  using T = Compute<Element>;
  if (p.scale != nullptr) t *= static_cast<const T*>(p.scale)[channel];
  if (p.bias != nullptr) t += static_cast<const T*>(p.bias)[channel];
  if (p.residual != nullptr) t += to_compute(static_cast<const Element*>(p.residual)[at]);
  return apply_act(t, p.act, static_cast<T>(p.slope));
}

// Leaves count, mean and M2 of the tile's `count` pixels in partial [3, channels]. The second pass
// corrects the rounding of the first one's mean.
template <typename T>
__device__ void tile_stats(const T (&y)[kRowPixels], int valid, T count, int channel, int channels,
                           T* partial) {
  T sum = 0;
#pragma unroll
  for (int i = 0; i < kRowPixels; ++i) sum += i < valid ? y[i] : T(0);
  const T mean = column_sum(sum) / count;
  T shift = 0, m2 = 0;
#pragma unroll
  for (int i = 0; i < kRowPixels; ++i) {
    const T distance = i < valid ? y[i] - mean : T(0);
    shift += distance;
    m2 += distance * distance;
  }
  shift = column_sum(shift);
  m2 = column_sum(m2) - shift * shift / count;
  if (threadIdx.y != 0 || channel >= channels) return;
  partial[channel] = count;
  partial[channels + channel] = mean + shift / count;
  partial[2 * channels + channel] = m2 > T(0) ? m2 : T(0);
}

template <typename Element>
__global__ void __launch_bounds__(kLanes* kRows, kBlocksPerSm)
    conv_generic_fwd_kernel(const Gather g, const ConvFwd p) {
  using T = Compute<Element>;
  const GatherThread thread(g);
  T y[kRowPixels];
  gather_sums<Element, false>(g, Activated<Element>{p.in}, thread, y);

  const int64_t left = g.pixels - thread.first_pixel;
  const int valid = left < 0 ? 0 : left < kRowPixels ? static_cast<int>(left) : kRowPixels;
#pragma unroll
  for (int i = 0; i < kRowPixels; ++i) {
    if (i >= valid || thread.channel >= g.channels) continue;
    const int64_t at = (thread.first_pixel + i) * g.channels + thread.channel;
    const Element out = from_compute<Element>(epilogue<Element>(p, y[i], at, thread.channel));
    static_cast<Element*>(p.y)[at] = out;
    y[i] = to_compute(out);
  }
  if (p.stats == nullptr) return;
  const int64_t in_tile = g.pixels - thread.tile * kTilePixels;
  tile_stats(y, valid, static_cast<T>(in_tile < kTilePixels ? in_tile : kTilePixels),
             thread.channel, g.channels,
             static_cast<T*>(p.workspace) + thread.tile * 3 * g.channels);
}

Gather gather_of(const ConvFwd& p) {
  const ConvShape& s = p.shape;
  Gather g{};
  g.in = p.x;
  g.filter = p.w;
  g.h = gather_axis(s.p, s.h, s.r, s.stride_h, s.padding_h, s.dilation_h);
  g.w = gather_axis(s.q, s.w, s.s, s.stride_w, s.padding_w, s.dilation_w);
  g.pixels = s.n * s.p * s.q;
  g.channels = static_cast<int>(s.k);
  g.width = static_cast<int>(s.k / s.groups);
  g.depth = static_cast<int>(s.c / s.groups);
  g.in_channels = static_cast<int>(s.c);
  g.group_stride = g.width * p.w_strides.k;
  g.lane_stride = p.w_strides.k;
  g.depth_stride = p.w_strides.c;
  g.stride_r = p.w_strides.r;
  g.stride_s = p.w_strides.s;
  return g;
}

template <typename Element>
void launch(const ConvFwd& p, cudaStream_t stream) {
  const Gather g = gather_of(p);
  const int64_t blocks = g.pixel_tiles() * g.channel_tiles();
  if (blocks > 0) {
    conv_generic_fwd_kernel<Element>
        <<<static_cast<unsigned>(blocks), dim3(kLanes, kRows), 0, stream>>>(g, p);
  }
  if (p.stats != nullptr) {
    merge_stats(p.workspace, g.pixel_tiles(), g.channels, p.stats, p.dtype, stream);
  }
}

}  // namespace

int64_t conv_generic_fwd_workspace(const ConvFwd& params) {
  if (params.stats == nullptr) return 0;
  const int64_t tiles = gather_of(params).pixel_tiles();
  const int64_t size = params.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  return (tiles + merge_scratch_rows(tiles)) * 3 * params.shape.k * size;
}

void conv_generic_fwd(const ConvFwd& params, cudaStream_t stream) {
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
