"""Linear algebra: matrix products of every shape, and NumPy's decompositions with their gradients.

Matrices are the last two axes; axes in front are a batch. Formulas follow Giles (2008), "An
extended collection of matrix derivative results", where no other source is named.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import domains
from ..errors import ShapeError
from ..graph import primitive
from .elementwise import _value, multiply, where
from .index import getitem
from .shape import expand_dims, reshape, swapaxes, transpose

__all__ = [
    "cholesky",
    "det",
    "dot",
    "eigh",
    "einsum",
    "inner",
    "inv",
    "kron",
    "matmul",
    "outer",
    "qr",
    "slogdet",
    "solve",
    "svdvals",
    "tensordot",
    "vdot",
]

# --- Products ---------------------------------------------------------------------------------


def _matmul_call(draw):
    n, m, k = (draw.integer(1, 3) for _ in range(3))
    lead, other = domains.broadcastable(draw, 2) if draw.integer(0, 1) else ((), ())
    kind = draw.choice(["matrix matrix", "vector matrix", "matrix vector", "vector vector"])
    left = (*lead, n, m) if kind.startswith("matrix") else (m,)
    right = (*other, m, k) if kind.endswith("matrix") else (m,)
    return (draw.array(left), draw.array(right)), {}


@primitive(domain=domains.Domain("all reals, inner sizes equal", _matmul_call))
def matmul(a, b):
    """Matrix product of the last two axes, with NumPy's rules for vectors and batches.

    Parameters
    ----------
    a : array or Tensor, shape (..., n, m) or (m,)
    b : array or Tensor, shape (..., m, k) or (m,)

    Returns
    -------
    array or Tensor, shape (..., n, k); a vector's axis is missing

    Raises
    ------
    ShapeError
        If the inner sizes differ, an argument is 0-d or the batch axes do not broadcast.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.matmul(np.ones((2, 3)), np.ones(3))
    array([3., 3.])
    """
    try:
        return np.matmul(a, b)
    except ValueError:
        raise ShapeError(_matmul_trouble(np.shape(a), np.shape(b))) from None


def _matmul_trouble(a, b):
    if not a or not b:
        return f"got shapes {a} and {b}; want at least one axis each: use * for scalars"
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        return (
            f"inner sizes differ: {a} @ {b}. The left has {a[-1]} columns, the right {inner} rows."
        )
    return f"batch axes {a[:-2]} and {b[:-2]} do not broadcast"


@matmul.rule(keeps="a b")
def _(g, y, a, b, *, needs):
    if len(a.shape) == len(b.shape) == 2:
        return (
            g @ _mT(b) if needs[0] else None,
            _mT(a) @ g if needs[1] else None,
        )
    return _matmul_rule(g, a, b, needs)


def _matmul_rule(g, a, b, needs):
    """Make matrices of vectors, use the rule for matrices, and give the vectors their shape."""
    left = expand_dims(a, 0) if len(a.shape) == 1 else a
    right = expand_dims(b, 1) if len(b.shape) == 1 else b
    if len(b.shape) == 1:
        g = expand_dims(g, -1)
    if len(a.shape) == 1:
        g = expand_dims(g, -2)
    da = db = None
    if needs[0]:
        da = g @ _mT(right)
        if len(a.shape) == 1:
            da = getitem(da, index=(..., 0, slice(None)))
    if needs[1]:
        db = _mT(left) @ g
        if len(b.shape) == 1:
            db = getitem(db, index=(..., 0))
    return da, db


def _mT(x):
    return transpose(x) if len(x.shape) == 2 else swapaxes(x, -1, -2)


def dot(a: Any, b: Any) -> Any:
    """Dot product as NumPy's ``dot``: over the last axis of ``a`` and the last but one of ``b``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array(11.)
    """
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(a, b)
    if np.ndim(b) <= 2:
        return matmul(a, b)
    return tensordot(a, b, axes=([-1], [-2]))


def inner(a: Any, b: Any) -> Any:
    """Sum of products over the last axes.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.inner(np.ones((2, 3)), np.ones((4, 3))).shape
    (2, 4)
    """
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(a, b)
    return tensordot(a, b, axes=([-1], [-1]))


def vdot(a: Any, b: Any) -> Any:
    """Sum of the products of all entries.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.vdot(np.ones((2, 2)), np.ones((2, 2)))
    array(4.)
    """
    return matmul(reshape(a, -1), reshape(b, -1))


def outer(a: Any, b: Any) -> Any:
    """Every entry of ``a`` times every entry of ``b``, both flattened.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.outer(np.ones(2), np.ones(3)).shape
    (2, 3)
    """
    return multiply(reshape(a, (-1, 1)), reshape(b, (1, -1)))


def kron(a: Any, b: Any) -> Any:
    """Kronecker product of arrays of any number of axes.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.kron(np.eye(2), np.ones((1, 2)))
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]])
    """
    ndim = max(np.ndim(a), np.ndim(b))
    left = (1,) * (ndim - np.ndim(a)) + np.shape(a)
    right = (1,) * (ndim - np.ndim(b)) + np.shape(b)
    spread = [side for n in left for side in (n, 1)]
    repeated = [side for n in right for side in (1, n)]
    product = multiply(reshape(a, spread), reshape(b, repeated))
    return reshape(product, [n * m for n, m in zip(left, right, strict=True)])


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sum of products over given axes, as in NumPy.

    Parameters
    ----------
    a, b : array or Tensor
    axes : int, or a pair of ints or of sequences of int
        The last ``axes`` of ``a`` with the first of ``b``, or the axes of each.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.tensordot(np.ones((2, 3, 4)), np.ones((4, 3, 5)), axes=([1, 2], [1, 0])).shape
    (2, 5)
    """
    rank_a, rank_b = np.ndim(a), np.ndim(b)
    if isinstance(axes, (int, np.integer)):
        if axes > min(rank_a, rank_b):
            raise ShapeError(f"tensordot: axes={axes} of {np.shape(a)} and {np.shape(b)}")
        of_a, of_b = list(range(rank_a - axes, rank_a)), list(range(axes))
    else:
        of_a, of_b = (
            [int(axis) % rank for axis in np.atleast_1d(part)]
            for part, rank in zip(axes, (rank_a, rank_b), strict=True)
        )
    sides_a, sides_b = np.shape(a), np.shape(b)
    if [sides_a[i] for i in of_a] != [sides_b[i] for i in of_b]:
        raise ShapeError(
            f"tensordot: axes {of_a} of {sides_a} and {of_b} of {sides_b} have different lengths"
        )
    free_a = [i for i in range(rank_a) if i not in of_a]
    free_b = [i for i in range(rank_b) if i not in of_b]
    summed = int(np.prod([sides_a[i] for i in of_a]))
    left = reshape(
        transpose(a, free_a + of_a), (-1, summed) if summed else _flat(sides_a, free_a, 0)
    )
    right = reshape(
        transpose(b, of_b + free_b), (summed, -1) if summed else _flat(sides_b, free_b, 0)[::-1]
    )
    return reshape(matmul(left, right), [sides_a[i] for i in free_a] + [sides_b[i] for i in free_b])


