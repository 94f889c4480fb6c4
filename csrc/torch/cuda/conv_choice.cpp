// conv_cuda_choice: which CUDA kernel a forward convolution takes, without running it.
#include "../../cuda/conv_choice.h"

#include "../../cuda/igemm_fwd.h"
#include "../../cuda/launch.h"
#include "../backend.h"
#include "../conv_args.h"

namespace rnk {
namespace {

// Rows and columns of the tile and the addressing of the implicit GEMM (0: pointwise, 1:
// convolution, 2: gather, 4: window); empty for the generic kernel. x [N, C, H, W] and w [K, C /
// groups, R, S] are aligned and channels_last; dtype: a value of DType; multiprocessors 0: those of
// this device.
std::vector<int64_t> conv_cuda_choice(const Ints& x_size, const Ints& w_size, const Ints& stride,
                                      const Ints& padding, const Ints& dilation, int64_t groups,
                                      int64_t dtype, bool tf32, int64_t multiprocessors) {
  STD_TORCH_CHECK(dtype >= 0 && dtype <= static_cast<int>(DType::kBFloat16), "dtype: unknown");
  cuda::ConvFwd conv{};
  conv.shape = conv_shape(x_size, w_size, ConvGeometry{stride, padding, dilation, groups});
  conv.dtype = static_cast<DType>(dtype);
  conv.tf32 = tf32;
  if (cuda::generic_is_wanted() || !cuda::igemm_fwd_fits(conv)) return {};
  const int count =
      multiprocessors > 0 ? static_cast<int>(multiprocessors) : cuda::multiprocessors();
  const cuda::IgemmChoice choice = cuda::igemm_fwd_choice(conv, count);
  return {choice.tile_rows(), choice.tile_columns(), static_cast<int64_t>(choice.addressing)};
}

}  // namespace
}  // namespace rnk

STABLE_TORCH_LIBRARY_IMPL(RNK_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("conv_cuda_choice", TORCH_BOX(&rnk::conv_cuda_choice));
}
