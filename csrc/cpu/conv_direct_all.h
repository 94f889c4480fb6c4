// The vocabulary of the direct convolution kernels of one instruction set, on top of vec_all.h.
// clang-format off: each header needs the ones above it.
#include "conv_all.h"
#include "conv_pack.h"
#include "conv_pack_filter.h"
#include "conv_rows_plan.h"
#include "conv_rows.h"
#include "conv_band.h"
#include "conv_bands.h"
#include "conv_channels.h"
#include "conv_gather_run.h"
#include "conv_problem.h"
