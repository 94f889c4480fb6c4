// libFuzzer harness: any bytes as PTX are refused with an Error or run within a small budget.
#include "../csrc/emulator/error.h"
#include "../csrc/emulator/module_cache.h"

using namespace rnk::emu;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static uint32_t memory[1024];
  try {
    LoadedModule module(std::string(reinterpret_cast<const char*>(data), size));
    for (const auto& f : module.module().functions) {
      if (!f->is_entry || !f->has_body) continue;
      try {
        LaunchRequest r;
        r.grid = {2, 1, 1};
        r.block = {64, 1, 1};
        r.dynamic_shared = 1024;
        r.params.resize(module.kernel(f->name)->param_bytes);
        // Every eight bytes of parameters point to the one range there is.
        auto address = reinterpret_cast<uint64_t>(memory);
        for (size_t i = 0; i + 8 <= r.params.size(); i += 8) std::memcpy(&r.params[i], &address, 8);
        r.ranges.push_back({address, sizeof memory, false, false, "memory"});
        r.options.max_warp_instructions = 2000;
        r.options.threads = 1;
        module.launch(std::move(r), f->name);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
