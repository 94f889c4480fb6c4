// stats_merge: statistics or sums of parts -> those of all, level by level. A block merges up to
// kFan parts of kColumns columns: its lanes take every kLanes-th part, then merge as a tree. Sums
// run in fp64, whose cost is small next to what was read to get the parts.
#include "launch.h"
#include "moments.cuh"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

constexpr int kColumns = 32, kLanes = 8;
constexpr int kFan = 256;  // 32 parts a lane: enough to hide the latency of a level's launch

// The total of one column of what merge_sums merges.
struct Sum {
  double value;

  template <typename T>
  __device__ void add_row(const T* row, int64_t) {
    value += row[0];
  }
  __device__ void merge(const Sum& other) { value += other.value; }
  template <typename T>
  __device__ void store(T* row, int64_t) const {
    row[0] = static_cast<T>(value);
  }
};

struct Statistics {
  double count;
  Moments<double> moments;

  template <typename T>
  __device__ void add_row(const T* row, int64_t channels) {
    merge({row[0], {row[channels], 0, row[2 * channels]}});
  }
  // A set without elements changes nothing, whatever its mean says.
  __device__ void merge(const Statistics& other) {
    if (other.count == 0) return;
    const double all = count + other.count, share = other.count / all;
    moments.merge(other.moments, share, count * share);
    count = all;
  }
  template <typename T>
  __device__ void store(T* row, int64_t channels) const {
    row[0] = static_cast<T>(count);
    row[channels] = static_cast<T>(moments.mean);
    row[2 * channels] = static_cast<T>(moments.m2);
  }
};

// in [parts, stride], each part with `columns` columns -> out [ceil(parts / kFan), stride].
template <typename T, typename Total>
__global__ void __launch_bounds__(kColumns* kLanes)
    merge_level(const T* in, int64_t parts, int64_t columns, int64_t stride, T* out) {
  __shared__ Total lanes[kLanes][kColumns];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kFan;
  const int64_t last = first + kFan < parts ? first + kFan : parts;
  Total total{};
  if (column < columns) {
#pragma unroll 2
    for (int64_t part = first + threadIdx.y; part < last; part += kLanes) {
      total.add_row(in + part * stride + column, columns);
    }
  }
  lanes[threadIdx.y][threadIdx.x] = total;
  for (int half = kLanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      lanes[threadIdx.y][threadIdx.x].merge(lanes[threadIdx.y + half][threadIdx.x]);
    }
  }
  if (threadIdx.y == 0 && column < columns) {
    lanes[0][threadIdx.x].store(out + blockIdx.y * stride + column, columns);
  }
}

template <typename T, typename Total>
void merge_all(void* partials, int64_t parts, int64_t columns, int64_t stride, void* result,
               cudaStream_t stream) {
  T* in = static_cast<T*>(partials);
  for (bool last = false; !last; parts = ceil_div(parts, kFan)) {
    last = parts <= kFan;
    T* out = last ? static_cast<T*>(result) : in + parts * stride;
    const dim3 grid(static_cast<unsigned>(ceil_div(columns, kColumns)),
                    static_cast<unsigned>(last ? 1 : ceil_div(parts, kFan)));
    merge_level<T, Total>
        <<<grid, dim3(kColumns, kLanes), 0, stream>>>(in, parts, columns, stride, out);
    in = out;
  }
}

template <typename Total>
void merge_dtype(void* partials, int64_t parts, int64_t columns, int64_t stride, void* result,
                 DType dtype, cudaStream_t stream) {
  if (columns == 0) return;
  if (dtype == DType::kFloat64) {
    return merge_all<double, Total>(partials, parts, columns, stride, result, stream);
  }
  merge_all<float, Total>(partials, parts, columns, stride, result, stream);
}

}  // namespace

int64_t merge_scratch_rows(int64_t parts) {
  int64_t rows = 0;
  while (parts > kFan) rows += parts = ceil_div(parts, kFan);
  return rows;
}

void merge_stats(void* partials, int64_t parts, int64_t channels, void* stats, DType dtype,
                 cudaStream_t stream) {
  merge_dtype<Statistics>(partials, parts, channels, 3 * channels, stats, dtype, stream);
}

void merge_sums(void* partials, int64_t parts, int64_t rows, int64_t channels, void* sums,
                DType dtype, cudaStream_t stream) {
  merge_dtype<Sum>(partials, parts, rows * channels, rows * channels, sums, dtype, stream);
}

}  // namespace rnk::cuda
