// The vector vocabulary of one instruction set, for foreach_isa.h: compiled again for each.
// clang-format off: each header needs the ones above it.
#include "vec.h"
#include "vec_convert.h"
#include "vec_bits.h"
#include "vec_math.h"
#include "act.h"
#include "layout.h"
