"""Products, einsum and decompositions: NumPy's values, gradients of order 2, and the corners."""

from __future__ import annotations

import itertools
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numerical import check_call

import tinygrad_hw as tg


def entries(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def sides(min_dims=0, max_dims=3, min_side=0):
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=3)


def close(y, expected):
    """Values, shape and dtype agree, and the result is an array."""
    assert type(y) is np.ndarray
    assert (y.shape, y.dtype) == (np.shape(expected), np.asarray(expected).dtype)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def check(op, reference, *args, order=2):
    expected = reference(*args)
    close(op(*args), expected)
    close(op(*map(tg.Tensor, args)).numpy(), expected)
    check_call(op, args, {}, order=order)


# --- Products ---------------------------------------------------------------------------------

matmul_shapes = hnp.mutually_broadcastable_shapes(
    signature=np.matmul.signature, max_dims=3, min_side=0, max_side=3
).map(lambda drawn: drawn.input_shapes)


@settings(max_examples=80, deadline=None)
@given(matmul_shapes)
def test_matmul_of_every_shape_of_numpy(shapes):
    a, b = (entries(shape, seed) for seed, shape in enumerate(shapes))
    check(tg.matmul, np.matmul, a, b)
    np.testing.assert_array_equal((tg.Tensor(a) @ b).numpy(), a @ b)
    np.testing.assert_array_equal((a @ tg.Tensor(b)).numpy(), a @ b)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((3,), (4, 3, 2)),
        ((4, 2, 3), (3,)),
        ((2, 3), (4, 3, 2)),
        ((4, 2, 3), (3, 2)),
        ((4, 2, 3), (1, 3, 2)),
        ((5, 1, 2, 3), (4, 3, 1)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 2)),
        ((0,), (0,)),
        ((0, 2, 3), (3, 2)),
    ],
)
def test_gradient_of_matmul_is_numpys_contraction(left, right):
    a, b = (tg.Tensor(entries(s, n), requires_grad=True) for n, s in enumerate((left, right)))
    y = a @ b
    u = entries(y.shape, 2)
    y.backward(u)
    rows = (1,) if len(left) == 1 else ()
    columns = (1,) if len(right) == 1 else ()
    full_a = a.data.reshape(rows + left)
    full_b = b.data.reshape(right + columns)
    full_u = u.reshape(np.matmul(full_a, full_b).shape)
    for t, full in (
        (a, np.einsum("...ik,...jk->...ij", full_u, full_b)),
        (b, np.einsum("...ki,...kj->...ij", full_a, full_u)),
    ):
        ndim = max(full.ndim - (2 if t.ndim == 1 else t.ndim), 0)
        summed = full.sum(axis=tuple(range(ndim)))
        shape = t.shape if t.ndim > 1 else summed.shape
        short = tuple(n for n, side in enumerate(shape) if side == 1 != summed.shape[n])
        np.testing.assert_allclose(
            t.grad, summed.sum(axis=short, keepdims=True).reshape(t.shape), rtol=1e-12
        )


@pytest.mark.parametrize("name", ["dot", "inner"])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_dot_and_inner_of_any_rank(name, data):
    left, right = list(data.draw(sides())), list(data.draw(sides()))
    if left and right:
        right[-2 if name == "dot" and len(right) > 1 else -1] = left[-1]
    check(getattr(tg, name), getattr(np, name), entries(left), entries(right, 1))


@settings(max_examples=25, deadline=None)
@given(sides(), sides())
def test_outer_and_kron_of_any_rank(left, right):
    a, b = entries(left), entries(right, 1)
    check(tg.outer, np.outer, a, b)
    check(tg.kron, np.kron, a, b)


