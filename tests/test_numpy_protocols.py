"""NumPy's own functions on tensors: they record, or they raise; none drops a gradient silently."""

from __future__ import annotations

import inspect
import operator
import re

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw.elsewhere import LAYERS, NUMPY, OPTIMIZERS, TENSORS

# Functions that are asked for values: a conversion, a question about values, or a fresh array.
ON_VALUES = {
    "array", "asanyarray", "asarray", "asarray_chkfinite", "ascontiguousarray", "asfortranarray",
    "asmatrix", "require", "zeros_like", "ones_like", "empty_like", "full_like", "fromiter",
    "iterable", "isscalar", "save", "savez", "savez_compressed", "savetxt", "fromfunction",
    "format_float_positional", "format_float_scientific", "frompyfunc", "vectorize", "printoptions",
    "from_dlpack", "block", "put", "place", "copyto", "putmask", "fill_diagonal", "put_along_axis",
    "array2string", "bmat", "frombuffer", "fromfile", "fromstring", "genfromtxt", "real_if_close",
    "histogram", "apply_along_axis", "apply_over_axes", "piecewise",
}  # fmt: skip


def leaf(*shape: int) -> tg.Tensor:
    return tg.Tensor(np.random.default_rng(0).random(shape) + 0.5, requires_grad=True)


def functions() -> list[str]:
    found = []
    for name in dir(np):
        f = getattr(np, name)
        plain = callable(f) and not inspect.isclass(f) and not name.startswith("_")
        if plain and name not in ON_VALUES and name not in ("info", "show_config", "test"):
            found.append(name)
    return found


def floats_in(result):
    """Whether a result holds floats that are no tracked tensor, where one went in."""
    if isinstance(result, tg.Tensor):
        return result.dtype.kind == "f" and not result.requires_grad
    if isinstance(result, (tuple, list)):
        return any(map(floats_in, result))
    return isinstance(result, (np.ndarray, float)) and np.asarray(result).dtype.kind in "fcO"


@pytest.mark.parametrize("name", functions())
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_no_function_drops_a_gradient(name):
    function = getattr(np, name)
    for args in (
        (leaf(3, 3),),
        (leaf(4),),
        (leaf(3, 3), leaf(3, 3)),
        (leaf(3, 3), 1),
        (np.ones((3, 3)), leaf(3, 3)),
        (leaf(3, 3), np.ones((3, 3)), 1),
    ):
        try:
            result = function(*args)
        except (TypeError, ValueError, LookupError, AttributeError, tg.GraphError):
            continue  # It says so: nothing is silent.
        if name == "broadcast_arrays":  # An array that went in comes out.
            result = [r for r, a in zip(result, args, strict=True) if isinstance(a, tg.Tensor)]
        if name == "take" and not isinstance(args[0], tg.Tensor):
            continue  # The tensor was the index.
        assert not floats_in(result)


