// What the two files of the runtime shim share.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "program.h"

namespace rnk::emu {

// Sets this thread's last error and its text; returns the code.
cudaError_t set_error(cudaError_t code, const std::string& message);

// Of the kernel or variable behind a host symbol; nullptr or false when there is none.
const Kernel* device_kernel(const void* host);
bool allow_dynamic_shared(const void* host, size_t bytes);
char* device_variable(const void* host);

}  // namespace rnk::emu
