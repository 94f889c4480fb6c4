#include "device_image.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace rnk::emu {

DeviceImage::DeviceImage(const Module& module) {
  for (const Variable& v : module.variables) {
    if (v.space == Space::kShared || v.is_extern) continue;
    size_t align = std::max<size_t>(v.align, 16);
    storage_.push_back(std::make_unique<char[]>(v.bytes + align));
    auto raw = reinterpret_cast<uintptr_t>(storage_.back().get());
    char* base = reinterpret_cast<char*>((raw + align - 1) & ~(align - 1));
    std::copy(v.init.begin(), v.init.end(), base);
    spans_.push_back({v.name, base, v.bytes, v.space == Space::kConst});
    index_[v.name] = base;
  }
  for (const Variable& v : module.variables) {
    for (const Variable::Reference& r : v.references) {
      char* target = find(r.symbol);
      if (!target)
        throw Error("unsupported", "initialiser of '" + v.name + "' refers to '" + r.symbol + "'");
      uint64_t address = reinterpret_cast<uint64_t>(target) + static_cast<uint64_t>(r.addend);
      std::memcpy(find(v.name) + r.offset, &address, std::min(r.size, 8));
    }
  }
}

char* DeviceImage::find(const std::string& name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : it->second;
}

}  // namespace rnk::emu
