// The filter of a Winograd convolution, transformed and packed, for one instruction set.
RNK_ISA_BEGIN

// A filter as the GEMMs see it: depth x columns of 3x3 taps, strides in elements. The transposed
// convolution starts at the last tap and has negative tap strides.
struct FilterView {
  const float* w;
  int64_t depth_stride, column_stride, r_stride, s_stride;
};

inline FilterView forward_filter(const float* w, const FilterStrides& s) {
  return {w, s.c, s.k, s.r, s.s};
}

inline FilterView transposed_filter(const float* w, const FilterStrides& s) {
  return {w + 2 * s.r + 2 * s.s, s.k, s.c, -s.r, -s.s};
}

// The transformed taps of the first `count` of kLanes neighbours, `step` apart.
template <int kOut>
RNK_INLINE Patch<kOut + 2> transformed_taps(const FilterView& f, const float* first, int64_t step,
                                            int count) {
  FloatVec g[3][3];
  RNK_UNROLL for (int r = 0; r < 3; ++r) {
    RNK_UNROLL for (int s = 0; s < 3; ++s) {
      g[r][s] = gather_lanes(first + r * f.r_stride + s * f.s_stride, step, count);
    }
  }
  return filter_transform<kOut>(g);
}

// kLanes columns from `column` on at all depths, from a filter whose columns are neighbours, or
// where nothing is: u [frequency][depth][kTileCols].
template <int kOut>
void pack_columns(const FilterView& f, int64_t depth, int64_t column, int lanes, float* u) {
  constexpr int kSize = kOut + 2;
  for (int64_t d = 0; d < depth; ++d) {
    const float* first = f.w + d * f.depth_stride + column * f.column_stride;
    const auto patch = transformed_taps<kOut>(f, first, f.column_stride, lanes);
    RNK_UNROLL for (int i = 0; i < kSize; ++i) {
      RNK_UNROLL for (int j = 0; j < kSize; ++j) {
        store_vec(u + ((i * kSize + j) * depth + d) * kTileCols, patch.at[i][j]);
      }
    }
  }
}

// The same from a filter whose depths are neighbours: read along the depth and transposed.
template <int kOut>
void pack_depths(const FilterView& f, int64_t depth, int64_t column, int lanes, float* u) {
  constexpr int kSize = kOut + 2;
  FloatVec block[kSize * kSize][kLanes] = {};
  for (int64_t d = 0; d < depth; d += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, depth - d));
    for (int j = 0; j < lanes; ++j) {
      const float* first = f.w + d * f.depth_stride + (column + j) * f.column_stride;
      const auto patch = transformed_taps<kOut>(f, first, f.depth_stride, rows);
      RNK_UNROLL for (int r = 0; r < kSize; ++r) {
        RNK_UNROLL for (int c = 0; c < kSize; ++c) block[r * kSize + c][j] = patch.at[r][c];
      }
    }
    for (int i = 0; i < kSize * kSize; ++i) {
      FloatVec v[kLanes];
      RNK_UNROLL for (int j = 0; j < kLanes; ++j) v[j] = block[i][j];
      transpose_lanes(v);
      for (int j = 0; j < rows; ++j) store_vec(u + (i * depth + d + j) * kTileCols, v[j]);
    }
  }
}

// One panel of columns; those that do not exist are 0.
template <int kOut>
void pack_winograd_panel(const FilterView& f, int64_t depth, int64_t columns, int64_t panel,
                         float* u) {
  for (int v = 0; v < kTileVectors; ++v) {
    const int64_t column = panel * kTileCols + v * kLanes;
    const int lanes = static_cast<int>(std::clamp<int64_t>(columns - column, 0, kLanes));
    const auto pack = f.depth_stride < f.column_stride ? pack_depths<kOut> : pack_columns<kOut>;
    pack(f, depth, column, lanes, u + v * kLanes);
  }
}

RNK_ISA_END
