"""Functions that native code has of its own, as native text.

What gives a number becomes part of what calls it, and has neither a branch nor a loop, so that LLVM
makes vectors of loops over it. The coefficients make the largest relative error least, as fitted by
weights that grow where the error is large (Lawson 1961).
"""

# mypy: ignore-errors
# What is called here is of intrinsics.py; this is never run as Python.
# ruff: noqa: F821

from __future__ import annotations

import numpy as np

from ...ops.special import ERF_END
from ...ops.special import ERF_P as P
from ...ops.special import ERF_Q as Q

F = np.float32
_ONE = F(1.0)

_TOP, _BOTTOM = F(89.0), F(-104.0)
_PER_LOG2, _LOG2_HIGH, _LOG2_LOW = F(1.44269504088896), F(0.693145751953125), F(1.42860682030942e-6)
# Added to a small number, it leaves the nearest whole number in the last bits, plus twice what an
# exponent is kept with.
_ROUNDING = F(1.5 * 2**23 + 254)
_E2, _E3, _E4 = F(0.49999994), F(0.16666521), F(0.041668389)
_E5, _E6 = F(0.0083687454), F(0.0013814541)


def powers_of_e(x):
    """What makes the exponential of a float32: q, and two factors of 2**n, for (1 + q) 2**n.

    x = n log 2 + r, where |r| is at most log(2) / 2, and a polynomial for q = exp(r) - 1 (Muller,
    "Elementary Functions", section 11.3), by Estrin's scheme.
    """
    z = most(_BOTTOM, least(_TOP, x))
    rounded = fused(z, _PER_LOG2, _ROUNDING)
    n = rounded - _ROUNDING
    r = fused(n, -_LOG2_LOW, fused(n, -_LOG2_HIGH, z))
    square = r * r
    p = fused(fused(_E6, square, fused(_E5, r, _E4)), square, fused(_E3, r, _E2))
    # Two factors, since 2**n itself may be no normal number.
    whole = bits(rounded)
    half = whole >> 1
    return fused(p, square, r), with_exponent(half), with_exponent(whole - half)


def exp32(x):
    """Exponential of a float32, to 1 unit in the last place."""
    parts = powers_of_e(x)
    return fused(parts[0], parts[1], parts[1]) * parts[2]


def expm1_32(x):
    """``exp(x) - 1`` of a float32, to 2 units in the last place."""
    parts = powers_of_e(x)
    # Where 2**n overflows, the 1 counts for nothing.
    large = fused(parts[0], parts[1], parts[1]) * parts[2]
    small = fused(parts[0] * parts[1], parts[2], parts[1] * parts[2] - _ONE)
    return pick(x == 0, x, pick(x > _ONE, large - _ONE, small))


# The bits of the square root of 1/2, the least normal number, and what makes smaller ones normal.
_SQRT_HALF, _FRACTION = 0x3F3504F3, 0x7FFFFF
_NORMAL, _LARGE, _HALF, _NONE = F(2.0**-126), F(2.0**23), F(0.5), F(0.0)
_L0, _L1, _L2, _L3 = F(0.33333313), F(-0.25000009), F(0.20002119), F(-0.16667996)
_L4, _L5, _L6, _L7 = F(0.14219552), F(-0.12405588), F(0.11888162), F(-0.11675651)
_L8, _EXTRA = F(0.067466366), F(23.0)
_INFINITE, _NAN = F(np.inf), F(np.nan)


def log32(x):
    """Logarithm of a float32, to 1 unit in the last place.

    x = 2**n (1 + f), where 1 + f is between the square roots of 1/2 and 2, and f - f**2 / 2 +
    f**3 P(f) for the logarithm of 1 + f, a form that Moshier's Cephes library has too.
    """
    tiny = x < _NORMAL
    whole = bits(pick(tiny, x * _LARGE, x)) - _SQRT_HALF
    f = from_bits((whole & _FRACTION) + _SQRT_HALF) - _ONE
    n = np.float32(whole >> 23) - pick(tiny, _EXTRA, _NONE)
    s = f * f
    p = fused(fused(_L3, f, _L2), s, fused(_L1, f, _L0))
    q = fused(fused(_L7, f, _L6), s, fused(_L5, f, _L4))
    fourth = s * s
    p = fused(fused(_L8, fourth, q), fourth, p)
    y = fused(s, -_HALF, fused(f * s, p, n * _LOG2_LOW))
    y = fused(n, _LOG2_HIGH, f + y)
    return pick(x > 0, pick(x < _INFINITE, y, x), pick(x == 0, -_INFINITE, _NAN))


