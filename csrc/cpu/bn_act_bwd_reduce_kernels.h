// The kernels of bn_act_bwd_reduce.cpp for one instruction set.
RNK_ISA_BEGIN

// What is added to the batch norm, and with it whether g is stored.
enum class GradKind { kAlone, kResidual, kSecondBn };

// Where act' comes from: relu of t recomputed, relu from the mask, or whatever the parameters say.
enum class GradPath { kRelu, kReluMask, kAny };

template <typename A>
struct SideVectors {
  SideVectors(const BnSide& bn, int64_t channels, int64_t copies)
      : mean(bn.mean, channels, copies),
        scale(bn.scale, channels, copies),
        bias(bn.bias, channels, copies) {}
  RowVector<A> mean, scale, bias;
};

// The computation on a pack of elements, which rows and planes share.
template <typename Element, typename Layout, GradKind kKind, GradPath kPath>
struct GradReduce {
  using A = Compute<Element>;
  static constexpr bool kDual = kKind == GradKind::kSecondBn;
  static constexpr bool kGrouped = kPath != GradPath::kAny;
  static constexpr int kSums = kDual ? 3 : 2;

  // Coefficients of a pack's channels; those that a variant does not use are never loaded.
  struct Coefs {
    Pack<A> mean, scale, bias, mean2, scale2, bias2;
  };
  // Sums of g, g * (y - mean) and g * (y2 - mean2).
  struct Sums {
    Pack<A> value[kSums];
  };

  const BnActBwdReduceParams& p;
  const A *mean, *scale, *bias, *mean2, *scale2, *bias2;

  RNK_INLINE Coefs coefs(int64_t at) const {
    Coefs k;
    k.mean = Layout::coef(mean, at);
    if constexpr (kPath != GradPath::kReluMask) {
      k.scale = Layout::coef(scale, at);
      k.bias = Layout::coef(bias, at);
    }
    if constexpr (kDual) {
      k.mean2 = Layout::coef(mean2, at);
      if constexpr (kPath != GradPath::kReluMask) {
        k.scale2 = Layout::coef(scale2, at);
        k.bias2 = Layout::coef(bias2, at);
      }
    }
    return k;
  }

  template <typename Count>
  RNK_INLINE Pack<A> pre_act(int64_t i, Count n, Pack<A> y, Pack<A> y2, const Coefs& k) const {
    const Pack<A> t = multiply_add(y, k.scale, k.bias);
    if constexpr (kDual) return t + multiply_add(y2, k.scale2, k.bias2);
    if constexpr (kKind == GradKind::kResidual) {
      if (p.residual != nullptr) return t + load(static_cast<const Element*>(p.residual) + i, n);
    }
    return t;
  }

  template <typename Count>
  RNK_INLINE Pack<A> grad(int64_t i, Count n, Pack<A> y, Pack<A> y2, const Coefs& k) const {
    const Pack<A> dz = load(static_cast<const Element*>(p.dz) + i, n);
    if constexpr (kPath == GradPath::kReluMask) {
      return where_bits(get_bits<Layout>(p.mask, i, n), dz, broadcast(A(0)));
    } else if constexpr (kPath == GradPath::kRelu) {
      return where_positive(pre_act(i, n, y, y2, k), dz, broadcast(A(0)));
    } else {
      if (p.act == Act::kIdentity) return dz;
      const A slope = p.act == Act::kRelu ? A(0) : static_cast<A>(p.slope);
      if (p.mask != nullptr && (p.act == Act::kRelu || p.act == Act::kLeakyRelu)) {
        const Pack<A> other = p.act == Act::kRelu ? broadcast(A(0)) : dz * broadcast(slope);
        return where_bits(get_bits<Layout>(p.mask, i, n), dz, other);
      }
      Pack<A> g = dz;
      act_grad_any(g, pre_act(i, n, y, y2, k), p.act, slope);
      return g;
    }
  }

