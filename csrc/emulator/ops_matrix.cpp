// ldmatrix, stmatrix, movmatrix and mma. Fragments of mma follow one rule for every shape: with p
// elements a 32-bit (or f64) register, group g = lane / 4 and thread t = lane % 4, register r holds
// A[g + 8 (r mod 2)][t p + e + 4 p (r div 2)], B[t p + e + 4 p r][g], C[g + 8 (r div 2)][2 t + r
// mod 2].
#include "block.h"
#include "float_formats.h"
#include "matrix_math.h"
#include "memory_access.h"
#include "ops.h"

namespace rnk::emu {
namespace {

void need_full_warp(Warp& w, uint32_t mask, const char* what) {
  if (mask != 0xFFFFFFFF && w.live == mask)
    throw Fault{"barrier", std::string(what) + " by a warp with missing lanes", -1};
}

// ops: registers (vec), address; mode 1 transposes. Lane i of each eight names a row of 16 bytes.
void ldmatrix(Warp& w, const Instr& in, uint32_t mask) {
  if (!w.converge(0xFFFFFFFF, mask)) return;
  need_full_warp(w, mask, "ldmatrix");
  MemoryRequest m;
  m.size = 16;
  m.space = in.space;
  compute_addresses(w, in.ops[in.vec], in.imm, in.space, m.address);
  access_memory(w, m, in.vec == 4 ? 0xFFFFFFFF : (1u << 8 * in.vec) - 1);
  for (int k = 0; k < in.vec; ++k) {
    uint32_t* d = w.dst<uint32_t>(in.ops[k]);
    for (int lane = 0; lane < 32; ++lane) {
      int g = lane / 4, t = lane % 4;
      uint16_t pair[2];
      for (int e = 0; e < 2; ++e) {
        int row = in.mode ? 2 * t + e : g, column = in.mode ? g : 2 * t + e;
        std::memcpy(&pair[e], m.pointer[8 * k + row] + 2 * column, 2);
      }
      d[lane] = static_cast<uint32_t>(pair[1]) << 16 | pair[0];
    }
  }
}

// ops: address, registers (vec)
void stmatrix(Warp& w, const Instr& in, uint32_t mask) {
  if (!w.converge(0xFFFFFFFF, mask)) return;
  need_full_warp(w, mask, "stmatrix");
  alignas(64) char staged[32 * 16] = {};
  MemoryRequest m;
  m.size = 16;
  m.space = in.space;
  m.access = Access::kWrite;
  m.staged = staged;
  compute_addresses(w, in.ops[0], in.imm, in.space, m.address);
  for (int k = 0; k < in.vec; ++k) {
    const uint32_t* s = w.src<uint32_t>(in.ops[1 + k]);
    for (int lane = 0; lane < 32; ++lane) {
      for (int e = 0; e < 2; ++e) {
        int g = lane / 4, c = 2 * (lane % 4) + e;
        int row = in.mode ? c : g, column = in.mode ? g : c;
        auto half = static_cast<uint16_t>(s[lane] >> 16 * e);
        std::memcpy(staged + (8 * k + row) * 16 + 2 * column, &half, 2);
      }
    }
  }
  access_memory(w, m, in.vec == 4 ? 0xFFFFFFFF : (1u << 8 * in.vec) - 1);
}

void decode_matrix_move(InstrBuilder& b) {
  bool is_store = b.statement().opcode[0] == 's';
  if (!b.take("sync") || !b.take("aligned") || !b.take("m8n8")) b.fail("unsupported form");
  int count = b.take_any({"x1", "x2", "x4"});
  if (count < 0) b.fail("needs .x1, .x2 or .x4");
  b.in.vec = static_cast<uint8_t>(1 << count);
  b.in.mode = b.take("trans");
  b.in.space = b.take_space();
  if (b.take_type() != Type::kB16) b.fail("unsupported type");
  b.want_args(2, 2);
  const Arg& data = b.arg(is_store ? 1 : 0);
  if (data.kind != Arg::kVector || data.items.size() != b.in.vec)
    b.fail("vector of the wrong size");
  if (is_store) b.address(b.arg(0));
  for (const Arg& a : data.items) b.reg(a, 4);
  if (!is_store) b.address(b.arg(1));
  b.in.run = is_store ? stmatrix : ldmatrix;
}

// Transposes an 8x8 matrix of 16-bit elements across the warp.
void movmatrix(Warp& w, const Instr& in, uint32_t mask) {
  if (!w.converge(0xFFFFFFFF, mask)) return;
  need_full_warp(w, mask, "movmatrix");
  const uint32_t* a = w.src<uint32_t>(in.ops[1]);
  alignas(64) uint32_t r[32];
  auto element = [&](int row, int column) {
    return a[row * 4 + column / 2] >> 16 * (column & 1) & 0xFFFF;
  };
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4;
    r[lane] = element(2 * t, g) | element(2 * t + 1, g) << 16;
  }
  blend(w.dst<uint32_t>(in.ops[0]), r, mask);
}
void decode_movmatrix(InstrBuilder& b) {
  if (!b.take("sync") || !b.take("aligned") || !b.take("m8n8") || !b.take("trans"))
    b.fail("unsupported form");
  b.take_type();
  b.in.run = movmatrix;
  same_type_operands(b, Type::kB32, 1);
}

struct MmaShape {
  int m, n, k;
  Type d, a, c;
  int a_regs, b_regs, c_regs, d_regs;
};

// Gathers fragment registers into a matrix of doubles.
void load_a(const Warp& w, const Operand* ops, const MmaShape& s, double* out) {
  int p = elements_in_register(s.a);
  for (int r = 0; r < s.a_regs; ++r) {
    for (int lane = 0; lane < 32; ++lane) {
      int row = lane / 4 + (s.m == 16 ? 8 * (r & 1) : 0);
      int column = lane % 4 * p + 4 * p * (s.m == 16 ? r >> 1 : r);
      unpack(w, ops[r], lane, s.a, out + row * s.k + column);
    }
  }
}
void load_b(const Warp& w, const Operand* ops, const MmaShape& s, double* out) {
  int p = elements_in_register(s.a);
  double e[4];
  for (int r = 0; r < s.b_regs; ++r) {
    for (int lane = 0; lane < 32; ++lane) {
      unpack(w, ops[r], lane, s.a, e);
      for (int i = 0; i < p; ++i) out[(lane % 4 * p + i + 4 * p * r) * s.n + lane / 4] = e[i];
    }
  }
}

// C and D: f32, s32 and f64 one element a register, f16 two neighbours.
template <class F>
void each_accumulator(const MmaShape& s, Type t, F f) {
  int p = t == Type::kF16 ? 2 : 1;
  int regs = s.m * s.n / 32 / p;
  for (int r = 0; r < regs; ++r)
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < p; ++e) {
        int i = r * p + e;
        f(r, lane, e, (lane / 4 + 8 * (i >> 1)) * s.n + lane % 4 * 2 + (i & 1));
      }
}

