// Which units that multiply bf16 the compiler knows, and the choice between the kernels of
// foreach_bf16_isa.h.
#pragma once

#include "isa.h"

#if defined(__x86_64__) && __has_include(<avx512bf16intrin.h>)
#define RNK_HAS_AVX512_BF16 1
#else
#define RNK_HAS_AVX512_BF16 0
#endif

#if RNK_HAS_AVX512_BF16 && defined(__linux__) && __has_include(<amxbf16intrin.h>)
#define RNK_HAS_AMX 1
#else
#define RNK_HAS_AMX 0
#endif

#if RNK_HAS_AVX512_BF16
#define RNK_IF_AVX512_BF16(function, ...)                         \
  if (::rnk::cpu::active_isa() >= ::rnk::cpu::Isa::kAvx512Bf16) { \
    return avx512_bf16::function(__VA_ARGS__);                    \
  }
#else
#define RNK_IF_AVX512_BF16(function, ...)
#endif

#if RNK_HAS_AMX
#define RNK_IF_AMX(function, ...) \
  if (::rnk::cpu::active_isa() == ::rnk::cpu::Isa::kAmx) return amx::function(__VA_ARGS__);
#else
#define RNK_IF_AMX(function, ...)
#endif

// RNK_CALL_BEST_ISA for those kernels.
#define RNK_CALL_BEST_BF16_ISA(function, ...) \
  RNK_IF_AMX(function, __VA_ARGS__)           \
  RNK_IF_AVX512_BF16(function, __VA_ARGS__)   \
  RNK_CALL_BEST_ISA(function, __VA_ARGS__)
