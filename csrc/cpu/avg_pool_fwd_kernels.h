// The kernels of avg_pool_fwd.cpp for one instruction set.
#include "pool_common_kernels.h"

RNK_ISA_BEGIN

// A window is summed row by row, and the rows then: large windows lose less than in one long sum.
template <typename Element, typename Reader>
void avg_pool_fwd_rows(const AvgPoolFwdParams& p, const Reader& reader, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  const int64_t work = s.q * s.kernel_h * s.kernel_w;
  for_each_pool_row(s, s.p, work, pf, [&](int64_t n, int64_t row, int64_t c0, int64_t c1) {
    const auto* image = static_cast<const Element*>(p.x) + n * s.h * s.w * s.c;
    const Range r = rows.taps(row);
    for (int64_t q = 0; q < s.q; ++q) {
      const Range t = columns.taps(q);
      const A divisor = static_cast<A>(pool_divisor(rows, columns, row, q, p.count_include_pad));
      Element* z = static_cast<Element*>(p.z) + ((n * s.p + row) * s.q + q) * s.c;
      for_each_run(c0, c1, [&](int64_t c, auto count, auto packs) {
        Pack<A> sum[packs];
        for (Pack<A>& t : sum) t = broadcast(A(0));
        for (int64_t i = r.begin; i < r.end; ++i) {
          const int64_t first = (rows.start(row) + i) * s.w + columns.start(q);
          Pack<A> line[packs];
          for (Pack<A>& t : line) t = broadcast(A(0));
          for (int64_t j = t.begin; j < t.end; ++j) {
            const Element* pixel = image + (first + j) * s.c;
            for (int k = 0; k < packs; ++k)
              line[k] = line[k] + reader.channels(pixel, c + k * kPack, count);
          }
          for (int k = 0; k < packs; ++k) sum[k] = sum[k] + line[k];
        }
        for (int k = 0; k < packs; ++k)
          store(z + c + k * kPack, sum[k] / broadcast(divisor), count);
      });
    }
  });
}

template <typename Element, typename Reader>
void avg_pool_fwd_planes(const AvgPoolFwdParams& p, const Reader& reader, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  const int64_t in_size = s.h * s.w, out_size = s.p * s.q;
  for_each_pool_plane<A>(s, in_size + out_size + kPack, pf, [&](int64_t plane, A* x) {
    reader.plane(static_cast<const Element*>(p.x) + plane * in_size, plane % s.c, in_size, x);
    A* z = x + in_size + kPack;
    for (int64_t row = 0; row < s.p; ++row) {
      const Range r = rows.taps(row);
      for (int64_t q = 0; q < s.q; ++q) {
        const Range t = columns.taps(q);
        A sum = 0;
        for (int64_t i = r.begin; i < r.end; ++i) {
          const A* from = x + (rows.start(row) + i) * s.w + columns.start(q);
          A line = 0;
          for (int64_t j = t.begin; j < t.end; ++j) line += from[j];
          sum += line;
        }
        const double divisor = pool_divisor(rows, columns, row, q, p.count_include_pad);
        z[row * s.q + q] = sum / static_cast<A>(divisor);
      }
    }
    Element* out = static_cast<Element*>(p.z) + plane * out_size;
    for_each_pack(0, out_size, [&](int64_t i, auto n) { store(out + i, load(z + i, n), n); });
  });
}

inline void avg_pool_fwd(const AvgPoolFwdParams& p, ParallelFor pf) {
  with_pool_reader(p, [&](auto element, const auto& reader) {
    using Element = decltype(element);
    if (p.shape.channels_last) return avg_pool_fwd_rows<Element>(p, reader, pf);
    avg_pool_fwd_planes<Element>(p, reader, pf);
  });
}

RNK_ISA_END