@settings(max_examples=25, deadline=None)
@given(sides())
def test_vdot_of_any_shape(shape):
    check(tg.vdot, np.vdot, entries(shape), entries(shape[::-1], 1))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_tensordot_over_any_axes(data):
    left, right = data.draw(sides()), list(data.draw(sides()))
    count = data.draw(st.integers(0, min(len(left), len(right))))
    of_a = data.draw(st.permutations(range(len(left))))[:count]
    of_b = data.draw(st.permutations(range(len(right))))[:count]
    for i, j in zip(of_a, of_b, strict=True):
        right[j] = left[i]
    signed = [data.draw(st.sampled_from([i, i - len(left)])) for i in of_a]
    a, b = entries(left), entries(right, 1)
    axes = (signed, of_b)
    check(lambda a, b: tg.tensordot(a, b, axes), lambda a, b: np.tensordot(a, b, axes), a, b)
    if count == 1:
        axes = (signed[0], of_b[0])
        close(tg.tensordot(a, b, axes), np.tensordot(a, b, axes))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tensordot_over_a_number_of_axes(count):
    a, b = entries((4, 2, 3)), entries((2, 3, 2)[2 - count :] or (2,), 1)
    check(lambda a, b: tg.tensordot(a, b, count), lambda a, b: np.tensordot(a, b, count), a, b)


def test_third_order_of_a_triple_product():
    a, b, c = (entries(shape, n) for n, shape in enumerate([(2, 3), (4, 3, 2), (2,)]))
    check(lambda a, b, c: a @ b @ c, lambda a, b, c: a @ b @ c, a, b, c, order=3)


# --- einsum -----------------------------------------------------------------------------------

SPECS = [
    "i->",
    "i->i",
    "ij->ji",
    "ij->i",
    "ij",
    "ba",
    "ii",
    "ii->i",
    "ii->",
    "iii->i",
    "iij->j",
    "iji->ij",
    "ijij->ij",
    "ijji->j",
    "ij,jk",
    "ij,jk->ik",
    "ij,jk->",
    "ij,ij->ij",
    "ij,ij",
    "i,j->ij",
    "i,j->ji",
    "i,i",
    ",i->i",
    ",",
    "ii,ij->j",
    "ij,jj->i",
    "bij,bjk->bik",
    "bij,bjk->ikb",
    "bi,bj,bk->ijk",
    "i,j,k->kj",
    "ij,jk,kl->il",
    "...",
    "...->...",
    "...ij->...ji",
    "...i->...",
    "i...->...",
    "i...j->j...",
    "...ii->...i",
    "...ij,...jk->...ik",
    "...ij,jk->...ik",
    "ij,...jk->...ik",
    "i...,i...->...",
    "...,...",
    " i j , j k -> i k ",
    "Ab,bA->A",
]


def drawn_operands(draw, spec):
    """Arrays that fit a spec, with up to two axes, that broadcast, for each ``...``."""
    inputs = spec.replace(" ", "").split("->")[0]
    length = {letter: draw(st.integers(0, 3)) for letter in string.ascii_letters}
    full = draw(sides(max_dims=2))
    arrays = []
    for seed, term in enumerate(inputs.split(",")):
        before, dots, after = term.partition("...")
        kept = full[draw(st.integers(0, len(full))) :] if dots else ()
        middle = [draw(st.sampled_from([side, 1])) for side in kept]
        shape = [length[c] for c in before] + middle + [length[c] for c in after]
        arrays.append(entries(shape, seed))
    return arrays


@pytest.mark.parametrize("spec", SPECS)
def test_einsum(spec):
    @settings(max_examples=8, deadline=None)
    @given(st.data())
    def run(data):
        arrays = drawn_operands(data.draw, spec)
        check(lambda *xs: tg.einsum(spec, *xs), lambda *xs: np.einsum(spec, *xs), *arrays)

    run()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_einsum(data):
    """Any letters in any number of terms, repeated or not, and any of them in the result."""
    terms = data.draw(st.lists(st.text("abc", max_size=3), min_size=1, max_size=3))
    letters = sorted(set("".join(terms)))
    result = data.draw(st.lists(st.sampled_from(letters), unique=True)) if letters else []
    spec = f"{','.join(terms)}->{''.join(result)}"
    length = {letter: data.draw(st.integers(0, 3)) for letter in "abc"}
    arrays = [entries([length[c] for c in term], n) for n, term in enumerate(terms)]
    check(lambda *xs: tg.einsum(spec, *xs), lambda *xs: np.einsum(spec, *xs), *arrays)


