// The register-blocked product of fp32 matrices on units that multiply bf16.
//
// A value of fp32 is the sum of three of bf16, high + middle + low, exactly: 24 bits in three times
// 8. Of the nine products of two such sums the six largest are taken, in fp32; the others would add
// less than 2^-22 of the product, of either sign. Values and products below 2^-126 count as zero.
//
// C [kSplitRows, kTileCols] = (or +=) A [kSplitRows, depth] * B [depth, kTileCols]. Both lie as
// [chunk of the depth][part], the parts in the order high, middle, low: of A the pairs of every row,
// [kSplitRows][16][2], of B every pair of rows, [16][kTileCols][2]. Pair i of a chunk is its columns
// (or rows) i and 16 + i.
RNK_ISA_BEGIN

constexpr int kSplitParts = 3;
constexpr int kSplitRows = kBf16TileRows;
// Elements of a part of a chunk, and of a chunk, of both operands.
constexpr int64_t kSplitPart = kBf16Chunk * kSplitRows;
constexpr int64_t kSplitChunk = kSplitParts * kSplitPart;
static_assert(kSplitRows == kTileCols);
// Of what else is to be done, in the time of a chunk.
constexpr int kSplitSteps = 3;

// Sums of tile (i, j) are in register 2 * i + j, tiles of A in 4 and 5, of B in 6 and 7. All rows
// of C are written, and read to add to. side.step() is called kSplitSteps times a chunk, to do with
// the vector units what else is to be done, side.finish() before C is written.
template <int kColTiles, typename Side>
RNK_INLINE void split_product(const BFloat16* a, const BFloat16* b, int64_t depth, float* c,
                              bool accumulate, Side& side) {
  constexpr int64_t kRowBytes = kBf16Chunk * sizeof(BFloat16);
  constexpr int64_t kPairBytes = 2 * kTileCols * sizeof(BFloat16);
  constexpr int64_t kSumBytes = kTileCols * sizeof(float);
  constexpr int64_t kTile = 16 * kBf16Chunk;
  const auto load_a = [&](int64_t part) __attribute__((always_inline)) {
    _tile_loadd(4, a + part * kSplitPart, kRowBytes);
    _tile_loadd(5, a + part * kSplitPart + kTile, kRowBytes);
  };
  const auto load_b = [&](int64_t part) __attribute__((always_inline)) {
    _tile_loadd(6, b + part * kSplitPart, kPairBytes);
    if constexpr (kColTiles > 1) _tile_loadd(7, b + part * kSplitPart + 32, kPairBytes);
  };
  const auto multiply = [&] __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kColTiles > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kColTiles > 1) _tile_dpbf16ps(3, 5, 7);
  };
  asm volatile("" ::: "memory");  // GCC takes tileloadd for no reader of memory
  if (accumulate) {
    _tile_loadd(0, c, kSumBytes);
    if constexpr (kColTiles > 1) _tile_loadd(1, c + 16, kSumBytes);
    _tile_loadd(2, c + 16 * kTileCols, kSumBytes);
    if constexpr (kColTiles > 1) _tile_loadd(3, c + 16 * kTileCols + 16, kSumBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (; depth > 0; depth -= kBf16Chunk, a += kSplitChunk, b += kSplitChunk) {
    load_a(0);
    load_b(2);
    multiply();
    load_b(1);
    multiply();
    side.step();
    load_b(0);
    multiply();
    load_a(2);
    multiply();
    side.step();
    load_a(1);
    multiply();
    load_b(1);
    multiply();
    side.step();
  }
  side.finish();
  _tile_stored(0, c, kSumBytes);
  if constexpr (kColTiles > 1) _tile_stored(1, c + 16, kSumBytes);
  _tile_stored(2, c + 16 * kTileCols, kSumBytes);
  if constexpr (kColTiles > 1) _tile_stored(3, c + 16 * kTileCols + 16, kSumBytes);
}

// The same in fp32, for operands with infinities: their middle and low parts are NaN, and so would
// be their products with the zeros among the parts of others. b [depth][kTileCols].
inline void whole_product(int rows, const BFloat16* a, const float* b, int64_t depth, float* c,
                          bool accumulate) {
  const auto value = [&](int row, int64_t k) {
    const int64_t place = k % kBf16Chunk;
    const BFloat16* at = a + k / kBf16Chunk * kSplitChunk + row * kBf16Chunk;
    at += place < 16 ? 2 * place : 2 * place - 31;
    const auto part = [&](int p) {
      const uint32_t bits = uint32_t{at[p * kSplitPart].bits} << 16;
      float x;
      std::memcpy(&x, &bits, sizeof(x));
      return x;
    };
    return std::isinf(part(0)) ? part(0) : part(0) + (part(1) + part(2));
  };
  for (int row = 0; row < rows; ++row, c += kTileCols) {
    FloatVec sum[kTileVectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
      const FloatVec x = splat(value(row, k));
      for (int v = 0; v < kTileVectors; ++v) sum[v] += x * load_vec(b + k * kTileCols + v * kLanes);
    }
    for (int v = 0; v < kTileVectors; ++v) {
      const FloatVec before = accumulate ? load_vec(c + v * kLanes) : (FloatVec){};
      store_vec(c + v * kLanes, before + sum[v]);
    }
  }
}

RNK_ISA_END
