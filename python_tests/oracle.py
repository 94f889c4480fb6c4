"""The error rule of the tests, plain-torch equivalents of the public ops, three-way comparison.

Ours and plain torch run on the same values in the same dtype; the oracle is plain torch on those
values in fp64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tolerances
import torch
import torch.nn.functional as F
from torch import Tensor

# A pre-activation this near to zero (in eps of its dtype, or absolutely: fp32 sums of thousands of
# products) may land on either side of a kink; the gradient that arrives there is set to zero.
KINK_ULPS = 8
KINK_WIDTH = 1e-5


def _exact(x: Tensor) -> Tensor:
    return x.detach().double().cpu()


def max_error(x: Tensor, oracle: Tensor) -> float:
    return (_exact(x) - oracle).abs().max().item() if oracle.numel() else 0.0


def l2_error(x: Tensor, oracle: Tensor) -> float:
    """||x - oracle|| / ||oracle||."""
    return ((_exact(x) - oracle).norm() / oracle.norm().clamp(min=1e-300)).item()


def cosine_error(x: Tensor, oracle: Tensor) -> float:
    """1 - cos of the angle between x and the oracle, both as one long vector."""
    units = (t / t.norm().clamp(min=1e-300) for t in (_exact(x).flatten(), oracle.flatten()))
    # Half the square of what lies between the unit vectors: 1 - cos itself would lose all digits.
    return next(units).sub(next(units)).square().sum().item() / 2


def signed_bias(x: Tensor, oracle: Tensor) -> float:
    """Mean error over the oracle's RMS value: what pulls a gradient to one side."""
    rms = oracle.square().mean().sqrt().clamp(min=1e-300)
    return abs(((_exact(x) - oracle).mean() / rms).item())


def assert_close_to_oracle(
    actual: Tensor,
    oracle: Tensor,
    torch_result: Tensor,
    reduction_length: int = 1,
    *,
    name: str = "result",
    repro: str = "",
    source: float = 0.0,
    walk: float = 0.0,
    amplification: float = 1.0,
) -> None:
    """Largest error <= 2 x that of plain torch + floor; shape, dtype and NaNs as they should be.

    Args:
        actual, torch_result: same shape and dtype. oracle: fp64, same shape.
        reduction_length: number of products or elements summed for one element.
        name: what is compared. repro: line that reproduces the failure.
        source: tolerances.source_eps of a result that is less exact than its dtype.
        walk: what the terms of an element add up to at random. Where they cancel, as in a gradient
            of a filter of one weight in front of a batch norm, partial sums that large are rounded.
        amplification: how many times larger than a direct sum's terms those are that were summed.
    """
    assert actual.shape == torch_result.shape, f"{name}: shape {tuple(actual.shape)}\n{repro}"
    assert actual.dtype == torch_result.dtype, f"{name}: dtype {actual.dtype}\n{repro}"
    oracle = _exact(oracle)
    known = oracle.isfinite()
    wrong = (_exact(actual).isfinite() != known) & _exact(torch_result).isfinite().eq(known)
    assert not wrong.any(), f"{name}: {int(wrong.sum())} values not finite as expected\n{repro}"
    pick = known & _exact(torch_result).isfinite()
    actual, torch_result, oracle = actual.cpu()[pick], torch_result.cpu()[pick], oracle[pick]
    if not oracle.numel():
        return
    ours, theirs = max_error(actual, oracle), max_error(torch_result, oracle)
    magnitude = max(oracle.abs().max().item(), walk)
    floor = tolerances.floor(actual.dtype, reduction_length, magnitude, source)
    limit = amplification * (tolerances.TORCH_FACTOR * theirs + floor)
    assert ours <= limit, (
        f"{name}: error {ours:.3e} > {limit:.3e} "
        f"({amplification:.3g} x (2 x torch's {theirs:.3e} + floor {floor:.3e}))\n{repro}"
    )


