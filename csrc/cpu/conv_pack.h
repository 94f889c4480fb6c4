// Packs the rows of a gather job for the matrix product: [chunk][row][kWidth], a chunk being kWidth
// of the depth (filter row, filter column, channel). Applies the prologue; taps outside are zero.
RNK_ISA_BEGIN

enum class PackIn { kPlain, kRelu, kAny };

inline PackIn pack_in(const ConvPrologue& in) {
  if (in.scale == nullptr) return PackIn::kPlain;
  return in.act == Act::kRelu ? PackIn::kRelu : PackIn::kAny;
}

// Calls f(std::integral_constant<PackIn, ...>()) with what the packing has to do.
template <typename F>
void with_pack_in(const ConvPrologue& in, const F& f) {
  switch (pack_in(in)) {
    case PackIn::kPlain:
      return f(std::integral_constant<PackIn, PackIn::kPlain>());
    case PackIn::kRelu:
      return f(std::integral_constant<PackIn, PackIn::kRelu>());
    case PackIn::kAny:
      return f(std::integral_constant<PackIn, PackIn::kAny>());
  }
}

// More vectors of coefficients would not stay in the registers.
constexpr int kPieceVectors = 4;

// The prologue's coefficients for a run of source memory: repeated where a run has several pixels.
class RunPrologue {
 public:
  RunPrologue(const ConvPrologue& in, const GatherJob& job) : in_(in) {
    if (in.scale == nullptr) return;
    pixels_ = job.contiguous_taps() ? static_cast<int64_t>(job.taps_w.size()) : 1;
    if (pixels_ <= 1) return;
    for (int64_t p = 0; p < pixels_; ++p) {
      scale_.insert(scale_.end(), in.scale, in.scale + job.channels);
      bias_.insert(bias_.end(), in.bias, in.bias + job.channels);
    }
  }
  // Runs of several pixels exist only where there is one group.
  const float* scale(int64_t channel) const {
    return (pixels_ > 1 ? scale_.data() : in_.scale) + channel;
  }
  const float* bias(int64_t channel) const {
    return (pixels_ > 1 ? bias_.data() : in_.bias) + channel;
  }
  const ConvPrologue& in() const { return in_; }

 private:
  const ConvPrologue& in_;
  int64_t pixels_ = 1;
  std::vector<float> scale_, bias_;
};

template <PackIn kIn>
RNK_INLINE FloatVec pack_value(FloatVec v, FloatVec scale, FloatVec bias, const ConvPrologue& in) {
  if constexpr (kIn == PackIn::kPlain) return v;
  v = v * scale + bias;
  if constexpr (kIn == PackIn::kRelu) return relu(v);
  return act_value_mostly_relu(v, in.act, in.slope);
}

template <int kWidth, PackIn kIn, typename Element = float>
class RowPacker {
 public:
  // source: of the group, whose channels start at first_channel.
  RowPacker(const GatherJob& job, const RunPrologue& prologue, const Element* source,
            int64_t first_channel)
      : job_(job), prologue_(prologue), source_(source), channel_(first_channel) {}

  // Columns [depth, depth_end) of rows [begin, end); dst: row `begin` of the chunk where they
  // start.
  void pack(const std::vector<PackPiece>& pieces, int64_t depth, int64_t depth_end, int64_t begin,
            int64_t end, Element* dst, int64_t chunk_stride) const {
    auto first = pieces.begin();
    while (first != pieces.end() && first->depth < depth) ++first;
    auto last = first;
    while (last != pieces.end() && last->depth < depth_end) ++last;
    for_each_line(job_, begin, end,
                  [&](int64_t image, int64_t i, int64_t j, int64_t stop, int64_t row) {
                    for (int64_t next; j < stop; row += next - j, j = next) {
                      next = std::min(stop, j + kRowsAtOnce);
                      for (auto piece = first; piece != last; ++piece) {
                        const int64_t at = piece->depth - depth;
                        pack_line(*piece, image, i, j, next,
                                  dst + at / kWidth * chunk_stride + row * kWidth + at % kWidth);
                      }
                    }
                  });
  }

 private:
  // All pieces of these before the next: the source is read in the order of its memory.
  static constexpr int64_t kRowsAtOnce = 32;

  int64_t column(const PackPiece& piece, int64_t j) const {
    return j * job_.stride_w + job_.taps_w[piece.tap_w].offset;
  }