def _flat(sides: Sequence[int], free: Sequence[int], summed: int) -> tuple[int, int]:
    return int(np.prod([sides[i] for i in free])), summed


# --- einsum -----------------------------------------------------------------------------------


def _einsum_call(draw):
    spec = draw.choice(
        ["ij,jk->ik", "ii->i", "ii", "ij->", "bij,bjk->bik", "i,j,k->kj", "ij,ij->j"]
    )
    sides = {letter: draw.integer(1, 3) for letter in "bijk"}
    terms = spec.split("->")[0].split(",")
    spec = spec if "->" in spec else f"{spec}->"
    return tuple(draw.array([sides[c] for c in term]) for term in terms), {"spec": spec}


@primitive(name="einsum", domain=domains.Domain("all reals", _einsum_call))
def _einsum(*operands, spec):
    # Only a fixed order of contraction: `optimize` would import more and may round differently.
    return np.einsum(spec, *operands).copy()


@_einsum.rule(keeps="*")
def _(g, y, *operands, spec, needs):
    terms, result = _terms(spec)
    return tuple(
        _einsum_cotangent(g, operands, terms, result, i) if needs[i] else None
        for i in range(len(operands))
    )


def _einsum_cotangent(g, operands, terms, result, i):
    """Contract the cotangent with the other operands; spread what the operand summed alone."""
    others = [t for j, t in enumerate(terms) if j != i]
    values = [o for j, o in enumerate(operands) if j != i]
    known = set(result).union(*others)
    term = terms[i]
    single = "".join(dict.fromkeys(term))
    shape = dict(zip(term, np.shape(_value(operands[i])), strict=True))
    target = "".join(letter for letter in single if letter in known)
    cotangent = _einsum(g, *values, spec=f"{','.join([result, *others])}->{target}")
    cotangent = reshape(cotangent, [shape[c] if c in known else 1 for c in single])
    # A repeated subscript reads a diagonal: its cotangent goes there.
    full = multiply(cotangent, np.ones([shape[c] for c in single], g.dtype))
    if single == term:
        return full
    diagonal = np.ones([shape[c] for c in term], g.dtype)
    for a in range(len(term)):
        for b in range(a):
            if term[a] == term[b]:
                eye = np.eye(shape[term[a]], dtype=g.dtype)
                diagonal = diagonal * eye.reshape(
                    [shape[c] if k in (a, b) else 1 for k, c in enumerate(term)]
                )
    order = [single.index(c) for c in term]
    # Spread along the repeated axes, then cut to the diagonal.
    spread = getitem(
        full,
        index=tuple(
            np.arange(shape[single[p]]).reshape([-1 if k == q else 1 for k in range(len(term))])
            for p, q in ((p, order.index(p)) for p in range(len(single)))
        ),
    )
    return multiply(spread, diagonal)