@pytest.mark.parametrize(
    ("call", "same"),
    [
        (lambda t: np.sin(t), lambda t: tg.sin(t)),
        (lambda t: np.sum(t, axis=0), lambda t: tg.sum(t, axis=0)),
        (lambda t: np.sum(t, axis=0, keepdims=True), lambda t: tg.sum(t, 0, keepdims=True)),
        (lambda t: np.mean(t), lambda t: tg.mean(t)),
        (lambda t: np.std(t, axis=1, ddof=1), lambda t: tg.std(t, 1, correction=1)),
        (lambda t: np.where(t > 1, t, 0), lambda t: tg.where(t > 1, t, 0)),
        (lambda t: np.clip(t, 0.6, 1), lambda t: tg.clip(t, 0.6, 1)),
        (lambda t: np.concatenate([t, t * 2], axis=1), lambda t: tg.concatenate([t, t * 2], 1)),
        (lambda t: np.stack([t, t]), lambda t: tg.stack([t, t])),
        (lambda t: np.einsum("ij,kj->ik", t, t), lambda t: tg.einsum("ij,kj->ik", t, t)),
        (lambda t: np.dot(t, t), lambda t: tg.dot(t, t)),
        (lambda t: np.matmul(t, t), lambda t: t @ t),
        (lambda t: np.linalg.inv(t + 3 * np.eye(3)), lambda t: tg.inv(t + 3 * np.eye(3))),
        (lambda t: np.linalg.norm(t, axis=0), lambda t: tg.norm(t, axis=0)),
        (lambda t: np.transpose(t), lambda t: t.T),
        (lambda t: np.reshape(t, (9,)), lambda t: t.reshape(9)),
        (lambda t: np.max(t, axis=1), lambda t: tg.max(t, axis=1)),
        (lambda t: np.cumsum(t, axis=0), lambda t: tg.cumsum(t, 0)),
        (lambda t: np.sort(t, axis=0), lambda t: tg.sort(t, 0)),
        (lambda t: np.linalg.svd(t, compute_uv=False), lambda t: tg.svdvals(t)),
        (lambda t: np.linalg.norm(t, 3, axis=1), lambda t: tg.norm(t, 3, axis=1)),
        (lambda t: np.add.reduce(t, axis=1), lambda t: tg.sum(t, axis=1)),
        (lambda t: np.multiply.outer(t, t), lambda t: tg.tensordot(t, t, axes=0)),
        (lambda t: np.ones(3) + t, lambda t: t + np.ones(3)),
        (lambda t: np.float64(2) * t, lambda t: t * 2),
        (lambda t: np.ones((3, 3)) @ t, lambda t: tg.matmul(np.ones((3, 3)), t)),
        (lambda t: np.ones(3) / t, lambda t: tg.divide(np.ones(3), t)),
        (lambda t: np.ones(3) - t, lambda t: tg.subtract(np.ones(3), t)),
        (lambda t: np.full(3, 2.0) ** t, lambda t: tg.power(np.full(3, 2.0), t)),
        (lambda t: np.sort(t, axis=None), lambda t: tg.sort(t.reshape(-1))),
        (lambda t: np.concatenate([t, t[0]], axis=None), lambda t: tg.concatenate([*t, t[0]])),
        (lambda t: np.add.reduce(t, initial=1), lambda t: tg.sum(t, axis=0) + 1),
        (lambda t: np.maximum.reduce(t, initial=1.0), lambda t: tg.maximum(tg.max(t, 0), 1)),
        (lambda t: np.transpose(t, axes=(1, 0)), lambda t: t.T),
        (lambda t: np.reshape(t, (9,), "C"), lambda t: t.reshape(9)),
        (lambda t: np.ravel(t, "C"), lambda t: t.reshape(9)),
        (lambda t: np.sum(t, 0, None, None, True), lambda t: tg.sum(t, 0, keepdims=True)),
        (lambda t: np.sum(t, 0, np.float32), lambda t: tg.sum(t.astype(np.float32), 0)),
        (lambda t: np.max(t, 0, None, True), lambda t: tg.max(t, 0, keepdims=True)),
        (lambda t: np.clip(t, 0.6, None), lambda t: tg.clip(t, 0.6)),
        (lambda t: np.around(t, 1), lambda t: tg.round(t, 1)),
        (lambda t: np.linalg.svd(t, True, False), lambda t: tg.svdvals(t)),
        (lambda t: np.linalg.norm(t, axis=None), lambda t: tg.norm(t)),
    ],
)
def test_a_numpy_call_is_the_op_and_its_gradient(call, same):
    one, other = leaf(3, 3), leaf(3, 3)
    y, z = call(one), same(other)
    assert isinstance(y, tg.Tensor)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    cotangent = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(cotangent)
    z.backward(cotangent)
    np.testing.assert_array_equal(one.grad, other.grad)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.argsort(x, axis=None),
        lambda x: np.trace(x),
        lambda x: np.trace(x, 1, 1, 2),
        lambda x: np.linalg.trace(x),
        lambda x: np.where(x > 1)[2],
        lambda x: np.sum(x, 0, np.float32),
    ],
)
def test_a_numpy_call_on_a_stack_of_matrices_is_numpys(call):
    x = np.random.default_rng(0).random((2, 3, 3)) * 2
    mine, numpys = np.asarray(call(tg.Tensor(x))), call(x)
    np.testing.assert_allclose(mine, numpys, rtol=1e-6)
    assert (mine.shape, mine.dtype) == (numpys.shape, numpys.dtype)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: np.linalg.eigh(a).eigenvalues,
        lambda a: np.linalg.slogdet(a).logabsdet,
        lambda a: np.linalg.slogdet(a).sign,
        lambda a: abs(np.linalg.qr(a).R),
    ],
)
def test_what_a_decomposition_gives_has_numpys_names(call):
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    np.testing.assert_allclose(call(tg.Tensor(a, requires_grad=True)).numpy(), call(a))


