#include "conv_serves.h"

#include <cstdlib>
#include <cstring>

#include "conv_split.h"
#include "isa.h"
#include "winograd.h"

namespace rnk::cpu {
namespace {

// The environment's choice. Read at every call, so that a process can compare.
bool chosen(const char* name) {
  const char* choice = std::getenv("RNK_CPU_CONV");
  return choice != nullptr && std::strcmp(choice, name) == 0;
}

bool serves(bool otherwise) { return chosen("own") || (!chosen("torch") && otherwise); }

// With groups, oneDNN takes 0.3 to 1 of our time (ResNeXt's and MobileNet's layers, EPYC 9004).
bool serves(const ConvShape& shape, DType dtype, bool bf16_faster) {
  if (dtype == DType::kFloat32) return serves(shape.groups == 1);
  return dtype == DType::kBFloat16 && shape.groups == 1 && serves(bf16_faster);
}

// Where the processor multiplies bf16, oneDNN takes 0.7 to 1 of our time for filters larger than
// 1x1 (3x3 of ResNet-50, batch 8, Xeon with AMX), and 0.8 to 1.9 for 1x1 with what surrounds them;
// where it does not, it takes three times ours.
bool bf16_is_faster(const ConvShape& shape) {
  return active_isa() < Isa::kAvx512Bf16 || shape.r * shape.s == 1;
}

}  // namespace

bool conv_fwd_serves(const ConvShape& shape, DType dtype) {
  return serves(shape, dtype, bf16_is_faster(shape));
}

// A gradient of 3 channels fills a tenth of the register tile: 2.2 times torch's time.
bool conv_dgrad_serves(const ConvShape& shape, DType dtype) {
  return serves(shape, dtype, bf16_is_faster(shape)) && (shape.c >= 8 || chosen("own"));
}

// In bf16 with AMX, 0.4 to 1 of oneDNN's time but for 64 channels of 3x3, 1.5.
bool conv_wgrad_serves(const ConvShape& shape, DType dtype) { return serves(shape, dtype, true); }

ConvKernel conv_kernel(const ConvShape& shape) {
  if (!winograd_serves(shape)) {
    return conv_split_serves(shape) ? ConvKernel::kSplit : ConvKernel::kDirect;
  }
  return chosen("winograd4x4") ? ConvKernel::kWinograd4 : ConvKernel::kWinograd2;
}

}  // namespace rnk::cpu
