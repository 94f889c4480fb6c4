// PTX fundamental types and state spaces.
#pragma once
#include <cstdint>
#include <string_view>

namespace rnk::emu {

enum class Type : uint8_t {
  kNone,
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBF16,
  kBF16x2,
  kTF32,
  kF32,
  kF64,
  kU16x2,
  kS16x2,
};

enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kConst, kParam };

enum class Round : uint8_t { kNearestEven, kZero, kDown, kUp, kNearestAway };

inline int size_of(Type t) {
  switch (t) {
    case Type::kB8:
    case Type::kU8:
    case Type::kS8:
      return 1;
    case Type::kB16:
    case Type::kU16:
    case Type::kS16:
    case Type::kF16:
    case Type::kBF16:
      return 2;
    case Type::kB64:
    case Type::kU64:
    case Type::kS64:
    case Type::kF64:
      return 8;
    case Type::kB128:
      return 16;
    case Type::kNone:
      return 0;
    default:
      return 4;
  }
}

inline bool is_signed(Type t) { return t >= Type::kS8 && t <= Type::kS64; }
inline bool is_bits(Type t) { return t >= Type::kB8 && t <= Type::kB128; }
inline bool is_float(Type t) { return t >= Type::kF16 && t <= Type::kF64; }

// kNone when the word is not a type.
inline Type parse_type(std::string_view s) {
  struct Row {
    std::string_view name;
    Type type;
  };
  static constexpr Row kRows[] = {
      {"pred", Type::kPred},   {"b8", Type::kB8},      {"b16", Type::kB16},
      {"b32", Type::kB32},     {"b64", Type::kB64},    {"b128", Type::kB128},
      {"u8", Type::kU8},       {"u16", Type::kU16},    {"u32", Type::kU32},
      {"u64", Type::kU64},     {"s8", Type::kS8},      {"s16", Type::kS16},
      {"s32", Type::kS32},     {"s64", Type::kS64},    {"f16", Type::kF16},
      {"f16x2", Type::kF16x2}, {"bf16", Type::kBF16},  {"bf16x2", Type::kBF16x2},
      {"tf32", Type::kTF32},   {"f32", Type::kF32},    {"f64", Type::kF64},
      {"u16x2", Type::kU16x2}, {"s16x2", Type::kS16x2}};
  for (const Row& row : kRows)
    if (row.name == s) return row.type;
  return Type::kNone;
}

}  // namespace rnk::emu
