// f16, bf16 and their x2 forms, each result rounded once.
#pragma once
#include "decoder.h"

namespace rnk::emu {

// operation: add, sub, mul, fma as numbered in ops_float.cpp
void decode_half_arithmetic(InstrBuilder& b, int operation, Type t, int sources, bool ftz,
                            bool sat);
void decode_half_min_max(InstrBuilder& b, Type t);  // in.mode 1 is min
void decode_half_function(InstrBuilder& b, Type t, double (*f)(double));

}  // namespace rnk::emu
