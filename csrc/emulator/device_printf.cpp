#include "device_printf.h"

#include <cstdio>
#include <cstring>

#include "memory_access.h"

namespace rnk::emu {
namespace {

constexpr size_t kMaxString = 4096;

void read(Warp& w, int lane, uint64_t address, void* to, uint32_t size) {
  MemoryRequest m;
  m.address[lane] = address;
  m.size = size;
  m.space = Space::kGeneric;
  access_memory(w, m, 1u << lane);
  std::memcpy(to, m.pointer[lane], size);
}

std::string read_string(Warp& w, int lane, uint64_t address) {
  std::string s;
  for (char c; s.size() < kMaxString; s += c) {
    read(w, lane, address + s.size(), &c, 1);
    if (!c) break;
  }
  return s;
}

}  // namespace

std::string device_string(Warp& w, int lane, const char* slot) {
  uint64_t address;
  std::memcpy(&address, slot, 8);
  return read_string(w, lane, address);
}

void device_printf(Warp& w, int lane, const char* format_slot, const char* arguments_slot) {
  std::string format = device_string(w, lane, format_slot), out;
  uint64_t arguments, offset = 0;
  std::memcpy(&arguments, arguments_slot, 8);
  auto take = [&](uint32_t size) {
    offset = (offset + size - 1) / size * size;
    uint64_t v = 0;
    read(w, lane, arguments + offset, &v, size);
    offset += size;
    return v;
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    size_t end = format.find_first_of("diouxXcsfFeEgGaAp%", i + 1);
    if (end == std::string::npos) break;
    std::string spec = format.substr(i, end - i + 1);
    char kind = format[end], text[512] = "";
    i = end;
    bool wide = spec.find('l') != std::string::npos || kind == 'p';
    if (spec.find('*') != std::string::npos || spec.find('n') != std::string::npos) continue;
    if (kind == '%') {
      text[0] = '%';
    } else if (kind == 's') {
      std::snprintf(text, sizeof text, spec.c_str(), read_string(w, lane, take(8)).c_str());
    } else if (std::strchr("fFeEgGaA", kind)) {
      uint64_t bits = take(8);
      double d;
      std::memcpy(&d, &bits, 8);
      std::snprintf(text, sizeof text, spec.c_str(), d);
    } else if (wide) {
      std::snprintf(text, sizeof text, spec.c_str(), take(8));
    } else {
      std::snprintf(text, sizeof text, spec.c_str(), static_cast<uint32_t>(take(4)));
    }
    out += text;
  }
  std::fwrite(out.data(), 1, out.size(), stdout);
}

}  // namespace rnk::emu
