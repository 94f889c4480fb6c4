// Compiles the file named by RNK_KERNELS for AMX, in rnk::cpu::amx, where the compiler knows it:
// alone, for kernels that need these tiles, or as the last of foreach_bf16_isa.h.
#include <stdexcept>

#include "bf16_isa.h"
#include "channel_plan.h"
#include "vec_common.h"

#ifndef RNK_ISA_BEGIN
#define RNK_ISA_BEGIN namespace rnk::cpu::RNK_ISA {
#define RNK_ISA_END }
#endif

#if RNK_HAS_AMX
#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((                                                                                \
        target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target( \
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,prefer-vector-width=512")
#endif
#define RNK_ISA amx
#define RNK_VECTOR_BYTES 64
#define RNK_ISA_LEVEL 2
#define RNK_BF16_UNITS 2
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

// Calls a kernel that is compiled for AMX alone.
#if RNK_HAS_AMX
#define RNK_CALL_AMX(function, ...) return amx::function(__VA_ARGS__)
#else
#define RNK_CALL_AMX(function, ...) throw std::logic_error("built without AMX")
#endif
