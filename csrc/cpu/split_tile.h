// The register-blocked product of fp32 matrices on units that multiply bf16.
//
// A value of fp32 is the sum of three of bf16, high + middle + low, exactly: 24 bits in three times
// 8. Of the nine products of two such sums the six largest are taken, in fp32; the others would add
// less than 2^-22 of the product, of either sign. Values and products below 2^-126 count as zero.
//
// C [kSplitRows, kTileCols] = (or +=) A [kSplitRows, depth] * B [depth, kTileCols]. Both lie as
// [chunk of the depth][part], the parts in the order high, middle, low: of A the pairs of every
// row, [kSplitRows][16][2], of B every pair of rows, [16][kTileCols][2]. Pair i of a chunk is its
// columns (or rows) i and 16 + i.
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
                              int64_t ldc, bool accumulate, Side& side) {
  constexpr int64_t kRowBytes = kBf16Chunk * sizeof(BFloat16);
  constexpr int64_t kPairBytes = 2 * kTileCols * sizeof(BFloat16);
  const int64_t c_bytes = ldc * static_cast<int64_t>(sizeof(float));
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
    _tile_loadd(0, c, c_bytes);
    if constexpr (kColTiles > 1) _tile_loadd(1, c + 16, c_bytes);
    _tile_loadd(2, c + 16 * ldc, c_bytes);
    if constexpr (kColTiles > 1) _tile_loadd(3, c + 16 * ldc + 16, c_bytes);
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
  _tile_stored(0, c, c_bytes);
  if constexpr (kColTiles > 1) _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, c + 16 * ldc, c_bytes);
  if constexpr (kColTiles > 1) _tile_stored(3, c + 16 * ldc + 16, c_bytes);
}

// Whether there are infinities in chunks of A or B.
inline bool has_infinities(const BFloat16* chunks, int64_t depth) {
  const __m512i infinity = _mm512_set1_epi16(0x7f80), magnitude = _mm512_set1_epi16(0x7fff);
  __mmask32 found = 0;
  for (; depth > 0; depth -= kBf16Chunk, chunks += kSplitChunk) {
    for (int64_t i = 0; i < kSplitPart; i += kBf16Chunk) {
      const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(chunks + i), magnitude);
      found |= _mm512_cmpeq_epi16_mask(bits, infinity);
    }
  }
  return found != 0;
}

// The sum of three parts; of an infinity the others are NaN.
RNK_INLINE FloatVec whole_value(FloatVec high, FloatVec middle, FloatVec low) {
  const UintVec magnitude = as_bits(high) & 0x7fffffffu;
  return magnitude == 0x7f800000u ? high : high + (middle + low);
}

// The same product in fp32, for operands with infinities, whose parts times the zeros among those
// of others are NaN.
inline void whole_product(int rows, const BFloat16* a, const BFloat16* b, int64_t depth, float* c,
                          int64_t ldc, bool accumulate) {
  const auto part = [](uint32_t pair, int half) {
    return splat(half == 0 ? as_float((UintVec){} + (pair << 16))[0]
                           : as_float((UintVec){} + (pair & 0xffff0000u))[0]);
  };
  for (int row = 0; row < rows; ++row, c += ldc) {
    FloatVec sum[kTileVectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
      const int64_t chunk = k / kBf16Chunk * kSplitChunk, pair = k % 16;
      const int half = static_cast<int>(k % kBf16Chunk / 16);
      uint32_t pairs[kSplitParts];
      for (int p = 0; p < kSplitParts; ++p) {
        const BFloat16* at = a + chunk + p * kSplitPart + row * kBf16Chunk + 2 * pair;
        std::memcpy(&pairs[p], at, sizeof(pairs[p]));
      }
      const FloatVec x =
          whole_value(part(pairs[0], half), part(pairs[1], half), part(pairs[2], half));
      for (int v = 0; v < kTileVectors; ++v) {
        FloatVec parts[kSplitParts];
        for (int p = 0; p < kSplitParts; ++p) {
          UintVec bits;
          const BFloat16* at = b + chunk + p * kSplitPart + 2 * (pair * kTileCols + v * kLanes);
          std::memcpy(&bits, at, sizeof(bits));
          parts[p] = as_float(half == 0 ? bits << 16 : bits & 0xffff0000u);
        }
        sum[v] += x * whole_value(parts[0], parts[1], parts[2]);
      }
    }
    for (int v = 0; v < kTileVectors; ++v) {
      const FloatVec before = accumulate ? load_vec(c + v * kLanes) : (FloatVec){};
      store_vec(c + v * kLanes, before + sum[v]);
    }
  }
}

// Memory that is wanted soon, fetched into the level-2 cache some cache lines at a time: `rows` of
// so many floats, `stride` floats apart.
class SplitAhead {
 public:
  SplitAhead() = default;
  // In so many steps.
  SplitAhead(const float* from, int64_t rows, int64_t floats, int64_t stride, int64_t steps)
      : row_(from), at_(from), stride_(stride), line_((floats + kLine - 1) / kLine), rows_(rows) {
    left_ = line_;
    if (line_ == 0) rows_ = 0;
    each_ = (rows_ * line_ + steps - 1) / std::max<int64_t>(steps, 1);
  }

  RNK_INLINE void step() {
    for (int64_t i = 0; i < each_ && rows_ > 0; ++i, at_ += kLine) {
      __builtin_prefetch(at_, 0, 2);
      if (--left_ > 0) continue;
      left_ = line_, --rows_;
      row_ += stride_;
      at_ = row_ - kLine;
    }
  }

 private:
  const float *row_ = nullptr, *at_ = nullptr;
  int64_t stride_ = 0, line_ = 0, rows_ = 0, left_ = 0, each_ = 0;
};

RNK_ISA_END
