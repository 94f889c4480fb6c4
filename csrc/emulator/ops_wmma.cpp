// wmma.load, wmma.store and wmma.mma. PTX leaves the fragment layout open; here lane l holds the
// q = size / 32 consecutive row-major elements from l q on, repeated where f16 fragments are
// larger.
#include "block.h"
#include "float_formats.h"
#include "matrix_math.h"
#include "memory_access.h"
#include "ops.h"

namespace rnk::emu {
namespace {

struct Fragment {
  int rows = 0, columns = 0;
  Type type = Type::kNone;
  int registers = 0;
  int per_lane() const { return rows * columns / 32; }
  int pack() const { return type == Type::kF16 || type == Type::kBF16 ? 2 : 1; }
};

struct Wmma {
  int m = 0, n = 0, k = 0;
  Fragment a, b, c, d;
  bool column_major = false, has_stride = false;
};

bool full_warp(Warp& w, uint32_t mask) {
  if (!w.converge(0xFFFFFFFF, mask)) return false;
  if (mask != 0xFFFFFFFF) throw Fault{"barrier", "wmma by a warp with missing lanes", -1};
  return true;
}

// Address of element i of each lane.
void element_addresses(const Warp& w, const Operand& base, const Operand& stride, const Instr& in,
                       const Fragment& f, int i, uint64_t* address) {
  const auto& x = *static_cast<const Wmma*>(in.aux);
  compute_addresses(w, base, in.imm, in.space, address);
  for (int lane = 0; lane < 32; ++lane) {
    int e = lane * f.per_lane() + i, row = e / f.columns, column = e % f.columns;
    int64_t step = x.has_stride     ? static_cast<int32_t>(w.src<uint32_t>(stride)[lane])
                   : x.column_major ? f.rows
                                    : f.columns;
    int64_t at = x.column_major ? column * step + row : row * step + column;
    address[lane] +=
        static_cast<uint64_t>(at * size_of(f.type == Type::kTF32 ? Type::kF32 : f.type));
  }
}

// ops: registers, address, stride
void wmma_load(Warp& w, const Instr& in, uint32_t mask) {
  if (!full_warp(w, mask)) return;
  const Fragment& f = static_cast<const Wmma*>(in.aux)->d;
  int size = size_of(f.type), total = f.registers * f.pack();
  for (int i = 0; i < f.per_lane(); ++i) {
    MemoryRequest m;
    m.size = static_cast<uint32_t>(size);
    m.space = in.space;
    element_addresses(w, in.ops[f.registers], in.ops[f.registers + 1], in, f, i, m.address);
    access_memory(w, m, mask);
    for (int copy = i; copy < total; copy += f.per_lane()) {
      char* d = w.dst<char>(in.ops[copy / f.pack()]);
      for (int lane = 0; lane < 32; ++lane)
        std::memcpy(d + (lane * f.pack() + copy % f.pack()) * size, m.pointer[lane],
                    static_cast<size_t>(size));
    }
  }
}

// ops: address, registers, stride
void wmma_store(Warp& w, const Instr& in, uint32_t mask) {
  if (!full_warp(w, mask)) return;
  const Fragment& f = static_cast<const Wmma*>(in.aux)->d;
  int size = size_of(f.type);
  char staged[32 * 8];
  for (int i = 0; i < f.per_lane(); ++i) {
    MemoryRequest m;
    m.size = static_cast<uint32_t>(size);
    m.space = in.space;
    m.access = Access::kWrite;
    m.staged = staged;
    const char* s = w.src<char>(in.ops[1 + i / f.pack()]);
    for (int lane = 0; lane < 32; ++lane)
      std::memcpy(staged + lane * size, s + (lane * f.pack() + i % f.pack()) * size,
                  static_cast<size_t>(size));
    element_addresses(w, in.ops[0], in.ops[f.registers + 1], in, f, i, m.address);
    access_memory(w, m, mask);
  }
}

void load_fragment(const Warp& w, const Operand* ops, const Fragment& f, double* out) {
  for (int i = 0; i < f.per_lane(); ++i)
    for (int lane = 0; lane < 32; ++lane) {
      double e[2];
      unpack(w, ops[i / f.pack()], lane, f.type, e);
      out[lane * f.per_lane() + i] = e[i % f.pack()];
    }
}

void wmma_mma(Warp& w, const Instr& in, uint32_t mask) {
  if (!full_warp(w, mask)) return;
  const auto& x = *static_cast<const Wmma*>(in.aux);
  alignas(64) double a[512], b[512], c[256];
  const Operand* ops = in.ops + x.d.registers;
  load_fragment(w, ops, x.a, a);
  load_fragment(w, ops += x.a.registers, x.b, b);
  ops += x.b.registers;
  int q = x.c.per_lane();
  for (int i = 0; i < q; ++i)
    for (int lane = 0; lane < 32; ++lane)
      c[lane * q + i] = load_accumulator(w, ops[i / x.c.pack()], lane, i % x.c.pack(), x.c.type);
  multiply_add(a, b, c, x.m, x.n, x.k, x.d.type);
  for (int i = 0; i < q; ++i)
    for (int lane = 0; lane < 32; ++lane)
      store_accumulator(w, in.ops[i / x.d.pack()], lane, i % x.d.pack(), x.d.type, c[lane * q + i]);
  ++w.block->counters.mma;
  w.block->counters.mma_multiply_adds += static_cast<uint64_t>(x.m * x.n * x.k);
}

void take_wmma_shape(InstrBuilder& b, Wmma& x) {
  int s = b.take_any({"m16n16k16", "m32n8k16", "m8n32k16", "m16n16k8", "m8n8k4"});
  if (s < 0) b.fail("unsupported shape");
  static constexpr int kShapes[5][3] = {
      {16, 16, 16}, {32, 8, 16}, {8, 32, 16}, {16, 16, 8}, {8, 8, 4}};
  x.m = kShapes[s][0], x.n = kShapes[s][1], x.k = kShapes[s][2];
}

Fragment fragment(InstrBuilder& b, const Wmma& x, char which, Type t) {
  Fragment f;
  f.rows = which == 'b' ? x.k : x.m;
  f.columns = which == 'a' ? x.k : x.n;
  f.type = t;
  bool ok = which == 'a' || which == 'b' ? (t == Type::kF16 || t == Type::kBF16) ? x.k == 16
                                           : t == Type::kTF32 ? x.k == 8
                                                              : t == Type::kF64 && x.k == 4
            : t == Type::kF64 ? x.k == 4
                              : (t == Type::kF32 && x.k >= 8) || (t == Type::kF16 && x.k == 16);
  if (!ok) b.fail("unsupported combination of shape and type");
  f.registers = f.per_lane() / f.pack();
  if (t == Type::kF16 && which != 'c' && which != 'd') f.registers = 8;
  return f;
}

void operands(InstrBuilder& b, const Arg& v, const Fragment& f) {
  bool single = v.kind != Arg::kVector && f.registers == 1;
  if (!single && (v.kind != Arg::kVector || v.items.size() != static_cast<size_t>(f.registers)))
    b.fail("fragment of the wrong size");
  for (int r = 0; r < f.registers; ++r)
    b.reg(single ? v : v.items[static_cast<size_t>(r)], f.type == Type::kF64 ? 8 : 4);
}

void decode_move(InstrBuilder& b, bool is_store) {
  Wmma x;
  int which = b.take_any({"a", "b", "c", "d"});
  if (which < 0 || !b.take("sync") || !b.take("aligned")) b.fail("unsupported form");
  int layout = b.take_any({"row", "col"});
  if (layout < 0) b.fail("needs .row or .col");
  x.column_major = layout == 1;
  take_wmma_shape(b, x);
  b.in.space = b.take_space();
  x.d = fragment(b, x, "abcd"[which], b.take_type());
  b.want_args(2, 3);
  x.has_stride = b.arg_count() == 3;
  if (is_store) b.address(b.arg(0));
  operands(b, b.arg(is_store ? 1 : 0), x.d);
  if (!is_store) b.address(b.arg(1));
  if (x.has_stride)
    b.source(b.arg(2), Type::kB32);
  else
    b.none();
  b.in.aux = b.decoder().own(x);
  b.in.cls = OpClass::kMatrixMove;
  b.in.run = is_store ? wmma_store : wmma_load;
}

void decode_wmma(InstrBuilder& b) {
  if (b.take("load")) return decode_move(b, false);
  if (b.take("store")) return decode_move(b, true);
  if (!b.take("mma") || !b.take("sync") || !b.take("aligned")) b.fail("unsupported form");
  Wmma x;
  if (b.take_any({"row", "col"}) < 0 || b.take_any({"row", "col"}) < 0) b.fail("needs two layouts");
  take_wmma_shape(b, x);
  Type types[4];
  int n = 0;
  while (n < 4 && b.peek_type() != Type::kNone) types[n++] = b.take_type();
  if (n != 2 && n != 4) b.fail("unsupported types");
  Type ab = n == 2 ? Type::kF16 : types[1];
  if (n == 4 && types[2] != ab) b.fail("unsupported mix of types");
  b.take("rn");
  x.d = fragment(b, x, 'd', types[0]);
  x.a = fragment(b, x, 'a', ab);
  x.b = fragment(b, x, 'b', ab);
  x.c = fragment(b, x, 'c', types[n - 1]);
  b.want_args(4, 4);
  operands(b, b.arg(0), x.d);
  operands(b, b.arg(1), x.a);
  operands(b, b.arg(2), x.b);
  operands(b, b.arg(3), x.c);
  b.in.aux = b.decoder().own(x);
  b.in.run = wmma_mma;
}

}  // namespace

const OpRow kWmmaRows[] = {{"wmma", OpClass::kMatrix, decode_wmma},
                           {nullptr, OpClass::kMatrix, nullptr}};

}  // namespace rnk::emu