@pytest.mark.parametrize("name", ["fmax", "fmin"])
def test_fmax_and_fmin_pass_over_nan_and_so_do_their_gradients(name):
    a, b = np.array([1.0, np.nan, 3.0, np.nan]), np.array([2.0, 2.0, np.nan, np.nan])
    x, y = tg.Tensor(a, requires_grad=True), tg.Tensor(b, requires_grad=True)
    z = getattr(np, name)(x, y)
    np.testing.assert_array_equal(z.numpy(), getattr(np, name)(a, b))
    z[:3].sum().backward()
    np.testing.assert_array_equal(x.grad[1:3], [0, 1])
    np.testing.assert_array_equal(y.grad[1:3], [1, 0])


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda t: np.ravel(t, "F"), "order"),
        (lambda t: np.reshape(t, (9,), "F"), "order"),
        (lambda t: np.sum(t, initial=1), "initial"),
        (lambda t: np.linalg.qr(t, "complete"), "mode"),
        (lambda t: np.linalg.cholesky(t, upper=True), "upper"),
    ],
)
def test_an_argument_that_the_op_has_not_is_refused_by_its_name(call, argument):
    message = rf"^np\.\w+: got .* '{argument}'; tg.* has none such; write it otherwise"
    with pytest.raises(TypeError, match=message):
        call(leaf(3, 3))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: np.fft.fft(t),
        lambda t: np.interp(t, [0, 1], [0, 1]),
        lambda t: np.linalg.pinv(t),
        lambda t: np.convolve(t[0], t[0]),
        lambda t: np.add.accumulate(t),
        lambda t: np.add.at(np.zeros(3), [0], t[0, :1]),
        lambda t: np.gradient(t),
        lambda t: np.nansum(t),
    ],
)
def test_a_function_without_a_rule_says_what_to_use(call):
    with pytest.raises(TypeError, match=r"np\.[\w.]+: .*(tg\.|t\.numpy\(\))"):
        call(leaf(3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: np.linalg.svd(t), r"np\.linalg\.svd: .* use tg\.svdvals"),
        (lambda t: np.vstack([t, t]), r"np\.vstack: .* use tg\.concatenate, or"),
        (lambda t: np.diff(t), r"np\.diff: .* use t\[1:\] - t\[:-1\], or"),
        (lambda t: np.linalg.cond(t), r"np\.linalg\.cond: .* use the ratio of tg\.svdvals"),
        (lambda t: np.linalg.vector_norm(t), r"np\.linalg\.vector_norm: .* use tg\.norm, or"),
        (lambda t: np.add.accumulate(t), r"np\.add\.accumulate: .* use tg\.cumsum, or"),
        (lambda t: np.logaddexp.reduce(t), r"np\.logaddexp\.reduce: .* use tg\.logsumexp, or"),
        (lambda t: np.add.reduce(t, where=[True, False, True]), r"where= .* use tg\.where"),
        (lambda t: np.nanmax(t), r"np\.nanmax: .* use tg\.where with tg\.isnan, or"),
        pytest.param(
            lambda t: np.unstack(t),
            r"np\.unstack: .* use list\(t\), or",
            marks=pytest.mark.skipif(not hasattr(np, "unstack"), reason="is of NumPy 2.1"),
        ),
        (lambda t: np.insert(t, 0, t), r"np\.insert: .* use tg\.concatenate, or"),
        (lambda t: np.radians(t), r"np\.radians: .* use t \* \(np\.pi / 180\), or"),
        (lambda t: np.linspace(0, t[0], 3), r"use a \+ \(b - a\) \* np\.linspace\(0, 1, n\)"),
        (lambda t: np.full_like(t, t), r"np\.full_like: the value requires a gradient"),
        (lambda t: np.hypot.outer(t, t), r"use tg\.hypot\(a\[\.\.\., None\], b\) for vectors"),
    ],
)
def test_the_advice_is_what_one_would_write(call, message):
    with pytest.raises(TypeError, match=message):
        call(leaf(3, 3))


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (lambda x: np.add(x, x, dtype=np.int64), np.array([100, 200], np.uint8)),
        (lambda x: np.multiply(x, 300, dtype=np.float32), np.array([300, 1], np.float16)),
        (lambda x: np.sin(x, dtype=np.float64), np.array([1, 2], np.float16)),
        (lambda x: np.less(x, 1.5, dtype=bool), np.array([1.0, 2.0])),
        (lambda x: np.sum(x, dtype=np.int8), np.array([100, 100])),
        (lambda x: np.cumsum(x, dtype=np.int8), np.array([100, 100])),
        (lambda x: np.multiply.reduce(x, dtype=np.uint8), np.array([100, 100])),
        (lambda x: np.mean(x, dtype=int), np.array([1, 2])),
        (lambda x: np.linalg.svd(x, False, False), np.eye(2)),
        (np.fabs, np.array([-1, 2])),
        (np.fabs, np.array([True, False])),
        (np.rint, np.array([-1, 2], np.int16)),
        (np.tril, np.ones((2, 2), bool)),
        (np.triu, np.ones((2, 2), bool)),
        (np.copy, np.array([True, False])),
        (lambda x: np.linalg.norm(x, 1), np.array([-1, 2])),
        (lambda x: np.linalg.norm(x, np.inf), np.array([True, False])),
    ],
)
def test_values_and_dtypes_are_numpys(call, values):
    got, want = call(tg.Tensor(values)), call(values)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.numpy(), want)


