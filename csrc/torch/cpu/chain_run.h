// The parts of chain_inference that run: layers, chains of them, rows of chains.
#pragma once

#include <algorithm>

#include "../../cpu/bn_affine.h"
#include "../../cpu/conv_fwd.h"
#include "../../cpu/conv_serves.h"
#include "../../cpu/max_pool_fwd.h"
#include "../../cpu/scratch.h"
#include "../../cpu/team.h"
#include "../backend.h"
#include "../pool_shape.h"
#include "conv_own.h"
#include "filter_cache.h"

namespace rnk {

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

inline Ints out_size(const ConvShape& s) { return {s.n, s.k, s.p, s.q}; }

inline int64_t in_floats(const ConvShape& s) { return s.c * s.h * s.w; }  // of an image
inline int64_t out_floats(const ConvShape& s) { return s.k * s.p * s.q; }

// A layer that runs, in a team: on some of the images at a time, with what is the same for all of
// them.
class RunningLayer {
 public:
  RunningLayer(const ChainLayer& layer, const ConvShape& shape, Act act, double slope,
               cpu::ParallelFor parallel_for)
      : vectors_(4 * shape.k) {
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
    launch::conv_fwd(params_, cpu::team_parallel_for);
  }

 private:
  std::vector<float> vectors_;
  std::shared_ptr<const float> packed_;
  ConvFwdParams params_{};
};

// How many images are in work at a time, so that what lies between layers stays in the caches: the
// last layer's output for these takes 8 MiB, if one image does not take more.
constexpr int64_t kGroupFloats = int64_t{1} << 21;

// The most that fit, in groups of equal size.
inline int64_t group_of(int64_t images, int64_t fitting) {
  const int64_t groups = (images + fitting - 1) / std::max<int64_t>(fitting, 1);
  return (images + groups - 1) / std::max<int64_t>(groups, 1);
}

// The layers of a block.
class Chain {
 public:
  // pool: of what the last layer gives.
  Chain(std::vector<RunningLayer> layers, std::optional<RunningLayer> projection, bool adds,
        std::optional<PoolShape> pool)
      : layers_(std::move(layers)),
        projection_(std::move(projection)),
        adds_(adds),
        pool_(std::move(pool)) {
    for (size_t i = 0; i + 1 < layers_.size(); ++i)
      between_ = std::max(between_, out_floats(layers_[i].shape()));
  }

  // Whether what it gives may take the place of what it gets and adds: an element is read where it
  // is written, and what the first layer reads of other elements is used up when the last one runs.
  bool in_place() const { return adds_ && !projection_ && !pool_ && layers_.size() > 1; }

  // Of an image.
  int64_t in() const { return in_floats(layers_[0].shape()); }
  int64_t out() const { return pool_ ? pool_->c * pool_->p * pool_->q : last_out(); }

  // Images at a time.
  int64_t group(int64_t images) const {
    return group_of(images, std::max<int64_t>(1, kGroupFloats / last_out()));
  }

  void run(const float* x, const float* residual, int64_t images, float* y) {
    // One after the other in two buffers; the projection, or what is pooled, in a third; then the
    // pooling's bytes of places, which nobody reads.
    const int64_t places = pool_ ? out() : 0;
    float* buffers =
        cpu::scratch(cpu::Scratch::kChain, images * (2 * between_ + last_out() + places));
    float* third = buffers + images * 2 * between_;
    const float* skip = adds_ ? residual : nullptr;
    if (projection_) {
      projection_->run(skip, nullptr, images, third);
      skip = third;
    }
    const float* h = x;
    for (size_t i = 0; i + 1 < layers_.size(); ++i) {
      float* next = buffers + i % 2 * images * between_;
      layers_[i].run(h, nullptr, images, next);
      h = next;
    }
    layers_.back().run(h, skip, images, pool_ ? third : y);
    if (pool_) run_pool(third, images, y, third + images * last_out());
  }

 private:
  int64_t last_out() const { return out_floats(layers_.back().shape()); }

