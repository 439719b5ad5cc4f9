"""Hypothesis strategies for tensors, calls of primitives and whole programs.

What is drawn is small and exact: multiples of 1/8, short shapes. Its repr is Python that makes it
again, with ``np`` and ``tg`` for the modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .. import domains
from ..dispatch import Primitive
from ..tensor import Tensor

try:
    from hypothesis import reject
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise ImportError('the strategies need Hypothesis: pip install "tinygrad_hw[test]"') from error

from .calls import Call
from .draws import HypothesisDraw
from .programs import Program, ProgramDraw

__all__ = [
    "Call",
    "Like",
    "Program",
    "axes",
    "broadcastable",
    "calls",
    "indices",
    "primitives_of",
    "programs",
    "shapes",
    "tensors",
]

Array = np.ndarray[Any, Any]

# Of a program, before those that ops ask for because none fits.
_MOST_INPUTS = 3


@st.composite
def shapes(draw: Any, min_dims: int = 0, max_dims: int = 3, max_side: int = 4) -> tuple[int, ...]:
    """Short shapes, without zeros."""
    return domains.shape(HypothesisDraw(draw), min_dims, max_dims, max_side)


@dataclass(frozen=True)
class Like:
    """Stands for tensors of the shape of another argument; see :func:`tensors`."""

    argument: str
    low: float
    high: float
    dtype: Any

    def of(self, other: Any) -> Any:
        """Give the strategy, once the other argument is known."""
        return tensors(np.shape(other), self.low, self.high, self.dtype)


def tensors(
    shape: Any = None,
    low: float = -math.inf,
    high: float = math.inf,
    dtype: Any = np.float64,
    *,
    like: str | None = None,
) -> Any:
    """Tensors that require a gradient.

    Parameters
    ----------
    shape : tuple of int or strategy, optional
        Any short one by default.
    low, high : float
        The open interval of the entries.
    dtype : dtype
    like : str, optional
        The name of another argument of :func:`~tinygrad_hw.testing.gradients_match`, whose shape
        is taken.

    Returns
    -------
    strategy

    Examples
    --------
    >>> from hypothesis import find
    >>> find(tensors((2,)), lambda x: x.sum().item() > 2.5)
    Tensor([1., 2.], requires_grad=True)
    """
    if like is not None:
        return Like(like, low, high, dtype)
    kinds = shape if isinstance(shape, st.SearchStrategy) else st.just(shape)
    return _tensors(kinds if shape is not None else shapes(), low, high, dtype)


@st.composite
def _tensors(draw: Any, shape: Any, low: float, high: float, dtype: Any) -> Tensor:
    sides = draw(shape)
    values = HypothesisDraw(draw).array((sides,) if isinstance(sides, int) else sides, low, high)
    return Tensor(values, requires_grad=True, dtype=dtype)


@st.composite
def broadcastable(
    draw: Any, count: int = 2, low: float = -math.inf, high: float = math.inf
) -> tuple[Tensor, ...]:
    """Tensors of shapes that broadcast together, the largest first."""
    source = HypothesisDraw(draw)
    found = domains.broadcastable(source, count)
    return tuple(Tensor(source.array(s, low, high), requires_grad=True) for s in found)


@st.composite
def axes(draw: Any, ndim: int) -> int | tuple[int, ...] | None:
    """What ``axis=`` may be: None, one axis or several, in any order and maybe from the end."""
    return domains.axes(HypothesisDraw(draw), ndim)


@st.composite
def indices(draw: Any, shape: Sequence[int]) -> Any:
    """What may stand in brackets: integers, slices, None, an ellipsis, integer arrays and masks."""
    source = HypothesisDraw(draw)
    kind = source.choice(["basic", "basic", "integers", "mask"])
    if kind == "mask" and shape:
        return source.array(shape) > 0
    if kind == "integers" and shape:
        count = source.integer(1, 4)
        n = shape[0]
        return np.array([source.integer(-n, n - 1) for _ in range(count)])
    parts: list[Any] = []
    for n in shape:
        part = source.choice(["all", "one", "some", "every other", "new"])
        if part == "new":
            parts.append(None)
        start = source.integer(0, n - 1)
        some = {"one": start, "some": slice(start, None), "every other": slice(None, None, -2)}
        parts.append(some.get(part, slice(None)))
    return tuple(parts) if source.integer(0, 3) else (..., *parts)


@st.composite
def calls(draw: Any, primitive: Primitive) -> Call:
    """Calls of a primitive, drawn from its domain.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> from hypothesis import find
    >>> find(calls(tg.add), lambda call: True)
    Call(tg.add, np.array(1.0), np.array(1.0))
    """
    if primitive.domain is None:
        raise TypeError(
            f"{primitive.name}: has no domain to draw calls from; declare it with "
            "@primitive(domain=...), for example domains.elementwise(domains.REAL)"
        )
    args, params = primitive.domain.sample(HypothesisDraw(draw))
    return Call(primitive, *args, **params)


@st.composite
def programs(draw: Any, ops: Any = None, max_steps: int = 6) -> Program:
    """Programs of several ops, with shared values and broadcasting.

    Parameters
    ----------
    ops : iterable of primitives or their names, or modules, optional
        What to build from; every primitive of the package by default.
    max_steps : int
        The most ops.

    Returns
    -------
    strategy of Program
        A program is a function of arrays or tensors, with arguments to call it on:
        ``program(*program.args)``. It returns the values that none of its steps use: one, or a
        tuple. Its repr is Python that makes it again, with ``np`` and ``tg`` for the modules.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(program=programs())
    ... def test_two_runs_agree(program):
    ...     assert str(program(*program.args)) == str(program(*program.args))
    >>> test_two_runs_agree()
    >>> from hypothesis import find
    >>> find(programs(["exp", "sum"]), lambda program: program.steps == 1)
    Program('y0 = tg.exp(x0)', x0=np.array(1.0))
    """
    pool = primitives_of(ops)
    builder = ProgramDraw(draw)
    # Seldom 0, but that is simplest: so shrinking first leaves out what the last step can spare.
    whole = builder.integer(0, 7) > 0
    for shape in draw(st.lists(shapes(), max_size=_MOST_INPUTS)):
        builder.add_input(shape)
    # A list, so that Hypothesis knows where a step starts and ends, and can take it out.
    draw(st.lists(_steps(builder, pool), min_size=1, max_size=max_steps))
    if not builder.lines:
        reject()
    return builder.program(whole=whole)


@st.composite
def _steps(draw: Any, builder: ProgramDraw, pool: Sequence[Primitive]) -> None:
    builder.draw = draw
    builder.add(builder.choice(pool))


def primitives_of(ops: Any = None) -> list[Primitive]:
    """List the primitives that are meant by names, primitives, modules, or a collection of them.

    Examples
    --------
    >>> primitives_of("exp"), primitives_of(["exp", "log"])
    ([<primitive exp>], [<primitive exp>, <primitive log>])
    """
    from ..ops import primitives

    if ops is None:
        return [p for p in primitives().values() if p.domain is not None]
    if isinstance(ops, Primitive):
        return [ops]
    if isinstance(ops, str):
        known = primitives()
        if ops not in known:
            raise ValueError(f"programs: there is no primitive {ops!r}; see tg.ops.primitives()")
        return [known[ops]]
    if isinstance(ops, ModuleType):
        found = [p for p in vars(ops).values() if isinstance(p, Primitive)]
        own = [p for p in found if p.__module__ == ops.__name__ or not _is_ours(p)]
        return list(dict.fromkeys(own))
    if isinstance(ops, Iterable):
        return [p for item in ops for p in primitives_of(item)]
    raise TypeError(f"got {ops!r}; want primitives, their names, or modules that hold them")


def _is_ours(primitive: Primitive) -> bool:
    return primitive.__module__.startswith("tinygrad_hw.ops")