def _terms(spec):
    inputs, _, result = spec.partition("->")
    return inputs.split(","), result


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sum of products by Einstein's convention, as NumPy's ``einsum``.

    Parameters
    ----------
    subscripts : str
        Such as ``"bij,bjk->bik"``, with or without the arrow; ``...`` stands for further axes.
    *operands : array or Tensor

    Raises
    ------
    ShapeError
        If the subscripts do not fit the operands.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.einsum("ij,kj->ik", np.ones((2, 3)), np.ones((4, 3))).shape
    (2, 4)
    """
    spec = subscripts.replace(" ", "")
    inputs, arrow, result = spec.partition("->")
    terms = inputs.split(",")
    strange = sorted(set(inputs + result) - set(string.ascii_letters + ",."))
    if strange:
        raise ShapeError(
            f"einsum: {subscripts!r} has {' '.join(strange)}; want letters, commas, '...' and '->'"
        )
    if len(terms) != len(operands):
        raise ShapeError(f"einsum: {subscripts!r} names {len(terms)} operands; got {len(operands)}")
    unused = [c for c in string.ascii_letters if c not in spec]
    extra = max(
        (
            np.ndim(o) - len(t.replace("...", ""))
            for o, t in zip(operands, terms, strict=True)
            if "..." in t
        ),
        default=0,
    )
    names = "".join(unused[: max(extra, 0)])
    full = []
    for operand, term in zip(operands, terms, strict=True):
        missing = np.ndim(operand) - len(term.replace("...", ""))
        if missing < 0 or ("..." not in term and missing):
            raise ShapeError(
                f"einsum: {term!r} does not fit an operand of shape {np.shape(operand)}"
            )
        full.append(term.replace("...", names[len(names) - missing :] if missing else ""))
    if not arrow:
        letters = [c for c in sorted(set(inputs) - set(",.")) if inputs.count(c) == 1]
        result = "..." * ("..." in inputs) + "".join(letters)
    result = result.replace("...", names)
    return _einsum(*_with_equal_sides(full, operands), spec=f"{','.join(full)}->{result}")


def _with_equal_sides(terms: Sequence[str], operands: Sequence[Any]) -> list[Any]:
    """Repeat axes of length 1 that a subscript shares with longer ones."""
    sides: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, n in zip(term, np.shape(operand), strict=True):
            if n != 1 and sides.setdefault(letter, n) != n:
                raise ShapeError(
                    f"einsum: index {letter!r} is {sides[letter]} long in one place and {n} in "
                    f"{term!r} of shape {np.shape(operand)}; want equal lengths"
                )
    for letter in "".join(terms):
        sides.setdefault(letter, 1)
    repeated = []
    for term, operand in zip(terms, operands, strict=True):
        shape = tuple(sides[letter] for letter in term)
        fits = shape == np.shape(operand)
        repeated.append(
            operand if fits else multiply(operand, np.ones(shape, getattr(operand, "dtype", float)))
        )
    return repeated


# --- Inverse, determinant, systems of equations -----------------------------------------------


def _square(draw, symmetric=False, vectors=0):
    lead = domains.shape(draw, max_dims=1)
    n = draw.integer(1, 3)
    x = draw.array((*lead, n, n), -1, 1)
    # Far from singular, so that small steps stay on the same side.
    return x, x + (n + 1) * np.eye(n)


def _regular_call(draw):
    return (_square(draw)[1],), {}


_REGULAR = domains.Domain("regular matrices", _regular_call)


@primitive(domain=_REGULAR)
def inv(a):
    """Inverse of matrices (..., n, n).

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.inv(np.diag([1.0, 4.0]))
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    return np.linalg.inv(a)