void mma(Warp& w, const Instr& in, uint32_t mask) {
  if (!w.converge(0xFFFFFFFF, mask)) return;
  need_full_warp(w, mask, "mma");
  const auto& s = *static_cast<const MmaShape*>(in.aux);
  alignas(64) double a[16 * 32], b[32 * 8], c[16 * 8];
  const Operand* ops = in.ops + s.d_regs;
  load_a(w, ops, s, a);
  load_b(w, ops + s.a_regs, s, b);
  const Operand* c_ops = ops + s.a_regs + s.b_regs;
  each_accumulator(s, s.c, [&](int r, int lane, int e, int i) {
    c[i] = load_accumulator(w, c_ops[r], lane, e, s.c);
  });
  multiply_add(a, b, c, s.m, s.n, s.k, s.d);
  each_accumulator(s, s.d, [&](int r, int lane, int e, int i) {
    store_accumulator(w, in.ops[r], lane, e, s.d, c[i]);
  });
  ++w.block->counters.mma;
  w.block->counters.mma_multiply_adds += static_cast<uint64_t>(s.m * s.n * s.k);
}

MmaShape take_shape(InstrBuilder& b) {
  std::string_view word = b.next_modifier();
  MmaShape s{};
  if (word == "m16n8k4")
    s.m = 16, s.n = 8, s.k = 4;
  else if (word == "m16n8k8")
    s.m = 16, s.n = 8, s.k = 8;
  else if (word == "m16n8k16")
    s.m = 16, s.n = 8, s.k = 16;
  else if (word == "m8n8k4")
    s.m = 8, s.n = 8, s.k = 4;
  else
    b.fail("unsupported shape");
  return s;
}

void decode_mma(InstrBuilder& b) {
  if (!b.take("sync") || !b.take("aligned")) b.fail("needs .sync.aligned");
  MmaShape s = take_shape(b);
  if (!b.take("row") || !b.take("col")) b.fail("unsupported layout");
  s.d = b.take_type();
  s.a = b.take_type();
  if (b.take_type() != s.a) b.fail("unsupported mix of types");
  s.c = b.take_type();
  bool half = s.a == Type::kF16 || s.a == Type::kBF16;
  bool f64 = s.a == Type::kF64;
  bool ok = s.a == Type::kF16 ? s.m == 16 && s.k >= 8 && (s.d == Type::kF16 || s.d == Type::kF32) &&
                                    (s.c == Type::kF16 || s.c == Type::kF32)
            : s.a == Type::kBF16 ? s.m == 16 && s.k >= 8 && s.d == Type::kF32 && s.c == Type::kF32
            : s.a == Type::kTF32 ? s.m == 16 && s.k <= 8 && s.d == Type::kF32 && s.c == Type::kF32
                                 : f64 && s.d == Type::kF64 && s.c == Type::kF64;
  if (!ok) b.fail("unsupported combination of shape and types");
  int p = half ? 2 : 1;
  s.a_regs = s.m * s.k / 32 / p;
  s.b_regs = s.k * s.n / 32 / p;
  s.c_regs = s.m * s.n / 32 / (s.c == Type::kF16 ? 2 : 1);
  s.d_regs = s.m * s.n / 32 / (s.d == Type::kF16 ? 2 : 1);
  b.want_args(4, 4);
  int counts[4] = {s.d_regs, s.a_regs, s.b_regs, s.c_regs};
  for (size_t i = 0; i < 4; ++i) {
    const Arg& v = b.arg(i);
    bool single = v.kind != Arg::kVector && counts[i] == 1;
    if (!single && (v.kind != Arg::kVector || v.items.size() != static_cast<size_t>(counts[i])))
      b.fail("fragment of the wrong size");
    for (int r = 0; r < counts[i]; ++r) {
      const Arg& item = single ? v : v.items[static_cast<size_t>(r)];
      if (i == 0)
        b.reg(item, f64 ? 8 : 4);
      else
        b.source(item, f64 ? Type::kB64 : Type::kB32);
    }
  }
  b.in.aux = b.decoder().own(s);
  b.in.run = mma;
}

}  // namespace

const OpRow kMatrixRows[] = {{"ldmatrix", OpClass::kMatrixMove, decode_matrix_move},
                             {"stmatrix", OpClass::kMatrixMove, decode_matrix_move},
                             {"movmatrix", OpClass::kMatrixMove, decode_movmatrix},
                             {"mma", OpClass::kMatrix, decode_mma},
                             {nullptr, OpClass::kMatrix, nullptr}};

}  // namespace rnk::emu
