// pad_shortcut_fwd, pad_shortcut_bwd: a shortcut without parameters, x[:, :, ::stride, ::stride]
// with zeros for new channels (He et al. 2015, option A), and its gradient.
#include "../../cpu/pad_shortcut.h"

#include "../backend.h"

namespace rnk {
namespace {

// No overflow of sizes that a tensor could have in memory.
constexpr int64_t kMost = INT32_MAX;

// For an image [N, C, H, W] of the dtype of `like`, `channels` of which and padding are in z.
cpu::PadShortcutParams shape_of(const Tensor& like, int64_t channels, int64_t h, int64_t w,
                                int64_t stride, int64_t front, int64_t back) {
  STD_TORCH_CHECK(stride >= 1 && stride <= kMost, "stride: expected 1 or more, got ", stride);
  STD_TORCH_CHECK(front >= 0 && front <= kMost && back >= 0 && back <= kMost,
                  "front, back: expected 0 or more, got ", front, " and ", back);
  STD_TORCH_CHECK(channels >= 1 && h >= 1 && w >= 1, "expected a channel and a pixel or more");
  const int64_t p = (h - 1) / stride + 1, q = (w - 1) / stride + 1;
  return {like.size(0),
          channels,
          h,
          w,
          p,
          q,
          stride,
          front,
          back,
          static_cast<int64_t>(like.element_size())};
}

void check_image(const Tensor& t, const char* name) {
  dtype_of(t, name);
  STD_TORCH_CHECK(t.dim() == 4 && is_channels_last(t), name,
                  ": expected dense channels_last memory [N, C, H, W]");
}

Tensor pad_shortcut_fwd(const Tensor& x, int64_t stride, int64_t front, int64_t back) {
  check_image(x, "x");
  const auto shape = shape_of(x, x.size(1), x.size(2), x.size(3), stride, front, back);
  Tensor z = empty_tensor(x, {shape.n, front + shape.c + back, shape.p, shape.q}, x.scalar_type(),
                          MemoryFormat::ChannelsLast);
  const DeviceScope scope(x);
  cpu::pad_shortcut_fwd(shape, device_ptr(x), device_ptr(z), scope.context());
  return z;
}

// h, w: the size of x.
Tensor pad_shortcut_bwd(const Tensor& dz, int64_t h, int64_t w, int64_t stride, int64_t front,
                        int64_t back) {
  check_image(dz, "dz");
  const auto shape = shape_of(dz, dz.size(1) - front - back, h, w, stride, front, back);
  STD_TORCH_CHECK(dz.size(2) == shape.p && dz.size(3) == shape.q, "dz: expected ", shape.p, " x ",
                  shape.q, " pixels, got ", dz.size(2), " x ", dz.size(3));
  Tensor dx =
      empty_tensor(dz, {shape.n, shape.c, h, w}, dz.scalar_type(), MemoryFormat::ChannelsLast);
  const DeviceScope scope(dz);
  cpu::pad_shortcut_bwd(shape, device_ptr(dz), device_ptr(dx), scope.context());
  return dx;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(pad_shortcut_fwd)
RNK_REGISTER(pad_shortcut_bwd)
