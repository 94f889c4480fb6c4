// chain_inference: act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + residual), the residual itself
// convolved and normalised if it has a layer, with fixed statistics and no gradients. All of it is
// one call: for one image, the way from Python to a kernel and back takes longer than some
// convolutions. Serves what conv_fwd's own kernels serve; returns nothing, before it has begun, for
// everything else, which then goes the way of one call per layer and is refused there if it is
// wrong.
#include "../../cpu/bn_affine.h"
#include "../../cpu/conv_fwd.h"
#include "../../cpu/conv_serves.h"
#include "../backend.h"
#include "conv_own.h"
#include "filter_cache.h"

namespace rnk {
namespace {

constexpr size_t kTensors = 5;   // of a layer: weight, gamma, beta, running mean and variance
constexpr size_t kGeometry = 7;  // stride, padding, dilation, groups

struct ChainLayer {
  const Tensor* tensors;
  const int64_t* geometry;
  double eps;

  const Tensor& weight() const { return tensors[0]; }

  // The convolution of an input of that size, if our kernels take it and the batch norm fits.
  std::optional<ConvShape> shape(const Ints& size) const {
    const Tensor& w = weight();
    const int64_t* g = geometry;
    const bool valid = g[0] > 0 && g[1] > 0 && g[2] >= 0 && g[3] >= 0 && g[4] > 0 && g[5] > 0 &&
                       g[6] > 0 && eps > 0;
    if (!valid || !is_float(w) || w.dim() != 4 || w.numel() == 0) return std::nullopt;
    // One channel or one pixel: channels_last is contiguous too, and the filter decides.
    if (size[1] == 1 || size[2] * size[3] == 1) return std::nullopt;
    if (w.size(0) % g[6] != 0 || w.size(1) * g[6] != size[1]) return std::nullopt;
    for (size_t i = 1; i < kTensors; ++i) {
      const Tensor& v = tensors[i];
      if (!is_float(v) || v.dim() != 1 || v.numel() != w.size(0) || !v.is_contiguous())
        return std::nullopt;
    }
    const ConvShape s = conv_shape(size, w, {{g[0], g[1]}, {g[2], g[3]}, {g[4], g[5]}, g[6]});
    if (s.p < 1 || s.q < 1 || !cpu::conv_serves(s)) return std::nullopt;
    return s;
  }

  static bool is_float(const Tensor& t) {
    return t.is_cpu() && t.scalar_type() == ScalarType::Float;
  }
};

Ints out_size(const ConvShape& s) { return {s.n, s.k, s.p, s.q}; }

Tensor run_layer(const ChainLayer& layer, const ConvShape& shape, const Tensor& x,
                 const OptionalTensor& residual, Act act, double slope) {
  const DeviceScope scope(x);
  const Tensor y = empty_in(x, out_size(shape), MemoryFormat::ChannelsLast);
  std::vector<float> vectors(4 * shape.k);  // mean, rstd, scale, bias
  float* at = vectors.data();
  const auto vector = [&](int i) {
    return VectorIn{device_ptr(layer.tensors[i]), DType::kFloat32};
  };
  launch::bn_affine({vector(3),
                     vector(4),
                     vector(1),
                     vector(2),
                     {nullptr, DType::kFloat32},
                     at,
                     at + shape.k,
                     at + 2 * shape.k,
                     at + 3 * shape.k,
                     shape.k,
                     layer.eps,
                     DType::kFloat32},
                    scope.context());
  ConvFwdParams params{};
  params.x = floats(x);
  params.w = floats(layer.weight());
  params.w_strides = filter_strides(layer.weight());
  params.scale = at + 2 * shape.k;
  params.bias = at + 3 * shape.k;
  params.residual = floats(residual);
  params.act = act;
  params.slope = static_cast<float>(slope);
  params.y = static_cast<float*>(device_ptr(y));
  params.shape = shape;
  const auto packed = kept_filter(layer.weight(), params, scope.context());
  params.packed = packed.get();
  params.threads = thread_count();
  launch::conv_fwd(params, scope.context());
  return y;
}

// Layers in order, the residual's last if `projects`.
OptionalTensor chain_inference(const Tensor& x, const OptionalTensor& residual,
                               const std::vector<Tensor>& tensors, const Ints& geometry,
                               const std::vector<double>& eps, bool projects, int64_t act,
                               double slope) {
  const size_t count = eps.size(), chained = count - projects;
  STD_TORCH_CHECK(tensors.size() == count * kTensors && geometry.size() == count * kGeometry,
                  "chain_inference: expected 5 tensors and 7 numbers a layer");
  STD_TORCH_CHECK(count > static_cast<size_t>(projects) && residual.has_value() >= projects,
                  "chain_inference: expected a layer, and a residual to project");
  const auto own = [](const Tensor& t) {
    return ChainLayer::is_float(t) && t.dim() == 4 && t.numel() > 0 && is_channels_last(t);
  };
  if (!own(x) || (residual.has_value() && !own(*residual))) return std::nullopt;
  const auto layer = [&](size_t i) {
    return ChainLayer{&tensors[i * kTensors], &geometry[i * kGeometry], eps[i]};
  };
  std::vector<ConvShape> shapes;
  Ints size = sizes_of(x);
  for (size_t i = 0; i < chained; ++i) {
    const auto shape = layer(i).shape(size);
    if (!shape) return std::nullopt;
    shapes.push_back(*shape);
    size = out_size(*shape);
  }
  Ints added = residual.has_value() ? sizes_of(*residual) : size;
  if (projects) {
    const auto shape = layer(chained).shape(added);
    if (!shape) return std::nullopt;
    shapes.push_back(*shape);
    added = out_size(*shape);
  }
  if (added != size) return std::nullopt;
  const Act f = act_of(act);
  OptionalTensor skip = residual;
  if (projects)
    skip = run_layer(layer(chained), shapes[chained], *residual, std::nullopt, Act::kIdentity, 0);
  Tensor h = x;
  for (size_t i = 0; i < chained; ++i) {
    h = run_layer(layer(i), shapes[i], h, i + 1 == chained ? skip : std::nullopt, f, slope);
  }
  return h;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(chain_inference)
