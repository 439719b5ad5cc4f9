"""Native functions on disk: compiled once for each text, used by all later processes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np

from . import object_code, processor

_loaded: dict[str, Callable[..., Any]] = {}
# Files whose text is part of what native code is made of: the last has coefficients.
_PARTS = (
    "emission.py",
    "formulas.py",
    "intrinsics.py",
    "object_code.py",
    "processor.py",
    "products.py",
    "translation.py",
    "../../ops/special.py",
)


def folder() -> Path:
    """Where compiled functions are kept: ``$TINYGRAD_HW_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("TINYGRAD_HW_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinygrad_hw" / "native"


def compiled(source: str) -> Callable[..., Any]:
    """Give the function of a native source, from memory, from disk, or compiled now.

    It takes arrays and numbers; it returns 1, or 0 where what was assumed does not hold, or -1
    where arrays do not lie as they must.
    """
    key = _key(source)
    if key not in _loaded:
        path = folder() / f"{key}.native"
        made = _read(path)
        if made is None:
            from .translation import translated

            made = object_code.emitted(translated(source))
            _write(path, made)
        _loaded[key] = object_code.loaded(made)
    return _loaded[key]


def _key(source: str) -> str:
    versions = [llvmlite.__version__, np.__version__, sys.version]
    digest = hashlib.sha256("\n".join([source, processor.name(), *versions]).encode())
    for name in _PARTS:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:32]


def _read(path: Path) -> object_code.ObjectCode | None:
    """Read object code; None where there is none, or not the whole of it."""
    try:
        head, _, code = path.read_bytes().partition(b"\n")
        facts = json.loads(head)
        if facts["sha256"] == hashlib.sha256(code).hexdigest():
            return object_code.ObjectCode(facts["needs"], code)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(path: Path, made: object_code.ObjectCode) -> None:
    """Write object code, unless the folder cannot be written to."""
    head = {"needs": made.needs, "sha256": hashlib.sha256(made.code).hexdigest()}
    part = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(json.dumps(head).encode() + b"\n" + made.code)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
