#include "traffic.h"

#include <algorithm>

namespace rnk::emu {
namespace {

// Addresses of the active lanes in ascending order, each once.
int distinct_sorted(const uint64_t* address, uint32_t mask, uint64_t* out) {
  int n = 0;
  bool ascending = true;
  for (uint32_t m = mask; m; m &= m - 1) {
    uint64_t a = address[__builtin_ctz(m)];
    if (n && a == out[n - 1]) continue;
    ascending &= !n || a > out[n - 1];
    out[n++] = a;
  }
  if (ascending) return n;
  std::sort(out, out + n);
  return static_cast<int>(std::unique(out, out + n) - out);
}

}  // namespace

void count_sectors(Counters& c, const uint64_t* address, uint32_t mask, uint32_t size, bool write) {
  uint64_t sorted[32];
  int n = distinct_sorted(address, mask, sorted);
  uint64_t sectors = 0, last = ~uint64_t{0};
  for (int i = 0; i < n; ++i) {
    for (uint64_t s = sorted[i] >> 5; s <= (sorted[i] + size - 1) >> 5; ++s) {
      sectors += s != last;
      last = s;
    }
  }
  uint64_t ideal = (static_cast<uint64_t>(n) * size + 31) / 32;
  uint64_t bytes = static_cast<uint64_t>(__builtin_popcount(mask)) * size;
  if (write) {
    c.global_store_sectors += sectors;
    c.global_store_sectors_ideal += ideal;
    c.global_bytes_stored += bytes;
  } else {
    c.global_load_sectors += sectors;
    c.global_load_sectors_ideal += ideal;
    c.global_bytes_loaded += bytes;
  }
}

void count_wavefronts(Counters& c, const uint64_t* address, uint32_t mask, uint32_t size,
                      bool write) {
  uint32_t group = size <= 4 ? 32 : size == 8 ? 16 : 8;
  uint32_t group_mask = group == 32 ? 0xFFFFFFFF : (1u << group) - 1;
  uint64_t wavefronts = 0, ideal = 0;
  for (uint32_t first = 0; first < 32; first += group) {
    uint32_t m = mask & (group_mask << first);
    if (!m) continue;
    uint64_t sorted[32];
    int n = distinct_sorted(address, m, sorted);
    uint8_t load[32] = {};
    uint64_t last = ~uint64_t{0};
    int worst = 0, words = 0;
    for (int i = 0; i < n; ++i) {
      for (uint64_t word = sorted[i] >> 2; word <= (sorted[i] + size - 1) >> 2; ++word) {
        if (word == last) continue;
        last = word;
        ++words;
        worst = std::max<int>(worst, ++load[word & 31]);
      }
    }
    wavefronts += static_cast<uint64_t>(worst);
    ideal += static_cast<uint64_t>((words + 31) / 32);
  }
  if (write) {
    c.shared_store_wavefronts += wavefronts;
    c.shared_store_wavefronts_ideal += ideal;
  } else {
    c.shared_load_wavefronts += wavefronts;
    c.shared_load_wavefronts_ideal += ideal;
  }
}

}  // namespace rnk::emu
