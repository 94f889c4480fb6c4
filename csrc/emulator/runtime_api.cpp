// The rest of the CUDA runtime that launchers use: memory, attributes, occupancy, errors.
// Everything is synchronous; streams are ignored. The device is described as a small sm_80.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.h"
#include "runtime_state.h"
#include "session.h"

namespace rnk::emu {
namespace {

constexpr int kMultiprocessors = 8;  // few, so that persistent kernels emulate quickly
constexpr int kMaxSharedOptIn = 163 * 1024, kSharedPerMultiprocessor = 164 * 1024;
constexpr int kThreadsPerMultiprocessor = 2048, kRegisters = 65536;

thread_local cudaError_t t_error = cudaSuccess;
thread_local std::string t_message;

}  // namespace

cudaError_t set_error(cudaError_t code, const std::string& message) {
  t_error = code;
  t_message = message;
  return code;
}

}  // namespace rnk::emu

using namespace rnk::emu;

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(t_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return t_error; }
const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaSuccess ? "no error"
         : t_message.empty() ? "emulated CUDA error"
                             : t_message.c_str();
}
const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaSuccess ? "cudaSuccess" : "cudaError";
}

cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess
                     : set_error(cudaErrorInvalidDevice, "the emulator has one device");
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  struct Row {
    cudaDeviceAttr attribute;
    int value;
  };
  static constexpr Row kRows[] = {
      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrMaxBlockDimX, 1024},
      {cudaDevAttrMaxBlockDimY, 1024},
      {cudaDevAttrMaxBlockDimZ, 64},
      {cudaDevAttrMaxGridDimX, 2147483647},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrMaxSharedMemoryPerBlock, 48 * 1024},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, kMaxSharedOptIn},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, kSharedPerMultiprocessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
      {cudaDevAttrTotalConstantMemory, 65536},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxRegistersPerBlock, kRegisters},
      {cudaDevAttrMaxRegistersPerMultiprocessor, kRegisters},
      {cudaDevAttrMultiProcessorCount, kMultiprocessors},
      {cudaDevAttrMaxThreadsPerMultiProcessor, kThreadsPerMultiprocessor},
      {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
      {cudaDevAttrComputeCapabilityMajor, 8},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrL2CacheSize, 40 << 20},
      {cudaDevAttrClockRate, 1410000},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrMemoryPoolsSupported, 0},
      {cudaDevAttrCooperativeLaunch, 0}};
  for (const Row& r : kRows)
    if (r.attribute == attribute) return *value = r.value, cudaSuccess;
  return set_error(cudaErrorInvalidValue,
                   "device attribute " + std::to_string(attribute) + " is not emulated");
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = device_allocate(bytes);
  return *p ? cudaSuccess : set_error(cudaErrorMemoryAllocation, "out of memory");
}
cudaError_t cudaFree(void* p) {
  if (!p || device_free(p)) return cudaSuccess;
  return set_error(cudaErrorInvalidValue, "cudaFree of a pointer that cudaMalloc did not return");
}
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(p, value, bytes);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind) {
  char* to = device_variable(symbol);
  if (!to) return set_error(cudaErrorInvalidSymbol, "no such device variable");
  std::memcpy(to + offset, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void** p, const void* symbol) {
  *p = device_variable(symbol);
  return *p ? cudaSuccess : set_error(cudaErrorInvalidSymbol, "no such device variable");
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > kMaxSharedOptIn)
    return set_error(cudaErrorInvalidValue, "dynamic shared memory of " + std::to_string(value) +
                                                " bytes exceeds the device's 166912");
  if (allow_dynamic_shared(kernel, static_cast<size_t>(value))) return cudaSuccess;
  return set_error(cudaErrorInvalidDeviceFunction, "kernel is not registered");
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  std::memset(a, 0, sizeof *a);
  try {
    const Kernel* k = device_kernel(host);
    if (!k) return set_error(cudaErrorInvalidDeviceFunction, "kernel is not registered");
    a->sharedSizeBytes = k->static_shared;
    a->localSizeBytes = k->local_bytes;
    const auto& most = k->entry->max_threads;
    a->maxThreadsPerBlock = most[0] ? static_cast<int>(most[0] * most[1] * most[2]) : 1024;
    a->numRegs = 32;  // PTX has virtual registers only
    a->ptxVersion = a->binaryVersion = 80;
    a->maxDynamicSharedSizeBytes = 48 * 1024;
    return cudaSuccess;
  } catch (const Error& e) {
    return set_error(cudaErrorInvalidKernelImage, e.what());
  }
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host,
                                                                   int block, size_t dynamic,
                                                                   unsigned) {
  cudaFuncAttributes a;
  cudaError_t error = cudaFuncGetAttributes(&a, host);
  if (error != cudaSuccess) return error;
  if (block < 1 || block > 1024) return set_error(cudaErrorInvalidValue, "block size out of range");
  size_t shared = a.sharedSizeBytes + dynamic + 1024;
  int by_threads = kThreadsPerMultiprocessor / ((block + 31) / 32 * 32);
  auto by_shared = static_cast<int>(kSharedPerMultiprocessor / shared);
  *blocks = std::min({32, by_threads, by_shared});
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host, int block,
                                                          size_t dynamic) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host, block, dynamic, 0);
}

}  // extern "C"
