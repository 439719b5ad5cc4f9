"""Elementwise primitives; they broadcast as NumPy does, and none of their rules knows it.

Most forwards are NumPy's own ufuncs. A rule's ``g`` is the cotangent of the output ``y``; which of
the values it uses stands in ``keeps``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..domains import POSITIVE, REAL, elementwise
from ..errors import with_graph
from ..graph import SEQUENCES, Handle, check_untracked, value_of
from ..kernels import hw5
from .constants import equal, isinf, logical_and, logical_or

__all__ = [
    "abs",
    "add",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "cast",
    "cbrt",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "divide",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "hypot",
    "identity",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "reciprocal",
    "remainder",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "where",
]

# --- Arithmetic -------------------------------------------------------------------------------


@primitive(domain=elementwise(REAL))
def identity(x):
    """Give the same values as a new node."""
    if getattr(x, "dtype", None) == np.bool_:
        return np.copy(x)  # They are neither positive nor negative to NumPy.
    return np.positive(x)


identity.rule(lambda g, y, x: (g,))


@primitive(domain=elementwise(REAL, dtype=np.float64))
def cast(x, *, dtype):
    """Change the dtype to one of floats, which have gradients."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        raise TypeError(f"got dtype {dtype}; want floats: for constants, use x.astype({dtype})")
    return np.asarray(x).astype(dtype)


@cast.rule
def _(g, y, x, *, dtype):
    return (g,)  # The engine gives every gradient the dtype of its input.


add = primitive(np.add, domain=elementwise(REAL, REAL))
add.rule(lambda g, y, a, b: (g, g))

subtract = primitive(np.subtract, domain=elementwise(REAL, REAL))
subtract.rule(lambda g, y, a, b: (g, -g))

multiply = primitive(np.multiply, domain=elementwise(REAL, REAL))


@multiply.rule(keeps="a b")
def _(g, y, a, b, *, needs):
    return g * b if needs[0] else None, g * a if needs[1] else None


divide = primitive(np.divide, domain=elementwise(REAL, POSITIVE))


@divide.rule(keeps="a b")
def _(g, y, a, b, *, needs):
    # Divided by b twice, whose square may under- or overflow.
    return g / b if needs[0] else None, -g * (a / b) / b if needs[1] else None


negative = primitive(np.negative, domain=elementwise(REAL))
negative.rule(lambda g, y, x: (-g,))

reciprocal = primitive(np.reciprocal, domain=elementwise(POSITIVE))
reciprocal.rule(lambda g, y, x: (-g * y * y,), keeps="y")

square = primitive(np.square, domain=elementwise(REAL))
square.rule(lambda g, y, x: (g * 2 * x,), keeps="x")


def _power(a, b):
    """``np.power``, which may take a hundred times as long with negative numbers as with others."""
    if type(b) not in (int, float) or type(a) not in _FLOATS or a.dtype.kind != "f" or b % 1:
        return np.power(a, b)
    if b == 2:
        return a * a
    if b == 3:
        return a * a * a
    if b == -1:
        return np.reciprocal(a)
    if b in (0, 1) or a.size < _MANY or not is_ordinary(b, a.dtype):
        return np.power(a, b)
    y = np.power(np.abs(a), b)
    return np.copysign(y, a) if b % 2 else y


def is_ordinary(exponent: float, dtype: np.dtype[Any]) -> bool:
    """Tell whether a whole exponent is one of the dtype too, which may hold no large odd ones."""
    return dtype.itemsize >= 4 and abs(exponent) < 2**24


_FLOATS = frozenset({np.ndarray, np.float64, np.float32})
# From so many entries on powers of absolute values are quicker.
_MANY = 512
power = primitive(
    np.power,
    domain=elementwise(POSITIVE, REAL),
    conventions="d/dx x**0 = 0; d/dy 0**y = 0",
)
power.operator = power.quicker = _power


@power.rule(keeps="y a b")
def _(g, y, a, b, *, needs):
    return (
        g * _power_by_base(a, b) if needs[0] else None,
        g * _power_by_exponent(y, a) if needs[1] else None,
    )


def _power_by_exponent(y, a):
    # At the base 0 a negative exponent gives infinity, which the factor 0 must win from too.
    zero = equal(a, 0)
    return where(zero, 0, y) * log(where(zero, 1, a))


def _power_by_base(a, b):
    # The exponent 0 - 1 would divide by zero at the base 0, where the factor 0 must win.
    if isinstance(b, (int, float)):
        return 0 if b == 0 else b * (a if b == 2 else power(a, b - 1))
    # Elsewhere b = 0 is no exception: the derivative by b is a**-1 there.
    origin = logical_and(isinf(1 / a), equal(b, 0))
    # Unsigned zeros less the integer 1 would wrap around.
    return b * power(where(origin, 1, a), b - 1.0)


