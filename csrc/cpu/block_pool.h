// Memory of tensors that the ops return, kept for the next ones of the same size. A training step
// frees and wants the same sizes again and again; from the system, every 4 KiB of it would cost a
// page fault (an eighth of a ResNet-50 step), and there would be no pages of 2 MiB.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "huge_pages.h"

namespace rnk::cpu {

// Any thread may take and give. All blocks together are at most twice what was ever in use at one
// time: for a new one, the blocks given longest ago are freed. (A training step's sizes, which do
// not fit into each other's place, come to 1.2 to 1.6 of it; with less room a step would free what
// it is about to want, each time.)
class BlockPool {
 public:
  struct Block {
    Pages data;
    int64_t bytes = 0;
  };

  struct Sizes {
    int64_t used = 0, kept = 0, most_used = 0;  // bytes
    int64_t fresh = 0;                          // blocks that were asked of the system
  };

  // At least that many bytes, aligned to 64, contents undefined. Raises std::bad_alloc.
  Block take(int64_t bytes);
  void give(Block block);
  // Frees all that is kept, and forgets how much was in use.
  void clear();
  Sizes sizes() const;

 private:
  bool take_kept(int64_t bytes, Block& block);
  // Takes out of what is kept, so that there may be so many bytes more.
  std::vector<Block> make_room(int64_t bytes);

  mutable std::mutex mutex_;
  std::vector<Block> kept_;  // the one given longest ago first
  Sizes sizes_;
};

}  // namespace rnk::cpu
