// Pack<A>: kPack numbers of compute type A in native vectors, with arithmetic and selection.
RNK_ISA_BEGIN

typedef float FloatVec __attribute__((vector_size(RNK_VECTOR_BYTES)));
typedef double DoubleVec __attribute__((vector_size(RNK_VECTOR_BYTES)));
typedef int32_t IntVec __attribute__((vector_size(RNK_VECTOR_BYTES)));
typedef int64_t LongVec __attribute__((vector_size(RNK_VECTOR_BYTES)));
typedef uint32_t UintVec __attribute__((vector_size(RNK_VECTOR_BYTES)));
typedef uint16_t ShortVec __attribute__((vector_size(RNK_VECTOR_BYTES / 2)));

template <typename A>
struct Pack {
  using Vec = std::conditional_t<std::is_same_v<A, double>, DoubleVec, FloatVec>;
  using IntLanes = std::conditional_t<std::is_same_v<A, double>, LongVec, IntVec>;
  static constexpr int kLanes = RNK_VECTOR_BYTES / sizeof(A);
  static constexpr int kParts = kPack / kLanes;
  Vec part[kParts];
};

// Applies an expression on native vectors to every part of a pack.
#define RNK_EACH_PART(result, expression)                                                \
  do {                                                                                   \
    RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i)(result).part[i] = (expression); \
  } while (false)

template <typename A>
RNK_INLINE Pack<A> broadcast(A value) {
  Pack<A> out;
  RNK_EACH_PART(out, value - (typename Pack<A>::Vec){});
  return out;
}

template <typename A>
RNK_INLINE Pack<A> operator+(Pack<A> a, Pack<A> b) {
  RNK_EACH_PART(a, a.part[i] + b.part[i]);
  return a;
}

template <typename A>
RNK_INLINE Pack<A> operator-(Pack<A> a, Pack<A> b) {
  RNK_EACH_PART(a, a.part[i] - b.part[i]);
  return a;
}

template <typename A>
RNK_INLINE Pack<A> operator*(Pack<A> a, Pack<A> b) {
  RNK_EACH_PART(a, a.part[i] * b.part[i]);
  return a;
}

template <typename A>
RNK_INLINE Pack<A> operator/(Pack<A> a, Pack<A> b) {
  RNK_EACH_PART(a, a.part[i] / b.part[i]);
  return a;
}

// a * b + c, fused where the instruction set has it.
template <typename A>
RNK_INLINE Pack<A> multiply_add(Pack<A> a, Pack<A> b, Pack<A> c) {
  RNK_EACH_PART(c, a.part[i] * b.part[i] + c.part[i]);
  return c;
}

// max(x, 0) that keeps NaN.
template <typename A>
RNK_INLINE Pack<A> positive_part(Pack<A> x) {
  RNK_EACH_PART(x, x.part[i] < 0 ? (typename Pack<A>::Vec){} : x.part[i]);
  return x;
}

// Makes x come from a register. Else a load that only a selection uses becomes a masked load, which
// waits for its mask and is not prefetched: the backward kernels took 1.6 times as long.
template <typename A>
RNK_INLINE void pin(Pack<A>& x) {
#if defined(__x86_64__)
  RNK_UNROLL for (int i = 0; i < Pack<A>::kParts; ++i) asm("" : "+v"(x.part[i]));
#endif
}

// x > 0 ? a : b. NaN is not greater.
template <typename A>
RNK_INLINE Pack<A> where_positive(Pack<A> x, Pack<A> a, Pack<A> b) {
  pin(a);
  RNK_EACH_PART(a, x.part[i] > 0 ? a.part[i] : b.part[i]);
  return a;
}

template <typename A>
RNK_INLINE Pack<A> load_compute(const A* p) {
  Pack<A> out;
  std::memcpy(&out, p, sizeof(out));
  return out;
}

template <typename A>
RNK_INLINE void store_compute(A* p, const Pack<A>& x) {
  std::memcpy(p, &x, sizeof(x));
}

RNK_ISA_END