def log1p32(x):
    """``log(1 + x)`` of a float32, to 2 units in the last place."""
    u = 1 + x
    y = log32(u)
    # To first order, what was rounded off from u counts by the derivative 1 / u.
    y = pick((u > 0) & (u < _INFINITE), y + (x - (u - 1)) / u, y)
    return pick(u == 1, x, y)


def softplus32(x):
    """``log(1 + exp(x))`` of a float32, without overflow."""
    return larger(x, 0) + log1p32(exp32(-abs(x)))


def logaddexp32(a, b):
    """Logarithm of the sum of two exponentials; of equal infinities that infinity."""
    further = log1p32(exp32(-abs(a - b)))
    return pick(a == b, a + _LOG2, larger(a, b) + further)


_LOG2 = F(0.6931471805599453)
_LIMIT = F(9.02)
_P1, _P2, _P3, _P4 = F(0.13382687), F(0.0034974565), F(2.0635803e-5), F(1.3384264e-8)
_Q1, _Q2, _Q3, _Q4 = F(0.46716008), F(0.025884356), F(0.00032885154), F(7.7902381e-7)


def tanh32(x):
    """Hyperbolic tangent of a float32, to 5 units in the last place: x P(x**2) / Q(x**2)."""
    z = most(-_LIMIT, least(_LIMIT, x))
    s = z * z
    p = fused(fused(fused(fused(_P4, s, _P3), s, _P2), s, _P1), s, _ONE)
    q = fused(fused(fused(fused(_Q4, s, _Q3), s, _Q2), s, _Q1), s, _ONE)
    return most(-_ONE, least(_ONE, z * p / q))


def sigmoid32(x):
    """Logistic function of a float32."""
    return 1 / (1 + exp32(-x))


def erf32(x):
    """Error function of a float32, to 6 units in the last place: x P(x**2) / Q(x**2)."""
    z = most(-ERF_END, least(ERF_END, x))
    s = z * z
    p = fused(fused(fused(fused(fused(P[5], s, P[4]), s, P[3]), s, P[2]), s, P[1]), s, P[0])
    q = fused(fused(fused(fused(fused(Q[5], s, Q[4]), s, Q[3]), s, Q[2]), s, Q[1]), s, Q[0])
    return most(-_ONE, least(_ONE, z * p / q))


def larger(a, b):
    """Maximum as NumPy's: NaN if one is."""
    return pick((a > b) | (a != a), a, b)


def smaller(a, b):
    """Minimum as NumPy's: NaN if one is."""
    return pick((a < b) | (a != a), a, b)


def sign(x):
    """Sign of a number, NaN of NaN."""
    return pick(x > 0, 1, pick(x < 0, -1, pick(x == 0, 0, x)))


def logaddexp(a, b):
    """Logarithm of the sum of two exponentials; of equal infinities that infinity."""
    further = np.log1p(np.exp(-abs(a - b)))
    return pick(a == b, a + 0.6931471805599453, larger(a, b) + further)


def isinf(x):
    """Tell whether a number is infinite."""
    return abs(x) == np.inf


def isfinite(x):
    """Tell whether a number is neither infinite nor NaN."""
    return abs(x) < np.inf


# So long a thread waits before it lets others have its core.
_PATIENCE = 2000


def meet(counter, crew):
    """Wait until all threads of the crew are here."""
    if crew > 1:
        everybody = (arrive(counter) // crew + 1) * crew
        waited = 0
        while arrived(counter) < everybody:
            waited += 1
            if waited > _PATIENCE:
                let_pass()
