// The 4x4 patches of a block of tiles, transformed, for one instruction set.
RNK_ISA_BEGIN

// Walks over the tiles of a convolution: 2x2 outputs at (row, column) of an image.
struct TileCursor {
  int64_t image, row, column;

  RNK_INLINE TileCursor(const WinogradShape& s, int64_t index)
      : image(index / s.tiles_w() / s.tiles_h()),
        row(index / s.tiles_w() % s.tiles_h() * 2),
        column(index % s.tiles_w() * 2) {}

  RNK_INLINE void next(const WinogradShape& s) {
    column += 2;
    if (column < s.q) return;
    column = 0;
    row += 2;
    if (row < s.p) return;
    row = 0;
    ++image;
  }
};

// Where the transform of a block lies: [frequency][depth / kChunk][tile][kChunk]. The strides are
// odd in cache lines: 16 frequencies are written at once.
struct WinogradInputLayout {
  int64_t tiles;
  int64_t chunk_stride() const { return tiles * kChunk; }
  int64_t frequency_stride(int64_t depth) const {
    return (depth + kChunk - 1) / kChunk * chunk_stride() + kLanes;
  }
};

// Loads the patch whose first element is (row, column) of the image at x; 0 outside.
template <typename Prologue>
RNK_INLINE Patch load_patch(const WinogradShape& s, const Prologue& in, const float* x, int64_t row,
                            int64_t column) {
  Patch d;
  const bool inside = row >= 0 && column >= 0 && row + 4 <= s.h && column + 4 <= s.w;
  if (inside) {
    const float* first = x + (row * s.w + column) * s.depth;
    RNK_UNROLL for (int i = 0; i < 4; ++i) {
      RNK_UNROLL for (int j = 0; j < 4; ++j) d.at[i][j] = in(first + (i * s.w + j) * s.depth);
    }
    return d;
  }
  RNK_UNROLL for (int i = 0; i < 4; ++i) {
    const bool row_inside = row + i >= 0 && row + i < s.h;
    RNK_UNROLL for (int j = 0; j < 4; ++j) {
      const bool there = row_inside && column + j >= 0 && column + j < s.w;
      d.at[i][j] = there ? in(x + ((row + i) * s.w + column + j) * s.depth) : FloatVec{};
    }
  }
  return d;
}

// Transforms tiles [first, first + count) to v.
template <bool kAffine>
void transform_input(const WinogradShape& s, const ConvPrologue& in, const float* x, int64_t first,
                     int64_t count, const WinogradInputLayout& layout, float* v) {
  const int64_t frequency = layout.frequency_stride(s.depth);
  for (int64_t c = 0; c < s.depth; c += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, s.depth - c));
    const ColumnPrologue<kAffine> prologue(in, c, lanes);
    float* to = v + c / kChunk * layout.chunk_stride() + c % kChunk;
    TileCursor tile(s, first);
    for (int64_t t = 0; t < count; ++t, tile.next(s)) {
      Patch d = load_patch(s, prologue, x + tile.image * s.h * s.w * s.depth + c,
                           tile.row - s.padding_h, tile.column - s.padding_w);
      input_transform(d);
      RNK_UNROLL for (int f = 0; f < kFrequencies; ++f) {
        store_vec(to + f * frequency + t * kChunk, d.at[f / 4][f % 4]);
      }
    }
  }
}

RNK_ISA_END
