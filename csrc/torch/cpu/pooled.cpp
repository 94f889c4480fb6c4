// pooled_empty, and what is known of the pool from outside: pool_sizes and empty_pool.
#include "pooled.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "../../cpu/block_pool.h"
#include "../tensor.h"

// Of torch 2.11 and newer.
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t storage_offset,
    int32_t dtype, int32_t device_type, int32_t device_index, AtenTensorHandle* ret, int32_t layout,
    const uint8_t* opaque_metadata, int64_t opaque_metadata_size,
    void (*deleter)(void* data, void* context), void* context);

namespace rnk {
namespace {

// The system's allocator keeps smaller ones itself.
constexpr int64_t kLeastBytes = int64_t{256} << 10;

// Never destroyed: tensors may outlive what is destroyed at the end of a process.
cpu::BlockPool& pool() {
  static auto& pool = *new cpu::BlockPool;
  return pool;
}

bool is_wanted() {
  const char* choice = std::getenv("RNK_CPU_POOL");
  return torch_from_blob != nullptr && !(choice && std::strcmp(choice, "0") == 0);
}

int64_t bytes_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return 4;
    case ScalarType::Double:
      return 8;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return 2;
    case ScalarType::Byte:
      return 1;
    default:
      return 0;
  }
}

int64_t bytes_of(const Ints& sizes, ScalarType type) {
  int64_t bytes = bytes_of(type);
  for (int64_t size : sizes) bytes *= size;
  return bytes;
}

int32_t number_of(ScalarType type) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
}

// For sizes and strides that are dense.
std::optional<Tensor> pooled(const Ints& sizes, const Ints& strides, ScalarType type) {
  const int64_t bytes = bytes_of(sizes, type);
  if (bytes < kLeastBytes || !is_wanted()) return std::nullopt;
  auto block = std::make_unique<cpu::BlockPool::Block>(pool().take(bytes));
  const auto give = [](void*, void* context) {
    const std::unique_ptr<cpu::BlockPool::Block> own(static_cast<cpu::BlockPool::Block*>(context));
    pool().give(std::move(*own));
  };
  AtenTensorHandle handle = nullptr;
  const AOTITorchError error =
      torch_from_blob(block->data.get(), static_cast<int64_t>(sizes.size()), sizes.data(),
                      strides.data(), 0, number_of(type), aoti_torch_device_type_cpu(), -1, &handle,
                      aoti_torch_layout_strided(), nullptr, 0, give, block.get());
  if (error) pool().give(std::move(*block));
  RNK_CHECK_STATUS(error);
  block.release();  // give() has it
  return Tensor(handle);
}

// [bytes in use, bytes kept, the most that was in use, blocks asked of the system]
Ints pool_sizes() {
  const cpu::BlockPool::Sizes sizes = pool().sizes();
  return {sizes.used, sizes.kept, sizes.most_used, sizes.fresh};
}

void empty_pool() { pool().clear(); }

}  // namespace

std::optional<Tensor> pooled_empty(const Ints& sizes, ScalarType type, MemoryFormat format) {
  Ints strides(sizes.size());
  int64_t stride = 1;
  const auto next = [&](size_t d) { strides[d] = stride, stride *= sizes[d]; };
  const bool channels_last = format == MemoryFormat::ChannelsLast;
  if (channels_last) next(1);
  for (size_t d = sizes.size(); d-- > 0;) {
    if (!channels_last || d != 1) next(d);
  }
  return pooled(sizes, strides, type);
}

std::optional<Tensor> pooled_empty_same(const Tensor& t) {
  if (t.dim() != 4 || !(is_channels_last(t) || is_dense(t, {3, 2, 1, 0}))) return std::nullopt;
  return pooled({t.sizes().begin(), t.sizes().end()}, {t.strides().begin(), t.strides().end()},
                t.scalar_type());
}

}  // namespace rnk

STABLE_TORCH_LIBRARY_IMPL(resnet_kernels, CompositeExplicitAutograd, m) {
  m.impl("pool_sizes", TORCH_BOX(&rnk::pool_sizes));
  m.impl("empty_pool", TORCH_BOX(&rnk::empty_pool));
}
