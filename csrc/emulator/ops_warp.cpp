// Exchange between the lanes of a warp: shfl, vote, match, redux, activemask, elect.
#include "block.h"
#include "ops.h"

namespace rnk::emu {
namespace {

// Runs f for each set of lanes that name the same members and are all here; the others wait.
template <class F>
void for_members(Warp& w, const Instr& in, const Operand& o, uint32_t mask, F f) {
  const uint32_t* masks = w.src<uint32_t>(o);
  uint32_t stay = 0;
  for (uint32_t rest = mask; rest;) {
    uint32_t members = masks[__builtin_ctz(rest)], group = 0;
    if (o.kind == Operand::kConstant) group = rest;
    for (uint32_t m = rest & ~group; m; m &= m - 1)
      if (masks[__builtin_ctz(m)] == members) group |= m & -m;
    rest &= ~group;
    if (group & ~members)
      throw Fault{"barrier", "a lane outside the member mask executes a .sync instruction",
                  __builtin_ctz(group & ~members)};
    if (members & w.live & ~group) {
      stay |= group;
      continue;
    }
    w.check_tail(in, members, group);
    w.clock.sync_lanes(group, group == w.live);
    f(group);
  }
  if (stay) w.wait_here(stay);
}

// operand: which one holds the members
template <Handler kGroup, int kOperand>
void synchronised(Warp& w, const Instr& in, uint32_t mask) {
  for_members(w, in, in.ops[kOperand], mask, [&](uint32_t group) { kGroup(w, in, group); });
}

// ops: d, p, a, b, c, members; mode up, down, bfly, idx
void shfl_group(Warp& w, const Instr& in, uint32_t mask) {
  const uint32_t *a = w.src<uint32_t>(in.ops[2]), *b = w.src<uint32_t>(in.ops[3]);
  const uint32_t* c = w.src<uint32_t>(in.ops[4]);
  alignas(64) uint32_t r[32];
  uint32_t in_range = 0;
  for (int lane = 0; lane < 32; ++lane) {
    int bval = b[lane] & 31, clamp = c[lane] & 31, segment = c[lane] >> 8 & 31;
    int limit = (lane & segment) | (clamp & ~segment), low = lane & segment, j = lane;
    bool valid = false;
    switch (in.mode) {
      case 0:
        j = lane - bval;
        valid = j >= limit;
        break;
      case 1:
        j = lane + bval;
        valid = j <= limit;
        break;
      case 2:
        j = lane ^ bval;
        valid = j <= limit;
        break;
      default:
        j = low | (bval & ~segment);
        valid = j <= limit;
        break;
    }
    if (!valid) j = lane;
    // A value taken from a lane that does not take part is undefined: made conspicuous.
    r[lane] = mask >> j & 1 ? a[j] : 0xFFFFDEAD;
    in_range |= static_cast<uint32_t>(valid) << lane;
  }
  if (in.ops[0].kind != Operand::kNone) blend(w.dst<uint32_t>(in.ops[0]), r, mask);
  w.set_predicate(in.ops[1], mask, in_range);
}
void decode_shfl(InstrBuilder& b) {
  bool sync = b.take("sync");
  int mode = b.take_any({"up", "down", "bfly", "idx"});
  if (mode < 0 || !sync) b.fail("needs .sync and a mode");
  b.in.mode = static_cast<uint8_t>(mode);
  b.take_type();
  b.want_args(5, 5);
  b.reg(b.arg(0), 4);
  if (b.arg(0).second.empty())
    b.none();
  else
    b.pred(b.arg(0).second[0]);
  b.sources(1, {Type::kB32, Type::kB32, Type::kB32, Type::kB32});
  b.in.flags |= kSynchronises;
  b.in.run = synchronised<shfl_group, 5>;
}

// ops: d, predicate, members; mode all, any, uni, ballot
void vote_group(Warp& w, const Instr& in, uint32_t mask) {
  uint32_t p = w.predicate(in.ops[1]) & mask;
  if (in.mode == 3) {
    alignas(64) uint32_t r[32];
    for (uint32_t& v : r) v = p;
    return blend(w.dst<uint32_t>(in.ops[0]), r, mask);
  }
  bool all = p == mask, any = p != 0;
  bool result = in.mode == 0 ? all : in.mode == 1 ? any : all || !any;
  w.set_predicate(in.ops[0], mask, result ? ~0u : 0u);
}
void decode_vote(InstrBuilder& b) {
  bool sync = b.take("sync");
  int mode = b.take_any({"all", "any", "uni", "ballot"});
  if (mode < 0 || !sync) b.fail("needs .sync and a mode");
  b.in.mode = static_cast<uint8_t>(mode);
  b.take_type();
  b.want_args(3, 3);
  if (mode == 3)
    b.reg(b.arg(0), 4);
  else
    b.pred(b.arg(0));
  b.pred(b.arg(1));
  b.source(b.arg(2), Type::kB32);
  b.in.flags |= kSynchronises;
  b.in.run = synchronised<vote_group, 2>;
}

// ops: d, p, a, members; mode 0 any, 1 all
void match_group(Warp& w, const Instr& in, uint32_t mask) {
  uint32_t all = 0;
  uint64_t v[32];
  w.read_lanes(in.ops[2], v);
  uint64_t r[32] = {};
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    for (uint32_t other = mask; other; other &= other - 1)
      if (v[__builtin_ctz(other)] == v[i]) r[i] |= other & -other;
    if (r[i] == mask) all |= 1u << i;
    if (in.mode && r[i] != mask) r[i] = 0;
  }
  w.write_lanes(in.ops[0], mask, r);
  w.set_predicate(in.ops[1], mask, all);
}
void decode_match(InstrBuilder& b) {
  bool all = b.take("all"), any = b.take("any");
  if (all == any || !b.take("sync")) b.fail("needs .any or .all, and .sync");
  Type t = b.take_type();
  b.in.mode = all;
  b.want_args(3, 3);
  b.reg(b.arg(0), 4);
  if (b.arg(0).second.empty())
    b.none();
  else
    b.pred(b.arg(0).second[0]);
  b.sources(1, {t, Type::kB32});
  b.in.flags |= kSynchronises;
  b.in.run = synchronised<match_group, 3>;
}

// ops: d, a, members; mode add, min, max, and, or, xor
void redux_group(Warp& w, const Instr& in, uint32_t mask) {
  const uint32_t* a = w.src<uint32_t>(in.ops[1]);
  uint32_t r = a[__builtin_ctz(mask)];
  for (uint32_t rest = mask & (mask - 1); rest; rest &= rest - 1) {
    uint32_t v = a[__builtin_ctz(rest)];
    bool less = in.type == Type::kS32 ? static_cast<int32_t>(v) < static_cast<int32_t>(r) : v < r;
    switch (in.mode) {
      case 0:
        r += v;
        break;
      case 1:
        r = less ? v : r;
        break;
      case 2:
        r = less ? r : v;
        break;
      case 3:
        r &= v;
        break;
      case 4:
        r |= v;
        break;
      default:
        r ^= v;
        break;
    }
  }
  alignas(64) uint32_t out[32];
  for (uint32_t& v : out) v = r;
  blend(w.dst<uint32_t>(in.ops[0]), out, mask);
}
void decode_redux(InstrBuilder& b) {
  b.take("sync");
  int mode = b.take_any({"add", "min", "max", "and", "or", "xor"});
  if (mode < 0) b.fail("unknown operation");
  b.in.mode = static_cast<uint8_t>(mode);
  b.in.type = b.take_type();
  if (is_float(b.in.type)) b.fail("unsupported type");
  b.want_args(3, 3);
  b.reg(b.arg(0), 4);
  b.sources(1, {Type::kB32, Type::kB32});
  b.in.flags |= kSynchronises;
  b.in.run = synchronised<redux_group, 2>;
}

void activemask(Warp& w, const Instr& in, uint32_t mask) {
  alignas(64) uint32_t r[32];
  for (uint32_t& v : r) v = mask;
  blend(w.dst<uint32_t>(in.ops[0]), r, mask);
}
void decode_activemask(InstrBuilder& b) {
  b.take_type();
  b.want_args(1, 1);
  b.reg(b.arg(0), 4);
  b.in.run = activemask;
}

// ops: d, p, members: the lowest member is elected
void elect_group(Warp& w, const Instr& in, uint32_t mask) {
  uint64_t r[32];
  for (uint64_t& v : r) v = static_cast<uint64_t>(__builtin_ctz(mask));
  w.write_lanes(in.ops[0], mask, r);
  w.set_predicate(in.ops[1], mask, mask & -mask);
}
void decode_elect(InstrBuilder& b) {
  b.take("sync");
  b.want_args(2, 2);
  b.reg(b.arg(0), 4);
  if (b.arg(0).second.empty()) b.fail("needs a predicate");
  b.pred(b.arg(0).second[0]);
  b.source(b.arg(1), Type::kB32);
  b.in.flags |= kSynchronises;
  b.in.run = synchronised<elect_group, 2>;
}

}  // namespace

const OpRow kWarpRows[] = {{"shfl", OpClass::kShuffle, decode_shfl},
                           {"vote", OpClass::kShuffle, decode_vote},
                           {"match", OpClass::kShuffle, decode_match},
                           {"redux", OpClass::kShuffle, decode_redux},
                           {"activemask", OpClass::kShuffle, decode_activemask},
                           {"elect", OpClass::kShuffle, decode_elect},
                           {nullptr, OpClass::kShuffle, nullptr}};

}  // namespace rnk::emu
