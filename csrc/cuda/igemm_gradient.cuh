// From the sums of a block, staged in shared memory, to the gradient of a convolution's input, and
// on through the activation of the batch norm in front.
#pragma once

#include "act_vector.cuh"
#include "igemm_columns.cuh"
#include "igemm_outputs.h"
#include "igemm_params.h"

namespace rnk::cuda {

template <class Tile, typename Element>
class IgemmGradientTile {
 public:
  using Params = IgemmGradient;
  using Columns = IgemmColumns<Tile, Element>;
  static constexpr bool kPrologues = false;

  // first_column: in the output's pixels; columns: how many of them the tile has.
  __device__ IgemmGradientTile(const Igemm& p, const Params& out, int first_row, int first_column,
                               int columns, float* staged)
      : out_(out),
        columns_(columns,
                 (out.pitch | first_column) % kVec == 0 && is_aligned(out.data) &&
                     is_aligned(out.branch) && is_aligned(out.y),
                 staged),
        first_row_(first_row),
        rows_(min(p.rows - first_row, Tile::kM)),
        column_(first_column + columns_.column) {}

  // Called by all threads once all sums are staged.
  __device__ void write(int row_tile) {
    if (out_.y != nullptr) return through_batch_norm(row_tile);
    if (columns_.count <= 0) return;
#pragma unroll 1
    for (int row = Columns::first_row(); row < rows_; row += Columns::kRowStep) {
      const int64_t at = address(row);
      float dx[kVec];
      read(dx, row, at);
      columns_.store(dx, out_.data, at);
    }
  }

 private:
  __device__ int64_t address(int row) const {
    uint32_t pixel, column;
    const uint32_t image = out_.by_image.divide(static_cast<uint32_t>(first_row_ + row), pixel);
    const uint32_t line = out_.by_width.divide(pixel, column);
    const int h = out_.first_h + static_cast<int>(line) * out_.step_h;
    const int w = out_.first_w + static_cast<int>(column) * out_.step_w;
    return ((static_cast<int64_t>(image) * out_.h + h) * out_.w + w) * out_.pitch + column_;
  }

  __device__ void read(float (&dx)[kVec], int row, int64_t at) const {
    columns_.read(row, dx);
    if (out_.branch == nullptr) return;
    float branch[kVec];
    columns_.load(branch, out_.branch, at);
#pragma unroll
    for (int i = 0; i < kVec; ++i) dx[i] += branch[i];
  }

  // partials [2, pitch] of this row tile: the sums of g and g * xhat, of g as stored.
  __device__ void through_batch_norm(int row_tile) {
    float sum[kVec] = {}, product[kVec] = {};
    if (columns_.count > 0) {
      float mean[kVec], rstd[kVec];
      columns_.load_vector(mean, out_.mean + column_);
      columns_.load_vector(rstd, out_.rstd + column_);
#pragma unroll 1
      for (int row = Columns::first_row(); row < rows_; row += Columns::kRowStep) {
        const int64_t at = address(row);
        float g[kVec], y[kVec];
        read(g, row, at);
        columns_.load(y, out_.y, at);
        through_act(g, y, at);
        columns_.store(g, out_.data, at);
#pragma unroll
        for (int i = 0; i < kVec; ++i) {
          const float stored = Columns::stored(g[i]);
          sum[i] += stored;
          product[i] += stored * ((y[i] - mean[i]) * rstd[i]);
        }
      }
    }
    float total, products;
    if (!columns_.reduce(sum, product, total, products)) return;
    const int column = column_ - columns_.column + static_cast<int>(threadIdx.x);
    float* partial = out_.partials + row_tile * 2 * out_.pitch + column;
    partial[0] = total;
    partial[out_.pitch] = products;
  }

  // g *= act'(scale * y + bias), or by the mask's bits, which tell the sign.
  __device__ void through_act(float (&g)[kVec], const float (&y)[kVec], int64_t at) const {
    float t[kVec];
    if (out_.mask != nullptr) {
      const unsigned bits = mask_bits(at);
#pragma unroll
      for (int i = 0; i < kVec; ++i) t[i] = bits >> i & 1 ? 1.0f : -1.0f;
    } else {
      float bias[kVec];
      columns_.load_vector(t, out_.scale + column_);
      columns_.load_vector(bias, out_.bias + column_);
#pragma unroll
      for (int i = 0; i < kVec; ++i) t[i] = t[i] * y[i] + bias[i];
    }
    apply_act_grad_all(g, t, out_.act, out_.slope);
  }

  // Bit i: t > 0 in the i-th of the columns.
  __device__ unsigned mask_bits(int64_t at) const {
    static_assert(kVec == 8);
    if (columns_.vector) return out_.mask[at / 8];
    unsigned bits = 0;
    for (int i = 0; i < min(kVec, columns_.count); ++i) {
      bits |= (out_.mask[(at + i) / 8] >> (at + i) % 8 & 1u) << i;
    }
    return bits;
  }

  const Params& out_;
  Columns columns_;
  int64_t first_row_;
  int rows_, column_;
};

}  // namespace rnk::cuda
