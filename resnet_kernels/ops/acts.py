"""Names of the activations and what the ops need to know of each; their values: reference/."""

from __future__ import annotations

from ..reference import ACTS, GELU, IDENTITY, LEAKY_RELU, RELU, SILU

__all__ = ["ACTS", "GELU", "IDENTITY", "LEAKY_RELU", "RELU", "SIGN_ACTS", "SILU", "act_index"]

# The derivative follows from the sign of the argument: one bit an element serves backward.
SIGN_ACTS = (RELU, LEAKY_RELU)

_INDEX: dict[str | None, int] = {name: index for index, name in enumerate(ACTS)} | {None: IDENTITY}


def act_index(name: str | None) -> int:
    """Index of an activation; None means identity. Raises ValueError for an unknown name."""
    try:
        return _INDEX[name]
    except (KeyError, TypeError):
        raise ValueError(f"act: expected one of {', '.join(ACTS)} or None, got {name!r}") from None