  // Asks for the elements at i; it may be past the end.
  RNK_INLINE void prefetch(int64_t i) const {
    __builtin_prefetch(static_cast<const Element*>(p.dz) + i);
    __builtin_prefetch(static_cast<const Element*>(p.bn.y) + i);
    if constexpr (kDual) __builtin_prefetch(static_cast<const Element*>(p.bn2.y) + i);
  }

  // Adds the n elements at i to the sums and stores their g.
  template <typename Count>
  RNK_INLINE void add(int64_t i, Count n, const Coefs& k, Sums& sums) const {
    const Pack<A> y = load(static_cast<const Element*>(p.bn.y) + i, n);
    Pack<A> y2 = y;
    if constexpr (kDual) y2 = load(static_cast<const Element*>(p.bn2.y) + i, n);
    Pack<A> g = first_lanes(grad(i, n, y, y2, k), n);
    if constexpr (kKind != GradKind::kAlone) {
      g = round_to<Element>(g);
      store(static_cast<Element*>(p.g) + i, g, n);
    }
    sums.value[0] = sums.value[0] + g;
    sums.value[1] = multiply_add(g, first_lanes(y - k.mean, n), sums.value[1]);
    if constexpr (kDual) {
      sums.value[2] = multiply_add(g, first_lanes(y2 - k.mean2, n), sums.value[2]);
    }
  }
};

constexpr int kGradBlockRows = 64;  // rows between two additions to the fp64 sums

// Sums of columns [column, column + size) of a block of rows.
template <typename Reduce>
struct GradColumns {
  using A = typename Reduce::A;
  using Sums = typename Reduce::Sums;
  alignas(64) A part[Reduce::kSums][kBlockColumns];

  void clear(int64_t size) {
    for (A* row : part) std::fill_n(row, size, A(0));
  }
  RNK_INLINE Sums at(int64_t c) const {
    Sums sums;
    RNK_UNROLL for (int s = 0; s < Reduce::kSums; ++s) sums.value[s] = load_compute(part[s] + c);
    return sums;
  }
  RNK_INLINE void put(int64_t c, const Sums& sums) {
    RNK_UNROLL for (int s = 0; s < Reduce::kSums; ++s) store_compute(part[s] + c, sums.value[s]);
  }
  // totals[s * stride + c] += part[s][c].
  void add_to(double* totals, int64_t stride, int64_t size) const {
    for (int s = 0; s < Reduce::kSums; ++s) {
      for (int64_t c = 0; c < size; ++c) totals[s * stride + c] += part[s][c];
    }
  }
};

template <typename Reduce>
RNK_INLINE void add_grad_group(const Reduce& reduce, int64_t begin, int64_t width, int64_t column,
                               int64_t size, GradColumns<Reduce>& columns) {
  for (int64_t c = 0; c < size; c += kPack) {
    const auto k = reduce.coefs(column + c);
    auto sums = columns.at(c);
    RNK_UNROLL for (int r = 0; r < kRowGroup; ++r) {
      const int64_t i = begin + r * width + c;
      reduce.prefetch(i + kRowGroup * width);
      reduce.add(i, Full(), k, sums);
    }
    columns.put(c, sums);
  }
}

template <typename Reduce>
RNK_INLINE void add_grad_row(const Reduce& reduce, int64_t begin, int64_t column, int64_t size,
                             GradColumns<Reduce>& columns) {
  for (int64_t c = 0; c < size; c += kPack) {
    auto sums = columns.at(c);
    reduce.add(begin + c, Full(), reduce.coefs(column + c), sums);
    columns.put(c, sums);
  }
}

// Rows [row, last) and columns [column, column + size), added to totals[s * width + column ...].
template <typename Reduce>
void grad_rows(const Reduce& reduce, int64_t row, int64_t last, int64_t width, int64_t column,
               int64_t size, double* totals) {
  GradColumns<Reduce> columns;
  while (row < last) {
    const int64_t stop = std::min(last, row + kGradBlockRows);
    columns.clear(size);
    if constexpr (Reduce::kGrouped) {
      for (; row + kRowGroup <= stop; row += kRowGroup) {
        add_grad_group(reduce, row * width + column, width, column, size, columns);
      }
    }
    for (; row < stop; ++row) add_grad_row(reduce, row * width + column, column, size, columns);
    columns.add_to(totals + column, width, size);
  }
}

