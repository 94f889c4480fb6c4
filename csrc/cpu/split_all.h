// The vocabulary of the convolutions of fp32 on units that multiply bf16, on top of vec_all.h.
// clang-format off: each header needs the ones above it.
#include "bf16_all.h"
#include "split_tile.h"
#include "split_pack.h"
#include "split_plan.h"
#include "split_side.h"
#include "split_rows.h"
