"""Native functions on disk: compiled once for each text, used by all later processes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_HEAD = """import math

import numpy as np
from numba import njit

from tinygrad_hw.compile.intrinsics import (
    exp32, larger, load, meet, packed_product, plus, product, sigmoid32, smaller, store, tanh32,
    times,
)


@njit
def flat(x):
    return x.reshape(x.size)


"""
_loaded: dict[str, Callable[..., Any]] = {}


def require() -> None:
    """Raise an ImportError that says what to install, where numba or scipy is missing."""
    for name in ("numba", "scipy"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f'compile: backend="numba" needs {name}: pip install "tinygrad_hw[fast]"'
            )


def folder() -> Path:
    """Where compiled functions are kept: ``$TINYGRAD_HW_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("TINYGRAD_HW_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinygrad_hw" / "native"


def aligned(size: int, alignment: int) -> np.ndarray[Any, Any]:
    """Make an array of bytes that begins at a multiple of the alignment."""
    raw = np.zeros(size + alignment, np.uint8)
    start = -raw.__array_interface__["data"][0] % alignment
    return raw[start : start + size]


def array_type(dtype: np.dtype[Any], ndim: int, *, readonly: bool) -> Any:
    """The type of an argument: an array in C order."""
    from numba import from_dtype, types

    return types.Array(from_dtype(dtype), ndim, "C", readonly=readonly)


def number_type() -> Any:
    """The type of a Python number as an argument."""
    from numba import types

    return types.float64


def whole_number_type() -> Any:
    """The type of a Python int as an argument."""
    from numba import types

    return types.int64


def numbered(text: str, memories: dict[int, int]) -> str:
    """Number the memories of a function from 0, and tell each read and write how many there are."""
    pattern = re.compile(r", (\d+), COUNT\)")
    return pattern.sub(lambda m: f", {memories[int(m[1])]}, {len(memories)})", text)


def compiled(source: str, types: list[Any], *, nogil: bool = False) -> Callable[..., Any]:
    """Give a native function of a source, from memory, from disk, or compiled now.

    With ``nogil`` other Python threads run meanwhile.
    """
    key = _key(source, types)
    if key not in _loaded:
        _loaded[key] = _load(key, source, types, nogil=nogil)
    return _loaded[key]


def _key(source: str, types: list[Any]) -> str:
    import llvmlite
    import numba

    intrinsics = Path(__file__).with_name("intrinsics.py").read_bytes()
    parts = [source, str(types), _HEAD, numba.__version__, llvmlite.__version__, np.__version__]
    return hashlib.sha256("\n".join([*parts, sys.version]).encode() + intrinsics).hexdigest()[:32]


def _load(key: str, source: str, types: list[Any], *, nogil: bool) -> Callable[..., Any]:
    from numba import njit

    path = _written(key, _HEAD + source)
    name = f"tinygrad_hw_native_{key}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    function: Callable[..., Any] = njit(tuple(types), cache=True, error_model="numpy", nogil=nogil)(
        module.native
    )
    return function


def _written(key: str, text: str) -> Path:
    """Write a source to the cache, or where that cannot be written to, to a folder of its own."""
    path = folder() / f"{key}.py"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}")
            part.write_text(text)
            part.replace(path)
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="tinygrad_hw_")) / f"{key}.py"
        path.write_text(text)
    return path


def refit(function: Callable[..., Any], arguments: Any, writable: list[int]) -> Any:
    """Call a native function on copies of the arrays that do not lie as it needs them."""
    fitted = [
        np.ascontiguousarray(a) if isinstance(a, np.ndarray) and not a.flags.c_contiguous else a
        for a in arguments
    ]
    held = function(*fitted)
    for k in writable:
        if held and fitted[k] is not arguments[k]:
            arguments[k][...] = fitted[k]
    return held
