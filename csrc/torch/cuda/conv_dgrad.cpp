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

// dy, which is still to be made of next's g on the way where there is a next.
struct DyTensor {
  Tensor tensor;
  const NextBn* next;
};

cuda::NextBn next_params(const NextBn* next) {
  if (next == nullptr) return {};
  return {device_ptr(next->g), device_ptr(next->y), device_ptr(next->mean), device_ptr(next->abc)};
}

// What all ops hand to the launcher; the output is still missing. w is the filter in dy's dtype.
cuda::ConvDgrad params_of(const DyTensor& dy, const Tensor& w, const OptionalTensor& branch,
                          const ConvShape& shape, bool tf32) {
  cuda::ConvDgrad params{};
  params.dy = device_ptr(dy.tensor);
  params.next = next_params(dy.next);
  params.w = device_ptr(w);
  params.w_strides = filter_strides(w);
  params.branch = device_ptr(branch);
  params.shape = shape;
  params.dtype = dtype_of(dy.tensor, "dy");
  params.tf32 = tf32;
  return params;
}

void launch_on(const Tensor& dy, cuda::ConvDgrad& params) {
  const DeviceScope scope(dy);
  const OptionalTensor workspace = empty_bytes(dy, launch::conv_dgrad_workspace(params));
  params.workspace = device_ptr(workspace);
  launch::conv_dgrad(params, scope.context());
  scope.check_launch("conv_dgrad");
}

Tensor input_gradient(const DyTensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, MemoryFormat format,
                      bool tf32) {
  const ConvShape shape = cuda_shape(input_size, w, conv);
  const NhwcOutput dx(dy.tensor, input_size, format);
  if (branch.has_value()) check_same(*branch, dx.result(), "branch");
  const Tensor filter = filter_for(dy.tensor, w);
  const OptionalTensor branch_nhwc = nhwc(branch);
  cuda::ConvDgrad params = params_of(dy, filter, branch_nhwc, shape, tf32);
  params.dx = device_ptr(dx.written());
  launch_on(dy.tensor, params);
  return dx.finish();
}

// Memory order is kept in what is returned; the kernels read channels_last.
DyTensor with_nhwc(const DyTensor& dy) { return {nhwc(dy.tensor), dy.next}; }

DyTensor checked(const Tensor& dy, const ConvShape& shape) {
  check_output_size(dy, shape);
  return {nhwc(dy), nullptr};
}

// Where conv_dgrad makes dy on the way, it is allocated; else bn_bwd_apply makes it first.
DyTensor dy_of(const NextBn& next, const ConvShape& shape, bool tf32) {
  check_output_size(next.y, shape);
  check_same(next.g, next.y, "g");
  check_vector(next.mean, next.y.size(1), stats_type(next.y), next.y, "mean");
  check_vector(next.abc, 3 * next.y.size(1), stats_type(next.y), next.y, "abc");
  if (is_channels_last(next.y) && is_channels_last(next.g)) {
    const Tensor dy = empty_same(next.y);
    cuda::ConvDgrad params{};
    params.dy = device_ptr(dy);
    params.next = next_params(&next);
    params.shape = shape;
    params.dtype = dtype_of(dy, "y");
    params.tf32 = tf32;
    if (launch::conv_dgrad_applies(params)) return {dy, &next};
  }
  return {apply_bn_bwd(next), nullptr};
}

// The op, whichever kernel it has on this backend.
std::tuple<Tensor, Tensor> bn_act_bwd_reduce_add(const Tensor& dz, const PreviousBn& bn) {
  using torch::stable::detail::from;
  std::array<StableIValue, 10> stack{
      from(dz),      from(bn.y),         from(bn.mean), from(bn.rstd), from(bn.scale),
      from(bn.bias), from(std::nullopt), from(bn.mask), from(bn.act),  from(bn.slope)};
  RNK_CHECK_STATUS(torch_call_dispatcher(RNK_STRING(RNK_NAMESPACE) "::bn_act_bwd_reduce_add", "",
                                         stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

std::tuple<Tensor, Tensor> gradient_and_sums(const DyTensor& dy, const Tensor& w,
                                             const OptionalTensor& branch, const PreviousBn& bn,
                                             const ConvShape& shape, const ConvGeometry& conv,
                                             bool tf32) {
  STD_TORCH_CHECK(bn.y.scalar_type() == dy.tensor.scalar_type(), "y_prev: dtype differs");
  STD_TORCH_CHECK(bn.y.device() == dy.tensor.device(), "y_prev: device differs");
  check_previous_bn(bn);
  // The bits of a mask lie in the order of y_prev's memory, which no copy changes.
  if (!is_channels_last(bn.y)) {
    const MemoryFormat format = conv_format(bn.y, bn.y);
    const Tensor dz = input_gradient(dy, w, branch, sizes_of(bn.y), conv, format, tf32);
    return bn_act_bwd_reduce_add(dz, bn);
  }
  const Tensor g = empty_same(bn.y);
  const Tensor sums = empty_on(g, {2, g.size(1)}, stats_type(g));
  if (branch.has_value()) check_same(*branch, g, "branch");
  const Tensor filter = filter_for(dy.tensor, w);
  cuda::ConvDgrad params = params_of(dy, filter, branch, shape, tf32);
  params.bn = {device_ptr(bn.y),    device_ptr(bn.mean),
               device_ptr(bn.rstd), device_ptr(bn.scale),
               device_ptr(bn.bias), static_cast<const uint8_t*>(device_ptr(bn.mask)),
               act_of(bn.act),      bn.slope,
               device_ptr(sums)};
  params.dx = device_ptr(g);
  launch_on(dy.tensor, params);
  return {g, sums};
}

}  // namespace

Tensor run_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, bool tf32) {
  const DyTensor given = checked(dy, cuda_shape(input_size, w, conv));
  return input_gradient(given, w, branch, input_size, conv, conv_format(dy, w), tf32);
}

std::tuple<Tensor, Tensor> run_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                             const OptionalTensor& branch, const PreviousBn& bn,
                                             const ConvGeometry& conv, bool tf32) {
  const ConvShape shape = cuda_shape(sizes_of(bn.y), w, conv);
  return gradient_and_sums(checked(dy, shape), w, branch, bn, shape, conv, tf32);
}

std::tuple<Tensor, Tensor> run_conv_apply_dgrad(const NextBn& next, const Tensor& w,
                                                const OptionalTensor& branch,
                                                const Ints& input_size, const ConvGeometry& conv,
                                                bool tf32) {
  const DyTensor dy = dy_of(next, cuda_shape(input_size, w, conv), tf32);
  const MemoryFormat format = conv_format(next.y, w);
  return {input_gradient(with_nhwc(dy), w, branch, input_size, conv, format, tf32), dy.tensor};
}

std::tuple<Tensor, Tensor, Tensor> run_conv_apply_dgrad_bn(const NextBn& next, const Tensor& w,
                                                           const OptionalTensor& branch,
                                                           const PreviousBn& bn,
                                                           const ConvGeometry& conv, bool tf32) {
  const ConvShape shape = cuda_shape(sizes_of(bn.y), w, conv);
  const DyTensor dy = dy_of(next, shape, tf32);
  return std::tuple_cat(gradient_and_sums(with_nhwc(dy), w, branch, bn, shape, conv, tf32),
                        std::make_tuple(dy.tensor));
}

}  // namespace rnk
