// stats_merge: a block merges the rows of 32 channels; each of its warps takes every kWarps-th row
// in order, then the first warp merges the warps' results in order.
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

constexpr int kLanes = 32, kWarps = 8;

// Statistics of two disjoint sets, by Chan's formula around the mean of the first.
template <typename T>
struct Stats {
  T count = 0, mean = 0, m2 = 0;

  __device__ void merge(const Stats& other) {
    const T total = count + other.count;
    if (other.count == 0) return;
    const T delta = other.mean - mean, share = other.count / total;
    mean += delta * share;
    m2 += other.m2 + delta * delta * count * share;
    count = total;
  }
};

template <typename T>
__global__ void __launch_bounds__(kLanes* kWarps)
    merge_stats_kernel(const T* partials, int64_t parts, int64_t channels, T* stats) {
  __shared__ Stats<T> warps[kWarps][kLanes];
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kLanes + threadIdx.x;
  Stats<T> merged;
  for (int64_t part = threadIdx.y; channel < channels && part < parts; part += kWarps) {
    const T* row = partials + part * 3 * channels + channel;
    Stats<T> next;
    next.count = row[0];
    next.mean = row[channels];
    next.m2 = row[2 * channels];
    merged.merge(next);
  }
  warps[threadIdx.y][threadIdx.x] = merged;
  __syncthreads();
  if (threadIdx.y != 0 || channel >= channels) return;
  for (int i = 1; i < kWarps; ++i) merged.merge(warps[i][threadIdx.x]);
  stats[channel] = merged.count;
  stats[channels + channel] = merged.mean;
  stats[2 * channels + channel] = merged.m2;
}

// Columns are row by row all the values that are summed over parts.
template <typename T>
__global__ void __launch_bounds__(kLanes* kWarps)
    merge_sums_kernel(const T* partials, int64_t parts, int64_t columns, T* sums) {
  __shared__ T warps[kWarps][kLanes];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kLanes + threadIdx.x;
  T sum = 0;
  for (int64_t part = threadIdx.y; column < columns && part < parts; part += kWarps) {
    sum += partials[part * columns + column];
  }
  warps[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int i = 1; i < kWarps; ++i) sum += warps[i][threadIdx.x];
  sums[column] = sum;
}

unsigned blocks_for(int64_t columns) {
  return static_cast<unsigned>((columns + kLanes - 1) / kLanes);
}

}  // namespace

int64_t merge_scratch_rows(int64_t /*parts*/) { return 0; }

void merge_stats(void* partials, int64_t parts, int64_t channels, void* stats, DType dtype,
                 cudaStream_t stream) {
  if (channels == 0) return;
  const dim3 threads(kLanes, kWarps);
  if (dtype == DType::kFloat64) {
    merge_stats_kernel<<<blocks_for(channels), threads, 0, stream>>>(
        static_cast<const double*>(partials), parts, channels, static_cast<double*>(stats));
  } else {
    merge_stats_kernel<<<blocks_for(channels), threads, 0, stream>>>(
        static_cast<const float*>(partials), parts, channels, static_cast<float*>(stats));
  }
}

void merge_sums(void* partials, int64_t parts, int64_t rows, int64_t channels, void* sums,
                DType dtype, cudaStream_t stream) {
  const int64_t columns = rows * channels;
  if (columns == 0) return;
  const dim3 threads(kLanes, kWarps);
  if (dtype == DType::kFloat64) {
    merge_sums_kernel<<<blocks_for(columns), threads, 0, stream>>>(
        static_cast<const double*>(partials), parts, columns, static_cast<double*>(sums));
  } else {
    merge_sums_kernel<<<blocks_for(columns), threads, 0, stream>>>(
        static_cast<const float*>(partials), parts, columns, static_cast<float*>(sums));
  }
}

}  // namespace rnk::cuda