def test_a_dtype_that_cannot_hold_the_inputs_is_refused():
    with pytest.raises(TypeError, match="dtype=int64 cannot hold float64 without loss"):
        np.add(leaf(3), 1, dtype=int)


def test_scipys_ufuncs_raise_too():
    special = pytest.importorskip("scipy.special")
    with pytest.raises(TypeError, match="gammaln"):
        special.gammaln(leaf(3))


@pytest.mark.parametrize("call", [lambda a, t: np.add(a, t, out=a), lambda a, t: a.__iadd__(t)])
def test_a_tensor_is_not_written_into_an_array(call):
    with pytest.raises(TypeError, match="cannot write a tensor's values"):
        call(np.ones(3), leaf(3))


def test_where_of_a_ufunc_is_refused():
    with pytest.raises(TypeError, match=r"use tg\.where"):
        np.add(leaf(3), 1, where=np.array([True, False, True]))


def test_explicit_conversions_give_values():
    t = leaf(3)
    np.testing.assert_array_equal(np.asarray(t), t.numpy())
    assert np.allclose(t, t.numpy())
    assert np.array_equal(t, t.numpy())
    assert (np.shape(t), np.ndim(t), np.size(t)) == ((3,), 1, 3)
    assert np.zeros_like(t).shape == (3,)
    assert float(tg.sum(t)) == t.numpy().sum()


def test_a_conversion_that_may_not_copy_refuses_where_it_must():
    t = leaf(3)
    assert np.shares_memory(np.asarray(t, copy=False), np.asarray(t, copy=False))
    with pytest.raises(ValueError, match="avoid copy"):
        np.asarray(t, dtype=np.float32, copy=False)


def test_an_array_of_a_tensor_is_no_window_to_its_values():
    t = leaf(3)
    before = t.numpy().copy()
    copy = np.array(t)
    copy[:] = 7
    np.testing.assert_array_equal(t.numpy(), before)


def test_the_other_names_that_numpy_has_for_an_op_are_the_packages_too():
    x = leaf(3)
    for other, name in (("concat", "concatenate"), ("pow", "power"), ("asin", "arcsin")):
        assert getattr(tg, other) is getattr(tg, name)
    np.testing.assert_array_equal(tg.permute_dims(x[None], (1, 0)).numpy(), x.numpy()[:, None])


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        (tg, "zeros", "; use np.zeros; ops take arrays"),
        (tg, "hstack", "; use tg.concatenate(ts, axis=1)"),
        (tg, "cat", "; use tg.concatenate"),
        (tg, "jit", "; use tg.compile"),
        (tg, "no_such_name", ""),
        (tg, "__no_such_name__", ""),
        (tg.nn, "BatchNorm1d", "; use tg.nn.BatchNorm"),
        (tg.nn, "LSTM", ""),
        (tg.optim, "StepLR", "; use tg.optim.StepDecay"),
        (tg.optim, "no_such_name", ""),
    ],
)
def test_a_name_that_is_missing_says_what_serves_in_its_place(module, name, advice):
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    start = f"module {module.__name__!r} has no attribute {name!r}{advice}"
    assert str(caught.value).startswith(start)
    assert advice or str(caught.value).endswith(repr(name))


def test_full_like_gives_an_array_of_constants():
    t = leaf(2)
    for found in (np.full_like(t, 3), np.full_like(t, t.detach())):
        assert type(found) is np.ndarray
        assert found.dtype == float
    counts = np.full_like(t, 3, dtype=np.int64, shape=(2, 2))
    assert (counts.dtype, counts.tolist()) == (np.int64, [[3, 3], [3, 3]])


@pytest.mark.parametrize("table", [NUMPY, TENSORS, LAYERS, OPTIMIZERS])
def test_what_serves_in_the_place_of_a_name_is_there(table):
    for instead in table.values():
        for path in re.findall(r"tg((?:\.\w+)+)", instead):
            operator.attrgetter(path[1:])(tg)
