"""Inverses, determinants, systems of equations and NumPy's decompositions, with their gradients.

Matrices are the last two axes; axes in front are a batch. Formulas follow Giles (2008), "An
extended collection of matrix derivative results", where no other source is named.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import domains
from ..dispatch import constant, primitive
from ..errors import ShapeError, with_graph
from ..graph import Handle, value_of, wrap
from .constants import equal
from .elementwise import where
from .index import getitem
from .linalg import _mT
from .moving import trace
from .shape import expand_dims

__all__ = ["cholesky", "det", "eigh", "inv", "qr", "slogdet", "solve", "svdvals"]


class SlogdetResult(NamedTuple):
    """What ``slogdet`` gives, under NumPy's names."""

    sign: Any
    logabsdet: Any


class EighResult(NamedTuple):
    """What ``eigh`` gives, under NumPy's names."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """What ``qr`` gives, under NumPy's names."""

    Q: Any
    R: Any


def _square(draw):
    lead = domains.shape(draw, max_dims=1)
    n = draw.integer(1, 3)
    x = draw.array((*lead, n, n), -1, 1)
    # Far from singular, so that small steps stay on the same side.
    return x, x + (n + 1) * np.eye(n)


def _regular_call(draw):
    a = _square(draw)[1]
    # Rows in reverse turn the sign of most determinants.
    return (a[..., ::-1, :].copy() if draw.integer(0, 1) else a,), {}


_REGULAR = domains.Domain("regular matrices", _regular_call)


def _squares(a):
    shape = np.shape(a)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ShapeError(f"got shape {shape}; want square matrices (..., n, n)")
    return np.asarray(a)


def _singular(a):
    return np.linalg.LinAlgError(
        f"a matrix of {np.shape(a)} is singular; want full rank: check for equal rows and columns, "
        "or add a small multiple of np.eye(n)"
    )


