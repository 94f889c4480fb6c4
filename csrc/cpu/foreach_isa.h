// Compiles the file named by RNK_KERNELS once per instruction set, each in a namespace of its own
// (rnk::cpu::baseline, avx2, avx512), so that one build serves every processor. No include guard:
// a kernel source defines RNK_KERNELS and includes this once, after every other header.
#include "channel_plan.h"
#include "vec_common.h"

#define RNK_ISA_BEGIN namespace rnk::cpu::RNK_ISA {
#define RNK_ISA_END }

// How bf16 is multiplied: 0 converted to fp32, 1 by AVX512-BF16, 2 by AMX (foreach_bf16_isa.h).
#define RNK_BF16_UNITS 0

#define RNK_ISA baseline
#define RNK_VECTOR_BYTES 16
#define RNK_ISA_LEVEL 0
#include "vec_all.h"
#include RNK_KERNELS
#undef RNK_ISA
#undef RNK_VECTOR_BYTES
#undef RNK_ISA_LEVEL

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define RNK_ISA avx2
#define RNK_VECTOR_BYTES 32
#define RNK_ISA_LEVEL 1
#include "vec_all.h"
#include RNK_KERNELS
#undef RNK_ISA
#undef RNK_VECTOR_BYTES
#undef RNK_ISA_LEVEL
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define RNK_ISA avx512
#define RNK_VECTOR_BYTES 64
#define RNK_ISA_LEVEL 2
#include "vec_all.h"
#include RNK_KERNELS
#undef RNK_ISA
#undef RNK_VECTOR_BYTES
#undef RNK_ISA_LEVEL
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

#undef RNK_BF16_UNITS