# --- Powers and logarithms --------------------------------------------------------------------

exp = primitive(np.exp, domain=elementwise(REAL))
exp.rule(lambda g, y, x: (g * y,), keeps="y")

exp2 = primitive(np.exp2, domain=elementwise(REAL))
exp2.rule(lambda g, y, x: (g * y * math.log(2),), keeps="y")

expm1 = primitive(np.expm1, domain=elementwise(REAL))
expm1.rule(lambda g, y, x: (g * (y + 1),), keeps="y")

log = primitive(np.log, domain=elementwise(POSITIVE))
log.rule(lambda g, y, x: (g / x,), keeps="x")

log1p = primitive(np.log1p, domain=elementwise((-1.0, math.inf)))
log1p.rule(lambda g, y, x: (g / (x + 1),), keeps="x")

log2 = primitive(np.log2, domain=elementwise(POSITIVE))
log2.rule(lambda g, y, x: (g / (x * math.log(2)),), keeps="x")

log10 = primitive(np.log10, domain=elementwise(POSITIVE))
log10.rule(lambda g, y, x: (g / (x * math.log(10)),), keeps="x")

logaddexp = primitive(np.logaddexp, domain=elementwise(REAL, REAL))


@logaddexp.rule(keeps="a b")
def _(g, y, a, b):
    # Not one share and the rest of 1: a small share is less than a rounding of the other. Of two
    # that are -inf none has a share, as in logsumexp.
    none = logical_and(equal(a, -math.inf), equal(b, -math.inf))
    return g * sigmoid(where(none, a, a - b)), g * sigmoid(where(none, b, b - a))


sqrt = primitive(np.sqrt, domain=elementwise(POSITIVE))
sqrt.rule(lambda g, y, x: (g * 0.5 / y,), keeps="y")

cbrt = primitive(np.cbrt, domain=elementwise(POSITIVE))
cbrt.rule(lambda g, y, x: (g / (3 * y * y),), keeps="y")

hypot = primitive(
    np.hypot, domain=elementwise(POSITIVE, REAL), conventions="gradient 0 at the origin"
)


@hypot.rule(keeps="y a b")
def _(g, y, a, b):
    origin = equal(y, 0)
    g, length = where(origin, 0, g), where(origin, 1, y)
    return g * a / length, g * b / length


# --- Circular and hyperbolic functions --------------------------------------------------------

sin = primitive(np.sin, domain=elementwise(REAL))
sin.rule(lambda g, y, x: (g * cos(x),), keeps="x")

cos: Any = primitive(np.cos, domain=elementwise(REAL))
cos.rule(lambda g, y, x: (-g * sin(x),), keeps="x")

tan = primitive(np.tan, domain=elementwise((-1.5, 1.5)))
tan.rule(lambda g, y, x: (g * (1 + y * y),), keeps="y")

arcsin = primitive(np.arcsin, domain=elementwise((-1.0, 1.0)))
arcsin.rule(lambda g, y, x: (g / sqrt((1 - x) * (1 + x)),), keeps="x")

arccos = primitive(np.arccos, domain=elementwise((-1.0, 1.0)))
arccos.rule(lambda g, y, x: (-g / sqrt((1 - x) * (1 + x)),), keeps="x")

arctan = primitive(np.arctan, domain=elementwise(REAL))
arctan.rule(lambda g, y, x: (g / (1 + x * x),), keeps="x")

arctan2 = primitive(
    np.arctan2, domain=elementwise(REAL, POSITIVE), conventions="gradient 0 at the origin"
)


@arctan2.rule(keeps="a b")
def _(g, y, a, b):
    # Divided by the length twice, whose square may under- or overflow.
    length = hypot(a, b)
    origin = equal(length, 0)
    g, length = where(origin, 0, g), where(origin, 1, length)
    return g * (b / length) / length, -g * (a / length) / length


sinh = primitive(np.sinh, domain=elementwise(REAL))
sinh.rule(lambda g, y, x: (g * cosh(x),), keeps="x")

cosh: Any = primitive(np.cosh, domain=elementwise(REAL))
cosh.rule(lambda g, y, x: (g * sinh(x),), keeps="x")

tanh = primitive(np.tanh, domain=elementwise(REAL))
tanh.rule(lambda g, y, x: (g * (1 - y * y),), keeps="y")

