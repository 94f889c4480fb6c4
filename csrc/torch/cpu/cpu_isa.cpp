// cpu_isa: the instruction set that the CPU kernels run with, a value of Isa in csrc/cpu/isa.h.
#include "../../cpu/isa.h"
#include "../tensor.h"

namespace rnk {
namespace {

int64_t cpu_isa() { return static_cast<int64_t>(cpu::active_isa()); }

}  // namespace
}  // namespace rnk

STABLE_TORCH_LIBRARY_IMPL(resnet_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&rnk::cpu_isa));
}
