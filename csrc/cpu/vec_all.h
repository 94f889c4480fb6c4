// The vector vocabulary of one instruction set, for foreach_isa.h: compiled again for each. Each
// header needs the ones above it.
#include "act.h"
#include "layout.h"
#include "vec.h"
#include "vec_bits.h"
#include "vec_convert.h"
#include "vec_math.h"
