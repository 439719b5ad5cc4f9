"""How the numpy back end spells a call: into a buffer and with as little around it as there is.

For small arrays, most of the time of a call of NumPy goes into what is around the numbers. So views
are spelled as methods, arithmetic of single numbers with operators, and short sums as products with
ones, which BLAS does in half the time of a reduction.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..ops import index, linalg, shape
from ..ops.activations import relu, relu_grad
from .buffered import masked
from .expand import dip, peak, total
from .program import Array, Spec

# Bytes up to which an array of zeros stays in the cache beside what it is compared with; entries
# that pay for broadcasting it; entries up to which one for each of them pays in a comparison.
_MOST_ZEROS = 2**18
_LEAST_ROW = 2**8
_FEW = 2**12
# Terms of a sum up to which BLAS rounds at most 2.5 times as much as NumPy, which adds in pairs
# (2e-7 of the sum in single precision, for numbers in [0, 1]).
_MOST_TERMS = 2**13


# What is spelled by ufuncs into a buffer, each read before the next one writes.
ENTRYWISE = frozenset({relu.forward, relu_grad.forward})
# Where it reads what it writes to, NumPy takes numbers one by one, ten times as long.
SLOW_IN_PLACE = frozenset({np.sign})


class Call(NamedTuple):
    """A call to spell.

    Attributes
    ----------
    args : list of str
        How its arguments are spelled.
    specs : list of Spec or None
        What is known of those that are values.
    params : dict
    spec : Spec
        Of the result.
    buffer : callable
        Gives the name of a buffer for a Spec; for ``spec`` itself, that of the result.
    known : callable
        Gives the name of an object.
    shown : callable
        Spells an object.
    """

    args: list[str]
    specs: list[Spec | None]
    params: dict[str, Any]
    spec: Spec
    buffer: Callable[[Spec], str]
    known: Callable[[Any], str]
    shown: Callable[[Any], str]


def spelled(forward: Any, call: Call) -> str | None:
    """Spell a call as an expression, if there is a better way than to call ``forward``."""
    if call.spec.order == () and all(spec is None or not spec.shape for spec in call.specs):
        sign = _OPERATORS.get(forward)
        if sign is not None and not call.params:
            return f"({f' {sign} '.join(call.args)})"
    spell = _SPELLED.get(forward)
    return None if spell is None else spell(call)


# --- Views ----------------------------------------------------------------------------------------


def _as_method(call: Call, name: str, *args: Any) -> str | None:
    spec = call.specs[0]
    # NumPy's functions take by position, too, what is looked for by name.
    if spec is None or spec.order is None or len(call.args) > 1:
        return None
    return f"{call.args[0]}.{name}({', '.join(map(call.shown, args))})"


def _reshape(call: Call) -> str | None:
    by_rows = call.params.keys() == {"shape"}
    if not by_rows or call.spec.order != tuple(range(len(call.spec.shape))):
        return None  # The primitive itself knows how to lay out a result by columns.
    return _as_method(call, "reshape", call.params["shape"])


def _transpose(call: Call) -> str | None:
    axes = call.params.get("axes")
    return _as_method(call, "transpose", *([] if axes is None else [axes]))


def _ravel(call: Call) -> str | None:
    return _as_method(call, "ravel", call.params.get("order", "C"))


def _item(call: Call) -> str | None:
    at = call.shown(call.params["index"]) if "index" in call.params else call.args[1]
    return f"{call.args[0]}[{at}]" if call.specs[0] and call.specs[0].shape else None


# --- Calls that write into a buffer ---------------------------------------------------------------


def _relu(call: Call) -> str:
    """Spell the maximum with zeros: NumPy takes up to four times as long with a single one."""
    zeros, order = call.spec, list(call.spec.order or ())
    while zeros.nbytes > _MOST_ZEROS:
        # Of large arrays, for the innermost axes alone; over the others they broadcast.
        zeros = _with_side(zeros, order.pop(0), 1)
    if zeros.size < min(call.spec.size, _LEAST_ROW):
        zeros = zeros._replace(shape=(), order=())
    return f"np.maximum({call.args[0]}, {_zeros(call, zeros)}, out={call.buffer(call.spec)})"


def _zeros(call: Call, spec: Spec) -> str:
    zeros = spec.empty()
    zeros.fill(0)
    return call.known(zeros)


def _with_side(spec: Spec, axis: int, side: int) -> Spec:
    return spec._replace(shape=(*spec.shape[:axis], side, *spec.shape[axis + 1 :]))


def _relu_grad(call: Call) -> str | None:
    (g, x), given = call.args, call.specs[0]
    if given is None or given.order is None or given.dtype != call.spec.dtype:
        return None
    mask = call.buffer(call.spec._replace(dtype=np.dtype(bool)))
    # A single zero costs more to begin with, and less for each entry.
    few = call.spec.size <= _FEW
    zeros = call.spec if few else call.spec._replace(shape=(), order=())
    mask = f"np.greater({x}, {_zeros(call, zeros)}, {mask})"
    dtype, made = call.spec.dtype, call.buffer(call.spec)
    if dtype.char not in "fd":
        return f"{call.known(masked)}({g}, {mask}, {made})"
    # As `masked` does it, whose questions are answered here.
    bits = call.known(np.dtype(f"i{dtype.itemsize}"))
    product = f"np.multiply({g}.view({bits}), {mask}, {made}.view({bits}))"
    return f"{product}.view({call.known(dtype)})"


def _matmul(call: Call) -> str | None:
    spec, (a, b) = call.spec, call.specs
    if call.params or not spec.shape or spec.order != tuple(range(len(spec.shape))):
        return None
    matrices = a is not None and b is not None and len(a.shape) == len(b.shape) == 2
    if matrices and {s.dtype for s in (a, b) if s} == {spec.dtype}:
        return _dot(call.args[0], call.args[1], call.buffer(spec))
    return f"np.matmul({', '.join(call.args)}, {call.buffer(spec)})"


def _dot(a: str, b: str, out: str) -> str:
    """Spell a product of matrices, or of a matrix and a vector, by what has the least around it."""
    return f"{a}.dot({b}, {out})"


def _fold(ufunc: np.ufunc, call: Call) -> str | None:
    """Spell a sum or a maximum over some axes."""
    given, spec, x, axes = call.specs[0], call.spec, call.args[0], call.params["axis"]
    if given is None or spec.order != tuple(range(len(spec.shape))):
        return None
    if not spec.shape:
        return f"{call.known(ufunc)}.reduce({x}, {axes})"
    if ufunc is np.add:
        product = _sum_as_product(call, given)
        if product is not None:
            return product
    kept = tuple(1 if i in axes else side for i, side in enumerate(given.shape))
    if kept == spec.shape:
        return f"{call.known(ufunc)}.reduce({x}, {axes}, None, {call.buffer(spec)}, True)"
    return f"{call.known(_folded)}({call.known(ufunc)}, {x}, {call.buffer(spec)}, {axes}, {kept})"


def _folded(
    ufunc: np.ufunc, x: Array, out: Array, axes: tuple[int, ...], kept: tuple[int, ...]
) -> Array:
    ufunc.reduce(x, axis=axes, out=out.reshape(kept), keepdims=True)
    return out


def _sum_as_product(call: Call, given: Spec) -> str | None:
    """Spell a sum over the first, or the last, axes in memory as a product with ones."""
    order, axes = given.order or (), call.params["axis"]
    terms = math.prod(given.shape[axis] for axis in axes)
    if not axes or not 0 < terms <= _MOST_TERMS or given.dtype.char not in "fd":
        return None
    first = set(order[: len(axes)]) == set(axes)
    rest = order[len(axes) :] if first else order[: -len(axes)]
    if {*axes, *rest} != set(order) or list(rest) != sorted(rest):
        return None
    ones, x = call.known(np.ones(terms, given.dtype)), call.args[0]
    if order != (0, 1) or not rest:
        halves = (terms, -1) if first else (-1, terms)
        x = f"{x}.transpose({order}).reshape({halves})"
    factors = (ones, x) if first else (x, ones)
    made = call.buffer(call.spec)
    if len(call.spec.shape) == 1:
        return _dot(factors[0], factors[1], made)
    return f"{call.known(_product)}({', '.join(factors)}, {made})"


def _product(a: Array, b: Array, out: Array) -> Array:
    a.dot(b, out.reshape(-1))
    return out


_OPERATORS: dict[Any, str] = {
    np.add: "+",
    np.subtract: "-",
    np.multiply: "*",
    np.divide: "/",
    np.equal: "==",
    np.not_equal: "!=",
    np.less: "<",
    np.less_equal: "<=",
    np.greater: ">",
    np.greater_equal: ">=",
}
_SPELLED: dict[Any, Callable[[Call], str | None]] = {
    shape._reshape.forward: _reshape,
    np.reshape: _reshape,
    shape._transpose.forward: _transpose,
    np.transpose: _transpose,
    np.ravel: _ravel,
    operator.getitem: _item,
    index._getitem.forward: _item,
    relu.forward: _relu,
    relu_grad.forward: _relu_grad,
    linalg.matmul.forward: _matmul,
    np.matmul: _matmul,
    total: partial(_fold, np.add),
    peak: partial(_fold, np.maximum),
    dip: partial(_fold, np.minimum),
}
