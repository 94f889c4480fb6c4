"""fuse, unfuse and explain under the name of the function; see the package `fusion`."""

from .fusion import Explanation, Row, explain, fuse, unfuse

__all__ = ["Explanation", "Row", "explain", "fuse", "unfuse"]
