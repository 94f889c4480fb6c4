// The CUDA runtime symbols that register and launch kernels. Objects compiled by nvcc call these;
// hidden visibility and -Bsymbolic keep them apart from a real libcudart in the same process.
#include <cuda_runtime_api.h>

#include <deque>
#include <mutex>
#include <unordered_map>

#include "fatbin.h"
#include "module_cache.h"
#include "runtime_state.h"
#include "session.h"

namespace rnk::emu {
namespace {

struct FatBinary {
  const void* wrapper;
  std::shared_ptr<LoadedModule> module;  // parsed at the first launch
};
struct HostKernel {
  FatBinary* binary;
  std::string name;
  size_t max_dynamic_shared = 48 * 1024;
};
struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

std::mutex g_mutex;
thread_local std::vector<Configuration> t_configurations;

std::deque<FatBinary>& binaries() {
  static auto* d = new std::deque<FatBinary>;
  return *d;
}
std::unordered_map<const void*, HostKernel>& kernels() {
  static auto* m = new std::unordered_map<const void*, HostKernel>;
  return *m;
}
struct HostVariable {
  FatBinary* binary;
  std::string name;
};
std::unordered_map<const void*, HostVariable>& variables() {
  static auto* m = new std::unordered_map<const void*, HostVariable>;
  return *m;
}

LoadedModule& module_of(FatBinary& b) {
  std::lock_guard<std::mutex> hold(g_mutex);
  if (!b.module) b.module = load_module(ptx_of_fat_binary(b.wrapper));
  return *b.module;
}

std::shared_ptr<LoadedModule> load_binary(void* binary) {
  auto& b = *static_cast<FatBinary*>(binary);
  module_of(b);
  return b.module;
}

HostKernel* find_kernel(const void* host) {
  std::lock_guard<std::mutex> hold(g_mutex);
  auto it = kernels().find(host);
  return it == kernels().end() ? nullptr : &it->second;
}

cudaError_t launch(HostKernel* k, dim3 grid, dim3 block, void** args, size_t shared) {
  if (!k) return set_error(cudaErrorInvalidDeviceFunction, "kernel is not registered");
  try {
    if (shared > k->max_dynamic_shared)
      return set_error(cudaErrorInvalidValue,
                       k->name +
                           ": dynamic shared memory beyond 48 KB needs "
                           "cudaFuncSetAttribute(cudaFuncAttributeMaxDynamicSharedMemorySize)");
    LoadedModule& m = module_of(*k->binary);
    std::shared_ptr<const Kernel> kernel = m.kernel(k->name);
    LaunchRequest r;
    r.grid = {grid.x, grid.y, grid.z};
    r.block = {block.x, block.y, block.z};
    r.dynamic_shared = static_cast<uint32_t>(shared);
    r.params.resize(kernel->param_bytes);
    for (size_t i = 0; i < kernel->param_offsets.size(); ++i)
      std::memcpy(r.params.data() + kernel->param_offsets[i], args[i],
                  kernel->entry->params[i].bytes);
    r.ranges = current_ranges();
    r.options = current_options();
    record_launch(k->name, m.launch(std::move(r), k->name));
    return cudaSuccess;
  } catch (const Error& e) {
    cudaError_t code =
        e.kind() == "argument" ? cudaErrorInvalidConfiguration : cudaErrorLaunchFailure;
    return set_error(code, e.what());
  } catch (const std::exception& e) {
    return set_error(cudaErrorUnknown, e.what());
  }
}

}  // namespace

const Kernel* device_kernel(const void* host) {
  HostKernel* k = find_kernel(host);
  return k ? module_of(*k->binary).kernel(k->name).get() : nullptr;
}

bool allow_dynamic_shared(const void* host, size_t bytes) {
  HostKernel* k = find_kernel(host);
  if (k) k->max_dynamic_shared = bytes;
  return k;
}

char* device_variable(const void* host) {
  auto it = variables().find(host);
  return it == variables().end() ? nullptr
                                 : module_of(*it->second.binary).image().find(it->second.name);
}

}  // namespace rnk::emu

using namespace rnk::emu;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  std::lock_guard<std::mutex> hold(g_mutex);
  binaries().push_back({wrapper, nullptr});
  add_embedded(load_binary, &binaries().back());
  return reinterpret_cast<void**>(&binaries().back());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  std::lock_guard<std::mutex> hold(g_mutex);
  kernels()[host] = {reinterpret_cast<FatBinary*>(handle), name};
}
void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, size_t, int, int) {
  std::lock_guard<std::mutex> hold(g_mutex);
  variables()[host] = {reinterpret_cast<FatBinary*>(handle), name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  t_configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (t_configurations.empty()) return cudaErrorMissingConfiguration;
  Configuration c = t_configurations.back();
  t_configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(find_kernel(host));
  return *kernel ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** args,
                               size_t shared, cudaStream_t) {
  return launch(reinterpret_cast<HostKernel*>(kernel), grid, block, args, shared);
}
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** args, size_t shared,
                             cudaStream_t) {
  return launch(find_kernel(host), grid, block, args, shared);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* host, void** args) {
  for (unsigned i = 0; i < c->numAttrs; ++i) {
    const cudaLaunchAttribute& a = c->attrs[i];
    const auto& d = a.val.clusterDim;
    if (a.id == cudaLaunchAttributeClusterDimension && d.x * d.y * d.z > 1)
      return set_error(cudaErrorNotSupported, "thread block clusters are not emulated");
  }
  return launch(find_kernel(host), c->gridDim, c->blockDim, args, c->dynamicSmemBytes);
}

}  // extern "C"