  void run_pool(const float* x, int64_t images, float* z, float* places) const {
    MaxPoolFwdParams params{};
    params.x = x;
    params.z = z;
    params.indices = reinterpret_cast<uint8_t*>(places);
    params.shape = *pool_;
    params.shape.n = images;
    launch::max_pool_fwd(params, cpu::team_parallel_for);
  }

  std::vector<RunningLayer> layers_;
  std::optional<RunningLayer> projection_;
  const bool adds_;
  const std::optional<PoolShape> pool_;  // without a projection
  int64_t between_ = 0;                  // floats of an image
};

// Floats of the largest output that is kept for all images at once: 32 MiB.
constexpr int64_t kRowFloats = int64_t{1} << 23;

// Blocks in order, those that take the same number of images at a time one after the other on these
// images before the next: what lies between them does not leave the caches, nor anything this
// thread's memory.
class Row {
 public:
  void add(Chain chain) { chains_.push_back(std::move(chain)); }

  // residual: of the first block, or null for x.
  void run(const float* x, const float* residual, int64_t residual_floats, int64_t images,
           float* y) {
    const std::vector<Stretch> stretches = stretches_of(images);
    int64_t kept = 0, inside = 0;
    for (const Stretch& stretch : stretches) {
      if (stretch.first > 0) kept = std::max(kept, chains_[stretch.first].in());
      for (size_t i = stretch.first + 1; i < stretch.last; ++i)
        inside = std::max(inside, stretch.images * chains_[i].in());
    }
    const int64_t most =
        group_of(images, std::max<int64_t>(1, kRowFloats / std::max<int64_t>(kept, 1)));
    float* buffers = cpu::scratch(cpu::Scratch::kRow, 2 * (most * kept + inside));
    float* within = buffers + 2 * most * kept;
    const int64_t out = chains_.back().out();
    for (int64_t first = 0; first < images; first += most) {
      const int64_t count = std::min(most, images - first);
      Flow flow{x + first * chains_[0].in(), x + first * chains_[0].in(), chains_[0].in(), nullptr};
      if (residual)
        flow.skip = residual + first * residual_floats, flow.skip_floats = residual_floats;
      for (size_t i = 0; i < stretches.size(); ++i) {
        const bool last = i + 1 == stretches.size();
        float* to = last ? y + first * out : buffers + i % 2 * most * kept;
        run_stretch(stretches[i], flow, count, within, inside, to);
        flow = {to, to, chains_[stretches[i].last - 1].out(), to};
      }
    }
  }

 private:
  // Chains first to last - 1, on so many images at a time.
  struct Stretch {
    size_t first, last;
    int64_t images;
  };

  // What arrives at a block, and what it adds, with its floats an image.
  struct Flow {
    const float *h, *skip;
    int64_t skip_floats;
    float* own;  // h, where that is ours
  };

  std::vector<Stretch> stretches_of(int64_t images) const {
    std::vector<Stretch> stretches;
    for (size_t i = 0; i < chains_.size(); ++i) {
      const int64_t group = chains_[i].group(images);
      if (stretches.empty() || stretches.back().images != group) stretches.push_back({i, i, group});
      stretches.back().last = i + 1;
    }
    return stretches;
  }

  // within: two times `size` floats for what lies between its chains.
  void run_stretch(const Stretch& stretch, const Flow& flow, int64_t images, float* within,
                   int64_t size, float* y) {
    for (int64_t first = 0; first < images; first += stretch.images) {
      const int64_t count = std::min(stretch.images, images - first);
      const float* h = flow.h + first * chains_[stretch.first].in();
      const float* skip = flow.skip + first * flow.skip_floats;
      float* kept = flow.own ? flow.own + first * chains_[stretch.first].in() : nullptr;
      for (size_t i = stretch.first; i < stretch.last; ++i) {
        Chain& chain = chains_[i];
        float* out = kept && chain.in_place() ? kept : kept == within ? within + size : within;
        if (i + 1 == stretch.last) out = y + first * chain.out();
        chain.run(h, skip, count, out);
        h = skip = kept = out;
      }
    }
  }

  std::vector<Chain> chains_;
};

}  // namespace rnk
