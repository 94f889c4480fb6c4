// The register-blocked matrix product that all convolution kernels end in, for one instruction set.
//
// C [rows, kTileCols] = (or +=) A [rows, depth] * B [depth, kTileCols], rows <= kTileRows.
// A lies in chunks of kChunk columns, [depth / kChunk][any rows][kChunk]: the distance of two rows
// is a constant, so one pointer addresses them all, and no two rows share a cache set.
// B lies as [depth][kTileCols].
RNK_ISA_BEGIN

constexpr int kChunk = 64;
constexpr int kLanes = RNK_VECTOR_BYTES / sizeof(float);
constexpr int kTileVectors = 2;
constexpr int kTileCols = kTileVectors * kLanes;
// Accumulators, kTileVectors columns of B and one broadcast fill the vector registers.
#if RNK_ISA_LEVEL == 2 || defined(__aarch64__)
constexpr int kTileRows = 14;  // of 32 registers
#else
constexpr int kTileRows = 6;  // of 16 registers
#endif

typedef float LooseVec __attribute__((vector_size(RNK_VECTOR_BYTES), aligned(4), may_alias));

RNK_INLINE FloatVec load_vec(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
RNK_INLINE void store_vec(float* p, FloatVec x) { *reinterpret_cast<LooseVec*>(p) = x; }
RNK_INLINE FloatVec splat(float x) { return x - (FloatVec){}; }

// acc += the product over `depth` columns of one chunk of A.
template <int kRows>
RNK_INLINE void tile_chunk(FloatVec (&acc)[kRows][kTileVectors], const float* a, const float* b,
                           int depth) {
  for (int k = 0; k < depth; ++k, b += kTileCols) {
    FloatVec column[kTileVectors];
    RNK_UNROLL for (int v = 0; v < kTileVectors; ++v) column[v] = load_vec(b + v * kLanes);
    RNK_UNROLL for (int r = 0; r < kRows; ++r) {
      const FloatVec row = splat(a[r * kChunk + k]);
      RNK_UNROLL for (int v = 0; v < kTileVectors; ++v) acc[r][v] += row * column[v];
    }
  }
}

template <int kRows>
RNK_INLINE void tile_rows(const float* a, int64_t chunk_stride, const float* b, int64_t depth,
                          float* c, int64_t ldc, bool accumulate) {
  FloatVec acc[kRows][kTileVectors];
  RNK_UNROLL for (int r = 0; r < kRows; ++r) {
    RNK_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      acc[r][v] = accumulate ? load_vec(c + r * ldc + v * kLanes) : (FloatVec){};
    }
  }
  for (; depth > 0; depth -= kChunk, a += chunk_stride, b += kChunk * kTileCols) {
    tile_chunk<kRows>(acc, a, b, static_cast<int>(std::min<int64_t>(depth, kChunk)));
  }
  RNK_UNROLL for (int r = 0; r < kRows; ++r) {
    RNK_UNROLL for (int v = 0; v < kTileVectors; ++v)
        store_vec(c + r * ldc + v * kLanes, acc[r][v]);
  }
}

// The same for any 1 <= rows <= kTileRows.
template <int kRows = kTileRows>
void gemm_tile(int rows, const float* a, int64_t chunk_stride, const float* b, int64_t depth,
               float* c, int64_t ldc, bool accumulate) {
  if (rows == kRows) return tile_rows<kRows>(a, chunk_stride, b, depth, c, ldc, accumulate);
  if constexpr (kRows > 1) {
    gemm_tile<kRows - 1>(rows, a, chunk_stride, b, depth, c, ldc, accumulate);
  }
}

RNK_ISA_END
