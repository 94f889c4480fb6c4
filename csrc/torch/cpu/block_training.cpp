// block_training_forward, block_training_backward: a residual block with batch statistics,
// act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + skip), as one call each way: between two kernels,
// the way to Python and back takes longer than some of them. They run what block_steps.py runs op
// by op, in its order, and let go of tensors where it does. Activations are those that leave a
// mask.
#include <algorithm>

#include "../backend.h"
#include "../conv_run.h"
#include "../ops.h"

namespace rnk {
namespace {

constexpr int64_t kIdentity = static_cast<int64_t>(Act::kIdentity);
constexpr size_t kGeometry = 7;  // of a layer: stride, padding, dilation, groups
constexpr size_t kVectors = 3;   // gamma, beta, conv_bias
constexpr size_t kBuffers = 3;   // running mean, running variance, num_batches_tracked
constexpr size_t kKept = 6;      // y, mean, rstd, scale, bias, total; in front of all, the mask
constexpr size_t kNeeds = 4;     // weight, gamma, beta, conv_bias; in front of all, x, shortcut

struct Conv {
  Ints stride, padding, dilation;
  int64_t groups;

  explicit Conv(const int64_t* g)
      : stride{g[0], g[1]}, padding{g[2], g[3]}, dilation{g[4], g[5]}, groups(g[6]) {}
  ConvGeometry geometry() const { return {stride, padding, dilation, groups}; }
};

struct Layer {
  const Tensor &y, &mean, &rstd, &scale, &bias, &total;
};

// What a convolution reads: act(scale * h + bias), or h.
struct Input {
  const Tensor& h;
  OptionalTensor scale, bias;
  int64_t act;
  double slope;

  PrologueArgs prologue() const { return {scale, bias, act, slope}; }
};

// A block with what forward has kept so far.
class Block {
 public:
  Block(const Ints& geometry, int64_t main, int64_t act, double slope)
      : main_(static_cast<size_t>(main)), act_(act), slope_(slope) {
    STD_TORCH_CHECK(geometry.size() % kGeometry == 0, "geometry: expected 7 numbers a layer");
    for (size_t i = 0; i < geometry.size(); i += kGeometry) convs_.emplace_back(&geometry[i]);
    STD_TORCH_CHECK(main > 0 && (layers() == main_ || layers() == main_ + 1),
                    "main: expected all layers, or all but a projection");
  }

  size_t layers() const { return convs_.size(); }
  size_t last() const { return main_ - 1; }
  size_t projection() const { return main_; }
  bool projects() const { return layers() > main_; }
  bool reads_x(size_t i) const { return i == 0 || i == projection(); }
  ConvGeometry conv(size_t i) const { return convs_[i].geometry(); }
  int64_t act() const { return act_; }
  double slope() const { return slope_; }

  static Layer layer(const std::vector<Tensor>& kept, size_t i) {
    const Tensor* at = &kept[1 + i * kKept];
    return {at[0], at[1], at[2], at[3], at[4], at[5]};
  }

  Input input(size_t i, const Tensor& x, const std::vector<Tensor>& kept) const {
    if (reads_x(i)) return {x, {}, {}, kIdentity, 0};
    const Layer before = layer(kept, i - 1);
    return {before.y, before.scale, before.bias, act_, slope_};
  }

