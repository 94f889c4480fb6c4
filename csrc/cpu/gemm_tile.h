// The register-blocked matrix product that all convolution kernels end in, for one instruction set.
//
// C [rows, kTileCols] = (or +=) A [rows, depth] * B [depth, kTileCols], rows <= kTileRows.
// A lies in chunks of kChunk columns, [depth / kChunk][any rows][kChunk]: the distance of two rows
// is a constant, so one pointer addresses them all, and no two rows share a cache set.
// B lies as [depth][kTileCols].
RNK_ISA_BEGIN

constexpr int kChunk = 64;
constexpr int kLine = 16;  // floats of a cache line
constexpr int kTileVectors = 2;
constexpr int kTileCols = kTileVectors * kLanes;
// Accumulators, kTileVectors columns of B and one broadcast fill the vector registers.
#if RNK_ISA_LEVEL == 2 || defined(__aarch64__)
constexpr int kTileRows = 14;  // of 32 registers
#else
constexpr int kTileRows = 6;  // of 16 registers
#endif

// Vectors of a panel of kTileCols columns that hold some of the `columns` there are.
RNK_INLINE int panel_vectors(int64_t columns, int64_t panel) {
  const int64_t left = columns - panel * kTileCols;
  return static_cast<int>(std::min<int64_t>((left + kLanes - 1) / kLanes, kTileVectors));
}

// acc [kRows][kVectors] += a column, whose rows lie kStride floats apart, times a row.
template <int kStride, int kRows, int kVectors>
RNK_INLINE void add_products(FloatVec (&acc)[kRows][kVectors], const float* a,
                             const FloatVec (&row)[kVectors]) {
  RNK_UNROLL for (int r = 0; r < kRows; ++r) {
    const FloatVec value = splat(a[r * kStride]);
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] += value * row[v];
  }
}

// C [kRows, kVectors * kLanes] = or += the product.
template <int kRows, int kVectors>
RNK_INLINE void store_tile(const FloatVec (&acc)[kRows][kVectors], float* c, int64_t ldc,
                           bool accumulate) {
  RNK_UNROLL for (int r = 0; r < kRows; ++r) {
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) {
      float* at = c + r * ldc + v * kLanes;
      // Added at the end, not at the start: long sums are cut into shorter ones.
      store_vec(at, accumulate ? acc[r][v] + load_vec(at) : acc[r][v]);
    }
  }
}

// What a register tile fetches while it sums: `depth` cache lines from `ahead` on into the level-2
// cache, and of each of its rows the lines that its caller will write and read when it is summed.
// These are asked for a row at a time: the processor stands still when too many are under way.
struct TileFetch {
  const float* ahead;
  const int64_t* pixels = nullptr;  // of the rows; null: none of them
  int64_t pixel = 0;                // floats from one pixel to the next
  const float* written = nullptr;
  const float* read[2] = {};  // or null

  template <int kVectors>
  RNK_INLINE void row(int r) const {
    const int64_t at = pixels[r] * pixel;
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(written + at + v * kLanes, 1);
      if (read[0]) __builtin_prefetch(read[0] + at + v * kLanes);
      if (read[1]) __builtin_prefetch(read[1] + at + v * kLanes);
    }
  }
};

// A as [rows][kChunk] per chunk of its columns; B [depth][kTileCols].
template <int kRows, int kVectors>
RNK_INLINE void tile_by_rows(const float* a, int64_t chunk_stride, const float* b, int64_t depth,
                             float* c, int64_t ldc, bool accumulate, const TileFetch& fetch) {
  FloatVec acc[kRows][kVectors] = {};
  const float* ahead = fetch.ahead;
  const auto add = [&](int begin, int end) __attribute__((always_inline)) {
    for (int k = begin; k < end; ++k, b += kTileCols, ahead += kLine) {
      __builtin_prefetch(ahead, 0, 2);
      FloatVec row[kVectors];
      RNK_UNROLL for (int v = 0; v < kVectors; ++v) row[v] = load_vec(b + v * kLanes);
      add_products<kChunk>(acc, a + k, row);
    }
  };
  for (; depth > kChunk; depth -= kChunk, a += chunk_stride) add(0, kChunk);
  const int columns = static_cast<int>(depth);
  int done = 0;
  if (fetch.pixels) {
    const int each = columns / kRows;
    for (int r = 0; r < kRows; ++r, done += each) {
      fetch.row<kVectors>(r);
      add(done, done + each);
    }
  }
  add(done, columns);
  store_tile(acc, c, ldc, accumulate);
}

// A' as [depth][kStrideA], B as [depth][kStrideB]: products of what lies side by side, no
// transposition.
template <int kStrideA, int kStrideB, int kRows, int kVectors>
RNK_INLINE void tile_by_depth(const float* a, const float* b, int64_t depth, float* c, int64_t ldc,
                              bool accumulate) {
  FloatVec acc[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, a += kStrideA, b += kStrideB) {
    FloatVec row[kVectors];
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) row[v] = load_vec(b + v * kLanes);
    add_products<1>(acc, a, row);
  }
  store_tile(acc, c, ldc, accumulate);
}

// tile_by_rows for any 1 <= rows <= kTileRows and 1 <= vectors <= kTileVectors of columns.
template <int kRows = kTileRows>
void gemm_tile(int rows, const float* a, int64_t chunk_stride, const float* b, int64_t depth,
               float* c, int64_t ldc, bool accumulate, int vectors, const TileFetch& fetch) {
  if (rows == kRows) {
    const auto tile = vectors == 1 ? tile_by_rows<kRows, 1> : tile_by_rows<kRows, kTileVectors>;
    return tile(a, chunk_stride, b, depth, c, ldc, accumulate, fetch);
  }
  if constexpr (kRows > 1) {
    gemm_tile<kRows - 1>(rows, a, chunk_stride, b, depth, c, ldc, accumulate, vectors, fetch);
  }
}

// The same for tile_by_depth.
template <int kStrideA, int kStrideB, int kRows = kTileRows>
void outer_tile(int rows, const float* a, const float* b, int64_t depth, float* c, int64_t ldc,
                bool accumulate, int vectors = kTileVectors) {
  if (rows == kRows) {
    if (vectors == 1) {
      return tile_by_depth<kStrideA, kStrideB, kRows, 1>(a, b, depth, c, ldc, accumulate);
    }
    return tile_by_depth<kStrideA, kStrideB, kRows, kTileVectors>(a, b, depth, c, ldc, accumulate);
  }
  if constexpr (kRows > 1) {
    outer_tile<kStrideA, kStrideB, kRows - 1>(rows, a, b, depth, c, ldc, accumulate, vectors);
  }
}

RNK_ISA_END
