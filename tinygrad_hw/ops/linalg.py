"""Products of vectors, matrices and tensors, of every shape, and ``einsum``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..errors import ShapeError, with_graph
from ..graph import value_of
from .elementwise import multiply
from .index import getitem
from .shape import axes_of, expand, expand_dims, reshape, swapaxes, transpose

__all__ = [
    "dot",
    "einsum",
    "inner",
    "kron",
    "matmul",
    "outer",
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
    return (
        f"batch axes {a[:-2]} of {a} and {b[:-2]} of {b} do not broadcast; want equal sides, or "
        "sides of 1"
    )


@matmul.rule(keeps="a b")
def _(g, y, a, b, *, needs):
    if len(a.shape) == len(b.shape) == 2:
        return (
            g @ b.T if needs[0] else None,
            a.T @ g if needs[1] else None,
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
        da = _product(g, _mT(right))  # The engine sums the axis in front of a vector.
    if needs[1]:
        if len(right.shape) == 2:
            # One product of all rows, in place of one for each matrix, all to be added up.
            left, g = (reshape(m, (math.prod(m.shape[:-1]), m.shape[-1])) for m in (left, g))
        db = _product(_mT(left), g)
        if len(b.shape) == 1:
            db = getitem(db, index=(..., 0))
    return da, db


def _product(a, b):
    """``a @ b`` of matrices; of a column and a row entry by entry, in half the time."""
    return multiply(a, b) if a.shape[-1] == 1 else a @ b


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
    return _contract("dot", a, b, [np.ndim(a) - 1], [np.ndim(b) - 2])


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
    return _contract("inner", a, b, [np.ndim(a) - 1], [np.ndim(b) - 1])


def vdot(a: Any, b: Any) -> Any:
    """Sum of the products of all entries.

    Raises
    ------
    ShapeError
        If there are not equally many entries.
    TypeError
        If there are complex ones.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.vdot(np.ones((2, 2)), np.ones((2, 2)))
    array(4.)
    """
    if np.size(value_of(a)) != np.size(value_of(b)):
        raise ShapeError(f"vdot: got shapes {np.shape(a)} and {np.shape(b)}; want equal sizes")
    if np.iscomplexobj(value_of(a)):
        # A conjugate has no rule here; without it, the product would be another than NumPy's.
        raise with_graph(TypeError)("vdot: got complex numbers; want real ones, or sum(a * b)")
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
    ranks = np.ndim(a), np.ndim(b)
    if isinstance(axes, (int, np.integer)):
        if not 0 <= axes <= min(ranks):
            raise ShapeError(
                f"tensordot: axes={axes} for shapes {np.shape(a)} and {np.shape(b)}; want 0 to "
                f"{min(ranks)}"
            )
        pair = [list(range(ranks[0] - axes, ranks[0])), list(range(axes))]
    else:
        if not isinstance(axes, (tuple, list, np.ndarray)) or len(axes) != 2:
            raise ShapeError(
                f"tensordot: axes is {axes!r}; want a number or (those of a, those of b)"
            )
        pair = [
            list(axes_of("tensordot", part, rank)) for part, rank in zip(axes, ranks, strict=True)
        ]
    return _contract("tensordot", a, b, *pair)


def _contract(op: str, a: Any, b: Any, of_a: list[int], of_b: list[int]) -> Any:
    """Sum products over some axes of each, as the product of two matrices."""
    sides_a, sides_b = np.shape(a), np.shape(b)
    if [sides_a[i] for i in of_a] != [sides_b[i] for i in of_b]:
        raise ShapeError(
            f"{op}: axes {of_a} of {sides_a} and {of_b} of {sides_b} differ; want equal lengths"
        )
    free_a = [i for i in range(len(sides_a)) if i not in of_a]
    free_b = [i for i in range(len(sides_b)) if i not in of_b]
    rows, columns = [sides_a[i] for i in free_a], [sides_b[i] for i in free_b]
    summed = math.prod([sides_a[i] for i in of_a])
    left = reshape(transpose(a, free_a + of_a), (math.prod(rows), summed))
    right = reshape(transpose(b, of_b + free_b), (summed, math.prod(columns)))
    return reshape(matmul(left, right), rows + columns)


# --- einsum -----------------------------------------------------------------------------------


def _einsum_call(draw):
    spec = draw.choice(["ij,jk->ik", "ij->", "ij->j", "bij,bjk->bik", "i,j,k->kj", "ij,ij->j"])
    sides = {letter: draw.integer(1, 3) for letter in "bijk"}
    terms = spec.split("->")[0].split(",")
    return tuple(draw.array([sides[c] for c in term]) for term in terms), {"spec": spec}


Shape = tuple[int, ...]
# Operands whose numbers of entries have a smaller product are not worth the calls.
_SMALL = 20_000


class Contraction(NamedTuple):
    """A product of two operands as one of stacks of matrices.

    Attributes
    ----------
    left, right, result : tuple of int
        The axes of the operands, and of the result, in the order in which they make stacks, rows
        and columns.
    stacks, rows, columns : int
        How many axes make each.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    result: tuple[int, ...]
    stacks: int
    rows: int
    columns: int

    def shapes(self, a: Shape, b: Shape) -> tuple[Shape, Shape, Shape]:
        """Give the shapes of the factors as stacks of matrices, and that of the product.

        ``a`` and ``b`` are the operands' with the axes in order; the product's axes stay apart.
        """
        stacks, rows = a[: self.stacks], a[self.stacks : self.stacks + self.rows]
        columns = b[len(b) - self.columns :]
        count = math.prod(a[self.stacks + self.rows :])
        left, right = (math.prod(rows), count), (count, math.prod(columns))
        return (*stacks, *left), (*stacks, *right), (*stacks, *rows, *columns)


