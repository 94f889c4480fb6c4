#include <algorithm>
#include <cstring>

#include "decoder.h"

namespace rnk::emu {

InstrBuilder::InstrBuilder(KernelDecoder& decoder, const Statement& s, Instr& instr)
    : in(instr), decoder_(decoder), s_(s) {
  std::string_view rest = s.opcode;
  size_t dot = rest.find('.');
  while (dot != std::string_view::npos) {
    rest = rest.substr(dot + 1);
    dot = rest.find('.');
    modifiers_.push_back(rest.substr(0, dot));
  }
  taken_.assign(modifiers_.size(), false);
}

void InstrBuilder::fail(const std::string& what) const {
  std::string_view text = decoder_.kernel().module->text;
  for (int line = 1; line < s_.line; ++line) text.remove_prefix(text.find('\n') + 1);
  text = text.substr(0, std::min<size_t>(text.find('\n'), 200));
  throw Error("unsupported", "PTX line " + std::to_string(s_.line) + ": " + what + " in '" +
                                 std::string(s_.opcode) + "': " + std::string(text));
}

bool InstrBuilder::take(std::string_view word) {
  for (size_t i = 0; i < modifiers_.size(); ++i)
    if (!taken_[i] && modifiers_[i] == word) return taken_[i] = true;
  return false;
}

int InstrBuilder::take_any(std::initializer_list<std::string_view> words) {
  int index = 0;
  for (std::string_view w : words) {
    if (take(w)) return index;
    ++index;
  }
  return -1;
}

Type InstrBuilder::peek_type() const {
  for (size_t i = 0; i < modifiers_.size(); ++i)
    if (!taken_[i] && parse_type(modifiers_[i]) != Type::kNone) return parse_type(modifiers_[i]);
  return Type::kNone;
}

Type InstrBuilder::take_type() {
  for (size_t i = 0; i < modifiers_.size(); ++i) {
    if (taken_[i] || parse_type(modifiers_[i]) == Type::kNone) continue;
    taken_[i] = true;
    return parse_type(modifiers_[i]);
  }
  fail("no type");
}

Round InstrBuilder::take_round(Round fallback) {
  if (take("rn")) return Round::kNearestEven;
  if (take("rz")) return Round::kZero;
  if (take("rm")) return Round::kDown;
  if (take("rp")) return Round::kUp;
  if (take("rna")) return Round::kNearestAway;
  return fallback;
}

Space InstrBuilder::take_space() {
  if (take("global")) return Space::kGlobal;
  if (take_any({"shared", "shared::cta"}) >= 0) return Space::kShared;
  if (take("local")) return Space::kLocal;
  if (take("const")) return Space::kConst;
  if (take_any({"param", "param::entry", "param::func"}) >= 0) return Space::kParam;
  return Space::kGeneric;
}

bool InstrBuilder::take_scope() {
  int scope = take_any({"cta", "cluster", "gl", "gpu", "sys"});
  return scope == 0 || scope == 1;
}

void InstrBuilder::take_cache_hints() {
  take_any({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  take("nc");
  take("L2::cache_hint");
  take_any({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
            "L1::no_allocate"});
  take_any({"L2::evict_normal", "L2::evict_first", "L2::evict_last"});
  take_any({"L2::64B", "L2::128B", "L2::256B"});
}

std::string_view InstrBuilder::next_modifier() {
  for (size_t i = 0; i < modifiers_.size(); ++i) {
    if (taken_[i]) continue;
    taken_[i] = true;
    return modifiers_[i];
  }
  return {};
}

void InstrBuilder::finish() {
  for (size_t i = 0; i < modifiers_.size(); ++i)
    if (!taken_[i]) fail("unsupported modifier '." + std::string(modifiers_[i]) + "'");
}

const Arg& InstrBuilder::arg(size_t i) const {
  if (i >= s_.args.size()) fail("too few operands");
  return s_.args[i];
}

void InstrBuilder::want_args(size_t low, size_t high) const {
  if (s_.args.size() < low || s_.args.size() > high) fail("wrong number of operands");
}

void InstrBuilder::push(Operand op) { decoder_.kernel().operands.push_back(op); }

void InstrBuilder::none() { push(Operand{}); }

void InstrBuilder::reg(const Arg& a, int width) {
  if (a.kind == Arg::kSink) return none();
  if (a.kind != Arg::kRegister) fail("expected a register");
  Operand op = decoder_.register_operand(static_cast<int>(a.value));
  if (op.kind != Operand::kRegister || op.width != width) fail("register of the wrong size");
  push(op);
}

void InstrBuilder::any_width(const Arg& a, int at_least) {
  if (a.kind == Arg::kSink) return none();
  if (a.kind != Arg::kRegister) return source(a, at_least == 8 ? Type::kB64 : Type::kB32);
  Operand op = decoder_.register_operand(static_cast<int>(a.value));
  if (op.kind != Operand::kRegister || op.width < at_least) fail("register of the wrong size");
  push(op);
}

void InstrBuilder::pred(const Arg& a) {
  if (a.kind == Arg::kSink) return none();
  if (a.kind == Arg::kImmediate) return push(decoder_.constant(a.value ? 0xFFFFFFFF : 0, 4));
  if (a.kind != Arg::kRegister) fail("expected a predicate");
  Operand op = decoder_.register_operand(static_cast<int>(a.value));
  if (op.kind != Operand::kPredicate) fail("expected a predicate");
  op.negated = a.negated;
  push(op);
}

void InstrBuilder::source(const Arg& a, Type t) {
  int width = std::max(2, size_of(t));
  uint64_t bits = static_cast<uint64_t>(a.value);
  switch (a.kind) {
    case Arg::kRegister:
      return reg(a, width);
    case Arg::kSpecial:
      return push(decoder_.special(a.name, width));
    case Arg::kImmediate:
      if (is_float(t) && size_of(t) >= 4 && t != Type::kF16x2 && t != Type::kBF16x2 && a.value)
        fail("integer immediate for a floating-point operand");
      return push(decoder_.constant(bits, width));
    case Arg::kFloat32:
    case Arg::kFloat64: {
      if (!is_float(t) && !is_bits(t)) fail("floating-point immediate for an integer operand");
      double d;
      float f;
      if (a.kind == Arg::kFloat32) {
        auto word = static_cast<uint32_t>(bits);
        std::memcpy(&f, &word, 4);
        d = f;
      } else {
        std::memcpy(&d, &bits, 8);
        f = static_cast<float>(d);
      }
      if (width == 8)
        std::memcpy(&bits, &d, 8);
      else
        bits = 0, std::memcpy(&bits, &f, 4);
      if (width < 4) fail("floating-point immediate for a 16-bit operand");
      return push(decoder_.constant(bits, width));
    }
    case Arg::kSymbol: {
      uint64_t address;
      if (!decoder_.symbol_address(a.name, &address)) fail("unknown symbol '" + a.name + "'");
      return push(decoder_.constant(address + static_cast<uint64_t>(a.value), width));
    }
    default:
      fail("unexpected operand");
  }
}

void InstrBuilder::vector(const Arg& a, int width) {
  if (a.kind != Arg::kVector) return any_width(a, width);
  for (const Arg& item : a.items) any_width(item, width);
}

// Address operands are read as 32 or 64 bits a lane by Operand::width.
void InstrBuilder::address(const Arg& a) {
  if (a.kind != Arg::kAddress) fail("expected an address");
  in.imm += a.value;
  if (a.items.empty()) return push(decoder_.constant(0, 8));
  if (a.items[0].kind != Arg::kRegister) return source(a.items[0], Type::kB64);
  Operand op = decoder_.register_operand(static_cast<int>(a.items[0].value));
  if (op.kind != Operand::kRegister || op.width < 4) fail("address register of the wrong size");
  push(op);
}

void InstrBuilder::sources(size_t first, std::initializer_list<Type> types) {
  for (Type t : types) source(arg(first++), t);
}

}  // namespace rnk::emu
