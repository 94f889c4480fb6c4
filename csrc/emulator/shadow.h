// Shadow memory: for each word the last write and two readers, kept exact below a word by refining
// a page to bytes when a narrow access touches it.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "clock.h"

namespace rnk::emu {

struct Warp;

struct Cell {
  Record write, read, other;  // other: a reader by a different thread than read
};

class SpinLock {
 public:
  void lock() {
    for (int tries = 1; flag_.test_and_set(std::memory_order_acquire); ++tries)
      if (tries % 64 == 0) std::this_thread::yield();
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_ = ATOMIC_FLAG_INIT;
};

constexpr uint32_t kPageBytes = 4096;

struct ShadowPage {
  SpinLock lock;
  uint32_t grain_log2 = 2;  // bytes a cell
  std::unique_ptr<Cell[]> cells;
  uint64_t read_bits[kPageBytes / 64] = {}, written_bits[kPageBytes / 64] = {};

  // Cells of an aligned access inside the page.
  Cell* cells_of(uint32_t offset, uint32_t size, uint32_t* count) {
    if (!cells) cells = std::make_unique<Cell[]>(kPageBytes >> grain_log2);
    if (size < (1u << grain_log2)) refine(size);
    *count = size >> grain_log2;
    return &cells[offset >> grain_log2];
  }
  void mark(uint32_t offset, uint32_t size, bool write) {
    uint64_t bits = (size >= 64 ? ~uint64_t{0} : (uint64_t{1} << size) - 1) << (offset & 63);
    uint64_t* touched = write ? written_bits : read_bits;
    touched[offset >> 6] |= bits;
  }

 private:
  void refine(uint32_t size);
};

// Pages over [base, base + bytes), made on first use.
class Shadow {
 public:
  void reset(uint64_t base, uint64_t bytes);
  ~Shadow();
  Shadow() = default;
  Shadow(Shadow&& o) noexcept : first_(o.first_), pages_(std::move(o.pages_)) {}
  Shadow(const Shadow&) = delete;
  ShadowPage& page(uint64_t address) {
    std::atomic<ShadowPage*>& slot = pages_[(address >> 12) - first_];
    ShadowPage* p = slot.load(std::memory_order_acquire);
    return p ? *p : make(slot);
  }
  void count_distinct(uint64_t* read, uint64_t* written) const;

 private:
  ShadowPage& make(std::atomic<ShadowPage*>& slot);
  uint64_t first_ = 0;
  std::vector<std::atomic<ShadowPage*>> pages_;
};

// What one lane does to one location.
struct LaneAccess {
  Warp& warp;
  Record record;
  bool reads, writes;
  bool shared;         // shared memory: reading what this block never wrote is an error
  const char* memory;  // current contents
  const char* value;   // about to be stored, or nullptr
  uint32_t size;
};

// Throws Fault on a race; updates the cells. Returns true when the store repeats the value of an
// unordered earlier store.
bool check_access(Cell* cells, uint32_t count, const LaneAccess& a);

}  // namespace rnk::emu
