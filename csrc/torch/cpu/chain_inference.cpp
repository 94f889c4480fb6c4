// chain_inference: blocks act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + residual) one after the
// other, the residual itself convolved and normalised if it has a layer, with fixed statistics and
// no gradients. All of it is one call: for one image, the way from Python to a kernel and back
// takes longer than some convolutions. Serves what conv_fwd's own kernels serve; returns nothing,
// before it has begun, for everything else, which then goes the way of one call per layer and is
// refused there if it is wrong.
#include <algorithm>

#include "../../cpu/bn_affine.h"
#include "../../cpu/conv_fwd.h"
#include "../../cpu/conv_serves.h"
#include "../../cpu/scratch.h"
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
    if (s.p < 1 || s.q < 1 || !cpu::conv_fwd_serves(s, DType::kFloat32)) return std::nullopt;
    return s;
  }

  static bool is_float(const Tensor& t) {
    return t.is_cpu() && t.scalar_type() == ScalarType::Float;
  }
};

Ints out_size(const ConvShape& s) { return {s.n, s.k, s.p, s.q}; }

int64_t in_floats(const ConvShape& s) { return s.c * s.h * s.w; }  // of an image
int64_t out_floats(const ConvShape& s) { return s.k * s.p * s.q; }

// A layer that runs: on some of the images at a time, with what is the same for all of them.
class RunningLayer {
 public:
  RunningLayer(const ChainLayer& layer, const ConvShape& shape, Act act, double slope,
               cpu::ParallelFor parallel_for)
      : vectors_(4 * shape.k), parallel_for_(parallel_for) {
    float* at = vectors_.data();  // mean, rstd, scale, bias
    const auto vector = [&](int i) {
      return VectorIn{device_ptr(layer.tensors[i]), DType::kFloat32};
    };
    BnAffineParams affine{};
    affine.running_mean = vector(3), affine.running_var = vector(4);
    affine.gamma = vector(1), affine.beta = vector(2);
    affine.mean = at, affine.rstd = at + shape.k;
    affine.scale = at + 2 * shape.k, affine.bias = at + 3 * shape.k;
    affine.channels = shape.k, affine.eps = layer.eps, affine.dtype = DType::kFloat32;
    launch::bn_affine(affine, parallel_for);
    params_.w = floats(layer.weight());
    params_.w_strides = filter_strides(layer.weight());
    params_.scale = at + 2 * shape.k;
    params_.bias = at + 3 * shape.k;
    params_.act = act;
    params_.slope = static_cast<float>(slope);
    params_.shape = shape;
    params_.kernel = cpu::conv_kernel(shape);
    params_.threads = thread_count();
    packed_ = kept_filter(layer.weight(), params_, parallel_for);
    params_.packed = packed_.get();
  }

  RunningLayer(RunningLayer&&) = default;  // the pointers stay with what they point to

  const ConvShape& shape() const { return params_.shape; }

  void run(const float* x, const float* residual, int64_t images, float* y) {
    params_.shape.n = images;
    params_.x = x;
    params_.residual = residual;
    params_.y = y;
    launch::conv_fwd(params_, parallel_for_);
  }

 private:
  std::vector<float> vectors_;
  std::shared_ptr<const float> packed_;
  ConvFwdParams params_{};
  cpu::ParallelFor parallel_for_;
};

// All layers on a few images before the next few, so that what lies between the layers stays in the
// caches: the last layer's output for these images takes 4 MiB, if one image does not take more.
constexpr int64_t kGroupFloats = int64_t{1} << 20;

class Chain {
 public:
  Chain(std::vector<RunningLayer> layers, std::optional<RunningLayer> projection, bool adds)
      : layers_(std::move(layers)), projection_(std::move(projection)), adds_(adds) {
    for (size_t i = 0; i + 1 < layers_.size(); ++i)
      between_ = std::max(between_, out_floats(layers_[i].shape()));
  }

  void run(const float* x, const float* residual, int64_t residual_floats, int64_t images,
           float* y) {
    const int64_t in = in_floats(layers_[0].shape()), out = out_floats(layers_.back().shape());
    const int64_t group = std::clamp<int64_t>(kGroupFloats / out, 1, images);
    // One after the other in two buffers, and the projection in a third.
    float* buffers = cpu::scratch(cpu::Scratch::kChain, group * (2 * between_ + out));
    for (int64_t first = 0; first < images; first += group) {
      const int64_t count = std::min(group, images - first);
      const float* skip = adds_ ? residual + first * residual_floats : nullptr;
      if (projection_) {
        float* projected = buffers + group * 2 * between_;
        projection_->run(skip, nullptr, count, projected);
        skip = projected;
      }
      const float* h = x + first * in;
      for (size_t i = 0; i + 1 < layers_.size(); ++i) {
        float* next = buffers + i % 2 * group * between_;
        layers_[i].run(h, nullptr, count, next);
        h = next;
      }
      layers_.back().run(h, skip, count, y + first * out);
    }
  }

 private:
  std::vector<RunningLayer> layers_;
  std::optional<RunningLayer> projection_;
  const bool adds_;
  int64_t between_ = 0;  // floats of an image
};

// What a block adds to its last layer.
enum class Adds : int64_t { kNothing, kResidual, kProjection };

struct ChainBlock {
  size_t first, count;  // layers; the residual's comes behind the last
  Adds adds;
};

