// The kernels of max_pool_bwd.cpp for one instruction set.
#include "pool_common_kernels.h"

RNK_ISA_BEGIN

// dz where the byte of the lane's window is `tap`, else zero.
template <typename A>
RNK_INLINE Pack<A> where_tap(const uint8_t* bytes, int count, int tap, Pack<A> dz) {
  uint8_t equal[kPack] = {};
  for (int i = 0; i < count; ++i) equal[i] = bytes[i] == tap;
  unsigned bits = 0;
  for (int i = 0; i < kPack; ++i) bits |= static_cast<unsigned>(equal[i]) << i;
  return where_bits(bits, dz, broadcast(A(0)));
}

template <typename A>
RNK_INLINE Pack<A> where_tap(const uint8_t* bytes, Full, int tap, Pack<A> dz) {
#if defined(__x86_64__)
  const __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)),
                                       _mm_set1_epi8(static_cast<char>(tap)));
  return where_bits(static_cast<unsigned>(_mm_movemask_epi8(equal)), dz, broadcast(A(0)));
#else
  return where_tap(bytes, kPack, tap, dz);
#endif
}

template <typename A>
RNK_INLINE Pack<A> where_tap(const uint8_t* bytes, Part n, int tap, Pack<A> dz) {
  return where_tap(bytes, n.count, tap, dz);
}

// Every input pixel gathers from the windows it lies in, taps descending: outputs in memory order.
template <typename Element>
void max_pool_bwd_rows(const MaxPoolBwdParams& p, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  for_each_pool_row(s, s.h, s.w * 4, pf, [&](int64_t n, int64_t h, int64_t c0, int64_t c1) {
    const auto* dz = static_cast<const Element*>(p.dz) + n * s.p * s.q * s.c;
    const uint8_t* indices = p.indices + n * s.p * s.q * s.c;
    for (int64_t w = 0; w < s.w; ++w) {
      Element* dx = static_cast<Element*>(p.dx) + ((n * s.h + h) * s.w + w) * s.c;
      for_each_pack(c0, c1, [&](int64_t c, auto count) {
        Pack<A> sum = broadcast(A(0));
        for (int64_t r = s.kernel_h - 1; r >= 0; --r) {
          const int64_t row = rows.output_of(h, r);
          if (row < 0) continue;
          for (int64_t t = s.kernel_w - 1; t >= 0; --t) {
            const int64_t q = columns.output_of(w, t);
            if (q < 0) continue;
            const int64_t at = (row * s.q + q) * s.c + c;
            const int tap = static_cast<int>(r * s.kernel_w + t);
            sum = sum + where_tap(indices + at, count, tap, load(dz + at, count));
          }
        }
        store(dx + c, sum, count);
      });
    }
  });
}

template <typename Element>
void max_pool_bwd_planes(const MaxPoolBwdParams& p, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  const int64_t in_size = s.h * s.w, out_size = s.p * s.q;
  for_each_pool_plane<A>(s, in_size + out_size + kPack, pf, [&](int64_t plane, A* sum) {
    A* dz = sum + in_size + kPack;
    const auto* from = static_cast<const Element*>(p.dz) + plane * out_size;
    for_each_pack(0, out_size, [&](int64_t i, auto n) { store(dz + i, load(from + i, n), n); });
    std::fill_n(sum, in_size, A(0));
    for (int64_t i = 0; i < out_size; ++i) {
      const int64_t tap = p.indices[plane * out_size + i];
      const int64_t h = rows.start(i / s.q) + tap / s.kernel_w * s.dilation_h;
      const int64_t w = columns.start(i % s.q) + tap % s.kernel_w * s.dilation_w;
      if (h >= 0 && h < s.h && w >= 0 && w < s.w) sum[h * s.w + w] += dz[i];
    }
    Element* dx = static_cast<Element*>(p.dx) + plane * in_size;
    for_each_pack(0, in_size, [&](int64_t i, auto n) { store(dx + i, load(sum + i, n), n); });
  });
}

inline void max_pool_bwd(const MaxPoolBwdParams& p, ParallelFor pf) {
  with_element(p.shape.dtype, [&](auto element) {
    using Element = decltype(element);
    if (p.shape.channels_last) return max_pool_bwd_rows<Element>(p, pf);
    max_pool_bwd_planes<Element>(p, pf);
  });
}

RNK_ISA_END