// The last, partial row.
template <typename Reduce>
void grad_tail(const Reduce& reduce, int64_t begin, int64_t numel, int64_t width, double* totals) {
  GradColumns<Reduce> columns;
  for (int64_t i = begin; i < numel; i += kPack) {
    auto sums = (columns.clear(kPack), columns.at(0));
    const int left = static_cast<int>(std::min<int64_t>(kPack, numel - i));
    reduce.add(i, Part{left}, reduce.coefs(i - begin), sums);
    columns.put(0, sums);
    columns.add_to(totals + (i - begin), width, kPack);
  }
}

// Writes sums [2, channels] from the totals of `chunks` chunks of `copies` copies of the channels.
template <typename A>
void store_sums(const BnSide& bn, const double* g, const double* gx, int64_t chunk_stride,
                int64_t chunks, int64_t copies, int64_t channels) {
  std::vector<double> total(2 * channels, 0.0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t j = 0; j < copies; ++j) {
      const int64_t from = chunk * chunk_stride + j * channels;
      for (int64_t c = 0; c < channels; ++c) total[c] += g[from + c];
      for (int64_t c = 0; c < channels; ++c) total[channels + c] += gx[from + c];
    }
  }
  A* sums = static_cast<A*>(bn.sums);
  const A* rstd = static_cast<const A*>(bn.rstd);
  for (int64_t c = 0; c < channels; ++c) {
    sums[c] = static_cast<A>(total[c]);
    sums[channels + c] = static_cast<A>(total[channels + c] * rstd[c]);
  }
}

template <typename Reduce>
void grad_reduce_rows(const Reduce& reduce, const RowShape& shape, ParallelFor parallel_for) {
  const BnActBwdReduceParams& p = reduce.p;
  const int64_t numel = p.outer * p.channels, width = shape.width, rows = numel / width;
  const ReductionPlan plan = plan_rows(rows, width);
  const int64_t stride = Reduce::kSums * width;
  // One chunk more for the partial row.
  std::vector<double> partial((plan.chunks + 1) * stride, 0.0);
  parallel(parallel_for, plan.chunks * plan.blocks, plan.grain, [&](int64_t task, int64_t end) {
    for (; task < end; ++task) {
      const int64_t chunk = task / plan.blocks, column = task % plan.blocks * kBlockColumns;
      grad_rows(reduce, rows * chunk / plan.chunks, rows * (chunk + 1) / plan.chunks, width, column,
                std::min(width - column, kBlockColumns), partial.data() + chunk * stride);
    }
  });
  grad_tail(reduce, rows * width, numel, width, partial.data() + plan.chunks * stride);
  const double* sums = partial.data();
  using A = typename Reduce::A;
  store_sums<A>(p.bn, sums, sums + width, stride, plan.chunks + 1, shape.copies, p.channels);
  if constexpr (Reduce::kDual) {
    store_sums<A>(p.bn2, sums, sums + 2 * width, stride, plan.chunks + 1, shape.copies, p.channels);
  }
}

constexpr int64_t kGradPlaneBlock = 1024;  // elements between two additions to the fp64 sums