def assert_gradient_close(
    actual: Tensor,
    oracle: Tensor,
    torch_result: Tensor,
    reduction_length: int = 1,
    *,
    name: str = "gradient",
    repro: str = "",
    source: float = 0.0,
    walk: float = 0.0,
) -> None:
    """assert_close_to_oracle, and relative L2, cosine and signed bias by the same rule."""
    assert_close_to_oracle(
        actual, oracle, torch_result, reduction_length,
        name=name, repro=repro, source=source, walk=walk,
    )  # fmt: skip
    oracle = _exact(oracle)
    if not oracle.numel() or not oracle.isfinite().all():
        return
    l2_floor = tolerances.l2_floor(actual.dtype, reduction_length, source)
    l2_floor *= max(1.0, walk / max(oracle.square().mean().sqrt().item(), 1e-300))
    # Zero, but for rounding (a bias in front of a batch norm): no digit of torch's is right, and
    # relative measures compare noise with noise. The largest error was compared above.
    if oracle.abs().max() == 0 or l2_error(torch_result, oracle) >= 1:
        return
    budget = tolerances.TORCH_FACTOR * l2_error(torch_result, oracle) + l2_floor
    bias_floor = tolerances.bias_floor(actual.dtype, actual.numel(), source) + l2_floor / (
        actual.numel() ** 0.5
    )
    limits = {
        l2_error: budget,
        cosine_error: tolerances.COSINE_FACTOR * budget**2,
        signed_bias: tolerances.TORCH_FACTOR * signed_bias(torch_result, oracle) + bias_floor,
    }
    for measure, limit in limits.items():
        value = measure(actual, oracle)
        assert value <= limit, f"{name}: {measure.__name__} {value:.3e} > {limit:.3e}\n{repro}"


class Plain:
    """Plain-torch equivalents of the public ops, same arguments.

    `t` is the last pre-activation, x and y are the last convolution's.
    """

    t: Tensor | None = None
    x: Tensor | None = None
    y: Tensor | None = None

    def act(self, t: Tensor, act: str | None, slope: float = 0.01) -> Tensor:
        self.t = t.detach()
        if act == "leaky_relu":
            return F.leaky_relu(t, slope)
        return getattr(F, act)(t) if act not in (None, "identity") else t

    def batch_norm(self, y: Tensor, bn: Any) -> Tensor:
        if y.numel() == 0 or bn.get("running_mean") is None:
            training = True
        else:
            training = bn.get("training", False)
        if training and bn.get("num_batches_tracked") is not None:
            bn["num_batches_tracked"].add_(1)
        momentum = bn.get("momentum", 0.1)
        if momentum is None:
            tracked = bn.get("num_batches_tracked")
            momentum = 1.0 / float(tracked) if tracked is not None else 0.0
        vectors = [bn.get(k) for k in ("running_mean", "running_var", "gamma", "beta")]
        return F.batch_norm(y, *vectors, training, momentum, bn.get("eps", 1e-5))

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, kw: Mapping) -> Tensor:
        geometry = {k: kw[k] for k in ("stride", "padding", "dilation", "groups") if k in kw}
        bias = None if bias is None else bias.to(x.dtype)
        self.x, self.y = x.detach(), F.conv2d(x, weight.to(x.dtype), bias, **geometry)
        if self.y.requires_grad:
            self.y.retain_grad()
        return self.y

    def walk(self) -> float:
        """What the terms of a filter's gradient add up to at random, in the last convolution."""
        if self.y is None or self.x is None or self.y.grad is None or not self.x.numel():
            return 0.0
        dy = self.y.grad.square().sum((0, 2, 3)).max().sqrt()
        return (dy * self.x.square().mean().sqrt()).item()

    def conv_bn(self, x: Tensor, kw: Mapping) -> Tensor:
        return self.batch_norm(self.conv(x, kw["weight"], kw.get("conv_bias"), kw), dict(kw))

    def conv_bn_act(self, x: Tensor, *, residual: Tensor | None = None, **kw: Any) -> Tensor:
        t = self.conv_bn(x, kw)
        t = t if residual is None else t + residual
        return self.act(t, kw.get("act", "relu"), kw.get("negative_slope", 0.01))

    def bn_act(self, y: Tensor, *, residual: Tensor | None = None, **kw: Any) -> Tensor:
        t = self.batch_norm(y, kw)
        t = t if residual is None else t + residual
        return self.act(t, kw.get("act", "relu"), kw.get("negative_slope", 0.01))

    def conv_act(self, x: Tensor, *, residual: Tensor | None = None, **kw: Any) -> Tensor:
        t = self.conv(x, kw["weight"], kw.get("bias"), kw)
        t = t if residual is None else t + residual
        return self.act(t, kw.get("act", "relu"), kw.get("negative_slope", 0.01))

    def residual_block(
        self,
        x: Tensor,
        convs: Sequence[Mapping],
        downsample: Mapping | None = None,
        shortcut: Tensor | None = None,
        act: str = "relu",
    ) -> Tensor:
        h = x
        for conv in convs[:-1]:
            h = self.act(self.conv_bn(h, conv), act)
        skip = x if shortcut is None else shortcut
        if downsample is not None:
            skip = self.conv_bn(x, downsample)
        return self.act(self.conv_bn(h, convs[-1]) + skip, act)

    def stem(self, x: Tensor, conv: Mapping, act: str = "relu", pool: Any = (3, 2, 1)) -> Tensor:
        return F.max_pool2d(self.act(self.conv_bn(x, conv), act), *pool)

    def preact_block(
        self,
        x: Tensor,
        bns: Sequence[Mapping],
        convs: Sequence[Mapping],
        shortcut: Mapping | None = None,
        act: str = "relu",
    ) -> Tensor:
        z = h = self.act(self.batch_norm(x, dict(bns[0])), act)
        for bn, conv in zip([*bns[1:], None], convs, strict=True):
            h = self.conv(h, conv["weight"], conv.get("bias"), conv)
            h = h if bn is None else self.act(self.batch_norm(h, dict(bn)), act)
        self.t = None
        skip = x
        if shortcut is not None:
            skip = self.conv(z, shortcut["weight"], shortcut.get("bias"), shortcut)
        return h + skip


