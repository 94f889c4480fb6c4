// The kernels of max_pool_fwd.cpp for one instruction set.
#include "pool_common_kernels.h"

RNK_ISA_BEGIN

// The greatest value so far and its tap, per lane.
template <typename A>
struct Maximum {
  using Taps = typename Pack<A>::IntLanes;
  Pack<A> value;
  Taps tap[Pack<A>::kParts];

  RNK_INLINE void reset(int64_t first_tap) {
    value = broadcast(-std::numeric_limits<A>::infinity());
    for (Taps& t : tap) t = Taps{} + static_cast<int>(first_tap);
  }

  // NaN replaces everything, as in torch.
  RNK_INLINE void add(Pack<A> x, int64_t t) {
    const Taps here = Taps{} + static_cast<int>(t);
    RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i) {
      const Taps take = (x.part[i] > value.part[i]) | (x.part[i] != x.part[i]);
      value.part[i] = take ? x.part[i] : value.part[i];
      tap[i] = take ? here : tap[i];
    }
  }

  RNK_INLINE void store_taps(uint8_t* out, int count) const {
    for (int i = 0; i < count; ++i) {
      out[i] = static_cast<uint8_t>(tap[i / Pack<A>::kLanes][i % Pack<A>::kLanes]);
    }
  }
};

template <typename Element, typename Reader>
void max_pool_fwd_rows(const MaxPoolFwdParams& p, const Reader& reader, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  const int64_t work = s.q * s.kernel_h * s.kernel_w;
  for_each_pool_row(s, s.p, work, pf, [&](int64_t n, int64_t row, int64_t c0, int64_t c1) {
    const auto* image = static_cast<const Element*>(p.x) + n * s.h * s.w * s.c;
    const Range r = rows.taps(row);
    for (int64_t q = 0; q < s.q; ++q) {
      const Range t = columns.taps(q);
      const int64_t out = ((n * s.p + row) * s.q + q) * s.c;
      for_each_pack(c0, c1, [&](int64_t c, auto count) {
        Maximum<A> best;
        best.reset(r.begin * s.kernel_w + t.begin);
        for (int64_t i = r.begin; i < r.end; ++i) {
          const int64_t h = rows.start(row) + i * s.dilation_h;
          for (int64_t j = t.begin; j < t.end; ++j) {
            const int64_t w = columns.start(q) + j * s.dilation_w;
            best.add(reader.channels(image + (h * s.w + w) * s.c, c, count), i * s.kernel_w + j);
          }
        }
        store(static_cast<Element*>(p.z) + out + c, best.value, count);
        best.store_taps(p.indices + out + c, count.count);
      });
    }
  });
}

template <typename Element, typename Reader>
void max_pool_fwd_planes(const MaxPoolFwdParams& p, const Reader& reader, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  const int64_t in_size = s.h * s.w, out_size = s.p * s.q;
  for_each_pool_plane<A>(s, in_size + out_size + kPack, pf, [&](int64_t plane, A* x) {
    reader.plane(static_cast<const Element*>(p.x) + plane * in_size, plane % s.c, in_size, x);
    A* z = x + in_size + kPack;
    uint8_t* indices = p.indices + plane * out_size;
    for (int64_t row = 0; row < s.p; ++row) {
      const Range r = rows.taps(row);
      for (int64_t q = 0; q < s.q; ++q) {
        const Range t = columns.taps(q);
        A best = -std::numeric_limits<A>::infinity();
        int64_t tap = r.begin * s.kernel_w + t.begin;
        for (int64_t i = r.begin; i < r.end; ++i) {
          const A* line = x + (rows.start(row) + i * s.dilation_h) * s.w + columns.start(q);
          for (int64_t j = t.begin; j < t.end; ++j) {
            const A value = line[j * s.dilation_w];
            if (value > best || value != value) {
              best = value;
              tap = i * s.kernel_w + j;
            }
          }
        }
        z[row * s.q + q] = best;
        indices[row * s.q + q] = static_cast<uint8_t>(tap);
      }
    }
    Element* out = static_cast<Element*>(p.z) + plane * out_size;
    for_each_pack(0, out_size, [&](int64_t i, auto n) { store(out + i, load(z + i, n), n); });
  });
}

inline void max_pool_fwd(const MaxPoolFwdParams& p, ParallelFor pf) {
  with_pool_reader(p, [&](auto element, const auto& reader) {
    using Element = decltype(element);
    if (p.shape.channels_last) return max_pool_fwd_rows<Element>(p, reader, pf);
    max_pool_fwd_planes<Element>(p, reader, pf);
  });
}

RNK_ISA_END
