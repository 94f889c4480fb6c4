// The instruction sets that the kernels are compiled for, and the choice between them at run time.
#pragma once

namespace rnk::cpu {

// The last two differ from kAvx512 in how bf16 is multiplied, and kAmx in convolutions of fp32
// (conv_split.h).
enum class Isa : int { kBaseline, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// The best that processor, system and compiler have, at most RNK_CPU_ISA, a name by isa_name. Read
// once.
Isa active_isa();

const char* isa_name(Isa isa);

}  // namespace rnk::cpu

// Calls `function(...)` of the active instruction set; the kernels come from foreach_isa.h.
#if defined(__x86_64__)
#define RNK_CALL_BEST_ISA(function, ...)      \
  switch (::rnk::cpu::active_isa()) {         \
    case ::rnk::cpu::Isa::kBaseline:          \
      return baseline::function(__VA_ARGS__); \
    case ::rnk::cpu::Isa::kAvx2:              \
      return avx2::function(__VA_ARGS__);     \
    default:                                  \
      return avx512::function(__VA_ARGS__);   \
  }
#else
#define RNK_CALL_BEST_ISA(function, ...) return baseline::function(__VA_ARGS__)
#endif
