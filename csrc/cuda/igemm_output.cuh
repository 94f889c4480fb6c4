// From the sums of a block, staged in shared memory, to a convolution's output: scale, bias,
// residual and activation, or the statistics of what is stored.
#pragma once

#include "act_vector.cuh"
#include "igemm_columns.cuh"
#include "igemm_outputs.h"
#include "igemm_params.h"

namespace rnk::cuda {

template <class Tile, typename Element>
class IgemmOutputTile {
 public:
  using Params = IgemmOutput;
  using Columns = IgemmColumns<Tile, Element>;
  static constexpr bool kPrologues = true;

  // first_column: in the output's rows; columns: how many of them the tile has.
  __device__ IgemmOutputTile(const Igemm& p, const Params& out, int first_row, int first_column,
                             int columns, float* staged)
      : out_(out),
        columns_(columns,
                 (out.pitch | first_column) % kVec == 0 && is_aligned(out.data) &&
                     is_aligned(out.residual),
                 staged),
        first_row_(first_row),
        rows_(min(p.rows - first_row, Tile::kM)),
        column_(first_column + columns_.column) {}

  // Called by all threads once all sums are staged.
  __device__ void write(int row_tile) {
    if (out_.partials != nullptr) return with_statistics(row_tile);
    if (columns_.count <= 0) return;
#pragma unroll 1
    for (int row = Columns::first_row(); row < rows_; row += Columns::kRowStep) {
      const int64_t at = (first_row_ + row) * out_.pitch + column_;
      float t[kVec], other[kVec];
      columns_.read(row, t);
      if (out_.scale != nullptr) {
        columns_.load_vector(other, out_.scale + column_);
#pragma unroll
        for (int i = 0; i < kVec; ++i) t[i] *= other[i];
      }
      if (out_.bias != nullptr) {
        columns_.load_vector(other, out_.bias + column_);
#pragma unroll
        for (int i = 0; i < kVec; ++i) t[i] += other[i];
      }
      if (out_.residual != nullptr) {
        columns_.load(other, out_.residual, at);
#pragma unroll
        for (int i = 0; i < kVec; ++i) t[i] += other[i];
      }
      apply_act_all(t, out_.act, out_.slope);
      columns_.store(t, out_.data, at);
    }
  }

 private:
  // partials [3, pitch] of this row tile: count, mean and M2 of each column, as sums around a
  // pivot, which is the tile's first row.
  __device__ void with_statistics(int row_tile) {
    float pivot[kVec], sum[kVec] = {}, square[kVec] = {};
    columns_.read(0, pivot);
#pragma unroll
    for (float& value : pivot) value = Columns::stored(value);
    if (columns_.count > 0) {
#pragma unroll 1
      for (int row = Columns::first_row(); row < rows_; row += Columns::kRowStep) {
        float t[kVec];
        columns_.read(row, t);
        columns_.store(t, out_.data, (first_row_ + row) * out_.pitch + column_);
#pragma unroll
        for (int i = 0; i < kVec; ++i) {
          const float distance = Columns::stored(t[i]) - pivot[i];
          sum[i] += distance;
          square[i] += distance * distance;
        }
      }
    }
    const float first = Columns::stored(columns_.first());
    float total, squares;
    if (!columns_.reduce(sum, square, total, squares)) return;
    const float count = static_cast<float>(rows_);
    const int column = column_ - columns_.column + static_cast<int>(threadIdx.x);
    float* partial = out_.partials + row_tile * 3 * out_.pitch + column;
    partial[0] = count;
    partial[out_.pitch] = first + total / count;
    const float m2 = squares - total * (total / count);
    partial[2 * out_.pitch] = m2 < 0 ? 0 : m2;  // NaN stays
  }

  const Params& out_;
  Columns columns_;
  int64_t first_row_;
  int rows_, column_;
};

}  // namespace rnk::cuda
