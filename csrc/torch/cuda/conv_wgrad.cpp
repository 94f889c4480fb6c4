// The filter gradient on the GPU.
#include "../../cuda/conv_wgrad.h"

#include "../backend.h"
#include "../conv_run.h"
#include "nhwc.h"

namespace rnk {
namespace {

// Whether kernels write a filter gradient of this dtype: that of x, or fp32 for 16 bits.
bool is_written(ScalarType type, const Tensor& x) {
  const bool sixteen =
      x.scalar_type() == ScalarType::Half || x.scalar_type() == ScalarType::BFloat16;
  return type == x.scalar_type() || (sixteen && type == ScalarType::Float);
}

}  // namespace

Tensor run_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                      const ConvGeometry& conv, bool tf32) {
  const ConvShape shape = cuda_shape(sizes_of(x), w, conv);
  check_output_size(dy, shape);
  STD_TORCH_CHECK(dy.scalar_type() == x.scalar_type(), "dy: dtype differs");
  STD_TORCH_CHECK(dy.device() == x.device(), "dy: device differs");
  STD_TORCH_CHECK(w.device() == x.device(), "w: device differs");
  const Tensor dy_nhwc = nhwc(dy), x_nhwc = nhwc(x);
  Tensor dw = empty_same(w);
  const Tensor written = is_written(w.scalar_type(), x) ? dw : filter_for(x, dw);

  cuda::ConvWgrad params{};
  params.dy = device_ptr(dy_nhwc);
  params.x = device_ptr(x_nhwc);
  params.in = prologue_params(in, x);
  params.dw = device_ptr(written);
  params.dw_strides = filter_strides(written);
  params.dw_dtype = dtype_of(written, "w");
  params.shape = shape;
  params.dtype = dtype_of(x, "x");
  params.tf32 = tf32;
  {
    const DeviceScope scope(x);
    const OptionalTensor workspace = empty_bytes(x, launch::conv_wgrad_workspace(params));
    params.workspace = device_ptr(workspace);
    launch::conv_wgrad(params, scope.context());
    scope.check_launch("conv_wgrad");
  }
  if (!is_written(w.scalar_type(), x)) torch::stable::copy_(dw, written);
  return dw;
}

}  // namespace rnk
