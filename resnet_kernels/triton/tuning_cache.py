"""Tuned tiles on disk, one JSON file a case: RNK_CACHE_DIR, or resnet_kernels in the user's cache.

A file appears complete or not at all, and the first process to write one decides for all. A file
that is damaged or of another case, and a folder that cannot be written, are ignored with one
warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

_warned = False


def folder() -> Path:
    """Where the files lie.

    Raises: RuntimeError if the user has no home.
    """
    if chosen := os.environ.get("RNK_CACHE_DIR"):
        return Path(chosen) / "triton"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "resnet_kernels" / "triton"


def path_of(key: dict[str, Any]) -> Path:
    text = json.dumps(key, sort_keys=True)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _warn(message: str) -> None:
    """The first of this process."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"RNK_TRITON_AUTOTUNE: {message}", stacklevel=4)


def load(key: dict[str, Any], tiles: Collection[str]) -> str | None:
    """The name of the tile kept for a case, one of `tiles`; None if there is none."""
    try:
        path = path_of(key)
        entry = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as error:
        _warn(f"a kept tile cannot be read and is ignored: {error}")
        return None
    tile = entry.get("tile") if isinstance(entry, dict) and entry.get("key") == key else None
    if not isinstance(tile, str) or tile not in tiles:
        _warn(f"{path} is ignored: it is of another case or version")
        return None
    return tile


def store(key: dict[str, Any], tile: str, milliseconds: dict[str, float]) -> str:
    """Keeps a choice and the times behind it; the tile kept, another process's if it came first."""
    text = json.dumps({"key": key, "tile": tile, "milliseconds": milliseconds}, indent=1)
    temporary = None
    try:
        path = path_of(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        return _publish(temporary, path, key, tile, milliseconds)
    except (OSError, RuntimeError) as error:
        _warn(f"tiles are not kept, each process tunes anew: {error}")
        return tile
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _publish(
    temporary: Path, path: Path, key: dict[str, Any], tile: str, tiles: Collection[str]
) -> str:
    try:
        os.link(temporary, path)
    except FileExistsError:
        first = load(key, tiles)
        if first is not None:
            return first
        os.replace(temporary, path)
    except OSError:
        # A file system without hard links.
        os.replace(temporary, path)
    return tile