@inv.rule(keeps="y")
def _(g, y, a):
    return (-(_mT(y) @ g @ _mT(y)),)


@primitive(
    domain=_REGULAR,
    conventions="right for singular matrices in the first order; beyond it they raise",
)
def det(a):
    """Determinant of matrices (..., n, n); its gradient is right for singular ones too.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> round(float(tg.det(np.diag([2.0, 3.0]))), 12)
    6.0
    """
    return np.linalg.det(a)


@det.rule(keeps="y a")
def _(g, y, a):
    if not _is_plain(g, y, a):
        # By the inverse: differentiable, but only for regular matrices.
        return (expand_dims(g * y, (-1, -2)) * _mT(inv(a)),)
    return (np.expand_dims(g, (-1, -2)) * _cofactors(np.asarray(a)),)


def _is_plain(*values):
    return all(isinstance(value, (np.ndarray, np.generic)) for value in values)


def _cofactors(a):
    """Matrix of cofactors through the SVD, which a singular matrix has too."""
    u, s, vt = np.linalg.svd(a)
    n = s.shape[-1]
    others = np.stack([np.prod(np.delete(s, i, axis=-1), axis=-1) for i in range(n)], axis=-1)
    sign = np.linalg.det(u) * np.linalg.det(vt)
    return sign[..., None, None] * ((u * others[..., None, :]) @ vt)


@primitive(name="logabsdet", domain=_REGULAR)
def _logabsdet(a):
    return np.linalg.slogdet(a)[1]


@_logabsdet.rule(keeps="a")
def _(g, y, a):
    return (expand_dims(g, (-1, -2)) * _mT(inv(a)),)


def slogdet(a: Any) -> tuple[Any, Any]:
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
    logabsdet = _logabsdet(a)
    from .elementwise import _as_tensor

    sign = np.asarray(np.linalg.slogdet(_value(a))[0])
    return (sign if type(logabsdet) is np.ndarray else _as_tensor(sign)), logabsdet


def _solve_call(draw):
    _, a = _square(draw)
    b = draw.array((*a.shape[:-1], draw.integer(1, 2)))
    return (a, b), {}


@primitive(name="solve", domain=domains.Domain("regular matrices", _solve_call))
def _solve(a, b):
    return np.linalg.solve(a, b)


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
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.solve(np.diag([2.0, 4.0]), np.array([2.0, 2.0]))
    array([1. , 0.5])
    """
    if np.ndim(b) == 1:
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
    numpy.linalg.LinAlgError
        If a matrix is not positive definite.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.cholesky(np.diag([4.0, 9.0]))
    array([[2., 0.],
           [0., 3.]])
    """
    a = np.asarray(a)
    return np.linalg.cholesky((a + np.swapaxes(a, -1, -2)) * a.dtype.type(0.5))


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
    a = np.asarray(a)
    w, v = np.linalg.eigh((a + np.swapaxes(a, -1, -2)) * a.dtype.type(0.5))
    # The sign of an eigenvector is free: its largest entry is made positive.
    largest = np.take_along_axis(v, np.abs(v).argmax(axis=-2)[..., None, :], axis=-2)
    v = v * np.where(largest < 0, -1, 1).astype(v.dtype)
    return np.concatenate([w[..., None, :], v], axis=-2)


