// The register-blocked product of bf16 matrices with sums in fp32, for one instruction set.
//
// C [rows, kTileCols] = (or +=) A [rows, depth] * B [depth, kTileCols], rows <= kBf16TileRows.
// A lies in chunks of kBf16Chunk columns, [chunk][any rows][kBf16Chunk], or, for AMX, with any
// distance of its rows; B as pairs of rows, [depth / 2][kTileCols][2]. Both have zeros up to a
// whole chunk.
RNK_ISA_BEGIN

// Of the depth: 64 bytes, which are a row of an AMX tile.
constexpr int kBf16Chunk = 32;

// Distances in elements: of two rows in a chunk, of two chunks.
struct Bf16Operand {
  const BFloat16* data;
  int64_t row, chunk;
};

// Whether rows may lie otherwise than side by side in their chunk.
constexpr bool kBf16AnyRows = RNK_BF16_UNITS == 2;

#if RNK_BF16_UNITS == 2

// Two by two tiles of sums, two of A and two of B fill the registers.
constexpr int kBf16TileRows = 32;

// While one lives, this thread's tiles are those of bf16_tile. What others had made of them before
// comes back: a library may take its own for granted from one call to the next.
class Bf16Unit {
 public:
  Bf16Unit() {
    asm volatile("sttilecfg %0" : "=m"(before_));
    Config config{};
    config.palette = 1;
    for (int t = 0; t < 8; ++t) config.row_bytes[t] = 64, config.rows[t] = 16;
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~Bf16Unit() { asm volatile("ldtilecfg %0" ::"m"(before_)); }
  Bf16Unit(const Bf16Unit&) = delete;
  Bf16Unit& operator=(const Bf16Unit&) = delete;

 private:
  struct alignas(64) Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  Config before_;
};

// Sums of tile (i, j) are in register 2 * i + j. All rows of C are written, and read to add to.
template <int kRowTiles, int kColTiles>
inline void amx_tile(Bf16Operand a, const BFloat16* b, int64_t depth, float* c, int64_t ldc,
                     bool accumulate) {
  const int64_t row_bytes = a.row * static_cast<int64_t>(sizeof(BFloat16));
  constexpr int64_t kPairBytes = 2 * kTileCols * sizeof(BFloat16);
  const int64_t c_bytes = ldc * static_cast<int64_t>(sizeof(float));
  asm volatile("" ::: "memory");  // GCC takes tileloadd for no reader of memory
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (kColTiles > 1) _tile_loadd(1, c + 16, c_bytes);
    if constexpr (kRowTiles > 1) _tile_loadd(2, c + 16 * ldc, c_bytes);
    if constexpr (kRowTiles > 1 && kColTiles > 1) _tile_loadd(3, c + 16 * ldc + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (; depth > 0; depth -= kBf16Chunk, a.data += a.chunk, b += kBf16Chunk * kTileCols) {
    _tile_loadd(4, a.data, row_bytes);
    _tile_loadd(6, b, kPairBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRowTiles > 1) {
      _tile_loadd(5, a.data + 16 * a.row, row_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kColTiles > 1) {
      _tile_loadd(7, b + 32, kPairBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles > 1 && kColTiles > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (kColTiles > 1) _tile_stored(1, c + 16, c_bytes);
  if constexpr (kRowTiles > 1) _tile_stored(2, c + 16 * ldc, c_bytes);
  if constexpr (kRowTiles > 1 && kColTiles > 1) _tile_stored(3, c + 16 * ldc + 16, c_bytes);
}

inline void bf16_tile(int rows, const Bf16Operand& a, const BFloat16* b, int64_t depth, float* c,
                      int64_t ldc, bool accumulate, int vectors) {
  const bool two_rows = rows > 16, two_columns = vectors > 1;
  const auto tile = two_rows ? (two_columns ? amx_tile<2, 2> : amx_tile<2, 1>)
                             : (two_columns ? amx_tile<1, 2> : amx_tile<1, 1>);
  tile(a, b, depth, c, ldc, accumulate);
}

#else

struct Bf16Unit {
  Bf16Unit() {}
};

#if RNK_BF16_UNITS == 1

constexpr int kBf16TileRows = kTileRows;

// A row of pairs, and sum += the products of one pair with each of them.
template <int kVectors>
struct PairRow {
  explicit PairRow(const BFloat16* b) { std::memcpy(pairs, b, sizeof(pairs)); }
  RNK_INLINE void add_products(uint32_t pair, FloatVec (&sum)[kVectors]) const {
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) {
      sum[v] = (FloatVec)_mm512_dpbf16_ps(
          (__m512)sum[v], (__m512bh)_mm512_set1_epi32(static_cast<int>(pair)), (__m512bh)pairs[v]);
    }
  }
  UintVec pairs[kVectors];
};

#else

// Accumulators and both halves of a row of B and of a pair of A fill the registers.
#if RNK_ISA_LEVEL == 2 || defined(__aarch64__)
constexpr int kBf16TileRows = 12;  // of 32 registers
#else
constexpr int kBf16TileRows = 4;  // of 16 registers
#endif

template <int kVectors>
struct PairRow {
  explicit PairRow(const BFloat16* b) {
    UintVec pairs[kVectors];
    std::memcpy(pairs, b, sizeof(pairs));
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) {
      low[v] = as_float(pairs[v] << 16);
      high[v] = as_float(pairs[v] & 0xffff0000u);
    }
  }
  RNK_INLINE void add_products(uint32_t pair, FloatVec (&sum)[kVectors]) const {
    const UintVec both = (UintVec){} + pair;
    const FloatVec first = as_float(both << 16), second = as_float(both & 0xffff0000u);
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] += first * low[v];
    RNK_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] += second * high[v];
  }
  FloatVec low[kVectors], high[kVectors];
};

#endif

template <int kRows, int kVectors>
RNK_INLINE void pairs_tile(Bf16Operand a, const BFloat16* b, int64_t depth, float* c, int64_t ldc,
                           bool accumulate) {
  FloatVec acc[kRows][kVectors] = {};
  for (; depth > 0; depth -= kBf16Chunk, a.data += a.chunk) {
    const int columns = static_cast<int>(std::min<int64_t>(depth, kBf16Chunk));
    for (int k = 0; k < columns; k += 2, b += 2 * kTileCols) {
      const PairRow<kVectors> row(b);
      RNK_UNROLL for (int r = 0; r < kRows; ++r) {
        uint32_t pair;
        std::memcpy(&pair, a.data + r * kBf16Chunk + k, sizeof(pair));
        row.add_products(pair, acc[r]);
      }
    }
  }
  store_tile(acc, c, ldc, accumulate);
}

template <int kRows = kBf16TileRows>
void bf16_tile(int rows, const Bf16Operand& a, const BFloat16* b, int64_t depth, float* c,
               int64_t ldc, bool accumulate, int vectors) {
  if (rows == kRows) {
    const auto tile = vectors == 1 ? pairs_tile<kRows, 1> : pairs_tile<kRows, kTileVectors>;
    return tile(a, b, depth, c, ldc, accumulate);
  }
  if constexpr (kRows > 1) {
    bf16_tile<kRows - 1>(rows, a, b, depth, c, ldc, accumulate, vectors);
  }
}

#endif

RNK_ISA_END
