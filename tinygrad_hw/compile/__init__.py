"""``tg.compile``: record a function once, and run it from the record, without Python's overhead.

>>> import numpy as np, tinygrad_hw as tg
>>> w = tg.Tensor([1.0, 2.0], requires_grad=True)
>>> optimizer = tg.optim.SGD([w], lr=0.25)
>>> @tg.compile
... def step(x):
...     optimizer.zero_grad()
...     loss = ((w * x) ** 2).sum()
...     loss.backward()
...     optimizer.step()
...     return loss
>>> [step(np.ones(2)).item() for _ in range(3)]
[5.0, 1.25, 0.3125]

A function goes through these modules:

- ``function``: calls the variant that fits, and records another where none does;
- ``recording`` and ``traced``: run it on what stands for arrays, and note a ``program``; with
  ``pullback``, the gradients of what it returns;
- ``variant``: one program and when it fits, by its ``arguments``, the tensors that it ``reached``
  and the ``guards`` of Python values, which use ``names``, ``progress`` and ``same``;
- ``rewriting``, with ``expand``, ``images`` and ``indices``: the program in simpler operations;
- ``straight``, with ``buffered``, ``chains``, ``spelling`` and ``recycle``, and ``native``: the
  back ends;
- ``call``: one run, from what it reads to what it writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, overload

from .errors import CompileError
from .function import Compiled

__all__ = ["CompileError", "Compiled", "compile_function"]


@overload
def compile_function(
    function: Callable[..., Any], *, backend: str = ..., limit: int = ...
) -> Compiled: ...


@overload
def compile_function(
    function: None = None, *, backend: str = ..., limit: int = ...
) -> Callable[[Callable[..., Any]], Compiled]: ...


def compile_function(
    function: Callable[..., Any] | None = None, *, backend: str = "numpy", limit: int = 8
) -> Any:
    """Record a function of tensors and arrays, or a whole training step, and run the record.

    The first call runs the function on its arguments and notes every operation: those of the
    forward, of ``backward()`` and of the optimiser's step. Later calls run what was noted: without
    a graph, without what nobody uses, on buffers that are used again. Tensors that the function
    reaches are read at each call and updated in place; dropout draws anew.

    Parameters
    ----------
    function : callable
        Its arguments may be tensors, arrays (also integer labels), numbers and containers of them.
    backend : "numpy" or "numba"
        How it runs: as a Python function of NumPy calls, or as native code (extra ``[fast]``).
    limit : int
        How often it is recorded. A call with other shapes, dtypes, Python values or structure
        records again; beyond the limit the function is called as it is.

    Returns
    -------
    Compiled
        Call it like the function. ``explain()`` says what was recorded and why again,
        ``graph()`` draws it.

    Raises
    ------
    CompileError
        When it is called and does what cannot be recorded, such as ``bool()``, ``.item()`` or
        ``print`` of a value; the message says where and what to do.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> double = tg.compile(lambda x: x + x)
    >>> double(tg.Tensor([1.0, 2.0])), double(tg.Tensor([3.0, 4.0]))
    (Tensor([2., 4.]), Tensor([6., 8.]))
    """
    if function is None:
        return lambda function: compile_function(function, backend=backend, limit=limit)
    return Compiled(function, backend, limit)


class _Callable(ModuleType):
    """This package, which is called by its name as the function: ``tg.compile(f)``."""

    def __call__(self, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        return compile_function(function, **options)


sys.modules[__name__].__class__ = _Callable