 private:
  std::vector<Conv> convs_;
  size_t main_;
  int64_t act_;
  double slope_;
};

// t in the dense layout of `like`.
Tensor dense_like(const Tensor& t, const Tensor& like) {
  bool same = true;
  for (int64_t d = 0; d < 4; ++d) same = same && t.stride(d) == like.stride(d);
  if (same) return t;
  return torch::stable::contiguous(
      t, is_dense(like, {3, 2, 1, 0}) ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast);
}

// [output, mask, then y, mean, rstd, scale, bias, total of each layer]
std::vector<Tensor> block_training_forward(
    const Tensor& x, const OptionalTensor& shortcut, const std::vector<Tensor>& weights,
    const std::vector<OptionalTensor>& vectors, const std::vector<OptionalTensor>& buffers,
    const Ints& geometry, const std::vector<std::optional<double>>& momenta,
    const std::vector<double>& eps, int64_t main, int64_t act, double slope) {
  const Block block(geometry, main, act, slope);
  const size_t layers = block.layers();
  STD_TORCH_CHECK(weights.size() == layers && vectors.size() == layers * kVectors &&
                      buffers.size() == layers * kBuffers && momenta.size() == layers &&
                      eps.size() == layers,
                  "block_training_forward: expected tensors of as many layers as geometry");
  // The mask, which comes last, takes the place of x.
  std::vector<Tensor> kept{x};
  for (size_t i = 0; i < layers; ++i) {
    const Input in = block.input(i, x, kept);
    const auto [y, stats] =
        run_conv_fwd_stats(in.h, weights[i], in.prologue(), block.conv(i), false);
    const OptionalTensor *v = &vectors[i * kVectors], *b = &buffers[i * kBuffers];
    const auto [mean, rstd, scale, bias, total] = bn_finalize(
        torch::stable::unsqueeze(stats, 0), v[0], v[1], v[2], b[0], b[1], b[2], momenta[i], eps[i]);
    kept.insert(kept.end(), {y, mean, rstd, scale, bias, total});
  }
  const Layer last = Block::layer(kept, block.last());
  OptionalTensor skip, scale2, bias2;
  if (block.projects()) {
    const Layer projection = Block::layer(kept, block.projection());
    skip = dense_like(projection.y, last.y);
    scale2 = projection.scale, bias2 = projection.bias;
  } else {
    skip = dense_like(shortcut.has_value() ? *shortcut : x, last.y);
  }
  auto [out, mask] =
      bn_act_fwd_mask(last.y, last.scale, last.bias, skip, scale2, bias2, act, slope);
  kept[0] = mask;
  kept.insert(kept.begin(), out);
  return kept;
}

// Gradient arriving at a batch norm: g and its sums; act' is still to be applied where act is
// given.
struct Arriving {
  Tensor g, sums;
  int64_t act;
};

// What block_training_backward is given, in the order of its arguments.
struct BackwardArgs {
  const Block& block;
  const Tensor& x;
  const std::vector<Tensor>& weights;
  const std::vector<OptionalTensor>& gammas;
  const std::vector<Tensor>& kept;
  const std::vector<bool>& needs;
};

class Backward {
 public:
  explicit Backward(const BackwardArgs& args) : args_(args), grads_(args.needs.size()) {}

  std::vector<OptionalTensor> run(const Tensor& dout, bool has_shortcut) {
    const Block& block = args_.block;
    auto [g, sums, sums2] = through_output(dout);
    OptionalTensor branch;
    if (!has_shortcut) branch = g;
    if (block.projects()) {
      branch.reset();
      const size_t i = block.projection();
      keep_vectors(i, *sums2);
      if (needs_x() || needs(i, 0)) {
        const Tensor dy = gradient_of_y(i, {dense_like(g, layer(i).y), *sums2, kIdentity});
        keep_weight(i, dy);
        if (needs_x()) branch = below_first(i, dy, std::nullopt);
      }
    }
    if (args_.needs[1]) grads_[1] = g;
    main_branch({std::move(g), std::move(sums), kIdentity}, std::move(branch));
    return std::move(grads_);
  }

 private:
  Layer layer(size_t i) const { return Block::layer(args_.kept, i); }
  bool needs_x() const { return args_.needs[0]; }
  bool needs(size_t i, size_t which) const { return args_.needs[2 + i * kNeeds + which]; }
  OptionalTensor& grad(size_t i, size_t which) { return grads_[2 + i * kNeeds + which]; }

  // Whether the input's gradient of a layer of the main branch has a reader.
  bool below(size_t i) const {
    const auto first = args_.needs.begin() + 2;
    return needs_x() || std::find(first, first + i * kNeeds, true) != first + i * kNeeds;
  }

  // g behind the last activation, and its sums for one or two batch norms.
  std::tuple<Tensor, Tensor, OptionalTensor> through_output(const Tensor& dout) const {
    const Block& block = args_.block;
    const Layer last = layer(block.last());
    const Tensor dz = dense_like(dout, last.y);
    if (!block.projects()) {
      auto [g, sums] =
          bn_act_bwd_reduce_add(dz, last.y, last.mean, last.rstd, last.scale, last.bias,
                                std::nullopt, args_.kept[0], block.act(), block.slope());
      return {g, sums, std::nullopt};
    }
    const Layer other = layer(block.projection());
    return bn_act_bwd_reduce_dual(dz, last.y, last.mean, last.rstd, last.scale, last.bias,
                                  dense_like(other.y, last.y), other.mean, other.rstd, other.scale,
                                  other.bias, args_.kept[0], block.act(), block.slope());
  }

