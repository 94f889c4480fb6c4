// The opcode tables; each ends with a row without a name.
#pragma once
#include <type_traits>

#include "decoder.h"
#include "lanes.h"

namespace rnk::emu {

extern const OpRow kIntegerRows[], kLogicRows[], kFloatRows[], kConvertRows[], kMoveRows[],
    kMemoryRows[], kAtomicRows[], kAsyncRows[], kWarpRows[], kControlRows[], kBarrierRows[],
    kMatrixRows[], kWmmaRows[];

// Float and packed forms of opcodes whose rows stand with the integers.
void decode_float_add(InstrBuilder& b);
void decode_float_sub(InstrBuilder& b);
void decode_float_mul(InstrBuilder& b);
void decode_float_fma(InstrBuilder& b);
void decode_float_div(InstrBuilder& b);
void decode_float_min(InstrBuilder& b);
void decode_float_max(InstrBuilder& b);
void decode_float_abs(InstrBuilder& b);
void decode_float_neg(InstrBuilder& b);
void decode_packed16(InstrBuilder& b);  // add, min, max .u16x2/.s16x2

}  // namespace rnk::emu