// Blocks as [number of layers, Adds] each.
std::vector<ChainBlock> blocks_of(const Ints& spec, size_t layers, bool residual) {
  std::vector<ChainBlock> blocks;
  size_t first = 0;
  STD_TORCH_CHECK(!spec.empty() && spec.size() % 2 == 0, "blocks: expected 2 numbers a block");
  for (size_t i = 0; i < spec.size(); i += 2) {
    const int64_t count = spec[i], adds = spec[i + 1];
    STD_TORCH_CHECK(count > 0 && adds >= 0 && adds <= 2, "blocks: expected layers, and 0, 1 or 2");
    blocks.push_back({first, static_cast<size_t>(count), static_cast<Adds>(adds)});
    first += count + (blocks.back().adds == Adds::kProjection);
  }
  STD_TORCH_CHECK(first == layers, "chain_inference: expected 5 tensors and 7 numbers a layer");
  STD_TORCH_CHECK(!residual || blocks[0].adds != Adds::kNothing, "residual: nothing adds it");
  return blocks;
}

// The convolutions of all layers, or nothing if some are not ours or do not fit together.
std::vector<ConvShape> shapes_of(const std::vector<ChainLayer>& layers,
                                 const std::vector<ChainBlock>& blocks, Ints size, Ints residual) {
  std::vector<ConvShape> shapes;
  const auto append = [&](const ChainLayer& layer, Ints& in) {
    const auto shape = layer.shape(in);
    if (!shape) return false;
    shapes.push_back(*shape);
    in = out_size(*shape);
    return true;
  };
  for (const ChainBlock& block : blocks) {
    Ints added = residual.empty() ? size : residual;
    residual.clear();
    size_t i = block.first;
    for (; i < block.first + block.count; ++i) {
      if (!append(layers[i], size)) return {};
    }
    if (block.adds == Adds::kProjection && !append(layers[i], added)) return {};
    if (block.adds != Adds::kNothing && added != size) return {};
  }
  return shapes;
}

// Floats of the largest output between two blocks that is kept for all images at once: 32 MiB.
constexpr int64_t kRowFloats = int64_t{1} << 23;

// Blocks in order; what lies between them does not leave this thread's memory.
class Row {
 public:
  void add(Chain chain, const ConvShape& in, const ConvShape& out) {
    between_ = std::max(between_, chains_.empty() ? 0 : in_floats(in));
    chains_.push_back({std::move(chain), in_floats(in), out_floats(out)});
  }

  // residual: of the first block, or null for x.
  void run(const float* x, const float* residual, int64_t residual_floats, int64_t images,
           float* y) {
    const int64_t fitting = std::max<int64_t>(1, kRowFloats / std::max<int64_t>(between_, 1));
    const int64_t groups = (images + fitting - 1) / fitting;
    const int64_t most = (images + groups - 1) / groups;
    float* buffers = cpu::scratch(cpu::Scratch::kRow, 2 * most * between_);
    for (int64_t first = 0; first < images; first += most) {
      const int64_t count = std::min(most, images - first);
      const float* h = x + first * chains_[0].in;
      const float* skip = residual ? residual + first * residual_floats : h;
      for (size_t i = 0; i < chains_.size(); ++i) {
        Link& link = chains_[i];
        const bool last = i + 1 == chains_.size();
        float* out = last ? y + first * link.out : buffers + i % 2 * most * between_;
        link.chain.run(h, skip, i == 0 && residual ? residual_floats : link.in, count, out);
        h = skip = out;
      }
    }
  }

 private:
  struct Link {
    Chain chain;
    int64_t in, out;  // floats of an image
  };
  std::vector<Link> chains_;
  int64_t between_ = 0;
};

// residual: what the first block adds, if that is not x.
OptionalTensor chain_inference(const Tensor& x, const OptionalTensor& residual,
                               const std::vector<Tensor>& tensors, const Ints& geometry,
                               const std::vector<double>& eps, const Ints& blocks_spec, int64_t act,
                               double slope) {
  const size_t count = eps.size();
  STD_TORCH_CHECK(tensors.size() == count * kTensors && geometry.size() == count * kGeometry,
                  "chain_inference: expected 5 tensors and 7 numbers a layer");
  const std::vector<ChainBlock> blocks = blocks_of(blocks_spec, count, residual.has_value());
  const auto own = [](const Tensor& t) {
    return ChainLayer::is_float(t) && t.dim() == 4 && t.numel() > 0 && is_channels_last(t);
  };
  if (!own(x) || (residual.has_value() && !own(*residual))) return std::nullopt;
  std::vector<ChainLayer> layers;
  for (size_t i = 0; i < count; ++i)
    layers.push_back({&tensors[i * kTensors], &geometry[i * kGeometry], eps[i]});
  const Ints added = residual.has_value() ? sizes_of(*residual) : Ints{};
  const std::vector<ConvShape> shapes = shapes_of(layers, blocks, sizes_of(x), added);
  if (shapes.empty()) return std::nullopt;

  const DeviceScope scope(x);
  const Act f = act_of(act);
  const auto running = [&](size_t i, Act a) {
    return RunningLayer(layers[i], shapes[i], a, slope, scope.context());
  };
  Row row;
  for (const ChainBlock& block : blocks) {
    const size_t last = block.first + block.count - 1;
    std::vector<RunningLayer> main;
    main.reserve(block.count);
    for (size_t i = block.first; i <= last; ++i) main.push_back(running(i, f));
    std::optional<RunningLayer> projection;
    if (block.adds == Adds::kProjection) projection.emplace(running(last + 1, Act::kIdentity));
    row.add(Chain(std::move(main), std::move(projection), block.adds != Adds::kNothing),
            shapes[block.first], shapes[last]);
  }
  const ConvShape& end = shapes[blocks.back().first + blocks.back().count - 1];
  const Tensor y = empty_in(x, out_size(end), MemoryFormat::ChannelsLast);
  const int64_t added_floats = added.empty() ? 0 : added[1] * added[2] * added[3];
  row.run(floats(x), floats(residual), added_floats, end.n, static_cast<float*>(device_ptr(y)));
  return y;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(chain_inference)