@cache
def contraction(spec: str) -> Contraction | None:
    """Give the product of matrices that an einsum is, if it is one."""
    inputs, _, result = spec.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or any(len(set(term)) < len(term) for term in (*terms, result)):
        return None
    a, b = terms
    stacks = [c for c in result if c in a and c in b]
    rows = [c for c in result if c not in b]
    columns = [c for c in result if c not in a]
    summed = [c for c in a if c in b and c not in result]
    alone = set(a).symmetric_difference(b) - set(result)
    # Without rows and columns, or without sums, it is no work for BLAS.
    if alone or not summed or not (rows or columns):
        return None
    left, right = [*stacks, *rows, *summed], [*stacks, *summed, *columns]
    made = [*stacks, *rows, *columns]
    return Contraction(
        tuple(map(a.index, left)),
        tuple(map(b.index, right)),
        tuple(map(made.index, result)),
        len(stacks),
        len(rows),
        len(columns),
    )


@primitive(name="einsum", domain=domains.Domain("all reals", _einsum_call))
def _einsum(*operands, spec):
    plan = contraction(spec)
    if plan is not None and math.prod(x.size for x in operands) > _SMALL:
        return _contracted(*operands, plan=plan)
    # Only a fixed order of contraction: `optimize` would import more and may round differently.
    return np.einsum(spec, *operands).copy()


def _contracted(a, b, *, plan):
    """Multiply matrices, which takes a fraction of the time of einsum's loops."""
    a, b = np.transpose(a, plan.left), np.transpose(b, plan.right)
    left, right, made = plan.shapes(a.shape, b.shape)
    return np.matmul(a.reshape(left), b.reshape(right)).reshape(made).transpose(plan.result)


@_einsum.rule(keeps="*")
def _(g, y, *operands, spec, needs):
    inputs, _, result = spec.partition("->")
    terms = inputs.split(",")
    return tuple(
        _einsum_cotangent(g, operands, terms, result, i) if needs[i] else None
        for i in range(len(operands))
    )


