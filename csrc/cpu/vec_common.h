// What the vector code of all instruction sets shares: element types and the size of a pack.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "../common/dtype.h"
#include "parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
// Vectors never cross a call, since every helper is inlined; and GCC 12 takes the undefined vectors
// inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define RNK_INLINE inline __attribute__((always_inline))

#if defined(__clang__)
#define RNK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define RNK_UNROLL _Pragma("GCC unroll 32")
#endif

namespace rnk::cpu {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Type that arithmetic on an element is done in: fp32, or fp64 for fp64.
template <typename Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

// Neighbours in memory that one step handles, whatever the instruction set: two bytes of a bit
// mask.
constexpr int kPack = 16;

// How many of them exist. Full is known at compile time; Part ends a row or a tensor.
struct Full {
  static constexpr int count = kPack;
};
struct Part {
  int count;
};

// Calls f(Element()) for the element type of a dtype.
template <typename F>
void with_element(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(float());
    case DType::kFloat64:
      return f(double());
    case DType::kFloat16:
      return f(Half());
    case DType::kBFloat16:
      return f(BFloat16());
  }
}

}  // namespace rnk::cpu
