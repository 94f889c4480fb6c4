// The compiled implicit-GEMM kernels and which of them a problem takes.
#pragma once

#include <cuda_runtime.h>

#include "igemm_outputs.h"
#include "igemm_params.h"
#include "igemm_wgrad_params.h"

namespace rnk::cuda {

// Outputs of a block. Larger tiles read less: a 128 x 128 tile loads 128 + 128 rows for 128 * 128
// outputs. Smaller ones keep all multiprocessors busy where there are few outputs.
enum class IgemmTileKind { k128x128, k128x64, k64x64 };

// How the input reaches shared memory.
enum class IgemmAddressing {
  kPointwise,    // 1 x 1, stride 1, no padding: rows of a matrix
  kConvolution,  // pieces of 16 bytes, which lie within a tap
  kGather,       // element by element: any channel count and alignment; 128 x 64
};

struct IgemmChoice {
  IgemmTileKind tile;
  IgemmAddressing addressing;

  int tile_rows() const { return tile == IgemmTileKind::k64x64 ? 64 : 128; }
  int tile_columns() const { return tile == IgemmTileKind::k128x128 ? 128 : 64; }
};

// The tile for rows x columns outputs in each of `groups` groups; RNK_CUDA_TILE=128x128, 128x64 or
// 64x64 overrides it.
IgemmTileKind choose_tile(int64_t rows, int64_t columns, int64_t groups, int multiprocessors);

// The kernels, by direction and operand type. The fp32 ones have tiles of 128 x 64 and no pointwise
// addressing.
using IgemmFwdLauncher = void(const Igemm& p, const IgemmOutput& out, IgemmChoice choice,
                              int groups, cudaStream_t stream);
IgemmFwdLauncher igemm_fwd_f16, igemm_fwd_bf16, igemm_fwd_tf32, igemm_fwd_f32;
using IgemmDgradLauncher = void(const Igemm& p, const IgemmGradient& out, IgemmChoice choice,
                                int groups, cudaStream_t stream);
IgemmDgradLauncher igemm_dgrad_f16, igemm_dgrad_bf16, igemm_dgrad_tf32, igemm_dgrad_f32;

struct IgemmWgradChoice {
  int tile_rows, tile_columns;
  bool gathers;         // the input element by element, in tiles of 64 x 64 (fp32: 128 x 64)
  bool rows_are_whole;  // dy in whole pieces; always so where the input is
  int splits;
};
using IgemmWgradLauncher = void(const IgemmWgrad& p, const IgemmWgradChoice& choice, int groups,
                                cudaStream_t stream);
IgemmWgradLauncher igemm_wgrad_f16, igemm_wgrad_bf16, igemm_wgrad_tf32, igemm_wgrad_f32;

}  // namespace rnk::cuda