@_eigh.rule(keeps="y")
def _(g, y, a):
    n = a.shape[-1]
    w, v = y[..., 0, :], y[..., 1:, :]
    gw, gv = g[..., 0, :], g[..., 1:, :]
    gap = expand_dims(w, -2) - expand_dims(w, -1)
    equal_pair = np.asarray(_value(gap)) == 0
    slope = where(equal_pair, 0, 1 / where(equal_pair, 1, gap))
    inner_part = expand_dims(gw, -2) * np.eye(n, dtype=a.dtype) + slope * (_mT(v) @ gv)
    s = v @ inner_part @ _mT(v)
    return ((s + _mT(s)) * 0.5,)


def eigh(a: Any) -> tuple[Any, Any]:
    """Eigenvalues, ascending, and eigenvectors of the symmetric part of ``a``.

    Parameters
    ----------
    a : array or Tensor, shape (..., n, n)

    Returns
    -------
    w : array or Tensor, shape (..., n)
    v : array or Tensor, shape (..., n, n)
        Eigenvectors in the columns; the largest entry of each is positive.

    Notes
    -----
    The vectors of equal eigenvalues are not unique, and so have no gradient; zero stands for it.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.eigh(np.diag([3.0, 1.0]))[0]
    array([1., 3.])
    """
    packed = _eigh(a)
    return (
        getitem(packed, index=(..., 0, slice(None))),
        getitem(packed, index=(..., slice(1, None), slice(None))),
    )


def _tall_call(draw):
    n = draw.integer(1, 3)
    m = n + draw.integer(0, 2)
    lead = domains.shape(draw, max_dims=1)
    return (draw.array((*lead, m, n), -0.3, 0.3) + np.eye(m, n) * (1 + np.arange(n)),), {}


_TALL = domains.Domain("matrices of full column rank", _tall_call)


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
    upper = np.triu(np.ones((n, n), a.dtype))
    gr = gr * upper
    skew = r @ _mT(gr) - gr @ _mT(r) + _mT(q) @ gq - _mT(gq) @ q
    rest = gq - q @ (_mT(q) @ gq)
    return (
        (q @ (gr + (skew * below) @ _inverse_of_transposed(r)) + rest @ _inverse_of_transposed(r)),
    )


def _inverse_of_transposed(r):
    return _mT(inv(r))


def qr(a: Any) -> tuple[Any, Any]:
    """Reduced QR decomposition of matrices (..., m, n) with m >= n.

    Returns
    -------
    q : array or Tensor, shape (..., m, n)
        Orthonormal columns.
    r : array or Tensor, shape (..., n, n)
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
    return (
        getitem(packed, index=(..., slice(None, m), slice(None))),
        getitem(packed, index=(..., slice(m, None), slice(None))),
    )


def svdvals(a: Any) -> Any:
    """Singular values of matrices (..., m, n), descending.

    They are the roots of the eigenvalues in exact arithmetic only; here they come from NumPy's SVD.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.svdvals(np.diag([1.0, 3.0]))
    array([3., 1.])
    """
    return _svdvals(a)


@primitive(name="svdvals", domain=_TALL, conventions="distinct, nonzero singular values")
def _svdvals(a):
    return np.linalg.svd(a, compute_uv=False)


@_svdvals.rule(keeps="y a")
def _(g, y, a):
    if _is_plain(g, y, a):
        u, _, vt = np.linalg.svd(a, full_matrices=False)
        return ((u * np.asarray(g)[..., None, :]) @ vt,)
    # u s vt with vt from eigh, which differentiates again: a = u s vt, so u = a v / s.
    tall = a.shape[-2] >= a.shape[-1]
    x = a if tall else _mT(a)
    _, v = eigh(_mT(x) @ x)
    v = getitem(v, index=(..., slice(None, None, -1)))
    cotangent = (x @ v) * expand_dims(g / y, -2) @ _mT(v)
    return (cotangent if tall else _mT(cotangent),)
