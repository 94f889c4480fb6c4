// The vocabulary of the convolution kernels of one instruction set, on top of vec_all.h.
// clang-format off: each header needs the ones above it.
#include "lanes.h"
#include "gemm_tile.h"
#include "conv_epilogue.h"
#include "conv_prologue.h"
