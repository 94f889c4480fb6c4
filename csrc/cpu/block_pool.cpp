#include "block_pool.h"

#include <algorithm>
#include <new>
#include <utility>

namespace rnk::cpu {
namespace {

// Sizes that are a little apart share blocks.
constexpr int64_t kStep = int64_t{64} << 10;
constexpr int64_t kFloat = sizeof(float);

}  // namespace

bool BlockPool::take_kept(int64_t bytes, Block& block) {
  // What was given last may still be in a cache.
  const auto found = std::find_if(kept_.rbegin(), kept_.rend(),
                                  [&](const Block& kept) { return kept.bytes == bytes; });
  if (found == kept_.rend()) return false;
  block = std::move(*found);
  kept_.erase(std::next(found).base());
  sizes_.kept -= bytes;
  return true;
}

std::vector<BlockPool::Block> BlockPool::make_room(int64_t bytes) {
  const int64_t limit = 2 * sizes_.most_used;
  auto last = kept_.begin();
  while (last != kept_.end() && sizes_.used + sizes_.kept + bytes > limit)
    sizes_.kept -= last++->bytes;
  std::vector<Block> freed(std::make_move_iterator(kept_.begin()), std::make_move_iterator(last));
  kept_.erase(kept_.begin(), last);
  return freed;
}

BlockPool::Block BlockPool::take(int64_t bytes) {
  bytes = (bytes + kStep - 1) / kStep * kStep;
  Block block;
  std::vector<Block> freed;  // outside of the lock
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool fresh = !take_kept(bytes, block);
    if (fresh) freed = make_room(bytes), ++sizes_.fresh;
    sizes_.used += bytes;
    sizes_.most_used = std::max(sizes_.most_used, sizes_.used);
    if (!fresh) return block;
  }
  freed.clear();
  block.bytes = bytes;
  const auto allocate = [&] { block.data = allocate_pages(bytes / kFloat); };
  try {
    allocate();
  } catch (const std::bad_alloc&) {
    clear();
    try {
      allocate();
    } catch (const std::bad_alloc&) {
      const std::lock_guard<std::mutex> lock(mutex_);
      sizes_.used -= bytes;
      throw;
    }
  }
  return block;
}

void BlockPool::give(Block block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sizes_.used -= block.bytes;
  sizes_.kept += block.bytes;
  kept_.push_back(std::move(block));
}

void BlockPool::clear() {
  std::vector<Block> freed;
  const std::lock_guard<std::mutex> lock(mutex_);
  freed.swap(kept_);
  sizes_.kept = 0;
  sizes_.most_used = sizes_.used;
}

BlockPool::Sizes BlockPool::sizes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return sizes_;
}

}  // namespace rnk::cpu
