// chain_inference: blocks act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + residual) one after the
// other, the residual itself convolved and normalised if it has a layer, with fixed statistics and
// no gradients; behind them a classifier, if there is one. All of it is one call: for one image,
// the way from Python to a kernel and back takes longer than some convolutions. Its layers are
// handed over once, by keep_chain: to pass 265 tensors takes as long as two of them. Serves what
// conv_fwd's own kernels serve; returns nothing, before it has begun, for everything else, which
// then goes the way of one call per layer and is refused there if it is wrong.
#include <mutex>
#include <unordered_map>

#include "chain_head.h"
#include "chain_run.h"

namespace rnk {
namespace {

// What a block adds to its last layer.
enum class Adds : int64_t { kNothing, kResidual, kProjection };

struct ChainBlock {
  size_t first, count;  // layers; the residual's comes behind the last
  Adds adds;
};

// Blocks as [number of layers, Adds] each.
std::vector<ChainBlock> blocks_of(const Ints& spec, size_t layers) {
  std::vector<ChainBlock> blocks;
  size_t first = 0;
  STD_TORCH_CHECK(!spec.empty() && spec.size() % 2 == 0, "blocks: expected 2 numbers a block");
  for (size_t i = 0; i < spec.size(); i += 2) {
    const int64_t count = spec[i], adds = spec[i + 1];
    STD_TORCH_CHECK(count > 0 && adds >= 0 && adds <= 2, "blocks: expected layers, and 0, 1 or 2");
    blocks.push_back({first, static_cast<size_t>(count), static_cast<Adds>(adds)});
    first += count + (blocks.back().adds == Adds::kProjection);
  }
  STD_TORCH_CHECK(first == layers, "keep_chain: expected 5 tensors and 7 numbers a layer");
  return blocks;
}

// Max pooling of what the first block gives.
struct ChainPool {
  PoolWindow window;
  bool ceil_mode;

  // Numbers as max_pool_fwd takes them, or none.
  static std::optional<ChainPool> of(const Ints& n) {
    if (n.empty()) return std::nullopt;
    STD_TORCH_CHECK(n.size() == 9, "pool: expected kernel, stride, padding, dilation, ceil_mode");
    ChainPool pool{{{n[0], n[1]}, {n[2], n[3]}, {n[4], n[5]}, {n[6], n[7]}}, n[8] != 0};
    check_window(pool.window);
    STD_TORCH_CHECK(n[0] <= 255 && n[1] <= 255 && n[0] * n[1] <= 255, "kernel: at most 255 taps");
    return pool;
  }

  // Of an input of that size, if it covers a window.
  std::optional<PoolShape> shape(const Ints& size) const {
    for (int i = 0; i < 2; ++i) {
      const int64_t extent = window.dilation[i] * (window.kernel[i] - 1) + 1;
      if (size[i + 2] + 2 * window.padding[i] < extent) return std::nullopt;
    }
    return pool_shape(window, size, pool_out(size[2], window, 0, ceil_mode),
                      pool_out(size[3], window, 1, ceil_mode), true, DType::kFloat32);
  }
};

// The convolutions of all layers and the pooling.
struct ChainShapes {
  std::vector<ConvShape> layers;
  std::optional<PoolShape> pool;
  Ints out;  // size
};

// Nothing if some are not ours or do not fit together.
std::optional<ChainShapes> shapes_of(const std::vector<ChainLayer>& layers,
                                     const std::vector<ChainBlock>& blocks,
                                     const std::optional<ChainPool>& pool, Ints size,
                                     Ints residual) {
  ChainShapes shapes;
  const auto append = [&](const ChainLayer& layer, Ints& in) {
    const auto shape = layer.shape(in);
    if (!shape) return false;
    shapes.layers.push_back(*shape);
    in = out_size(*shape);
    return true;
  };
  for (const ChainBlock& block : blocks) {
    Ints added = residual.empty() ? size : residual;
    residual.clear();
    size_t i = block.first;
    for (; i < block.first + block.count; ++i) {
      if (!append(layers[i], size)) return std::nullopt;
    }
    if (block.adds == Adds::kProjection && !append(layers[i], added)) return std::nullopt;
    if (block.adds != Adds::kNothing && added != size) return std::nullopt;
    if (pool && block.first == 0) {
      shapes.pool = pool->shape(size);
      if (!shapes.pool) return std::nullopt;
      size = {size[0], size[1], shapes.pool->p, shapes.pool->q};
    }
  }
  shapes.out = size;
  return shapes;
}

// What keep_chain was given. Tensors are read anew at every call.
struct KeptChain {
  std::vector<Tensor> tensors;
  Ints geometry;
  std::vector<double> eps;
  std::vector<ChainBlock> blocks;
  std::optional<ChainPool> pool;
  Act act;
  double slope;
  std::vector<Tensor> head;  // of a linear layer behind the mean of each channel, or empty

