// What the pooling kernels share: the prologue act(scale * x + bias), and walks over channels.
RNK_ISA_BEGIN

// How elements are read: as they are, or through batch norm and activation, rounded as if stored.
enum class PoolInput { kPlain, kRelu, kAnyAct };

template <typename Element, PoolInput kInput>
struct PoolReader {
  using A = Compute<Element>;
  const A *scale, *bias;
  Act act;
  A slope;

  template <typename Count>
  RNK_INLINE Pack<A> through(Pack<A> t, Pack<A> s, Pack<A> b, Count) const {
    constexpr ActPath kPath = kInput == PoolInput::kRelu ? ActPath::kRelu : ActPath::kAny;
    return round_to<Element>(apply_act<kPath>(multiply_add(t, s, b), act, slope));
  }

  // Channels c ... of a pixel.
  template <typename Count>
  RNK_INLINE Pack<A> channels(const Element* pixel, int64_t c, Count n) const {
    const Pack<A> x = load(pixel + c, n);
    if constexpr (kInput == PoolInput::kPlain) return x;
    return through(x, load_compute(scale + c), load_compute(bias + c), n);
  }

  // A plane of `size` elements of channel c, converted; `out` has room for a whole last pack.
  RNK_INLINE void plane(const Element* x, int64_t c, int64_t size, A* out) const {
    for (int64_t i = 0; i < size; i += kPack) {
      const Part n{static_cast<int>(std::min<int64_t>(kPack, size - i))};
      Pack<A> v = n.count == kPack ? load(x + i, Full()) : load(x + i, n);
      if constexpr (kInput != PoolInput::kPlain) {
        v = through(v, broadcast(scale[c]), broadcast(bias[c]), n);
      }
      store_compute(out + i, v);
    }
  }
};

// Calls f(reader) for the element type and input path of a forward pooling.
template <typename Params, typename F>
void with_pool_reader(const Params& p, F&& f) {
  with_element(p.shape.dtype, [&](auto element) {
    using Element = decltype(element);
    using A = Compute<Element>;
    const PackedVector<A> scale(p.scale, p.shape.c), bias(p.bias, p.shape.c);
    const auto call = [&](auto input) {
      constexpr PoolInput kInput = decltype(input)::value;
      f(element,
        PoolReader<Element, kInput>{scale.data(), bias.data(), p.act, static_cast<A>(p.slope)});
    };
    if (p.scale == nullptr) {
      call(std::integral_constant<PoolInput, PoolInput::kPlain>());
    } else if (p.act == Act::kRelu) {
      call(std::integral_constant<PoolInput, PoolInput::kRelu>());
    } else {
      call(std::integral_constant<PoolInput, PoolInput::kAnyAct>());
    }
  });
}

// Calls f(c, n, packs) for the channels [begin, end) in runs of kRun packs, then pack by pack: the
// next pixel's channels are far away, and a run reads whole lines in a row of each.
constexpr int kRun = 4;

template <typename F>
RNK_INLINE void for_each_run(int64_t begin, int64_t end, F&& f) {
  int64_t c = begin;
  for (; c + kRun * kPack <= end; c += kRun * kPack)
    f(c, Full(), std::integral_constant<int, kRun>());
  for (; c + kPack <= end; c += kPack) f(c, Full(), std::integral_constant<int, 1>());
  if (c < end) f(c, Part{static_cast<int>(end - c)}, std::integral_constant<int, 1>());
}

// Calls f(c, n) for the packs of the channels [begin, end).
template <typename F>
RNK_INLINE void for_each_pack(int64_t begin, int64_t end, F&& f) {
  int64_t c = begin;
  for (; c + kPack <= end; c += kPack) f(c, Full());
  if (c < end) f(c, Part{static_cast<int>(end - c)});
}

RNK_ISA_END
