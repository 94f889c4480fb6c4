#include "fatbin.h"

#include <cstdint>
#include <cstring>

#include "error.h"

namespace rnk::emu {
namespace {

struct Wrapper {
  uint32_t magic, version;
  const char* data;
  const void* unused;
};
struct Header {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;  // after the header
};
struct Entry {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t bytes;  // after the entry's header
};
constexpr uint32_t kWrapperMagic = 0x466243B1, kHeaderMagic = 0xBA55ED50;
constexpr uint16_t kPtx = 1;

}  // namespace

std::string ptx_of_fat_binary(const void* wrapper) {
  Wrapper w;
  Header h;
  std::memcpy(&w, wrapper, sizeof w);
  if (w.magic != kWrapperMagic) throw Error("parse", "not a fat binary: wrong wrapper magic");
  std::memcpy(&h, w.data, sizeof h);
  if (h.magic != kHeaderMagic) throw Error("parse", "not a fat binary: wrong header magic");
  const char* p = w.data + h.header_bytes;
  const char* end = p + h.bytes;
  while (end - p >= static_cast<ptrdiff_t>(sizeof(Entry))) {
    Entry e;
    std::memcpy(&e, p, sizeof e);
    auto left = static_cast<uint64_t>(end - p);
    if (e.header_bytes < sizeof e || e.header_bytes > left || e.bytes > left - e.header_bytes)
      throw Error("parse", "fat binary is truncated");
    const char* payload = p + e.header_bytes;
    if (e.kind == kPtx) {
      std::string text(payload, strnlen(payload, e.bytes));
      if (text.find(".version") == std::string::npos)
        throw Error("parse",
                    "the PTX in the fat binary is compressed: compile with "
                    "--compress-mode=none");
      return text;
    }
    p = payload + e.bytes;
  }
  throw Error("parse",
              "the fat binary holds no PTX: compile with -gencode "
              "arch=compute_80,code=compute_80");
}

}  // namespace rnk::emu
