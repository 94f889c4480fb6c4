// The kernels of bn_bwd_apply.cpp for one instruction set.
RNK_ISA_BEGIN

template <typename Element, typename Layout, ActPath kPath>
struct BnBwdApplyBody {
  using A = Compute<Element>;
  const Element *g, *y;
  Element* dy;
  const A *mean, *a, *b, *c, *scale, *bias;
  Act act;
  A slope;

  static constexpr bool kGrouped = kPath != ActPath::kAny;
  struct Coefs {
    Pack<A> mean, a, b, c, scale, bias;
  };

  bool with_act() const { return kPath == ActPath::kRelu || act != Act::kIdentity; }

  RNK_INLINE Coefs coefs(int64_t at) const {
    Coefs k{Layout::coef(mean, at),
            Layout::coef(a, at),
            Layout::coef(b, at),
            Layout::coef(c, at),
            {},
            {}};
    if (with_act()) {
      k.scale = Layout::coef(scale, at);
      k.bias = Layout::coef(bias, at);
    }
    return k;
  }

  RNK_INLINE void prefetch(int64_t i) const {
    __builtin_prefetch(g + i);
    __builtin_prefetch(y + i);
  }

  template <typename Count>
  RNK_INLINE void operator()(int64_t i, const Coefs& k, Count n) const {
    const Pack<A> value = load(y + i, n);
    Pack<A> grad = load(g + i, n);
    if (with_act()) {
      grad = act_grad<kPath>(grad, multiply_add(value, k.scale, k.bias), act, slope);
    }
    const Pack<A> statistics = multiply_add(value - k.mean, k.b, k.c);
    store(dy + i, multiply_add(grad, k.a, statistics), n);
  }
  RNK_INLINE void finish() {}
};

template <typename Element, typename Layout, ActPath kPath>
void bn_bwd_apply_run(const BnBwdApplyParams& p, const Layout& layout, int64_t copies,
                      ParallelFor parallel_for) {
  using A = Compute<Element>;
  const A* abc = static_cast<const A*>(p.abc);
  const RowVector<A> mean(p.mean, p.channels, copies), a(abc, p.channels, copies);
  const RowVector<A> b(abc + p.channels, p.channels, copies);
  const RowVector<A> c(abc + 2 * p.channels, p.channels, copies);
  const RowVector<A> scale(p.scale, p.channels, copies), bias(p.bias, p.channels, copies);
  const BnBwdApplyBody<Element, Layout, kPath> body{static_cast<const Element*>(p.g),
                                                    static_cast<const Element*>(p.y),
                                                    static_cast<Element*>(p.dy),
                                                    mean.data(),
                                                    a.data(),
                                                    b.data(),
                                                    c.data(),
                                                    scale.data(),
                                                    bias.data(),
                                                    p.scale == nullptr ? Act::kIdentity : p.act,
                                                    static_cast<A>(p.slope)};
  for_each_element(layout, p.outer * p.channels * p.inner, parallel_for,
                   [&](int64_t) { return body; });
}

inline void bn_bwd_apply(const BnBwdApplyParams& p, ParallelFor parallel_for) {
  with_element(p.dtype, [&](auto element) {
    with_layout(p.channels, p.inner, [&](auto layout, int64_t copies) {
      using Element = decltype(element);
      using Layout = decltype(layout);
      if constexpr (!std::is_same_v<Element, double>) {
        if (p.scale != nullptr && p.act == Act::kRelu) {
          return bn_bwd_apply_run<Element, Layout, ActPath::kRelu>(p, layout, copies, parallel_for);
        }
      }
      bn_bwd_apply_run<Element, Layout, ActPath::kAny>(p, layout, copies, parallel_for);
    });
  });
}

RNK_ISA_END