def test_einsum_broadcasts_sides_of_length_1():
    a, b = entries((2, 1)), entries((3, 4), 1)
    check(
        lambda a, b: tg.einsum("ij,jk->ik", a, b), lambda a, b: np.einsum("ij,jk->ik", a, b), a, b
    )
    one, three = entries((1, 1)), entries((3,), 1)
    check(lambda a, b: tg.einsum("ii,i", a, b), lambda a, b: np.einsum("ii,i", a, b), one, three)


def test_einsum_is_matmul():
    a, b = (tg.Tensor(entries((3, 3), n), requires_grad=True) for n in range(2))
    u = entries((3, 3), 2)
    for one, other in zip(
        tg.grad(tg.einsum("ij,jk", a, b), [a, b], u), tg.grad(a @ b, [a, b], u), strict=True
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-13)


@pytest.mark.parametrize(
    ("spec", "shapes", "message"),
    [
        ("ij,jk->ik", [(2, 3)], "names 2 operands; got 1"),
        ("ij->i", [(2,)], "'ij' names 2 axes of an operand that has 1"),
        ("i->i", [(2, 3)], "'i' names 1 axes of an operand that has 2"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "index 'j' is 3 long in one place and 4 in 'jk'"),
        ("ii->i", [(2, 3)], "index 'i' is 2 long in one place and 3 in 'ii'"),
        ("ii->i", [(1, 3)], "index 'i' is 1 long in one place and 3 in 'ii'"),
        ("i,jii", [(3,), (2, 3, 1)], "index 'i' is 3 long in one place and 1 in 'jii'"),
        ("ij->ijk", [(2, 3)], "has 'k' in its result"),
        ("ij->ii", [(2, 3)], "has 'i' in its result"),
        ("...i->i", [(2, 3)], "loses the axes of '...'"),
        ("..i->i", [(2, 3)], "has .; want letters"),
        ("...i...->i", [(2, 3)], "want a letter for each, or '...' once"),
        ("i1->i", [(2, 3)], "has 1; want letters"),
        ("ij->j->i", [(2, 3)], "has - >; want letters"),
        ("...i,...i->...", [(2, 3), (4, 3)], "is 2 long in one place and 4"),
    ],
)
def test_a_spec_that_does_not_fit_says_so(spec, shapes, message):
    for make in (np.ones, lambda shape: tg.Tensor(np.ones(shape), requires_grad=True)):
        with pytest.raises(tg.ShapeError, match=r"^einsum: ") as caught:
            tg.einsum(spec, *map(make, shapes))
        assert message in str(caught.value)


# --- Inverses, determinants, systems ----------------------------------------------------------

batches = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=2)
orders = st.integers(0, 4)


def regular(batch, n, seed=0):
    return entries((*batch, n, n), seed) * 0.3 + (1 + np.arange(n)) * np.eye(n)


def definite(batch, n, seed=0):
    x = entries((*batch, n, n), seed)
    return x @ np.swapaxes(x, -1, -2) + n * np.eye(n)


@settings(max_examples=20, deadline=None)
@given(batches, orders)
def test_inv_det_slogdet_of_any_batch(batch, n):
    a = regular(batch, n)
    check(tg.inv, np.linalg.inv, a)
    check(tg.det, np.linalg.det, a)
    check(lambda a: tg.slogdet(a)[1], lambda a: np.linalg.slogdet(a)[1], a)
    close(tg.slogdet(a)[0], np.linalg.slogdet(a)[0])
    assert not tg.slogdet(tg.Tensor(a, requires_grad=True))[0].requires_grad


