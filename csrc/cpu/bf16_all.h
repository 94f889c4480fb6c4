// The vocabulary of the bf16 convolution kernels of one instruction set, on top of vec_all.h.
// clang-format off: each header needs the ones above it.
#include "conv_direct_all.h"
#include "bf16_tile.h"
#include "bf16_pack.h"
#include "bf16_rows.h"
