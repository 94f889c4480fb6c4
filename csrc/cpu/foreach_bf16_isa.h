// foreach_isa.h, and once more for each unit that multiplies bf16 (rnk::cpu::avx512_bf16, amx): for
// kernels whose inner loop is such a product. Compilers that know a unit not have no pass for it.
#include "bf16_isa.h"
#include "foreach_isa.h"

#if RNK_HAS_AVX512_BF16
#if defined(__clang__)
#pragma clang attribute push(                                                               \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target( \
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")
#endif
#define RNK_ISA avx512_bf16
#define RNK_VECTOR_BYTES 64
#define RNK_ISA_LEVEL 2
#define RNK_BF16_UNITS 1
#include "vec_all.h"
#include RNK_KERNELS
#undef RNK_ISA
#undef RNK_VECTOR_BYTES
#undef RNK_ISA_LEVEL
#undef RNK_BF16_UNITS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#include "foreach_amx.h"
