// The patches of a block of tiles, transformed, for one instruction set.
RNK_ISA_BEGIN

// Walks over the tiles of a convolution: kOut x kOut outputs at (row, column) of an image.
template <int kOut>
struct TileCursor {
  int64_t image, row, column;

  RNK_INLINE TileCursor(const WinogradShape<kOut>& s, int64_t index)
      : image(index / s.tiles_w() / s.tiles_h()),
        row(index / s.tiles_w() % s.tiles_h() * kOut),
        column(index % s.tiles_w() * kOut) {}

  RNK_INLINE void next(const WinogradShape<kOut>& s) {
    column += kOut;
    if (column < s.q) return;
    column = 0;
    row += kOut;
    if (row < s.p) return;
    row = 0;
    ++image;
  }
};

// Where the transform of a block lies: [frequency][depth / kChunk][tile][kChunk]. The strides are
// odd in cache lines: all frequencies are written at once.
struct WinogradInputLayout {
  int64_t tiles;
  int64_t chunk_stride() const { return tiles * kChunk; }
  int64_t frequency_stride(int64_t depth) const {
    return (depth + kChunk - 1) / kChunk * chunk_stride() + kLanes;
  }
};

// Loads the patch whose first element is (row, column) of the image at x; 0 outside.
template <int kOut, typename Prologue>
RNK_INLINE Patch<kOut + 2> load_patch(const WinogradShape<kOut>& s, const Prologue& in,
                                      const float* x, int64_t row, int64_t column) {
  constexpr int kSize = kOut + 2;
  Patch<kSize> d;
  const bool inside = row >= 0 && column >= 0 && row + kSize <= s.h && column + kSize <= s.w;
  if (inside) {
    const float* first = x + (row * s.w + column) * s.depth;
    RNK_UNROLL for (int i = 0; i < kSize; ++i) {
      RNK_UNROLL for (int j = 0; j < kSize; ++j) d.at[i][j] = in(first + (i * s.w + j) * s.depth);
    }
    return d;
  }
  RNK_UNROLL for (int i = 0; i < kSize; ++i) {
    const bool row_inside = row + i >= 0 && row + i < s.h;
    RNK_UNROLL for (int j = 0; j < kSize; ++j) {
      const bool there = row_inside && column + j >= 0 && column + j < s.w;
      d.at[i][j] = there ? in(x + ((row + i) * s.w + column + j) * s.depth) : FloatVec{};
    }
  }
  return d;
}

// Transforms tiles [first, first + count) to v.
template <int kOut, bool kAffine>
void transform_input(const WinogradShape<kOut>& s, const ConvPrologue& in, const float* x,
                     int64_t first, int64_t count, const WinogradInputLayout& layout, float* v) {
  const int64_t frequency = layout.frequency_stride(s.depth);
  for (int64_t c = 0; c < s.depth; c += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, s.depth - c));
    const ColumnPrologue<kAffine> prologue(in, c, lanes);
    float* to = v + c / kChunk * layout.chunk_stride() + c % kChunk;
    TileCursor<kOut> tile(s, first);
    for (int64_t t = 0; t < count; ++t, tile.next(s)) {
      Patch<kOut + 2> d = load_patch(s, prologue, x + tile.image * s.h * s.w * s.depth + c,
                                     tile.row - s.padding_h, tile.column - s.padding_w);
      input_transform<kOut>(d);
      RNK_UNROLL for (int i = 0; i < s.kPatch; ++i) {
        RNK_UNROLL for (int j = 0; j < s.kPatch; ++j) {
          store_vec(to + (i * s.kPatch + j) * frequency + t * kChunk, d.at[i][j]);
        }
      }
    }
  }
}

RNK_ISA_END