  // References are dropped as soon as a tensor has been read: what is allocated next then takes its
  // place in memory, which is mapped and in the cache.
  void main_branch(Arriving at, OptionalTensor branch) {
    for (size_t i = args_.block.last();; --i) {
      keep_vectors(i, at.sums);
      if (!below(i) && !needs(i, 0)) return;
      const Tensor dy = gradient_of_y(i, std::move(at));
      keep_weight(i, dy);
      if (!below(i)) return;
      if (i == 0) {
        grads_[0] = below_first(0, dy, branch);
        return;
      }
      at = below_later(i, dy);
    }
  }

  void keep_vectors(size_t i, const Tensor& sums) {
    if (needs(i, 1)) grad(i, 1) = torch::stable::select(sums, 0, 1);
    if (needs(i, 2)) grad(i, 2) = torch::stable::select(sums, 0, 0);
    if (needs(i, 3)) {  // batch statistics make it exactly zero
      Tensor zeros = empty_same(layer(i).scale);
      grad(i, 3) = torch::stable::zero_(zeros);
    }
  }

  void keep_weight(size_t i, const Tensor& dy) {
    if (!needs(i, 0)) return;
    const Input in = args_.block.input(i, args_.x, args_.kept);
    grad(i, 0) =
        run_conv_wgrad(dy, in.h, args_.weights[i], in.prologue(), args_.block.conv(i), false);
  }

  Tensor gradient_of_y(size_t i, Arriving at) const {
    const Layer l = layer(i);
    const Tensor abc = bn_bwd_finalize(at.sums, args_.gammas[i], l.rstd, l.total);
    OptionalTensor scale, bias;
    if (at.act != kIdentity) scale = l.scale, bias = l.bias;
    return bn_bwd_apply(at.g, l.y, l.mean, abc, scale, bias, at.act, args_.block.slope());
  }

  // dx of a convolution that reads x.
  Tensor below_first(size_t i, const Tensor& dy, OptionalTensor branch) const {
    const Tensor& w = args_.weights[i];
    if (branch.has_value()) branch = torch::stable::contiguous(*branch, conv_format(dy, w));
    return run_conv_dgrad(dy, w, branch, sizes_of(args_.x), args_.block.conv(i), false);
  }

  // What arrives below one that reads act(bn(y)) of the layer before. The choice is that of
  // fuses_dgrad in layers.py.
  Arriving below_later(size_t i, const Tensor& dy) const {
    const Tensor& w = args_.weights[i];
    const Layer l = layer(i - 1);
    const int64_t act = args_.block.act();
    const double slope = args_.block.slope();
    const bool own =
        dtype_of(dy, "dy") == DType::kFloat32 || dtype_of(dy, "dy") == DType::kBFloat16;
    if (own && is_channels_last(dy)) {
      const OptionalTensor none;
      auto [g, sums] =
          run_conv_dgrad_bn(dy, w, none, {l.y, l.mean, l.rstd, l.scale, l.bias, none, act, slope},
                            args_.block.conv(i), false);
      return {std::move(g), std::move(sums), kIdentity};
    }
    Tensor dz = dense_like(
        run_conv_dgrad(dy, w, std::nullopt, sizes_of(l.y), args_.block.conv(i), false), l.y);
    Tensor sums = bn_act_bwd_reduce(dz, l.y, l.mean, l.rstd, l.scale, l.bias, act, slope);
    return {std::move(dz), std::move(sums), act};
  }

  const BackwardArgs args_;
  std::vector<OptionalTensor> grads_;
};

// [dx, dshortcut, then dw, dgamma, dbeta, dconv_bias of each layer], those that are needed.
std::vector<OptionalTensor> block_training_backward(
    const Tensor& dout, const Tensor& x, bool has_shortcut, const std::vector<Tensor>& weights,
    const std::vector<OptionalTensor>& gammas, const std::vector<Tensor>& kept,
    const std::vector<bool>& needs, const Ints& geometry, int64_t main, int64_t act, double slope) {
  const Block block(geometry, main, act, slope);
  const size_t layers = block.layers();
  STD_TORCH_CHECK(weights.size() == layers && gammas.size() == layers &&
                      kept.size() == 1 + layers * kKept && needs.size() == 2 + layers * kNeeds,
                  "block_training_backward: expected tensors of as many layers as geometry");
  return Backward({block, x, weights, gammas, kept, needs}).run(dout, has_shortcut);
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(block_training_forward)
RNK_REGISTER(block_training_backward)