arcsinh = primitive(np.arcsinh, domain=elementwise(REAL))
arcsinh.rule(lambda g, y, x: (g / hypot(x, 1),), keeps="x")  # The square may overflow.

arccosh = primitive(np.arccosh, domain=elementwise((1.0, math.inf)))
arccosh.rule(lambda g, y, x: (g / (sqrt(x - 1) * sqrt(x + 1)),), keeps="x")

arctanh = primitive(np.arctanh, domain=elementwise((-1.0, 1.0)))
arctanh.rule(lambda g, y, x: (g / ((1 - x) * (1 + x)),), keeps="x")


@primitive(domain=elementwise(REAL))
def sigmoid(x):
    """Logistic function ``1 / (1 + exp(-x))``, without overflow.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    # Where exp overflows the answer is 0 all the same.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(np.multiply(x, -1.0)))


sigmoid.rule(lambda g, y, x: (g * (y * (1 - y)),), keeps="y")


# --- Pieces: constant or linear on each side of a kink ----------------------------------------


def _sign_of(x, **params):
    return np.sign(x)


def _sign_of_difference(a, b):
    return np.sign(np.subtract(a, b))


def _off_steps(low, high, **params):
    """Whole numbers and a part of one from low to high: off the steps of a function that rounds."""

    def sample(draw):
        shape = domains.shape(draw)
        x = np.floor(draw.array(shape)) + draw.array(shape, low, high)
        return (np.asarray(x),), dict(params)

    return domains.Domain("all reals", sample)


_BETWEEN_WHOLE = _off_steps(1 / 16, 15 / 16)

sign = primitive(np.sign, domain=elementwise(REAL), piece=_sign_of, conventions="gradient 0")
floor = primitive(np.floor, domain=_BETWEEN_WHOLE, piece=np.floor, conventions="gradient 0")
ceil = primitive(np.ceil, domain=_BETWEEN_WHOLE, piece=np.ceil, conventions="gradient 0")


@primitive(
    domain=_off_steps(-7 / 16, 7 / 16, decimals=0),
    piece=lambda x, *, decimals: np.round(x, decimals),
    conventions="gradient 0",
)
def _round(x, *, decimals):
    return np.round(x, decimals)


_round.name = "round"
for _constant in (sign, floor, ceil, _round):
    _constant.rule(lambda g, y, x, **params: (None,))


def _division_call(draw):
    of_dividend, of_divisor = domains.broadcastable(draw, 2)
    divisor = draw.array(of_divisor, 0.5, 4.5)
    # Between the multiples of the divisor, where the quotient jumps.
    quotient = np.floor(draw.array(of_dividend)) + draw.array(of_dividend, 1 / 16, 15 / 16)
    return (np.asarray(quotient * divisor), divisor), {}


_DIVISION = domains.Domain("all reals and (0, inf)", _division_call)

floor_divide = primitive(
    np.floor_divide,
    domain=_DIVISION,
    piece=np.floor_divide,
    conventions="gradient 0",
)


@floor_divide.rule
def _(g, y, a, b):
    return None, None


def round(x: Any, decimals: int = 0) -> Any:
    """Round to ``decimals`` places, half to even; the gradient is 0.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.round(np.array([0.5, 1.5, 2.4]))
    array([0., 2., 2.])
    """
    return _round(x, decimals=decimals)


abs = primitive(
    np.abs, name="abs", domain=elementwise(REAL), piece=_sign_of, conventions="abs'(0) = 0"
)
abs.rule(lambda g, y, x: (g * sign(x),), keeps="x")

_TIES = "ties split equally"
maximum = primitive(
    np.maximum, domain=elementwise(REAL, REAL), piece=_sign_of_difference, conventions=_TIES
)
minimum = primitive(
    np.minimum, domain=elementwise(REAL, REAL), piece=_sign_of_difference, conventions=_TIES
)


@maximum.rule(keeps="a b")
def _(g, y, a, b):
    share = _share_above(a, b)
    return g * share, g * (1 - share)


@minimum.rule(keeps="a b")
def _(g, y, a, b):
    share = _share_above(b, a)
    return g * share, g * (1 - share)


def _share_above(a, b):
    """1 where a is above b, 1/2 at ties, 0 below: a constant."""
    a, b = value_of(a), value_of(b)
    dtype = np.result_type(a, b)
    return (np.greater(a, b) + 0.5 * np.equal(a, b)).astype(dtype if dtype.kind == "f" else float)


def _where_call(draw):
    a, b = domains.broadcastable(draw, 2)
    return (draw.array(np.broadcast_shapes(a, b)) > 0, draw.array(a), draw.array(b)), {}


@primitive(
    domain=domains.Domain("all reals", _where_call, "entry"),
    conventions="nothing leaks from the branch not taken",
)
def where(condition, a, b):
    """Choose ``a`` where the condition holds, else ``b``.

    Parameters
    ----------
    condition : array of bool, broadcastable; a constant
    a, b : array or Tensor, broadcastable

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor([0.0, 4.0], requires_grad=True)
    >>> tg.where(x > 0, tg.sqrt(x), 0.0).sum().backward()
    >>> x.grad
    array([0.  , 0.25])
    """
    y = _choose(condition, a, b)
    # NumPy would choose among texts and None too, and take them for truth values.
    if y.dtype.kind not in "fiubc" or np.asarray(condition).dtype.kind not in "fiubc":
        raise TypeError(f"got {condition!r}, {a!r} and {b!r}; want a truth value and two numbers")
    return y


def _choose(condition, a, b):
    """``np.where``, without its branch at every entry: it is slow where it is hard to foresee."""
    x = a if type(a) is np.ndarray else b
    if type(x) is not np.ndarray or x.size < hw5.MANY or not _is_mask(condition, x):
        return np.where(condition, a, b)
    if _is_zero(b):
        return hw5.masked(x, condition)
    if _is_zero(a):
        return hw5.masked(x, ~condition)
    if type(a) is not type(b) or a.shape != b.shape or a.dtype != b.dtype:
        return np.where(condition, a, b)
    bits = np.dtype(f"i{x.itemsize}")
    chosen = a.view(bits) ^ b.view(bits)
    chosen *= condition
    chosen ^= b.view(bits)
    return chosen.view(x.dtype)


def _is_mask(condition, x):
    """Tell whether a condition is a mask of numbers whose bits can be chosen."""
    masks = type(condition) is np.ndarray and condition.dtype == bool
    return masks and condition.shape == x.shape and x.dtype.char in "fd" and x.dtype.isnative


def _is_zero(value):
    return type(value) in (int, float) and value == 0 and math.copysign(1, value) > 0


@where.rule(keeps="condition")
def _(g, y, condition, a, b, *, needs):
    taken = where(condition, g, 0) if needs[1] else None
    return None, taken, where(condition, 0, g) if needs[2] else None


@primitive(
    name="clip",
    # Bounds that no one draws by chance, as whole numbers are.
    domain=elementwise(REAL, lower=-0.8, upper=1.3),
    piece=lambda x, *, lower, upper: np.subtract(*_beyond(x, lower, upper), dtype=np.int8),
    conventions="gradient 1 inside and at the bounds",
)
def _clip(x, *, lower, upper):
    return np.clip(x, lower, upper)


@_clip.rule(keeps="x")
def _(g, y, x, *, lower, upper):
    return (where(logical_or(*_beyond(value_of(x), lower, upper)), 0, g),)


def _beyond(x, lower, upper):
    """Tell which entries are below and which are above; both, if the bounds are the wrong way."""
    return (
        False if lower is None else np.less(x, lower),
        False if upper is None else np.greater(x, upper),
    )


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """Limit the values to ``[min, max]``; the gradient is 1 inside and at the bounds, 0 outside.

    Parameters
    ----------
    x : array or Tensor
    min, max : float, array or None
        Constants: pass tensors that want a gradient to ``maximum`` and ``minimum``. Where ``min``
        is above ``max``, the result is ``max`` and the gradient 0.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.clip(np.array([-2.0, 0.5, 2.0]), 0, 1)
    array([0. , 0.5, 1. ])
    """
    for bound in (min, max):
        if type(bound) in SEQUENCES:
            check_untracked("clip", bound)
        if isinstance(bound, Handle) and bound._node is not None:
            raise with_graph(TypeError)(
                "clip: a bound requires a gradient; use minimum(maximum(x, low), high)"
            )
    if isinstance(x, Handle) and x._node is not None:
        # The walk back compares with the bounds again.
        min, max = _own(min), _own(max)
    return _clip(x, lower=value_of(min), upper=value_of(max))


def _own(bound: Any) -> Any:
    """Copy what could be written to later."""
    value = value_of(bound)
    return np.array(value) if isinstance(value, (np.ndarray, list)) else value


remainder = primitive(
    np.remainder,
    domain=_DIVISION,
    piece=lambda a, b: np.floor_divide(a, b),
    conventions="the quotient's floor is constant",
)


@remainder.rule(keeps="a b")
def _(g, y, a, b):
    # Not floor(a / b), which is one too large where the quotient is rounded up: 1 / 0.1.
    return g, -g * floor_divide(a, b)
