// The kernels of bn_act_fwd.cpp for one instruction set.
RNK_ISA_BEGIN

enum class Residual { kNone, kAdd, kSecondBn };

template <typename Element, typename Layout, ActPath kPath, Residual kResidual>
struct BnActFwdBody {
  using A = Compute<Element>;
  const Element* y;
  const Element* residual;
  Element* z;
  const A *scale, *bias, *scale2, *bias2;
  Act act;
  A slope;
  bool with_mask;
  BitWriter<Layout> bits;

  static constexpr bool kGrouped = false;
  struct Coefs {
    Pack<A> scale, bias, scale2, bias2;
  };

  RNK_INLINE Coefs coefs(int64_t at) const {
    Coefs k{Layout::coef(scale, at), Layout::coef(bias, at), {}, {}};
    if constexpr (kResidual == Residual::kSecondBn) {
      k.scale2 = Layout::coef(scale2, at);
      k.bias2 = Layout::coef(bias2, at);
    }
    return k;
  }

  template <typename Count>
  RNK_INLINE void operator()(int64_t i, const Coefs& k, Count n) {
    Pack<A> t = multiply_add(load(y + i, n), k.scale, k.bias);
    if constexpr (kResidual == Residual::kAdd) t = t + load(residual + i, n);
    if constexpr (kResidual == Residual::kSecondBn) {
      t = t + multiply_add(load(residual + i, n), k.scale2, k.bias2);
    }
    if (with_mask) bits.put(i, positive_bits(t), n);
    store(z + i, apply_act<kPath>(t, act, slope), n);
  }
  RNK_INLINE void finish() { bits.finish(); }
};

template <typename Element, typename Layout, ActPath kPath, Residual kResidual>
void bn_act_fwd_run(const BnActFwdParams& p, const Layout& layout, int64_t copies,
                    ParallelFor parallel_for) {
  using A = Compute<Element>;
  const RowVector<A> scale(p.scale, p.channels, copies), bias(p.bias, p.channels, copies);
  const RowVector<A> scale2(p.scale2, p.channels, copies), bias2(p.bias2, p.channels, copies);
  for_each_element(layout, p.outer * p.channels * p.inner, parallel_for, [&](int64_t begin) {
    return BnActFwdBody<Element, Layout, kPath, kResidual>{static_cast<const Element*>(p.y),
                                                           static_cast<const Element*>(p.residual),
                                                           static_cast<Element*>(p.z),
                                                           scale.data(),
                                                           bias.data(),
                                                           scale2.data(),
                                                           bias2.data(),
                                                           p.act,
                                                           static_cast<A>(p.slope),
                                                           p.mask != nullptr,
                                                           BitWriter<Layout>(p.mask, begin)};
  });
}

template <typename Element, typename Layout, ActPath kPath>
void bn_act_fwd_residual(const BnActFwdParams& p, const Layout& layout, int64_t copies,
                         ParallelFor pf) {
  if (p.scale2 != nullptr) {
    return bn_act_fwd_run<Element, Layout, kPath, Residual::kSecondBn>(p, layout, copies, pf);
  }
  if (p.residual != nullptr) {
    return bn_act_fwd_run<Element, Layout, kPath, Residual::kAdd>(p, layout, copies, pf);
  }
  bn_act_fwd_run<Element, Layout, kPath, Residual::kNone>(p, layout, copies, pf);
}

inline void bn_act_fwd(const BnActFwdParams& p, ParallelFor pf) {
  with_element(p.dtype, [&](auto element) {
    with_layout(p.channels, p.inner, [&](auto layout, int64_t copies) {
      using Element = decltype(element);
      using Layout = decltype(layout);
      if constexpr (!std::is_same_v<Element, double>) {
        if (p.act == Act::kRelu) {
          return bn_act_fwd_residual<Element, Layout, ActPath::kRelu>(p, layout, copies, pf);
        }
      }
      bn_act_fwd_residual<Element, Layout, ActPath::kAny>(p, layout, copies, pf);
    });
  });
}

RNK_ISA_END
