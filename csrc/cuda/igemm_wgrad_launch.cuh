// Starts the filter gradient's kernel of a choice. Included once per operand type.
#pragma once

#include "igemm_launch.h"
#include "igemm_wgrad_kernel.cuh"

namespace rnk::cuda {

// Chunks of 64 bytes of pixels; 64 and 32 KiB of shared memory.
template <typename Element>
using WgradTile128x128 = WgradTile<Element, 128, 128, 64, 32, 4, 1>;
template <typename Element>
using WgradTile64x64 = WgradTile<Element, 64, 64, 32, 32, 4, 3>;
// Gathered chunks wait in registers, one ahead.
template <typename Element>
using WgradGatherTile = WgradTile<Element, 64, 64, 32, 32, 2, 2>;
using WgradFloatTile = WgradTile<float, 128, 64, 64, 32, 4, 2>;
using WgradFloatGatherTile = WgradTile<float, 128, 64, 64, 32, 2, 1>;

template <typename Element>
struct WgradLaunch {
  const IgemmWgrad& p;
  const IgemmWgradChoice& choice;
  int groups;
  cudaStream_t stream;

  template <class Tile, class Math, class Rows, class Columns>
  void start() const {
    const auto kernel = igemm_wgrad<Tile, Math, Rows, Columns>;
    if (Tile::kSharedBytes > 48 * 1024) {
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes);
    }
    const int row_tiles = (p.rows + Tile::kM - 1) / Tile::kM;
    const dim3 grid(static_cast<unsigned>(row_tiles * p.column_tiles),
                    static_cast<unsigned>(groups), static_cast<unsigned>(choice.splits));
    kernel<<<grid, Tile::kThreads, Tile::kSharedBytes, stream>>>(p);
  }

  template <class Tile, class Math>
  void start_copying() const {
    using Rows = WgradRows<Tile, Element, true>;
    if (p.in.scale != nullptr) {
      start<Tile, Math, Rows, WgradColumns<Tile, Element, true>>();
    } else {
      start<Tile, Math, Rows, WgradColumns<Tile, Element, false>>();
    }
  }

  // dy in whole pieces, or both operands element by element.
  template <class Tile, class Math>
  void start_gathering() const {
    using Columns = WgradColumnGather<Tile, Element>;
    if (choice.rows_are_whole) {
      start<Tile, Math, WgradRows<Tile, Element, true>, Columns>();
    } else {
      start<Tile, Math, WgradRows<Tile, Element, false>, Columns>();
    }
  }

  template <typename T>
  void on_tensor_cores() const {
    using Gather = WgradGatherTile<Element>;
    using Large = WgradTile128x128<Element>;
    using Small = WgradTile64x64<Element>;
    if (choice.gathers) return start_gathering<Gather, WgradTensorCores<T, Gather>>();
    if (choice.tile_columns == 128) return start_copying<Large, WgradTensorCores<T, Large>>();
    start_copying<Small, WgradTensorCores<T, Small>>();
  }

  void on_float_units() const {
    using Gather = WgradFloatGatherTile;
    if (choice.gathers) return start_gathering<Gather, WgradFloatUnits<Gather>>();
    start_copying<WgradFloatTile, WgradFloatUnits<WgradFloatTile>>();
  }
};

}  // namespace rnk::cuda
