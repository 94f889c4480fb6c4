// Applies a scalar function to the lanes of operand vectors: ops[0] = f(ops[1], ...).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "decoder.h"
#include "program.h"
#include "warp.h"

namespace rnk::emu {

template <class D>
inline void blend(D* d, const D* r, uint32_t mask) {
  if (mask == 0xFFFFFFFF) {
    std::memcpy(d, r, 32 * sizeof(D));
    return;
  }
  for (int i = 0; i < 32; ++i) d[i] = mask >> i & 1 ? r[i] : d[i];
}

template <class D, class A, class F>
inline void map1(Warp& w, const Instr& in, uint32_t mask, F f) {
  const A* a = w.src<A>(in.ops[1]);
  alignas(64) D r[32];
  for (int i = 0; i < 32; ++i) r[i] = f(a[i]);
  blend(w.dst<D>(in.ops[0]), r, mask);
}

template <class D, class A, class B, class F>
inline void map2(Warp& w, const Instr& in, uint32_t mask, F f) {
  const A* a = w.src<A>(in.ops[1]);
  const B* b = w.src<B>(in.ops[2]);
  alignas(64) D r[32];
  for (int i = 0; i < 32; ++i) r[i] = f(a[i], b[i]);
  blend(w.dst<D>(in.ops[0]), r, mask);
}

template <class D, class A, class B, class C, class F>
inline void map3(Warp& w, const Instr& in, uint32_t mask, F f) {
  const A* a = w.src<A>(in.ops[1]);
  const B* b = w.src<B>(in.ops[2]);
  const C* c = w.src<C>(in.ops[3]);
  alignas(64) D r[32];
  for (int i = 0; i < 32; ++i) r[i] = f(a[i], b[i], c[i]);
  blend(w.dst<D>(in.ops[0]), r, mask);
}

// Handlers of an Op struct with a static template run(T...), one a C++ type.
template <class Op, class T>
void exec1(Warp& w, const Instr& in, uint32_t mask) {
  map1<T, T>(w, in, mask, [](T a) { return static_cast<T>(Op::run(a)); });
}
template <class Op, class T>
void exec2(Warp& w, const Instr& in, uint32_t mask) {
  map2<T, T, T>(w, in, mask, [](T a, T b) { return static_cast<T>(Op::run(a, b)); });
}
template <class Op, class T>
void exec3(Warp& w, const Instr& in, uint32_t mask) {
  map3<T, T, T, T>(w, in, mask, [](T a, T b, T c) { return static_cast<T>(Op::run(a, b, c)); });
}

// Calls f with a value of the C++ integer type for t; false when t is no such type.
template <class F>
bool with_integer(Type t, F f) {
  switch (t) {
    case Type::kU16:
    case Type::kB16:
      return f(uint16_t{}), true;
    case Type::kU32:
    case Type::kB32:
      return f(uint32_t{}), true;
    case Type::kU64:
    case Type::kB64:
      return f(uint64_t{}), true;
    case Type::kS16:
      return f(int16_t{}), true;
    case Type::kS32:
      return f(int32_t{}), true;
    case Type::kS64:
      return f(int64_t{}), true;
    default:
      return false;
  }
}

// The unsigned type as wide as t.
template <class F>
bool with_bits(Type t, F f) {
  switch (size_of(t)) {
    case 2:
      return f(uint16_t{}), true;
    case 4:
      return f(uint32_t{}), true;
    case 8:
      return f(uint64_t{}), true;
    default:
      return false;
  }
}

// Common operand pattern: d of width(t), then n sources of type t.
inline void same_type_operands(InstrBuilder& b, Type t, int sources) {
  b.want_args(1 + static_cast<size_t>(sources), 1 + static_cast<size_t>(sources));
  b.in.type = t;
  b.reg(b.arg(0), std::max(2, size_of(t)));
  for (int i = 1; i <= sources; ++i) b.source(b.arg(static_cast<size_t>(i)), t);
}

}  // namespace rnk::emu
