// The two memory layouts as walks over packs. A walk calls body(i, k, n) for the elements i ... of
// a range; n is Full or Part, k = body.coefs(at) holds their per-channel coefficients, from coef(v,
// at).
RNK_ISA_BEGIN

// Rows that one visit of the coefficients serves in bodies with many of them (kGrouped). The next
// group is prefetched, because the hardware does not follow several rows of several tensors. On one
// core of an EPYC 9005 with 26 MB tensors of 64 channels, bn_bwd_apply went from 29 to 38 GB/s,
// bn_act_bwd_reduce from 17 to 43; groups of 2 and 8 were slower, and so is bn_act_fwd, with 2
// coefficients, in groups (38 for 52).
constexpr int kRowGroup = 4;

// channels_last: coefficients run along a row.
struct Rows {
  int64_t width;

  template <typename A>
  RNK_INLINE static Pack<A> coef(const A* v, int64_t at) {
    return load_compute(v + at);
  }

  template <typename Body>
  RNK_INLINE void walk(int64_t begin, int64_t end, Body& body) const {
    int64_t at = begin % width;
    for (int64_t i = begin; i < end; at = 0) {
      if constexpr (Body::kGrouped) {
        if (at == 0 && i + kRowGroup * width <= end) {
          group(i, body);
          i += kRowGroup * width;
          continue;
        }
      }
      const int64_t stop = std::min(end, i + width - at);
      for (; i + kPack <= stop; i += kPack, at += kPack) body(i, body.coefs(at), Full());
      if (i < stop) body(i, body.coefs(at), Part{static_cast<int>(stop - i)});
      i = stop;
    }
  }

  template <typename Body>
  RNK_INLINE void group(int64_t begin, Body& body) const {
    for (int64_t at = 0; at < width; at += kPack) {
      const auto k = body.coefs(at);
      RNK_UNROLL for (int r = 0; r < kRowGroup; ++r) {
        const int64_t i = begin + r * width + at;
        body.prefetch(i + kRowGroup * width);
        body(i, k, Full());
      }
    }
  }
};

// contiguous: one channel's coefficients for a whole plane of `inner` elements.
struct Planes {
  int64_t channels;
  int64_t inner;

  template <typename A>
  RNK_INLINE static Pack<A> coef(const A* v, int64_t at) {
    return broadcast(v[at]);
  }

  template <typename Body>
  RNK_INLINE void walk(int64_t begin, int64_t end, Body& body) const {
    int64_t plane = begin / inner;
    for (int64_t i = begin; i < end; ++plane) {
      const int64_t stop = std::min(end, (plane + 1) * inner);
      const auto k = body.coefs(plane % channels);
      for (; i + kPack <= stop; i += kPack) body(i, k, Full());
      if (i < stop) body(i, k, Part{static_cast<int>(stop - i)});
      i = stop;
    }
  }
};

// Calls f(layout, copies), copies being how often a row repeats the channels.
template <typename F>
void with_layout(int64_t channels, int64_t inner, F&& f) {
  if (inner > 1) return f(Planes{channels, inner}, int64_t{1});
  const RowShape shape = row_shape(channels);
  f(Rows{shape.width}, shape.copies);
}

// Writes the bits of a walk. In rows every pack starts at a byte.
template <typename Layout>
class BitWriter {
 public:
  RNK_INLINE BitWriter(uint8_t* mask, int64_t) : mask_(mask) {}
  RNK_INLINE void put(int64_t i, unsigned bits, Full) {
    const auto two_bytes = static_cast<uint16_t>(bits);
    std::memcpy(mask_ + i / 8, &two_bytes, 2);
  }
  RNK_INLINE void put(int64_t i, unsigned bits, Part n) {
    bits &= (1u << n.count) - 1;
    for (int b = 0; b < n.count; b += 8) mask_[(i + b) / 8] = static_cast<uint8_t>(bits >> b);
  }
  RNK_INLINE void finish() {}

 private:
  uint8_t* mask_;
};

// In planes the bits queue up until there is a byte of them.
template <>
class BitWriter<Planes> {
 public:
  RNK_INLINE BitWriter(uint8_t* mask, int64_t begin) : next_(mask + begin / 8) {}
  template <typename Count>
  RNK_INLINE void put(int64_t, unsigned bits, Count n) {
    queue_ |= (bits & ((1u << n.count) - 1)) << queued_;
    for (queued_ += n.count; queued_ >= 8; queued_ -= 8, queue_ >>= 8) {
      *next_++ = static_cast<uint8_t>(queue_);
    }
  }
  RNK_INLINE void finish() {
    if (queued_ > 0) *next_ = static_cast<uint8_t>(queue_);
  }

 private:
  uint8_t* next_;
  unsigned queue_ = 0;
  int queued_ = 0;
};

// The bits of a pack at any bit offset, reading no byte beyond them.
RNK_INLINE unsigned read_bits(const uint8_t* mask, int64_t i, int count) {
  const int shift = static_cast<int>(i % 8);
  unsigned bits = 0;
  for (int b = 0; b < shift + count; b += 8) bits |= unsigned{mask[i / 8 + b / 8]} << b;
  return bits >> shift;
}

template <typename Layout>
RNK_INLINE unsigned get_bits(const uint8_t* mask, int64_t i, Full) {
  if constexpr (std::is_same_v<Layout, Planes>) return read_bits(mask, i, kPack);
  uint16_t two_bytes;
  std::memcpy(&two_bytes, mask + i / 8, 2);
  return two_bytes;
}

template <typename Layout>
RNK_INLINE unsigned get_bits(const uint8_t* mask, int64_t i, Part n) {
  return read_bits(mask, i, n.count);
}

// Each thread goes through its share from the end, in slices of this many packs: the pass before (a
// reduction, a convolution) went forward, and what it touched last is still in the cache.
constexpr int64_t kSlice = 4096;

// Runs make_body(begin) over all elements on several threads, in ranges that start at a pack.
template <typename Layout, typename MakeBody>
void for_each_element(const Layout& layout, int64_t numel, ParallelFor parallel_for,
                      const MakeBody& make_body) {
  const int64_t packs = (numel + kPack - 1) / kPack;
  parallel(parallel_for, packs, kGrain / kPack, [&](int64_t first, int64_t last) {
    for (int64_t end = last; end > first; end -= std::min(end - first, kSlice)) {
      const int64_t begin = std::max(first, end - kSlice);
      auto body = make_body(begin * kPack);
      layout.walk(begin * kPack, std::min(numel, end * kPack), body);
      body.finish();
    }
  });
}

RNK_ISA_END