def _leaves(
    tensors: Mapping[str, Tensor | None], wanted: Sequence[str], exact: bool
) -> dict[str, Tensor | None]:
    """Fresh copies; exact: in fp64 on the CPU."""
    leaves: dict[str, Tensor | None] = {}
    for name, value in tensors.items():
        if value is None:
            leaves[name] = None
            continue
        leaf = value.detach().clone()
        if exact:
            leaf = leaf.cpu().double() if leaf.is_floating_point() else leaf.cpu()
        leaves[name] = leaf.requires_grad_(name in wanted)
    return leaves


def compare(
    op: Callable[..., Tensor],
    plain: Callable[[Plain], Callable[..., Tensor]],
    tensors: Mapping[str, Tensor | None],
    *,
    wanted: Sequence[str],
    rng: torch.Generator,
    repro: str,
    reduction_length: int,
    buffers: Sequence[str] = (),
    depth: int = 1,
) -> Tensor:
    """Runs op, plain torch and the oracle forward and backward and asserts the error rule.

    Args:
        op: called as op(**tensors). plain: Plain -> the equivalent, called the same way.
        wanted: names of tensors whose gradients are compared. buffers: names of those updated in
        place.
        depth: number of layers whose rounding errors add up in per-channel gradients.
            A relu between layers is for fp32 and fp64 only: in low precision values fall on the
            other side of it than the oracle's, in torch as in ours, with errors of any size.
    Returns: op's result.
    """
    ours, theirs, exact = (_leaves(tensors, wanted, exact) for exact in (False, False, True))
    record = Plain()
    z_exact = plain(record)(**exact)
    z_theirs, z = plain(Plain())(**theirs), op(**ours)
    check = {"repro": repro}
    assert_close_to_oracle(z, z_exact, z_theirs, reduction_length, name="z", **check)

    dz = torch.randn(z.shape, generator=rng).to(z.dtype)
    if record.t is not None and record.t.shape == dz.shape:
        dz[record.t.abs() < max(KINK_ULPS * torch.finfo(z.dtype).eps, KINK_WIDTH)] = 0
    dz = dz.to(z.device)
    if wanted:
        z_exact.backward(dz.double().to(z_exact.device))
        z_theirs.backward(dz)
        z.backward(dz)
    rows = max(z.numel() // max(z.shape[1], 1), 1)
    length = max(reduction_length, rows)
    for name in wanted:
        values = [leaves[name].grad for leaves in (ours, exact, theirs)]
        source = depth * tolerances.source_eps(z.dtype, values[0].dtype)
        walk = record.walk() if name == "weight" else 0.0
        if name == "beta":  # the sum of dz over a channel
            walk = dz.double().square().transpose(0, 1).flatten(1).sum(1).max().sqrt().item()
        assert_gradient_close(
            *values, length, name=f"grad {name}", source=source, walk=walk, **check
        )
    for name in buffers:
        values = [leaves[name] for leaves in (ours, exact, theirs)]
        source = depth * tolerances.source_eps(z.dtype, values[0].dtype, rows)
        assert_close_to_oracle(*values, rows, name=name, source=source, **check)
    return z
