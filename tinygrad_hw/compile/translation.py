"""From the text of a native function to LLVM's, by numba."""

# mypy: ignore-errors
# Numba's types are not Python's.

from __future__ import annotations

import math

import numpy as np
from numba import config, njit, types

from . import intrinsics, products

_SIGNATURE = types.voidptr(types.voidptr, types.CPointer(types.voidptr), types.intp)


def translated(source: str) -> tuple[str, str]:
    """Give LLVM's text for a source of ``native(self, objects, count)``, and the function's name.

    The function has numba's calling convention: it takes where to put the result and where to put
    an exception, then its arguments.
    """
    if config.DISABLE_JIT:
        raise RuntimeError("compile: NUMBA_DISABLE_JIT is set; unset it, or use backend='numpy'")
    names = {"np": np, "math": math, **vars(intrinsics), **vars(products)}
    exec(compile(source, "<native>", "exec"), names)
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    function = njit(_SIGNATURE, **options)(names["native"])
    name = function.overloads[_SIGNATURE.args].fndesc.llvm_func_name
    return function.inspect_llvm(_SIGNATURE.args), name
