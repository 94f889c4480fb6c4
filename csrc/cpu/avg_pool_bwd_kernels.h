// The kernels of avg_pool_bwd.cpp for one instruction set.
#include "pool_common_kernels.h"

RNK_ISA_BEGIN

template <typename Element>
void avg_pool_bwd_rows(const AvgPoolBwdParams& p, ParallelFor pf) {
  using A = Compute<Element>;
  const PoolShape& s = p.shape;
  const PoolAxis rows = pool_rows(s), columns = pool_columns(s);
  for_each_pool_row(s, s.h, s.w * 4, pf, [&](int64_t n, int64_t h, int64_t c0, int64_t c1) {
    const auto* dz = static_cast<const Element*>(p.dz) + n * s.p * s.q * s.c;
    const Range row = outputs_over(rows, h);
    for (int64_t w = 0; w < s.w; ++w) {
      const Range column = outputs_over(columns, w);
      Element* dx = static_cast<Element*>(p.dx) + ((n * s.h + h) * s.w + w) * s.c;
      for_each_pack(c0, c1, [&](int64_t c, auto count) {
        Pack<A> sum = broadcast(A(0));
        for (int64_t i = row.begin; i < row.end; ++i) {
          for (int64_t j = column.begin; j < column.end; ++j) {
            const double divisor = pool_divisor(rows, columns, i, j, p.count_include_pad);
            const Pack<A> at = load(dz + (i * s.q + j) * s.c + c, count);
            sum = sum + at / broadcast(static_cast<A>(divisor));
          }
        }
        store(dx + c, sum, count);
      });
    }
  });
}

template <typename Element>
void avg_pool_bwd_planes(const AvgPoolBwdParams& p, ParallelFor pf) {
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
      const int64_t row = i / s.q, q = i % s.q;
      const double divisor = pool_divisor(rows, columns, row, q, p.count_include_pad);
      const A share = dz[i] / static_cast<A>(divisor);
      const Range r = rows.taps(row), t = columns.taps(q);
      for (int64_t j = r.begin; j < r.end; ++j) {
        A* line = sum + (rows.start(row) + j) * s.w + columns.start(q);
        for (int64_t k = t.begin; k < t.end; ++k) line[k] += share;
      }
    }
    Element* dx = static_cast<Element*>(p.dx) + plane * in_size;
    for_each_pack(0, in_size, [&](int64_t i, auto n) { store(dx + i, load(sum + i, n), n); });
  });
}

inline void avg_pool_bwd(const AvgPoolBwdParams& p, ParallelFor pf) {
  with_element(p.shape.dtype, [&](auto element) {
    using Element = decltype(element);
    if (p.shape.channels_last) return avg_pool_bwd_rows<Element>(p, pf);
    avg_pool_bwd_planes<Element>(p, pf);
  });
}

RNK_ISA_END