  // Grid columns [j, stop) of one line.
  RNK_INLINE void pack_line(const PackPiece& piece, int64_t image, int64_t i, int64_t j,
                            int64_t stop, Element* to) const {
    const int64_t h = i * job_.stride_h + job_.taps_h[piece.tap_h].offset;
    if (h < 0 || h >= job_.source_h) return zero_rows(piece, stop - j, to);
    const Element* line = source_ + (image * job_.source_h + h) * job_.source_w * job_.source_pixel;
    const int64_t from = std::clamp(piece.inside_begin, j, stop);
    const int64_t until = std::clamp(piece.inside_end, from, stop);
    for (int64_t e = j; e < from; ++e) border_row(piece, line, e, to + (e - j) * kWidth);
    if (from < until) inner_rows(piece, line, from, until - from, to + (from - j) * kWidth);
    for (int64_t e = until; e < stop; ++e) border_row(piece, line, e, to + (e - j) * kWidth);
  }

  RNK_INLINE static void zero_rows(const PackPiece& piece, int64_t rows, Element* to) {
    for (int64_t row = 0; row < rows; ++row)
      std::fill_n(to + row * kWidth, piece.length, Element{});
  }

  void border_row(const PackPiece& piece, const Element* line, int64_t j, Element* to) const {
    std::fill_n(to, piece.length, Element{});
    const int64_t w = column(piece, j), c = job_.channels;
    const int64_t begin = std::max<int64_t>(0, -w * c - piece.first);
    const int64_t end = std::min<int64_t>(piece.length, (job_.source_w - w) * c - piece.first);
    const Element* from = line + w * job_.source_pixel + piece.first;
    for (int64_t at = begin; at < end; at += kLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kLanes, end - at));
      FloatVec scale{}, bias{};
      if constexpr (kIn != PackIn::kPlain) {
        const int64_t channel = channel_ + piece.first + at;
        scale = load_lanes(prologue_.scale(channel), count);
        bias = load_lanes(prologue_.bias(channel), count);
      }
      pack(from + at, scale, bias, to + at, count);
    }
  }

  void inner_rows(const PackPiece& piece, const Element* line, int64_t j, int64_t rows,
                  Element* to) const {
    const Element* from = line + column(piece, j) * job_.source_pixel + piece.first;
    if (kIn == PackIn::kPlain && piece.length == kWidth) {
      const int64_t step = job_.stride_w * job_.source_pixel;
      for (int64_t row = 0; row < rows; ++row, from += step, to += kWidth) {
        std::memcpy(to, from, kWidth * sizeof(Element));
      }
      return;
    }
    copy_rows<kPieceVectors>(piece.length / kLanes, from, rows, to, piece);
  }

  template <int kVectors>
  RNK_INLINE void copy_rows(int vectors, const Element* from, int64_t rows, Element* to,
                            const PackPiece& piece) const {
    if constexpr (kVectors > 0) {
      if (vectors < kVectors) return copy_rows<kVectors - 1>(vectors, from, rows, to, piece);
    }
    const int tail = piece.length % kLanes;
    if (tail == 0) return copy_vectors<kVectors, false>(from, rows, to, piece, 0);
    if constexpr (kVectors < kPieceVectors)
      copy_vectors<kVectors, true>(from, rows, to, piece, tail);
  }

  template <int kVectors, bool kTail>
  void copy_vectors(const Element* from, int64_t rows, Element* to, const PackPiece& piece,
                    int tail) const {
    constexpr int kAll = kVectors + kTail;
    FloatVec scale[kAll + 1], bias[kAll + 1];
    if constexpr (kIn != PackIn::kPlain) {
      const int64_t channel = channel_ + piece.first;
      RNK_UNROLL for (int v = 0; v < kAll; ++v) {
        const int count = v < kVectors ? kLanes : tail;
        scale[v] = load_lanes(prologue_.scale(channel) + v * kLanes, count);
        bias[v] = load_lanes(prologue_.bias(channel) + v * kLanes, count);
      }
    }
    const int64_t step = job_.stride_w * job_.source_pixel;
    for (int64_t row = 0; row < rows; ++row, from += step, to += kWidth) {
      RNK_UNROLL for (int v = 0; v < kAll; ++v) {
        const int count = v < kVectors ? kLanes : tail;
        pack(from + v * kLanes, scale[v], bias[v], to + v * kLanes, count);
      }
    }
  }

  RNK_INLINE void pack(const Element* from, FloatVec scale, FloatVec bias, Element* to,
                       int count) const {
    if constexpr (kIn == PackIn::kPlain) return copy_lanes(from, to, count);
    const FloatVec x = load_lanes(from, count);
    store_lanes(to, pack_value<kIn>(x, scale, bias, prologue_.in()), count);
  }

  const GatherJob& job_;
  const RunPrologue& prologue_;
  const Element* source_;
  const int64_t channel_;
};

RNK_ISA_END
