// What one compilation of csrc/torch is for: the namespace, the dispatch key and how kernels are
// started. Each csrc/torch/<op>.cpp is compiled once per backend that has the op, with
// RNK_BACKEND_<NAME> defined.
#pragma once

#include "tensor.h"

#if defined(RNK_BACKEND_CPU)

#include "../cpu/parallel.h"

#define RNK_NAMESPACE resnet_kernels
#define RNK_DISPATCH_KEY CPU

namespace rnk {

using Context = cpu::ParallelFor;

struct DeviceScope {
  explicit DeviceScope(const Tensor& t) { STD_TORCH_CHECK(t.is_cpu(), "expected a CPU tensor"); }
  Context context() const {
    return [](int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*),
              void* data) { RNK_CHECK_STATUS(torch_parallel_for(begin, end, grain, body, data)); };
  }
  void check_launch(const char*) const {}
};

inline int thread_count() {
  uint32_t threads = 0;
  RNK_CHECK_STATUS(torch_get_num_threads(&threads));
  return static_cast<int>(threads);
}

namespace launch = cpu;

}  // namespace rnk

#elif defined(RNK_BACKEND_CUDA)

#include <cuda_runtime.h>

extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                             void** ret_stream);

#define RNK_NAMESPACE resnet_kernels
#define RNK_DISPATCH_KEY CUDA

namespace rnk {

namespace cuda {}

using Context = cudaStream_t;

// Makes the tensor's device current for the scope and gives torch's current stream on it.
struct DeviceScope {
  explicit DeviceScope(const Tensor& t) : index(t.get_device_index()), guard(index) {}
  Context context() const {
    void* stream = nullptr;
    RNK_CHECK_STATUS(aoti_torch_get_current_cuda_stream(index, &stream));
    return static_cast<cudaStream_t>(stream);
  }
  void check_launch(const char* op) const {
    const cudaError_t error = cudaGetLastError();
    STD_TORCH_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error));
  }
  int32_t index;
  torch::stable::accelerator::DeviceGuard guard;
};

namespace launch = cuda;

}  // namespace rnk

#elif defined(RNK_BACKEND_EMULATED)

#include <cuda_runtime.h>

#define RNK_NAMESPACE resnet_kernels_emulated
#define RNK_DISPATCH_KEY CPU

namespace rnk {

namespace cuda {}

using Context = cudaStream_t;

// CUDA kernels on CPU tensors: the runtime is csrc/emulator, which knows the op's memory by
// device_ptr() until the scope ends.
struct DeviceScope {
  explicit DeviceScope(const Tensor& t) { STD_TORCH_CHECK(t.is_cpu(), "expected a CPU tensor"); }
  DeviceScope(const DeviceScope&) = delete;
  ~DeviceScope() { emu::clear_ranges(); }
  Context context() const { return nullptr; }
  void check_launch(const char* op) const {
    const cudaError_t error = cudaGetLastError();
    STD_TORCH_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error));
  }
};

namespace launch = cuda;

}  // namespace rnk

#else
#error "define RNK_BACKEND_CPU, RNK_BACKEND_CUDA or RNK_BACKEND_EMULATED"
#endif

// Registers the function of the same name as the kernel of a primitive.
#define RNK_REGISTER(op)                                          \
  STABLE_TORCH_LIBRARY_IMPL(RNK_NAMESPACE, RNK_DISPATCH_KEY, m) { \
    m.impl(#op, TORCH_BOX(&rnk::op));                             \
  }
