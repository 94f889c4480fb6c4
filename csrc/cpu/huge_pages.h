// Memory in pages of 2 MiB where the system has them. Filters that are streamed once a call are
// read two to three times as fast from these: address translation and the prefetchers, which stop
// at the end of a page, would else hold them up every 4 KiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace rnk::cpu {

struct FreePages {
  void operator()(float* p) const { std::free(p); }
};
using Pages = std::unique_ptr<float, FreePages>;

// Uninitialised, aligned to 64 bytes; in huge pages from 2 MiB on. Raises std::bad_alloc.
Pages allocate_pages(int64_t floats);

// For what lives longer than a call: pieces of common slabs, aligned to 64 bytes. A slab is freed
// with the last of its pieces. One thread at a time.
class Slabs {
 public:
  std::shared_ptr<float> allocate(int64_t floats);

 private:
  struct Slab;
  std::shared_ptr<Slab> last_;
};

}  // namespace rnk::cpu