  std::vector<ChainLayer> layers() const {
    std::vector<ChainLayer> layers;
    for (size_t i = 0; i < eps.size(); ++i)
      layers.push_back({&tensors[i * kTensors], &geometry[i * kGeometry], eps[i]});
    return layers;
  }
};

std::mutex mutex;
// Never destroyed: when the process ends, what tensors need may be gone before.
auto& chains = *new std::unordered_map<int64_t, std::shared_ptr<const KeptChain>>;
int64_t last_chain = 0;

int64_t keep_chain(const std::vector<Tensor>& tensors, const Ints& geometry,
                   const std::vector<double>& eps, const Ints& blocks, const Ints& pool,
                   int64_t act, double slope, const std::vector<Tensor>& head) {
  const size_t count = eps.size();
  STD_TORCH_CHECK(tensors.size() == count * kTensors && geometry.size() == count * kGeometry,
                  "keep_chain: expected 5 tensors and 7 numbers a layer");
  STD_TORCH_CHECK(head.size() <= 2, "head: expected a weight and a bias");
  const auto chain =
      std::make_shared<const KeptChain>(KeptChain{tensors, geometry, eps, blocks_of(blocks, count),
                                                  ChainPool::of(pool), act_of(act), slope, head});
  STD_TORCH_CHECK(!chain->pool || chain->blocks[0].adds != Adds::kProjection,
                  "pool: not behind a projection");
  const std::lock_guard<std::mutex> lock(mutex);
  chains.emplace(++last_chain, chain);
  return last_chain;
}

void drop_chain(int64_t chain) {
  std::shared_ptr<const KeptChain> dropped;  // its tensors die without the lock
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = chains.find(chain);
  if (found == chains.end()) return;
  dropped = std::move(found->second);
  chains.erase(found);
}

std::shared_ptr<const KeptChain> kept_chain(int64_t chain) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = chains.find(chain);
  STD_TORCH_CHECK(found != chains.end(), "chain_inference: no such chain");
  return found->second;
}

// The layers, ready to run. Filters and statistics are in nobody's cache: each thread reads some.
std::vector<RunningLayer> running_layers(const KeptChain& chain,
                                         const std::vector<ChainLayer>& layers,
                                         const std::vector<ConvShape>& shapes,
                                         cpu::ParallelFor parallel_for) {
  std::vector<Act> acts(layers.size(), chain.act);
  for (const ChainBlock& block : chain.blocks) {
    if (block.adds == Adds::kProjection) acts[block.first + block.count] = Act::kIdentity;
  }
  std::vector<std::optional<RunningLayer>> made(layers.size());
  cpu::parallel_tasks(parallel_for, static_cast<int64_t>(made.size()), [&](int64_t i, int64_t) {
    made[i].emplace(layers[i], shapes[i], acts[i], chain.slope, parallel_for);
  });
  std::vector<RunningLayer> running;
  for (auto& layer : made) running.push_back(std::move(*layer));
  return running;
}

// residual: what the first block adds, if that is not x.
OptionalTensor chain_inference(int64_t kept, const Tensor& x, const OptionalTensor& residual) {
  const std::shared_ptr<const KeptChain> chain = kept_chain(kept);
  const std::vector<ChainBlock>& blocks = chain->blocks;
  STD_TORCH_CHECK(!residual.has_value() || blocks[0].adds != Adds::kNothing,
                  "residual: nothing adds it");
  const auto own = [](const Tensor& t) {
    return ChainLayer::is_float(t) && t.dim() == 4 && t.numel() > 0 && is_channels_last(t);
  };
  if (!own(x) || (residual.has_value() && !own(*residual))) return std::nullopt;
  const std::vector<ChainLayer> layers = chain->layers();
  const Ints added = residual.has_value() ? sizes_of(*residual) : Ints{};
  const auto shapes = shapes_of(layers, blocks, chain->pool, sizes_of(x), added);
  if (!shapes) return std::nullopt;
  std::optional<ChainHead> head;
  if (!chain->head.empty() && !(head = ChainHead::of(chain->head, shapes->out)))
    return std::nullopt;

  const DeviceScope scope(x);
  std::vector<RunningLayer> running =
      running_layers(*chain, layers, shapes->layers, scope.context());
  Row row;
  for (const ChainBlock& block : blocks) {
    const auto first = std::make_move_iterator(running.begin() + block.first);
    const size_t end = block.first + block.count;
    std::optional<RunningLayer> projection;
    if (block.adds == Adds::kProjection) projection.emplace(std::move(running[end]));
    row.add(Chain({first, first + block.count}, std::move(projection), block.adds != Adds::kNothing,
                  block.first == 0 ? shapes->pool : std::nullopt));
  }
  Tensor y = empty_in(x, shapes->out, MemoryFormat::ChannelsLast);
  const int64_t added_floats = added.empty() ? 0 : added[1] * added[2] * added[3];
  cpu::with_team(scope.context(), thread_count(), [&] {
    row.run(floats(x), floats(residual), added_floats, x.size(0),
            static_cast<float*>(device_ptr(y)));
    if (head) y = head->run(y, cpu::team_parallel_for);
  });
  return y;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(chain_inference)

STABLE_TORCH_LIBRARY_IMPL(resnet_kernels, CompositeExplicitAutograd, m) {
  m.impl("keep_chain", TORCH_BOX(&rnk::keep_chain));
  m.impl("drop_chain", TORCH_BOX(&rnk::drop_chain));
}
