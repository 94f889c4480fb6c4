// Which filters may be kept is said from outside, with their addresses: only their owner can tell
// when the memory goes to something else (resnet_kernels/ops/packed_filter.py). Whether one has
// changed since it was packed is told by its version, which torch counts up with every change in
// place, and by a sample of its values, for changes through `.data`, numpy or another process.
#include "filter_cache.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "../../cpu/huge_pages.h"

namespace rnk {
namespace {

// Places that are looked at, spread over all dimensions, and channels at each. Nothing else reads
// these pages, so that a place takes a microsecond or two unless several are fetched at once.
constexpr int64_t kPlaces = 16, kRun = 16;

// All that the packed form depends on. Dimensions that a weight has not are of size 1.
struct FilterState {
  int64_t version = -1;
  int64_t sizes[4] = {1, 1, 1, 1}, strides[4] = {}, groups = 0, floats = 0;
  ConvKernel kernel{};
  uint32_t sample[kPlaces][kRun] = {};

  bool operator==(const FilterState& other) const {
    return std::memcmp(this, &other, sizeof *this) == 0;
  }
};

struct Kept {
  int owners = 0;
  ConvShape shape{};  // of the last call
  ConvKernel kernel{};
  int64_t floats = 0;  // that its packed filter takes
  FilterState state;
  std::shared_ptr<float> packed;  // null: met once in this state
};

std::mutex mutex;
cpu::Slabs slabs;
std::unordered_map<const void*, Kept> filters;
int64_t served = 0;

template <typename T>
T ask(const char* op, const Tensor& t) {
  StableIValue stack[1] = {torch::stable::detail::from(t)};
  RNK_CHECK_STATUS(torch_call_dispatcher(op, "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<T>(stack[0]);
}

FilterState state_of(const Tensor& w, const ConvFwdParams& p, int64_t floats) {
  FilterState state;
  state.version = ask<int64_t>("aten::_version", w);
  state.groups = p.shape.groups;
  state.floats = floats;
  state.kernel = p.kernel;
  for (int d = 0; d < w.dim(); ++d) state.sizes[d] = w.size(d), state.strides[d] = w.stride(d);
  const int64_t numel = w.numel(), channels = state.sizes[1], run = std::min(kRun, channels);
  const float* places[kPlaces];
  for (int64_t i = 0; i < kPlaces; ++i) {
    // The step is rarely a multiple of one dimension's size.
    int64_t index = i * (numel - 1) / (kPlaces - 1), at[4];
    for (int d = 3; d >= 0; --d) {
      at[d] = index % state.sizes[d];
      index /= state.sizes[d];
    }
    at[1] = std::min(at[1] / kRun * kRun, channels - run);
    places[i] = p.w;
    for (int d = 0; d < 4; ++d) places[i] += at[d] * state.strides[d];
    __builtin_prefetch(places[i]);
    __builtin_prefetch(places[i] + (run - 1) * state.strides[1]);
  }
  for (int64_t i = 0; i < kPlaces; ++i) {
    for (int64_t c = 0; c < run; ++c) {
      std::memcpy(&state.sample[i][c], places[i] + c * state.strides[1], sizeof(float));
    }
  }
  return state;
}

std::shared_ptr<float> packed_filter(const ConvFwdParams& params, int64_t floats,
                                     cpu::ParallelFor parallel_for) {
  std::shared_ptr<float> packed = slabs.allocate(floats);
  cpu::conv_fwd_pack(params, packed.get(), parallel_for);
  return packed;
}

void keep_packed_filter(int64_t address) {
  const std::lock_guard<std::mutex> lock(mutex);
  ++filters[reinterpret_cast<const void*>(address)].owners;
}

void drop_packed_filter(int64_t address) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = filters.find(reinterpret_cast<const void*>(address));
  if (found != filters.end() && --found->second.owners <= 0) filters.erase(found);
}

// Filters that are kept packed, their bytes, and calls served from them so far.
Ints packed_filters() {
  const std::lock_guard<std::mutex> lock(mutex);
  Ints counts{0, 0, served};
  for (const auto& [address, kept] : filters) {
    if (!kept.packed) continue;
    ++counts[0];
    counts[1] += kept.state.floats * static_cast<int64_t>(sizeof(float));
  }
  return counts;
}

// That the filter takes packed; 0 if it may not be kept.
int64_t kept_floats(const Tensor& w, const ConvFwdParams& params) {
  const ConvShape& s = params.shape;
  if (w.numel() == 0 || s.n * s.p * s.q == 0 || ask<bool>("aten::is_inference", w)) return 0;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = filters.find(params.w);
  if (found == filters.end()) return 0;
  Kept& kept = found->second;
  if (std::memcmp(&kept.shape, &params.shape, sizeof kept.shape) != 0 ||
      kept.kernel != params.kernel) {
    kept.shape = params.shape;
    kept.kernel = params.kernel;
    kept.floats = cpu::conv_fwd_packed_floats(params);
  }
  return kept.floats;
}

}  // namespace

bool may_keep_filter(const Tensor& w, const ConvFwdParams& params) {
  return kept_floats(w, params) > 0;
}

std::shared_ptr<const float> kept_filter(const Tensor& w, const ConvFwdParams& params,
                                         cpu::ParallelFor parallel_for) {
  const int64_t floats = kept_floats(w, params);
  if (floats == 0) return nullptr;
  const FilterState state = state_of(w, params, floats);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = filters.find(params.w);
  if (found == filters.end()) return nullptr;
  Kept& kept = found->second;
  if (!(state == kept.state)) {
    kept.state = state;
    kept.packed.reset();
    return nullptr;
  }
  if (!kept.packed) kept.packed = packed_filter(params, floats, parallel_for);
  ++served;
  return kept.packed;
}

}  // namespace rnk

STABLE_TORCH_LIBRARY_IMPL(resnet_kernels, CompositeExplicitAutograd, m) {
  m.impl("keep_packed_filter", TORCH_BOX(&rnk::keep_packed_filter));
  m.impl("drop_packed_filter", TORCH_BOX(&rnk::drop_packed_filter));
  m.impl("packed_filters", TORCH_BOX(&rnk::packed_filters));
}
