#include "conv_serves.h"

#include <cstdlib>
#include <cstring>

#include "winograd.h"

namespace rnk::cpu {
namespace {

// The environment's choice. Read at every call, so that a process can compare.
bool chosen(const char* name) {
  const char* choice = std::getenv("RNK_CPU_CONV");
  return choice != nullptr && std::strcmp(choice, name) == 0;
}

bool serves(bool otherwise) { return chosen("own") || (!chosen("torch") && otherwise); }

}  // namespace

// With groups, oneDNN takes 0.3 to 1 of our time (ResNeXt's and MobileNet's layers, EPYC 9004).
bool conv_serves(const ConvShape& shape) { return serves(shape.groups == 1); }

// A gradient of 3 channels fills a tenth of the register tile: 2.2 times torch's time.
bool conv_dgrad_serves(const ConvShape& shape) { return serves(shape.groups == 1 && shape.c >= 8); }

ConvKernel conv_kernel(const ConvShape& shape) {
  if (!winograd_serves(shape)) return ConvKernel::kDirect;
  return chosen("winograd4x4") ? ConvKernel::kWinograd4 : ConvKernel::kWinograd2;
}

}  // namespace rnk::cpu