@settings(max_examples=30, deadline=None)
@given(batches, orders, st.integers(0, 2), st.booleans())
def test_solve_of_any_batch(batch, n, columns, vector):
    a = regular(batch, n)
    b = entries(n if vector else (*batch, n, columns), 1)
    check(tg.solve, np.linalg.solve, a, b)


def test_solve_broadcasts_its_batches():
    a, b = regular((2, 1), 3), entries((4, 3, 2), 1)
    check(tg.solve, np.linalg.solve, a, b)
    check(tg.solve, np.linalg.solve, a[0, 0], b)


def by_permutations(a):
    """The determinant as Leibniz wrote it: sums of products, which are smooth everywhere."""
    n = len(a)
    return sum(
        np.linalg.det(np.eye(n)[list(order)]) * tg.prod(a[np.arange(n), list(order)])
        for order in itertools.permutations(range(n))
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_det_of_singular_matrices_has_two_derivatives(n):
    rng = np.random.default_rng(n)
    for rank in range(n + 1):
        a = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
        for derivative in (tg.grad, tg.hessian):
            expected = derivative(by_permutations)(a).numpy()
            np.testing.assert_allclose(derivative(tg.det)(a).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("op", [tg.det, lambda a: tg.svdvals(a).sum()])
def test_gradients_at_singular_matrices_are_the_same_in_all_modes(op):
    a = tg.Tensor(np.diag([3.0, 2.0, 0.0]), requires_grad=True)
    expected = tg.grad(op)(a.numpy())
    recorded = tg.grad(op(a), a, create_graph=True)
    compiled = tg.compile(tg.grad(op))(a.numpy())
    np.testing.assert_allclose(expected.numpy(), recorded.numpy(), atol=1e-12)
    np.testing.assert_allclose(expected.numpy(), compiled.numpy(), atol=1e-12)


def test_inverse_times_matrix_has_no_gradient():
    a = tg.Tensor(regular((2,), 3), requires_grad=True)
    (tg.inv(a) @ a).backward(entries((2, 3, 3), 1))
    np.testing.assert_allclose(a.grad, 0, atol=1e-14)


# --- Decompositions ---------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(batches, orders)
def test_cholesky_of_any_batch(batch, n):
    check(tg.cholesky, np.linalg.cholesky, definite(batch, n))


def test_cholesky_and_eigh_read_the_symmetric_part():
    a = definite((), 3)
    skew = entries((3, 3), 1)
    skew = skew - skew.T
    np.testing.assert_allclose(tg.cholesky(a + skew), tg.cholesky(a), atol=1e-12)
    np.testing.assert_allclose(tg.eigh(a + skew)[0], tg.eigh(a)[0], atol=1e-12)
    for op in (tg.cholesky, lambda a: tg.eigh(a)[0], lambda a: tg.eigh(a)[1]):
        g = tg.vjp(op, a)[1](entries(op(a).shape, 2))
        g = (g[0] if isinstance(g, tuple) else g).numpy()
        np.testing.assert_allclose(g, g.T, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(batches, orders)
def test_eigh_of_any_batch(batch, n):
    a = regular(batch, n) + 2 * np.arange(n) * np.eye(n)
    symmetric = (a + np.swapaxes(a, -1, -2)) / 2
    w, v = tg.eigh(a)
    close(w, np.linalg.eigh(symmetric)[0])
    np.testing.assert_allclose(v * w[..., None, :] @ np.swapaxes(v, -1, -2), symmetric, atol=1e-12)
    np.testing.assert_allclose(
        np.swapaxes(v, -1, -2) @ v, np.broadcast_to(np.eye(n), a.shape), atol=1e-12
    )
    check_call(lambda a: tg.eigh(a)[0], (a,), {}, order=2)
    check_call(lambda a: tg.eigh(a)[1], (a,), {}, order=2)


def test_equal_eigenvalues():
    """Functions of the spectrum have gradients there; the vectors have none, and give zero."""
    a = tg.Tensor(np.diag([2.0, 2.0, 5.0]), requires_grad=True)
    w, v = tg.eigh(a)
    (g,) = tg.grad((w * w).sum(), [a])
    np.testing.assert_allclose(g.numpy(), 2 * a.numpy(), atol=1e-14)
    (g,) = tg.grad(v, [a], entries((3, 3)))
    assert np.isfinite(g.numpy()).all()
    np.testing.assert_allclose(g.numpy()[:2, :2], 0, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(batches, orders, st.integers(0, 2))
def test_qr_of_any_batch(batch, n, more):
    m = n + more
    a = entries((*batch, m, n)) * 0.3 + np.eye(m, n) * (1 + np.arange(n))
    q, r = tg.qr(a)
    np.testing.assert_allclose(q @ r, a, atol=1e-12)
    np.testing.assert_allclose(
        np.swapaxes(q, -1, -2) @ q, np.broadcast_to(np.eye(n), (*batch, n, n)), atol=1e-12
    )
    np.testing.assert_array_equal(np.tril(r, -1), 0)
    assert (np.diagonal(r, axis1=-2, axis2=-1) > 0).all()
    check_call(lambda a: tg.qr(a)[0], (a,), {}, order=2)
    check_call(lambda a: tg.qr(a)[1], (a,), {}, order=2)


@settings(max_examples=20, deadline=None)
@given(batches, st.integers(0, 3), st.integers(0, 3))
def test_svdvals_of_any_batch(batch, m, n):
    a = entries((*batch, m, n)) * 0.1 + np.eye(m, n) * (1 + np.arange(n))
    check(tg.svdvals, lambda a: np.linalg.svd(a, compute_uv=False), a)


def test_svdvals_are_eigenvalues_of_the_square():
    a = entries((4, 3))
    s = tg.svdvals(a)
    np.testing.assert_allclose(np.sort(s**2), tg.eigh(a.T @ a)[0], rtol=1e-12)
    # The sum of the squares is that of the entries: a gradient that is known exactly.
    g = tg.grad(lambda a: (tg.svdvals(a) ** 2).sum())(a)
    np.testing.assert_allclose(g.numpy(), 2 * a, rtol=1e-12)


def test_equal_singular_values():
    a = tg.Tensor(np.eye(3), requires_grad=True)
    (g,) = tg.grad((tg.svdvals(a) ** 2).sum(), [a])
    np.testing.assert_allclose(g.numpy(), 2 * np.eye(3), atol=1e-14)


@pytest.mark.parametrize(
    "op",
    [
        tg.inv,
        tg.det,
        tg.cholesky,
        tg.svdvals,
        lambda a: a @ a,
        lambda a: tg.kron(a, a),
        lambda a: tg.tensordot(a, a),
        lambda a: tg.solve(a, a),
        lambda a: tg.slogdet(a)[1],
        lambda a: tg.eigh(a)[1],
        lambda a: tg.qr(a)[0],
        lambda a: tg.einsum("ij,jk", a, a),
    ],
)
def test_float32_stays_to_order_2(op):
    a = tg.Tensor(definite((), 3), dtype=np.float32, requires_grad=True)
    y = op(a)
    assert y.dtype == np.float32
    (g,) = tg.grad((y * y).sum(), [a], create_graph=True)
    assert g.dtype == np.float32
    (h,) = tg.grad((g * g).sum(), [a])
    assert (h.dtype, h.shape) == (np.float32, a.shape)


@pytest.mark.parametrize("make", [np.asarray, lambda a: tg.Tensor(a, requires_grad=True)])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: tg.inv(a * 0), "inv: a matrix of (2, 2) is singular; want full rank"),
        (lambda a: tg.solve(a * 0, np.ones(2)), "solve: a matrix of (2, 2) is singular"),
        (lambda a: tg.inv(tg.stack([a, a * 0])), "inv: a matrix of (2, 2, 2) is singular"),
        (lambda a: tg.cholesky(-1 * a), "cholesky: a matrix of (2, 2) is not positive definite"),
    ],
)
def test_a_matrix_without_a_result_raises(call, message, make):
    with pytest.raises(np.linalg.LinAlgError) as caught:
        call(make(np.eye(2)))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("op", [tg.inv, tg.det, tg.slogdet, tg.cholesky, tg.eigh])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (4, 2, 3)])
