// Tensors whose memory goes back to the ops' own pool, csrc/cpu/block_pool.h.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

namespace rnk {

// Uninitialised [sizes...] on the CPU. Nothing where torch's own allocator is to be used: for small
// tensors, for torch 2.10, which takes no memory of others, and under RNK_CPU_POOL=0.
std::optional<torch::stable::Tensor> pooled_empty(const std::vector<int64_t>& sizes,
                                                  torch::headeronly::ScalarType type,
                                                  torch::headeronly::MemoryFormat format);

// With the strides of t, too; nothing where t is not dense.
std::optional<torch::stable::Tensor> pooled_empty_same(const torch::stable::Tensor& t);

}  // namespace rnk
