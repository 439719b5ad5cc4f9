"""The back ends that run recorded programs, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .program import Program

Backend = Callable[[Program], Any]


def backend_of(name: str) -> Backend:
    """Give the back end of a name."""
    if name == "numpy":
        from .straight import Straight

        return Straight
    if name == "numba":
        for package in ("llvmlite", "scipy"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ImportError(
                    f'compile: backend="numba" needs {package}: pip install "tinygrad_hw[fast]"'
                ) from error
        from .native import Native

        return Native
    raise ValueError(f'compile: backend is {name!r}; want "numpy" or "numba"')