def test_matrices_that_are_not_square_raise(op, shape):
    with pytest.raises(tg.ShapeError, match=r"want square matrices \(\.\.\., n, n\)"):
        op(tg.Tensor(np.ones(shape), requires_grad=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x @ x, "matmul: inner sizes differ: (2, 3) @ (2, 3). The left has 3 columns, "),
        (lambda x: x @ 2.0, "matmul: got shapes (2, 3) and (); want at least one axis each"),
        (lambda x: tg.stack([x] * 2) @ tg.stack([x.T] * 3), "matmul: batch axes (2,) of (2, 2, 3)"),
        (lambda x: tg.dot(x, x[None]), "dot: axes [1] of (2, 3) and [1] of (1, 2, 3) differ"),
        (lambda x: tg.inner(x, x.T), "inner: axes [1] of (2, 3) and [1] of (3, 2) differ"),
        (lambda x: tg.vdot(x, x[0]), "vdot: got shapes (2, 3) and (3,); want equal sizes"),
        (lambda x: tg.tensordot(x, x, 1), "tensordot: axes [1] of (2, 3) and [0] of (2, 3) differ"),
        (lambda x: tg.tensordot(x, x, 3), "tensordot: axes=3 for shapes (2, 3) and (2, 3); want 0"),
        (lambda x: tg.tensordot(x, x, ([2], [0])), "tensordot: axis [2] is out of bounds"),
        (lambda x: tg.tensordot(x, x, ([0, 0], [0, 1])), "names an axis twice; want each once"),
        (
            lambda x: tg.tensordot(x, x, ([0], [0], [1])),
            "want a number or (those of a, those of b)",
        ),
        (lambda x: tg.solve(x, x), "solve: a is (2, 3) and b (2, 3); want (..., n, n) and"),
        (lambda x: tg.solve(np.eye(3), x), "solve: a is (3, 3) and b (2, 3); want (..., n, n) and"),
        (lambda x: tg.qr(x), "qr: got shape (2, 3); want (..., m, n) with m >= n"),
        (lambda x: tg.svdvals(x[0]), "svdvals: got shape (3,); want matrices (..., m, n)"),
    ],
)
def test_what_does_not_fit_says_so(call, message):
    with pytest.raises(ValueError, match=r"^\w+: ") as caught:
        call(tg.Tensor(entries((2, 3)), requires_grad=True))
    assert message in str(caught.value)


@pytest.mark.parametrize("op", [tg.cholesky, tg.eigh, lambda x: np.vdot(x, x)])
def test_complex_numbers_are_refused_where_numpy_would_conjugate(op):
    with pytest.raises(TypeError, match=r"^\w+: got .*complex.*; want real"):
        op(tg.Tensor(np.eye(2) * (1 + 1j)))


SPECS = (
    "ij,jk->ik bij,bjk->bik bqhd,bkhd->bhqk bhqk,bkhd->bqhd abij,abkj->kiba abc,cbd->da "
    "ij,j->i abc,c->ab cab,dc->bda ij,ij->j ij,ij-> i,j->ij ij,jk->i"
).split()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_large_products_by_einsum_are_numpys(spec, dtype):
    sides = {letter: 9 + n for n, letter in enumerate(sorted(set(spec) - set(",->")))}
    terms = spec.split("->")[0].split(",")
    rng = np.random.default_rng(0)
    operands = [rng.integers(-9, 9, [sides[c] for c in term]).astype(dtype) for term in terms]
    found, expected = tg.einsum(spec, *operands), np.einsum(spec, *operands)
    np.testing.assert_array_equal(found, expected, strict=True)