template <typename Reduce>
void grad_units(const Reduce& reduce, const UnitRange& units, double* totals) {
  const auto k = reduce.coefs(units.channel);
  const auto zero = broadcast(typename Reduce::A(0));
  typename Reduce::Sums sums;
  for (auto& value : sums.value) value = zero;
  for (int s = 0; s < Reduce::kSums; ++s) totals[s * units.channels] = 0;
  int64_t count = 0;
  const auto flush = [&] {
    for (int s = 0; s < Reduce::kSums; ++s) {
      totals[s * units.channels] += sum_of_lanes(sums.value[s]);
      sums.value[s] = zero;
    }
    count = 0;
  };
  units.visit([&](int64_t offset, int64_t size) {
    for (int64_t begin = 0; begin < size; begin += kGradPlaneBlock) {
      const int64_t stop = offset + std::min(size, begin + kGradPlaneBlock);
      int64_t i = offset + begin;
      count += stop - i;
      for (; i + kPack <= stop; i += kPack) reduce.add(i, Full(), k, sums);
      if (i < stop) reduce.add(i, Part{static_cast<int>(stop - i)}, k, sums);
      if (count >= kGradPlaneBlock) flush();
    }
  });
  flush();
}

template <typename Reduce>
void grad_reduce_planes(const Reduce& reduce, ParallelFor parallel_for) {
  const BnActBwdReduceParams& p = reduce.p;
  const ReductionPlan plan = plan_planes(p.outer, p.channels, p.inner);
  const int64_t stride = Reduce::kSums * p.channels;
  const std::unique_ptr<double[]> partial(new double[plan.chunks * stride]);
  parallel(parallel_for, plan.chunks * plan.blocks, plan.grain, [&](int64_t task, int64_t end) {
    for (; task < end; ++task) {
      const int64_t chunk = task / p.channels, channel = task % p.channels;
      grad_units(reduce, {p.outer, p.channels, p.inner, channel, chunk, plan.chunks},
                 partial.get() + chunk * stride + channel);
    }
  });
  const double* sums = partial.get();
  using A = typename Reduce::A;
  store_sums<A>(p.bn, sums, sums + p.channels, stride, plan.chunks, 1, p.channels);
  if constexpr (Reduce::kDual) {
    store_sums<A>(p.bn2, sums, sums + 2 * p.channels, stride, plan.chunks, 1, p.channels);
  }
}

template <typename Element, GradKind kKind, GradPath kPath>
void grad_reduce_run(const BnActBwdReduceParams& p, ParallelFor parallel_for) {
  using A = Compute<Element>;
  const bool rows = p.inner == 1;
  const RowShape shape = rows ? row_shape(p.channels) : RowShape{p.channels, 1};
  const SideVectors<A> bn(p.bn, p.channels, shape.copies), bn2(p.bn2, p.channels, shape.copies);
  const auto make = [&](auto layout) {
    return GradReduce<Element, decltype(layout), kKind, kPath>{p,
                                                               bn.mean.data(),
                                                               bn.scale.data(),
                                                               bn.bias.data(),
                                                               bn2.mean.data(),
                                                               bn2.scale.data(),
                                                               bn2.bias.data()};
  };
  if (rows) return grad_reduce_rows(make(Rows()), shape, parallel_for);
  grad_reduce_planes(make(Planes()), parallel_for);
}

template <typename Element, GradKind kKind>
void grad_reduce_path(const BnActBwdReduceParams& p, ParallelFor parallel_for) {
  if constexpr (!std::is_same_v<Element, double>) {
    if (p.act == Act::kRelu && kKind == GradKind::kAlone) {
      return grad_reduce_run<Element, kKind, GradPath::kRelu>(p, parallel_for);
    }
    if (p.act == Act::kRelu && p.mask != nullptr) {
      return grad_reduce_run<Element, kKind, GradPath::kReluMask>(p, parallel_for);
    }
  }
  grad_reduce_run<Element, kKind, GradPath::kAny>(p, parallel_for);
}

inline void bn_act_bwd_reduce(const BnActBwdReduceParams& p, ParallelFor parallel_for) {
  with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    if (p.bn2.sums != nullptr)
      return grad_reduce_path<Element, GradKind::kSecondBn>(p, parallel_for);
    if (p.g != nullptr) return grad_reduce_path<Element, GradKind::kResidual>(p, parallel_for);
    grad_reduce_path<Element, GradKind::kAlone>(p, parallel_for);
  });
}

RNK_ISA_END
