"""The activations and their indices in the op schemas."""

from __future__ import annotations

ACTS = ("identity", "relu", "gelu", "silu", "leaky_relu")
IDENTITY, RELU, GELU, SILU, LEAKY_RELU = range(len(ACTS))

# Acts whose derivative follows from the sign of their argument: one bit an element serves backward.
SIGN_ACTS = (RELU, LEAKY_RELU)

_INDEX = {name: index for index, name in enumerate(ACTS)} | {None: IDENTITY}


def act_index(name: str | None) -> int:
    """Index of an activation; None means identity. Raises ValueError for an unknown name."""
    try:
        return _INDEX[name]
    except (KeyError, TypeError):
        raise ValueError(f"act: expected one of {', '.join(ACTS)} or None, got {name!r}") from None
