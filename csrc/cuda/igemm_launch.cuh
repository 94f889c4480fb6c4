// Starts the implicit-GEMM kernel of a choice. Included once per operand and output type.
#pragma once

#include "igemm_apply.cuh"
#include "igemm_kernel.cuh"
#include "igemm_launch.h"
#include "igemm_window.cuh"

namespace rnk::cuda {

// Three stages of 128 bytes of depth: 97.5, 73.5 and 49.5 KiB, so that two to four blocks share a
// multiprocessor of sm_90, one to three one of sm_80, and one fits the 99 KiB of sm_86 to sm_120.
using Tile128x128 = IgemmTile<128, 128, 64, 32, 3, 1>;
using Tile128x64 = IgemmTile<128, 64, 64, 32, 3, 2>;
using Tile64x64 = IgemmTile<64, 64, 32, 32, 3, 3>;
// A gathered chunk waits in registers, one ahead.
using GatherTile = IgemmTile<64, 64, 32, 32, 2, 2>;
// 24 KiB of filter beside the input's window.
using WindowTile = IgemmTile<64, 64, 32, 32, 3, 3, 0>;
// Two stages of g, y and the filter: 50, 66 and 98 KiB.
using Applied64x64 = IgemmTile<64, 64, 32, 32, 2, 3, 2>;
using Applied64x128 = IgemmTile<64, 128, 32, 64, 2, 2, 2>;
using Applied64x256 = IgemmTile<64, 256, 32, 64, 2, 1, 2>;

// One launch: the problem, what becomes of its sums, and where.
template <template <class, typename> class Output, typename Element>
struct IgemmLaunch {
  // The same for every tile.
  using Params = typename Output<Tile64x64, Element>::Params;
  const Igemm& p;
  const Params& out;
  IgemmChoice choice;
  int groups;
  cudaStream_t stream;

  template <class Tile, class Math, class Input>
  void start() const {
    run<Tile>(igemm<Tile, Element, Math, Input, Output<Tile, Element>>, Tile::kSharedBytes);
  }

  template <class Tile, class Kernel>
  void run(Kernel kernel, int shared_bytes) const {
    if (shared_bytes > 48 * 1024) {
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    }
    const int row_tiles = (p.rows + Tile::kM - 1) / Tile::kM;
    const dim3 grid(static_cast<unsigned>(row_tiles * p.column_tiles),
                    static_cast<unsigned>(groups));
    kernel<<<grid, Tile::kThreads, shared_bytes, stream>>>(p, out);
  }

  // Chunks by cp.async, with or without a prologue.
  template <class Tile, class Math, bool kPointwise>
  void start_copying() const {
    if constexpr (Output<Tile, Element>::kPrologues) {
      if (p.in.scale != nullptr) {
        return start<Tile, Math, IgemmInputCopy<Tile, Element, kPointwise, true>>();
      }
    }
    start<Tile, Math, IgemmInputCopy<Tile, Element, kPointwise, false>>();
  }

  template <class Tile, class Math>
  void start_tile() const {
    if (choice.addressing == IgemmAddressing::kPointwise) {
      start_copying<Tile, Math, true>();
    } else {
      start_copying<Tile, Math, false>();
    }
  }

  template <class Tile, typename T>
  void start_applied() const {
    start<Tile, TensorCores<T, Tile>, IgemmAppliedCopy<Tile, Element>>();
  }

  // T: what the tensor cores multiply, the element type or Tf32.
  template <typename T>
  void on_tensor_cores() const {
    if constexpr (!Output<Applied64x64, Element>::kPrologues) {
      if (choice.addressing == IgemmAddressing::kApplied) {
        if (choice.tile == IgemmTileKind::k64x64) return start_applied<Applied64x64, T>();
        if (choice.tile == IgemmTileKind::k64x128) return start_applied<Applied64x128, T>();
        return start_applied<Applied64x256, T>();
      }
    }
    if constexpr (Output<WindowTile, Element>::kPrologues) {
      if (choice.addressing == IgemmAddressing::kWindow) {
        return run<WindowTile>(igemm_window<WindowTile, Element, T, Output<WindowTile, Element>>,
                               WindowTile::kSharedBytes + p.window.bytes);
      }
    }
    if (choice.addressing == IgemmAddressing::kGather) {
      using Input = IgemmInputGather<GatherTile, Element, Output<GatherTile, Element>::kPrologues>;
      return start<GatherTile, TensorCores<T, GatherTile>, Input>();
    }
    switch (choice.tile) {
      case IgemmTileKind::k128x128:
        return start_tile<Tile128x128, TensorCores<T, Tile128x128>>();
      case IgemmTileKind::k128x64:
        return start_tile<Tile128x64, TensorCores<T, Tile128x64>>();
      default:
        return start_tile<Tile64x64, TensorCores<T, Tile64x64>>();
    }
  }

  void on_float_units() const {
    if (choice.addressing == IgemmAddressing::kGather) {
      using Input = IgemmInputGather<GatherTile, Element, Output<GatherTile, Element>::kPrologues>;
      start<GatherTile, FloatUnits<GatherTile>, Input>();
    } else {
      start_copying<Tile128x64, FloatUnits<Tile128x64>, false>();
    }
  }
};

}  // namespace rnk::cuda