@primitive(domain=_REGULAR)
def inv(a):
    """Inverse of matrices (..., n, n).

    Raises
    ------
    ShapeError
        If the matrices are not square.
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.inv(np.diag([1.0, 4.0]))
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    try:
        return np.linalg.inv(_squares(a))
    except np.linalg.LinAlgError:
        raise _singular(a) from None


@inv.rule(keeps="y")
def _(g, y, a):
    return (-(_mT(y) @ g @ _mT(y)),)


@primitive(
    domain=_REGULAR,
    conventions="two derivatives are right for singular matrices too, further ones for regular",
)
def det(a):
    """Determinant of matrices (..., n, n); two derivatives are right for singular ones too.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> round(float(tg.det(np.diag([2.0, 3.0]))), 12)
    6.0
    """
    return np.linalg.det(_squares(a))


@det.rule(keeps="a")
def _(g, y, a):
    return (expand_dims(g, (-1, -2)) * _cofactors(a),)


@primitive(name="cofactors", domain=_REGULAR)
def _cofactors(a):
    """Matrix of cofactors, the gradient of ``det``, through the SVD: it asks for no inverse."""
    u, s, vt = np.linalg.svd(a)
    return _orientation(u, vt) * (u * _products_of_others(s)[..., None, :] @ vt)


def _orientation(u, vt):
    """Whether the two turn alike: 1, or -1 if only one of them mirrors."""
    return (np.linalg.det(u) * np.linalg.det(vt))[..., None, None]


def _products_of_others(s):
    """For each entry along the last axis, the product of the others."""
    one = np.ones_like(s[..., :1])
    before = np.cumprod(np.concatenate([one, s[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([one, s[..., :0:-1]], axis=-1), axis=-1)
    return before * after[..., ::-1]


@_cofactors.rule(keeps="a")
def _(h, y, a):
    return (_cofactors_grad(h, a),)


def _cofactors_grad_call(draw):
    (a,), _ = _regular_call(draw)
    return (draw.array(a.shape), a), {}


@primitive(name="cofactors_grad", domain=domains.Domain("regular matrices", _cofactors_grad_call))
def _cofactors_grad(h, a):
    """Gradient of ``sum(h * cofactors(a))``, which is symmetric: the second derivative of det."""
    u, s, vt = np.linalg.svd(a)
    h = np.swapaxes(u, -1, -2) @ h @ np.swapaxes(vt, -1, -2)
    # Between u and vt the matrix is diagonal. Let e be added to it: the cofactor (i, i) grows by
    # e[j, j] and (i, j) by -e[j, i], times the product of all but the i-th and j-th entry.
    one = np.eye(s.shape[-1], dtype=bool)
    pairs = np.where(one, 0, _products_of_others(np.where(one, 1, s[..., None, :])))
    grown = pairs @ np.diagonal(h, axis1=-2, axis2=-1)[..., None]
    inner = np.where(one, grown, -pairs * np.swapaxes(h, -1, -2))
    return _orientation(u, vt) * (u @ inner @ vt)


@_cofactors_grad.rule(keeps="h a")
def _(v, y, h, a):
    # With x = inv(a) h and z = inv(a) v the second derivative is det(a) (tr(x) tr(z) - tr(x z)).
    inverse = inv(a)
    x, z = inverse @ h, inverse @ v
    of_x, of_z, of_both = (expand_dims(trace(m), (-1, -2)) for m in (x, z, x @ z))
    inner = (of_x * of_z - of_both) * np.eye(a.shape[-1], dtype=a.dtype)
    inner = inner + x @ z + z @ x - of_z * x - of_x * z
    return _cofactors_grad(v, a), expand_dims(det(a), (-1, -2)) * _mT(inner @ inverse)


@primitive(name="logabsdet", domain=_REGULAR)
def _logabsdet(a):
    return np.linalg.slogdet(_squares(a))[1]


@_logabsdet.rule(keeps="a")
def _(g, y, a):
    return (expand_dims(g, (-1, -2)) * _mT(inv(a)),)


def slogdet(a: Any) -> SlogdetResult:
    """Sign and logarithm of the absolute value of the determinant.

    Returns
    -------
    sign : array or Tensor
        A constant.
    logabsdet : array or Tensor

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> sign, logabsdet = tg.slogdet(np.diag([-1.0, 1.0]))
    >>> float(sign), float(logabsdet)
    (-1.0, 0.0)
    """
    logabsdet, sign = _logabsdet(a), _sign_of_determinant(value_of(a))
    return SlogdetResult(wrap(sign) if isinstance(a, Handle) else sign, logabsdet)


@constant
def _sign_of_determinant(a):
    return np.linalg.slogdet(a)[0]


def _solve_call(draw):
    _, a = _square(draw)
    b = draw.array((*a.shape[:-1], draw.integer(1, 2)))
    return (a, b), {}


@primitive(name="solve", domain=domains.Domain("regular matrices", _solve_call))
def _solve(a, b):
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        raise _singular(a) from None


@_solve.rule(keeps="y a")
def _(g, y, a, b, *, needs):
    db = _solve(_mT(a), g)
    return -(db @ _mT(y)) if needs[0] else None, db


def solve(a: Any, b: Any) -> Any:
    """Solution x of ``a @ x = b``.

    Parameters
    ----------
    a : array or Tensor, shape (..., n, n)
    b : array or Tensor, shape (n,) or (..., n, k)

    Raises
    ------
    ShapeError
        If the matrices are not square, or ``b`` has another number of rows.
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.solve(np.diag([2.0, 4.0]), np.array([2.0, 2.0]))
    array([1. , 0.5])
    """
    left, right = np.shape(a), np.shape(b)
    square = len(left) > 1 and left[-1] == left[-2]
    if not square or not right or left[-1] != right[-2:][0]:
        raise ShapeError(
            f"solve: a is {left} and b {right}; want (..., n, n) and (n,) or (..., n, k)"
        )
    if len(right) == 1:
        return getitem(_solve(a, expand_dims(b, -1)), index=(..., 0))
    return _solve(a, b)


# --- Decompositions ---------------------------------------------------------------------------


def _definite_call(draw):
    x, _ = _square(draw)
    return (x @ np.swapaxes(x, -1, -2) + 2 * np.eye(x.shape[-1]),), {}


@primitive(
    domain=domains.Domain("symmetric positive definite matrices", _definite_call),
    conventions="of the symmetric part; the gradient is symmetric",
)
def cholesky(a):
    """Lower triangular L with ``L @ L.T`` the symmetric part of ``a``, of shape (..., n, n).

    Raises
    ------
    ShapeError
        If the matrices are not square.
    numpy.linalg.LinAlgError
        If a matrix is not positive definite.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.cholesky(np.diag([4.0, 9.0]))
    array([[2., 0.],
           [0., 3.]])
    """
    try:
        return np.linalg.cholesky(_symmetric_part(a))
    except np.linalg.LinAlgError:
        raise with_graph(np.linalg.LinAlgError)(
            f"a matrix of {np.shape(a)} is not positive definite; want x @ x.T, or add a multiple "
            "of np.eye(n)"
        ) from None


def _symmetric_part(a):
    a = _squares(a)
    if a.dtype.kind == "c":
        raise TypeError(f"got dtype {a.dtype}; want real numbers")
    if a.dtype.kind != "f":
        a = a.astype(float)
    return (a + np.swapaxes(a, -1, -2)) * a.dtype.type(0.5)


@cholesky.rule(keeps="y")
def _(g, y, a):
    # Murray (2016), "Differentiation of the Cholesky decomposition", section 3.1.
    n = a.shape[-1]
    lower = np.tril(np.ones((n, n), a.dtype)) - 0.5 * np.eye(n, dtype=a.dtype)
    inverse = inv(y)
    middle = (_mT(y) @ g) * lower
    s = _mT(inverse) @ middle @ inverse
    return ((s + _mT(s)) * 0.5,)


def _spread_call(draw):
    x, _ = _square(draw)
    n = x.shape[-1]
    return (0.2 * x + np.diag(np.arange(n) * 2.0),), {}


@primitive(
    name="eigh",
    domain=domains.Domain("symmetric matrices with distinct eigenvalues", _spread_call),
    conventions="of the symmetric part; equal eigenvalues give no gradient to their vectors",
)
def _eigh(a):
    w, v = np.linalg.eigh(_symmetric_part(a))
    return np.concatenate([w[..., None, :], v * _signs(v)], axis=-2)


def _signs(v):
    """What makes the largest entry of each column positive: the sign of a vector is free."""
    if not v.size:
        return v.dtype.type(1)
    largest = np.take_along_axis(v, np.abs(v).argmax(axis=-2, keepdims=True), axis=-2)
    return np.where(largest < 0, -1, 1).astype(v.dtype)


@_eigh.rule(keeps="y")
def _(g, y, a):
    n = a.shape[-1]
    w, v = y[..., 0, :], y[..., 1:, :]
    gw, gv = g[..., 0, :], g[..., 1:, :]
    inner_part = expand_dims(gw, -2) * np.eye(n, dtype=a.dtype) + _over_gaps(_mT(v) @ gv, w)
    s = v @ inner_part @ _mT(v)
    return ((s + _mT(s)) * 0.5,)


def _over_gaps(x, w):
    """Divide the entry (i, j) by ``w[j] - w[i]``; give 0 where they are equal."""
    gap = expand_dims(w, -2) - expand_dims(w, -1)
    none = equal(gap, 0)
    return where(none, 0, x / where(none, 1, gap))


def eigh(a: Any) -> EighResult:
    """Eigenvalues, ascending, and eigenvectors of the symmetric part of ``a``.

    Parameters
    ----------
    a : array or Tensor, shape (..., n, n)

    Returns
    -------
    eigenvalues : array or Tensor, shape (..., n)
    eigenvectors : array or Tensor, shape (..., n, n)
        In the columns; the largest entry of each is positive.

    Notes
    -----
    The vectors of equal eigenvalues are not unique, and so have no gradient; zero stands for it.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.eigh(np.diag([3.0, 1.0])).eigenvalues
    array([1., 3.])
    """
    packed = _eigh(a)
    return EighResult(
        getitem(packed, index=(..., 0, slice(None))),
        getitem(packed, index=(..., slice(1, None), slice(None))),
    )


def _tall_call(draw):
    n = draw.integer(1, 3)
    m = n + draw.integer(0, 2)
    lead = domains.shape(draw, max_dims=1)
    return (draw.array((*lead, m, n), -0.3, 0.3) + np.eye(m, n) * (1 + np.arange(n)),), {}


def _oblong_call(draw):
    (a,), params = _tall_call(draw)
    return (np.swapaxes(a, -1, -2).copy() if draw.integer(0, 1) else a,), params


_TALL = domains.Domain("matrices of full column rank", _tall_call)
_OBLONG = domains.Domain("matrices of full rank", _oblong_call)


@primitive(name="qr", domain=_TALL)
def _qr(a):
    q, r = np.linalg.qr(a)
    # A column of q is free up to its sign: the diagonal of r is made positive.
    sign = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1, 1).astype(r.dtype)
    return np.concatenate([q * sign[..., None, :], r * sign[..., :, None]], axis=-2)


@_qr.rule(keeps="y")
def _(g, y, a):
    # Walter and Lehmann (2012), "Algorithmic differentiation of linear algebra functions".
    m, n = a.shape[-2:]
    q, r = y[..., :m, :], y[..., m:, :]
    gq, gr = g[..., :m, :], g[..., m:, :]
    below = np.tril(np.ones((n, n), a.dtype), -1)
    # What arrives below the diagonal of r, which is always 0, cancels out of both terms.
    skew = r @ _mT(gr) - gr @ _mT(r) + _mT(q) @ gq - _mT(gq) @ q
    rest = gq - q @ (_mT(q) @ gq)
    return (q @ gr + (q @ (skew * below) + rest) @ _mT(inv(r)),)


def qr(a: Any) -> QRResult:
    """Reduced QR decomposition of matrices (..., m, n) with m >= n.

    Returns
    -------
    Q : array or Tensor, shape (..., m, n)
        Orthonormal columns.
    R : array or Tensor, shape (..., n, n)
        Upper triangular, with a positive diagonal.

    Raises
    ------
    ShapeError
        If there are more columns than rows.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> q, r = tg.qr(np.array([[3.0], [4.0]]))
    >>> r
    array([[5.]])
    """
    shape = np.shape(a)
    if len(shape) < 2 or shape[-2] < shape[-1]:
        raise ShapeError(f"qr: got shape {shape}; want (..., m, n) with m >= n")
    m = shape[-2]
    packed = _qr(a)
    return QRResult(
        getitem(packed, index=(..., slice(None, m), slice(None))),
        getitem(packed, index=(..., slice(m, None), slice(None))),
    )


def svdvals(a: Any) -> Any:
    """Singular values of matrices (..., m, n), descending.

    Derivatives beyond the first are right where the values are distinct and not zero.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.svdvals(np.diag([1.0, 3.0]))
    array([3., 1.])
    """
    return _svdvals(a)


@primitive(name="svdvals", domain=_OBLONG, conventions="distinct, nonzero singular values")
def _svdvals(a):
    if np.ndim(a) < 2:
        raise ShapeError(f"got shape {np.shape(a)}; want matrices (..., m, n)")
    return np.linalg.svd(a, compute_uv=False)


@_svdvals.rule(keeps="a")
def _(g, y, a):
    if type(g) is type(a) is np.ndarray:
        # The same in one step, for a gradient of order 1.
        u, _, vt = np.linalg.svd(a, full_matrices=False)
        return (u * g[..., None, :] @ vt,)
    u, _, v = _unpacked(_svd(a), a.shape[-2])
    return (u * expand_dims(g, -2) @ _mT(v),)


@primitive(name="svd", domain=_OBLONG, conventions="distinct, nonzero singular values")
def _svd(a):
    """The matrices u, s and v of ``a = u * s @ v.T``, with s a row, on top of each other."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    sign = _signs(u)
    return np.concatenate([u * sign, s[..., None, :], np.swapaxes(vt, -1, -2) * sign], axis=-2)


def _unpacked(y, m):
    return y[..., :m, :], y[..., m : m + 1, :], y[..., m + 1 :, :]


@_svd.rule(keeps="y")
def _(g, y, a):
    # Townsend (2016), "Differentiating the singular value decomposition".
    m, n = a.shape[-2:]
    (u, s, v), (gu, gs, gv) = _unpacked(y, m), _unpacked(g, m)
    of_u, of_v = _mT(u) @ gu, _mT(v) @ gv
    squares = getitem(s * s, index=(..., 0, slice(None)))
    inner = _over_gaps(of_u - _mT(of_u), squares) * s
    inner = inner + _mT(s) * _over_gaps(of_v - _mT(of_v), squares)
    inner = inner + gs * np.eye(s.shape[-1], dtype=a.dtype)
    left, right = u @ inner, _mT(v)
    if m > n:
        left = left + (gu - u @ of_u) / s
    da = left @ right
    if n > m:
        da = da + u @ _mT((gv - v @ of_v) / s)
    return (da,)
