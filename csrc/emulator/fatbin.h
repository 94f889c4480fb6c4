// The PTX text inside the fat binary that nvcc embeds in an object (--compress-mode=none).
#pragma once
#include <string>

namespace rnk::emu {

// wrapper: what __cudaRegisterFatBinary is given. Throws Error("parse").
std::string ptx_of_fat_binary(const void* wrapper);

}  // namespace rnk::emu
