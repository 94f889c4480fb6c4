// Which of the implicit-GEMM kernels a problem takes.
#pragma once

namespace rnk::cuda {

// Outputs of a block. Larger tiles read less: a 128 x 128 tile loads 128 + 128 rows for 128 * 128
// outputs. Smaller ones keep all multiprocessors busy where there are few outputs.
// Wide ones serve where two tensors are read for the rows: the fewer times, the better.
enum class IgemmTileKind { k128x128, k128x64, k64x64, k64x128, k64x256 };

// How the input reaches shared memory.
enum class IgemmAddressing {
  kPointwise,    // 1 x 1, stride 1, no padding: rows of a matrix
  kConvolution,  // pieces of 16 bytes, which lie within a tap
  kGather,       // element by element: any channel count and alignment; one tile
  kApplied,      // kPointwise, of a batch norm's gradient that is made on the way
  kWindow,       // the input under the tile as a whole: any channel count, forward; one tile
};

struct IgemmChoice {
  IgemmTileKind tile;
  IgemmAddressing addressing;

  int tile_rows() const {
    return tile == IgemmTileKind::k128x128 || tile == IgemmTileKind::k128x64 ? 128 : 64;
  }
  int tile_columns() const {
    switch (tile) {
      case IgemmTileKind::k64x256:
        return 256;
      case IgemmTileKind::k128x128:
      case IgemmTileKind::k64x128:
        return 128;
      default:
        return 64;
    }
  }
};

struct IgemmWgradChoice {
  int tile_rows, tile_columns;
  bool gathers;              // the input element by element, in tiles of 64 x 64 (fp32: 128 x 64)
  bool rows_are_whole;       // dy in whole pieces; always so where the input is
  int splits, split_chunks;  // blocks over the pixels, and the chunks of each
};

}  // namespace rnk::cuda
