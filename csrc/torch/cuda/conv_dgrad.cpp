// The input gradients on the GPU.
#include "../../cuda/conv_dgrad.h"

#include <array>

#include "../backend.h"
#include "../conv_run.h"
#include "nhwc.h"

#define RNK_STRING_OF(name) #name
#define RNK_STRING(name) RNK_STRING_OF(name)

namespace rnk {
namespace {

// What both ops hand to the launcher; the output is still missing. w is the filter in dy's dtype.
cuda::ConvDgrad params_of(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                          const ConvShape& shape, bool tf32) {
  cuda::ConvDgrad params{};
  params.dy = device_ptr(dy);
  params.w = device_ptr(w);
  params.w_strides = filter_strides(w);
  params.branch = device_ptr(branch);
  params.shape = shape;
  params.dtype = dtype_of(dy, "dy");
  params.tf32 = tf32;
  return params;
}

void launch_on(const Tensor& dy, cuda::ConvDgrad& params) {
  const DeviceScope scope(dy);
  const OptionalTensor workspace = workspace_for(dy, launch::conv_dgrad_workspace(params));
  params.workspace = device_ptr(workspace);
  launch::conv_dgrad(params, scope.context());
  scope.check_launch("conv_dgrad");
}

Tensor input_gradient(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, MemoryFormat format,
                      bool tf32) {
  const ConvShape shape = cuda_shape(input_size, w, conv);
  check_output_size(dy, shape);
  const NhwcOutput dx(dy, input_size, format);
  if (branch.has_value()) check_same(*branch, dx.result(), "branch");
  const Tensor dy_nhwc = nhwc(dy), filter = filter_for(dy, w);
  const OptionalTensor branch_nhwc = nhwc(branch);
  cuda::ConvDgrad params = params_of(dy_nhwc, filter, branch_nhwc, shape, tf32);
  params.dx = device_ptr(dx.written());
  launch_on(dy, params);
  return dx.finish();
}

// The op, whichever kernel it has on this backend.
std::tuple<Tensor, Tensor> bn_act_bwd_reduce_add(const Tensor& dz, const PreviousBn& bn) {
  using torch::stable::detail::from;
  std::array<StableIValue, 10> stack{
      from(dz),      from(bn.y),         from(bn.mean), from(bn.rstd), from(bn.scale),
      from(bn.bias), from(std::nullopt), from(bn.mask), from(bn.act),  from(bn.slope)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(
      RNK_STRING(RNK_NAMESPACE) "::bn_act_bwd_reduce_add", "", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

}  // namespace

Tensor run_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, bool tf32) {
  return input_gradient(dy, w, branch, input_size, conv, conv_format(dy, w), tf32);
}

std::tuple<Tensor, Tensor> run_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                             const OptionalTensor& branch, const PreviousBn& bn,
                                             const ConvGeometry& conv, bool tf32) {
  const ConvShape shape = cuda_shape(sizes_of(bn.y), w, conv);
  check_output_size(dy, shape);
  STD_TORCH_CHECK(bn.y.scalar_type() == dy.scalar_type(), "y_prev: dtype differs");
  STD_TORCH_CHECK(bn.y.device() == dy.device(), "y_prev: device differs");
  check_previous_bn(bn);
  // The bits of a mask lie in the order of y_prev's memory, which no copy changes.
  if (!is_channels_last(bn.y)) {
    const MemoryFormat format = conv_format(bn.y, bn.y);
    const Tensor dz = input_gradient(dy, w, branch, sizes_of(bn.y), conv, format, tf32);
    return bn_act_bwd_reduce_add(dz, bn);
  }
  const Tensor g = torch::stable::empty_like(bn.y);
  const Tensor sums = empty_on(g, {2, g.size(1)}, stats_type(g));
  if (branch.has_value()) check_same(*branch, g, "branch");
  const Tensor dy_nhwc = nhwc(dy), filter = filter_for(dy, w);
  cuda::ConvDgrad params = params_of(dy_nhwc, filter, branch, shape, tf32);
  params.bn = {device_ptr(bn.y),    device_ptr(bn.mean),
               device_ptr(bn.rstd), device_ptr(bn.scale),
               device_ptr(bn.bias), static_cast<const uint8_t*>(device_ptr(bn.mask)),
               act_of(bn.act),      bn.slope,
               device_ptr(sums)};
  params.dx = device_ptr(g);
  launch_on(dy, params);
  return {g, sums};
}

}  // namespace rnk
