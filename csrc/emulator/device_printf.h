// printf from device code: CUDA passes a format string and a packed argument buffer.
#pragma once
#include <string>

#include "warp.h"

namespace rnk::emu {

// Each pointer is the place of a 64-bit generic address in the caller's frame.
void device_printf(Warp& w, int lane, const char* format_slot, const char* arguments_slot);
std::string device_string(Warp& w, int lane, const char* slot);

}  // namespace rnk::emu
