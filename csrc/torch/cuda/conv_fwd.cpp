// The forward convolutions on the GPU.
#include "../../cuda/conv_fwd.h"

#include "../backend.h"
#include "../conv_run.h"
#include "../ops.h"
#include "nhwc.h"

namespace rnk {
namespace {

const EpilogueArgs& no_epilogue() {
  static const OptionalTensor none;
  static const EpilogueArgs args{none, none, none, static_cast<int64_t>(Act::kIdentity), 0};
  return args;
}

// y, and where `stats` is there its statistics.
Tensor run(const Tensor& x, const Tensor& w, const PrologueArgs& in, const EpilogueArgs& out,
           const ConvGeometry& conv, bool tf32, const OptionalTensor& stats) {
  const ConvShape shape = cuda_shape(sizes_of(x), w, conv);
  const NhwcOutput y(x, {shape.n, shape.k, shape.p, shape.q}, conv_format(x, w));
  check_epilogue(out, y.result());
  const Tensor x_nhwc = nhwc(x), filter = filter_for(x, w);
  const OptionalTensor residual = nhwc(out.residual);

  cuda::ConvFwd params{};
  params.x = device_ptr(x_nhwc);
  params.w = device_ptr(filter);
  params.w_strides = filter_strides(filter);
  params.in = prologue_params(in, x);
  params.scale = device_ptr(out.scale);
  params.bias = device_ptr(out.bias);
  params.residual = device_ptr(residual);
  params.act = act_of(out.act);
  params.slope = out.slope;
  params.y = device_ptr(y.written());
  params.stats = device_ptr(stats);
  params.shape = shape;
  params.dtype = dtype_of(x, "x");
  params.tf32 = tf32;
  const DeviceScope scope(x);
  const OptionalTensor workspace = workspace_for(x, launch::conv_fwd_workspace(params));
  params.workspace = device_ptr(workspace);
  launch::conv_fwd(params, scope.context());
  scope.check_launch("conv_fwd");
  return y.finish();
}

}  // namespace

Tensor run_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                    const EpilogueArgs& out, const ConvGeometry& conv, bool tf32) {
  return run(x, w, in, out, conv, tf32, std::nullopt);
}

std::tuple<Tensor, Tensor> run_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                              const PrologueArgs& in, const ConvGeometry& conv,
                                              bool tf32) {
  const Tensor stats = empty_on(x, {3, w.size(0)}, stats_type(x));
  const Tensor y = run(x, w, in, no_epilogue(), conv, tf32, stats);
  return {y, stats};
}

}  // namespace rnk
