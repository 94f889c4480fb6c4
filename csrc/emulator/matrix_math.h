// Arithmetic of the tensor-core instructions: products exact in double, each sum rounded once to
// the accumulator type. The hardware truncates inside a step, so its low bits may differ.
#pragma once
#include "float_formats.h"
#include "warp.h"

namespace rnk::emu {

inline int elements_in_register(Type t) { return t == Type::kF16 || t == Type::kBF16 ? 2 : 1; }

// tf32 ignores the low 13 bits, as the hardware does.
inline float tf32_value(uint32_t bits) { return bits_float(bits & 0xFFFFE000); }

inline void unpack(const Warp& w, const Operand& o, int lane, Type t, double* out) {
  if (t == Type::kF64) {
    out[0] = w.src<double>(o)[lane];
    return;
  }
  uint32_t v = w.src<uint32_t>(o)[lane];
  if (t == Type::kTF32) {
    out[0] = tf32_value(v);
  } else if (t == Type::kF16) {
    out[0] = half_to_float(static_cast<uint16_t>(v));
    out[1] = half_to_float(static_cast<uint16_t>(v >> 16));
  } else {
    out[0] = bf16_to_float(static_cast<uint16_t>(v));
    out[1] = bf16_to_float(static_cast<uint16_t>(v >> 16));
  }
}

inline double load_accumulator(const Warp& w, const Operand& o, int lane, int part, Type t) {
  if (t == Type::kF64) return w.src<double>(o)[lane];
  if (t == Type::kF32) return w.src<float>(o)[lane];
  return half_to_float(static_cast<uint16_t>(w.src<uint32_t>(o)[lane] >> 16 * part));
}

inline void store_accumulator(Warp& w, const Operand& o, int lane, int part, Type t, double v) {
  if (t == Type::kF64) {
    w.dst<double>(o)[lane] = v;
  } else if (t == Type::kF32) {
    auto f = static_cast<float>(v);
    w.dst<float>(o)[lane] = f == f ? f : bits_float(0x7FFFFFFF);
  } else {
    uint32_t& d = w.dst<uint32_t>(o)[lane];
    uint32_t h = float_to_half(to_float_odd(v));
    d = part ? (d & 0xFFFF) | h << 16 : (d & 0xFFFF0000) | h;
  }
}

// c[m][n] += a[m][k] b[k][n]; f64 by a chain of fused multiply-adds in k order.
void multiply_add(const double* a, const double* b, double* c, int m, int n, int k, Type d);

}  // namespace rnk::emu