def _einsum_cotangent(g, operands, terms, result, i):
    """Contract the cotangent with the other operands; spread what the operand summed alone."""
    others = terms[:i] + terms[i + 1 :]
    values = operands[:i] + operands[i + 1 :]
    known = set(result).union(*others)
    target = "".join([letter for letter in terms[i] if letter in known])
    cotangent = _einsum(g, *values, spec=f"{','.join([result, *others])}->{target}")
    shape = np.shape(operands[i])
    sides = [n if c in known else 1 for c, n in zip(terms[i], shape, strict=True)]
    return expand(reshape(cotangent, sides), shape=shape)


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
    if not isinstance(subscripts, str):
        raise with_graph(TypeError)(
            f"einsum: got a {type(subscripts).__name__} first; want a string such as 'ij,jk->ik'"
        )
    terms, result = _terms(subscripts, tuple(np.ndim(operand) for operand in operands))
    full = list(_with_equal_sides(terms, operands))
    read = [_diagonals(operand, term) for operand, term in zip(full, terms, strict=True)]
    spec = ",".join(["".join(dict.fromkeys(term)) for term in terms])
    return _einsum(*read, spec=f"{spec}->{result}")


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@cache
def _terms(subscripts: str, ranks: tuple[int, ...]) -> tuple[list[str], str]:
    """Give the letters of each operand and of the result, with letters in place of ``...``."""
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    strange = sorted(set((inputs + result).replace("...", "")) - set(_LETTERS + ","))
    if strange:
        raise ShapeError(
            f"einsum: {subscripts!r} has {' '.join(strange)}; want letters, commas, '...' and '->'"
        )
    if len(terms) != len(ranks):
        raise ShapeError(f"einsum: {subscripts!r} names {len(terms)} operands; got {len(ranks)}")
    more = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    for term, extra, rank in zip(terms, more, ranks, strict=True):
        if extra < 0 or (extra and "..." not in term) or term.count("...") > 1:
            raise ShapeError(
                f"einsum: {term!r} names {rank - extra} axes of an operand that has {rank}; want a "
                "letter for each, or '...' once"
            )
    unused = [letter for letter in _LETTERS if letter not in subscripts]
    names = "".join(unused[: max(more)])
    if not arrow:
        once = [c for c in sorted(set(inputs) - set(",.")) if inputs.count(c) == 1]
        result = "..." * ("..." in inputs) + "".join(once)
    if names and "..." not in result:
        raise ShapeError(f"einsum: {subscripts!r} loses the axes of '...'; name it in the result")
    full = [
        term.replace("...", names[len(names) - extra :])
        for term, extra in zip(terms, more, strict=True)
    ]
    result = result.replace("...", names)
    wrong = [c for c in dict.fromkeys(result) if result.count(c) > 1 or c not in "".join(full)]
    if wrong:
        raise ShapeError(
            f"einsum: {subscripts!r} has {wrong[0]!r} in its result; want letters of the operands, "
            "each once"
        )
    return full, result


def _diagonals(operand: Any, term: str) -> Any:
    """Read the diagonal along axes that share a letter, at the place of the first of them."""
    letters = list(dict.fromkeys(term))
    if len(letters) == len(term):
        return operand
    sides = [np.shape(operand)[term.index(letter)] for letter in letters]
    grid = dict(zip(letters, np.ogrid[tuple(slice(side) for side in sides)], strict=True))
    return getitem(operand, index=tuple(grid[letter] for letter in term))


def _with_equal_sides(terms: Sequence[str], operands: Sequence[Any]) -> Iterator[Any]:
    """Repeat axes of length 1 that a subscript shares with longer ones."""
    sides: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        own: dict[str, int] = {}
        for letter, n in zip(term, np.shape(operand), strict=True):
            # As in NumPy, a diagonal does not repeat a side of 1.
            known = own.setdefault(letter, n)
            if known == n != 1:
                known = sides.setdefault(letter, n)
            if known != n:
                raise ShapeError(
                    f"einsum: index {letter!r} is {known} long in one place and {n} in "
                    f"{term!r} of shape {np.shape(operand)}; want equal lengths"
                )
    for letter in "".join(terms):
        sides.setdefault(letter, 1)
    for term, operand in zip(terms, operands, strict=True):
        shape = tuple(sides[letter] for letter in term)
        yield operand if shape == np.shape(operand) else expand(operand, shape=shape)
