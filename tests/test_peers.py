"""Values and gradients beside PyTorch's and JAX's, where these are installed: all shared ops."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw.domains import RandomDraw

pytestmark = pytest.mark.filterwarnings("ignore")  # Those of the peers are theirs.


class Peer:
    """A module that is imported when it is first used; the test is skipped where it is missing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        pytest.importorskip(self._name.split(".")[0])
        return getattr(importlib.import_module(self._name), attribute)


torch, F = Peer("torch"), Peer("torch.nn.functional")
jax, jnp = Peer("jax"), Peer("jax.numpy")


class Case(NamedTuple):
    """A call, the same in each library, and the arrays that it is called on."""

    op: str
    ours: Callable[..., Any]
    torch: Callable[..., Any] | None
    jax: Callable[..., Any] | None
    args: tuple[Any, ...]


CASES: list[Case] = []
numbers = np.random.default_rng(0)


def case(op: str, ours: Any, in_torch: Any, in_jax: Any, *shapes_or_arrays: Any) -> None:
    """Note a call; arguments are arrays, or shapes to fill with normal numbers."""
    args = tuple(
        a if isinstance(a, np.ndarray) else numbers.standard_normal(a) for a in shapes_or_arrays
    )
    CASES.append(Case(op, ours, in_torch, in_jax, args))


def named(op: str, in_torch: str | None = None, in_jax: str | None = None) -> None:
    """Note elementwise calls by name; arguments come from the primitive's domain."""
    for seed in range(3):
        args, _ = tg.ops.primitives()[op].domain.sample(RandomDraw(seed))
        case(op, getattr(tg, op), by_name(torch, in_torch or op), by_name(jax, in_jax or op), *args)


def by_name(peer: Peer, path: str) -> Any:
    if path == "-":
        return None
    if peer is jax:
        path = path if "." in path else f"numpy.{path}"

    def call(*args: Any, **options: Any) -> Any:
        found: Any = peer
        for part in path.split("."):
            found = getattr(found, part)
        return found(*args, **options)

    return call


# --- Elementwise ------------------------------------------------------------------------------

for op in """
    abs add arccos arccosh arcsin arcsinh arctan arctan2 arctanh ceil cos cosh divide exp exp2 expm1
    floor hypot log log10 log1p log2 logaddexp maximum minimum multiply negative reciprocal
    remainder round sign sin sinc sinh sqrt square subtract tan tanh where
""".split():
    named(op)
named("floor_divide", "-")
named("power", "pow")
named("cbrt", "-", "cbrt")
named("erf", "erf", "scipy.special.erf")
named("sigmoid", "sigmoid", "nn.sigmoid")
named("relu", "relu", "nn.relu")
named("softplus", "nn.functional.softplus", "nn.softplus")

case("elu", lambda x: tg.elu(x, 0.7), lambda x: F.elu(x, 0.7), lambda x: jax.nn.elu(x, 0.7), (3, 4))
case("gelu", tg.gelu, lambda x: F.gelu(x), lambda x: jax.nn.gelu(x, approximate=False), (3, 4))
case("silu", tg.silu, lambda x: F.silu(x), lambda x: jax.nn.silu(x), (3, 4))
case(
    "leaky_relu",
    lambda x: tg.leaky_relu(x, 0.2),
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: jax.nn.leaky_relu(x, 0.2),
    (3, 4),
)
case(
    "clip",
    lambda x: tg.clip(x, -0.5, 1.0),
    lambda x: torch.clip(x, -0.5, 1.0),
    lambda x: jnp.clip(x, -0.5, 1.0),
    (3, 4),
)
for op in "equal not_equal less less_equal greater greater_equal".split():
    in_torch = {"equal": "eq", "not_equal": "ne"}.get(op, op)
    args = np.array([1.0, 2.0, 2.0]), np.array([2.0, 2.0, 1.0])
    case(op, getattr(tg, op), by_name(torch, in_torch), by_name(jax, op), *args)
for op in "logical_and logical_or logical_xor".split():
    args = np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.0, 3.0, 0.0, 4.0])
    case(op, getattr(tg, op), by_name(torch, op), by_name(jax, op), *args)
for op in "bitwise_and bitwise_or bitwise_xor".split():
    args = np.array([6, 5, -3]), np.array([3, 0, 12])
    case(op, getattr(tg, op), by_name(torch, op), by_name(jax, op), *args)
case("invert", tg.invert, lambda x: torch.bitwise_not(x), lambda x: jnp.invert(x), np.arange(-3, 3))
for op in "logical_not isnan isinf isfinite".split():
    case(op, getattr(tg, op), by_name(torch, op), by_name(jax, op), np.array([0, np.nan, np.inf]))

# Where slopes are a matter of convention, ours is PyTorch's; JAX's differ for abs and clip.
corners = np.array([-1.0, 0.0, 1.0, 0.0])
case("relu", tg.relu, lambda x: torch.relu(x), lambda x: jax.nn.relu(x), corners)
case("abs", tg.abs, lambda x: torch.abs(x), None, corners)
case("sign", tg.sign, lambda x: torch.sign(x), lambda x: jnp.sign(x), corners)
case("clip", lambda x: tg.clip(x, 0, 1), lambda x: torch.clip(x, 0, 1), None, corners)
case("power", lambda x: x**0, lambda x: x**0, lambda x: x**0, corners)
case("power", lambda x: x**2.0, lambda x: x**2.0, lambda x: x**2.0, corners)
case("maximum", tg.maximum, by_name(torch, "maximum"), by_name(jax, "maximum"), corners, corners)
case("amax", tg.amax, lambda x: torch.amax(x), lambda x: jnp.max(x), np.abs(corners))
case("prod", tg.prod, lambda x: torch.prod(x), lambda x: jnp.prod(x), corners[:3])
case("norm", tg.norm, lambda x: torch.linalg.norm(x), None, corners * 0)

# --- Reductions and order ---------------------------------------------------------------------

AXES = [None, 1, -3, (0, 2)]


def reduction(op: str, in_torch: Any, in_jax: Any, axes: Any = AXES) -> None:
    """Note calls with each axis, ``keepdims`` in turn; peers take (x, axis, keepdims)."""
    for axis, keep in zip(axes, itertools.cycle([False, True])):
        case(
            op,
            lambda x, axis=axis, keep=keep: getattr(tg, op)(x, axis=axis, keepdims=keep),
            in_torch and (lambda x, axis=axis, keep=keep: in_torch(x, axis, keep)),
            in_jax and (lambda x, axis=axis, keep=keep: in_jax(x, axis=axis, keepdims=keep)),
            (2, 3, 4),
        )


def every(axis: Any) -> Any:
    return (0, 1, 2) if axis is None else axis


reduction("sum", lambda x, a, k: torch.sum(x, a, k), lambda x, **k: jnp.sum(x, **k))
reduction("mean", lambda x, a, k: torch.mean(x, a, k), lambda x, **k: jnp.mean(x, **k))
for op in ("max", "amax"):
    reduction(op, lambda x, a, k: torch.amax(x, every(a), k), lambda x, **k: jnp.max(x, **k))
for op in ("min", "amin"):
    reduction(op, lambda x, a, k: torch.amin(x, every(a), k), lambda x, **k: jnp.min(x, **k))
reduction(
    "logsumexp",
    lambda x, a, k: torch.logsumexp(x, every(a), k),
    lambda x, **k: jax.scipy.special.logsumexp(x, **k),
)
reduction(
    "norm",
    lambda x, a, k: torch.linalg.vector_norm(x, 2, a, k),
    lambda x, axis, keepdims: jnp.sqrt(jnp.sum(x * x, axis=axis, keepdims=keepdims)),
)
reduction("prod", None, lambda x, **k: jnp.prod(x, **k))
reduction("prod", lambda x, a, k: torch.prod(x, a, k), None, axes=[0, 1, -1])
reduction("median", None, lambda x, **k: jnp.median(x, **k))
reduction("median", lambda x, a, k: torch.quantile(x, 0.5, a, k), None, axes=[None, 0, -1])
for op in ("argmax", "argmin"):
    reduction(op, by_name(torch, op), by_name(jax, op), axes=[None, 0, -1])
for op in ("all", "any", "count_nonzero"):
    case(op, getattr(tg, op), by_name(torch, op), by_name(jax, op), np.array([1.0, 0.0, 2.0]))
for op, correction, axis in itertools.product(("var", "std"), (0, 1), AXES):
    case(
        op,
        lambda x, op=op, c=correction, a=axis: getattr(tg, op)(x, a, correction=c),
        lambda x, op=op, c=correction, a=axis: getattr(torch, op)(x, a, correction=c),
        lambda x, op=op, c=correction, a=axis: getattr(jnp, op)(x, axis=a, ddof=c),
        (2, 3, 4),
    )
for axis in (0, 1, -1):
    for op in ("softmax", "log_softmax"):
        case(
            op,
            lambda x, op=op, a=axis: getattr(tg, op)(x, a),
            lambda x, op=op, a=axis: getattr(torch, op)(x, a),
            lambda x, op=op, a=axis: getattr(jax.nn, op)(x, a),
            (2, 3, 4),
        )
    for op in ("cumsum", "cumprod", "argsort"):
        case(
            op,
            lambda x, op=op, a=axis: getattr(tg, op)(x, a),
            lambda x, op=op, a=axis: getattr(torch, op)(x, a),
            lambda x, op=op, a=axis: getattr(jnp, op)(x, a),
            (2, 3, 4),
        )
    case(
        "sort",
        lambda x, a=axis: tg.sort(x, a),
        lambda x, a=axis: torch.sort(x, a).values,
        lambda x, a=axis: jnp.sort(x, a),
        (2, 3, 4),
    )
case(
    "topk",
    lambda x: tg.topk(x, 2)[0],
    lambda x: torch.topk(x, 2).values,
    lambda x: jax.lax.top_k(x, 2)[0],
    (2, 5),
)

# --- Shape and index --------------------------------------------------------------------------


def alike(op: str, *args: Any, in_torch: Any = None, shape: Any = (2, 3, 4)) -> None:
    """Note a call that JAX spells as we do, and PyTorch too unless its own is given."""
    case(
        op,
        lambda x: getattr(tg, op)(x, *args),
        in_torch or (lambda x: getattr(torch, op)(x, *args)),
        lambda x: getattr(jnp, op)(x, *args),
        shape,
    )


alike("reshape", (4, -1))
alike("ravel")
alike("transpose", (2, 0, 1), in_torch=lambda x: x.permute(2, 0, 1))
alike("swapaxes", 0, -1)
alike("moveaxis", (0, 1), (-1, 0))
alike("matrix_transpose", in_torch=lambda x: x.mT)
alike("squeeze", 1, shape=(2, 1, 3))
alike("expand_dims", 1, in_torch=lambda x: x.unsqueeze(1))
alike("broadcast_to", (5, 2, 3, 4))
alike("tile", (2, 1, 3))
alike("flip", (0, 2))
alike("roll", 2, 1)
alike("roll", (1, -3), (0, 2))
alike("repeat", 2, 1, in_torch=lambda x: x.repeat_interleave(2, 1))
alike("tril", -1)
alike("triu", 1)
alike("diag", 1, shape=(3, 3))
alike("diag", -1, shape=(3,))
alike("trace", 1, in_torch=lambda x: x.diagonal(1).sum(), shape=(3, 4))
case(
    "pad",
    lambda x: tg.pad(x, ((0, 0), (1, 2), (2, 1)), "reflect"),
    lambda x: F.pad(x, (2, 1, 1, 2), "reflect"),
    lambda x: jnp.pad(x, ((0, 0), (1, 2), (2, 1)), "reflect"),
    (2, 3, 4),
)
case(
    "pad",
    lambda x: tg.pad(x, ((0, 0), (1, 2), (2, 1)), "edge"),
    lambda x: F.pad(x, (2, 1, 1, 2), "replicate"),
    lambda x: jnp.pad(x, ((0, 0), (1, 2), (2, 1)), "edge"),
    (2, 3, 4),
)
case(
    "pad", lambda x: tg.pad(x, 1), lambda x: F.pad(x, (1,) * 6), lambda x: jnp.pad(x, 1), (2, 3, 4)
)
for op in ("concatenate", "stack"):
    case(
        op,
        lambda *xs, op=op: getattr(tg, op)(xs, 1),
        lambda *xs, op=op: getattr(torch, op)(xs, 1),
        lambda *xs, op=op: getattr(jnp, op)(xs, 1),
        *[(2, 3)] * 3,
    )
case(
    "split",
    lambda x: tg.split(x, [1, 3], 1)[1],
    lambda x: torch.tensor_split(x, [1, 3], 1)[1],
    lambda x: jnp.split(x, [1, 3], 1)[1],
    (2, 4),
)
case(
    "broadcast_arrays",
    lambda a, b: tg.broadcast_arrays(a, b)[0],
    lambda a, b: torch.broadcast_tensors(a, b)[0],
    lambda a, b: jnp.broadcast_arrays(a, b)[0],
    (3, 1),
    (2, 1, 4),
)
rows = np.array([2, 0, 2, 1])
for index in [
    1,
    slice(None, None, 2),
    (..., 0),
    (None, 1),
    rows,
    (slice(1), rows),
    (rows[:2], rows[2:]),
]:
    case(
        "getitem",
        lambda x, i=index: tg.getitem(x, i),
        lambda x, i=index: x[i],
        lambda x, i=index: x[i],
        (3, 3, 2),
    )
case(
    "getitem",
    lambda x: x[np.eye(3, dtype=bool)],
    lambda x: x[torch.eye(3, dtype=torch.bool)],
    lambda x: x[np.eye(3, dtype=bool)],
    (3, 3, 2),
)


def written(x: Any, v: Any) -> Any:
    x = x.clone()
    x[rows[1:]] = v
    return x


case(
    "setitem",
    lambda x, v: tg.setitem(x, v, index=rows[1:]),
    written,
    lambda x, v: x.at[rows[1:]].set(v),
    (3, 2),
    (3, 2),
)
case(
    "scatter_add",
    lambda g: tg.scatter_add(g, index=rows, shape=(3, 2)),
    lambda g: torch.zeros(3, 2, dtype=g.dtype).index_add(0, torch.tensor(rows), g),
    lambda g: jnp.zeros((3, 2)).at[rows].add(g),
    (4, 2),
)
case(
    "take",
    lambda x: tg.take(x, rows, 1),
    lambda x: torch.index_select(x, 1, torch.tensor(rows)),
    lambda x: jnp.take(x, rows, 1),
    (2, 3),
)
case(
    "take_along_axis",
    lambda x: tg.take_along_axis(x, np.tile(rows, (2, 1)), 1),
    lambda x: torch.take_along_dim(x, torch.tensor(np.tile(rows, (2, 1))), 1),
    lambda x: jnp.take_along_axis(x, np.tile(rows, (2, 1)), 1),
    (2, 3),
)

# --- Linear algebra ---------------------------------------------------------------------------

for left, right in [((3,), (3,)), ((2, 3), (3,)), ((3,), (4, 3, 2)), ((4, 1, 2, 3), (5, 3, 2))]:
    case("matmul", tg.matmul, by_name(torch, "matmul"), by_name(jax, "matmul"), left, right)
case("dot", tg.dot, by_name(torch, "dot"), by_name(jax, "dot"), (3,), (3,))
case("dot", tg.dot, None, by_name(jax, "dot"), (2, 3), (4, 3, 2))
case("vdot", tg.vdot, by_name(torch, "vdot"), by_name(jax, "vdot"), (3,), (3,))
case("inner", tg.inner, by_name(torch, "inner"), by_name(jax, "inner"), (2, 3), (4, 3))
case("outer", tg.outer, by_name(torch, "outer"), by_name(jax, "outer"), (2,), (3,))
case("kron", tg.kron, by_name(torch, "kron"), by_name(jax, "kron"), (2, 3), (3, 2))
case(
    "tensordot",
    lambda a, b: tg.tensordot(a, b, ([1, 0], [0, 2])),
    lambda a, b: torch.tensordot(a, b, ([1, 0], [0, 2])),
    lambda a, b: jnp.tensordot(a, b, ([1, 0], [0, 2])),
    (2, 3, 4),
    (3, 5, 2),
)
for spec, *shapes in [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("bij,bkj->bik", (2, 3, 4), (2, 5, 4)),
    ("...ij,jk->...k", (2, 3, 4), (4, 2)),
    ("ii->i", (3, 3)),
    ("i,ij,j->", (2,), (2, 3), (3,)),
]:
    case(
        "einsum",
        lambda *xs, spec=spec: tg.einsum(spec, *xs),
        lambda *xs, spec=spec: torch.einsum(spec, *xs),
        lambda *xs, spec=spec: jnp.einsum(spec, *xs),
        *shapes,
    )

batch = numbers.standard_normal((2, 3, 3)) * 0.3 + np.diag([1.0, 2.0, 4.0])
for op in ("inv", "det"):
    case(
        op,
        getattr(tg, op),
        by_name(torch, f"linalg.{op}"),
        by_name(jax, f"numpy.linalg.{op}"),
        batch,
    )
case(
    "slogdet",
    lambda a: tg.slogdet(a)[1],
    lambda a: torch.linalg.slogdet(a)[1],
    lambda a: jnp.linalg.slogdet(a)[1],
    batch,
)
case(
    "solve",
    tg.solve,
    by_name(torch, "linalg.solve"),
    by_name(jax, "numpy.linalg.solve"),
    batch,
    (2, 3, 2),
)


def sym(a: Any) -> Any:
    """The peers read one triangle of a symmetric matrix, or both; of this it is the same."""
    return a + a.mT


case(
    "cholesky",
    lambda a: tg.cholesky(sym(a)),
    lambda a: torch.linalg.cholesky(sym(a)),
    lambda a: jnp.linalg.cholesky(sym(a)),
    batch,
)
case(
    "eigh",
    lambda a: tg.eigh(sym(a))[0],
    lambda a: torch.linalg.eigh(sym(a))[0],
    lambda a: jnp.linalg.eigh(sym(a))[0],
    batch,
)
# The sign of a vector is free.
case(
    "eigh",
    lambda a: tg.eigh(sym(a))[1] ** 2,
    lambda a: torch.linalg.eigh(sym(a))[1] ** 2,
    lambda a: jnp.linalg.eigh(sym(a))[1] ** 2,
    batch,
)
case(
    "qr",
    lambda a: tg.qr(a)[0] ** 2,
    lambda a: torch.linalg.qr(a)[0] ** 2,
    lambda a: jnp.linalg.qr(a)[0] ** 2,
    (2, 4, 3),
)
case(
    "qr",
    lambda a: tg.qr(a)[1] ** 2,
    lambda a: torch.linalg.qr(a)[1] ** 2,
    lambda a: jnp.linalg.qr(a)[1] ** 2,
    (2, 4, 3),
)
case(
    "svdvals",
    tg.svdvals,
    lambda a: torch.linalg.svdvals(a),
    lambda a: jnp.linalg.svd(a, compute_uv=False),
    (2, 3, 4),
)

# --- Networks: ours are channel-last, PyTorch's channel-first ---------------------------------


def first(x: Any) -> Any:
    return x.movedim(-1, 1)


def last(x: Any) -> Any:
    return x.movedim(1, -1)


def jax_conv(x: Any, w: Any, stride: int, padding: Any, dilation: int = 1, groups: int = 1) -> Any:
    if isinstance(padding, int):
        padding = [(padding, padding)] * 2
    return jax.lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        padding if isinstance(padding, list) else padding.upper(),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


for stride, padding, dilation, groups in [
    (1, "valid", 1, 1),
    (1, "same", 1, 1),
    (1, "same", 2, 2),
    (2, 1, 1, 1),
    (2, 2, 2, 1),
    (3, "valid", 1, 2),
]:
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    case(
        "conv2d",
        lambda x, w, b, o=options: tg.conv2d(x, w, b, **o),
        lambda x, w, b, o=options: last(F.conv2d(first(x), w.permute(3, 2, 0, 1), b, **o)),
        lambda x, w, b, o=options: jax_conv(x, w, **o) + b,
        (2, 7, 8, 4),
        (3, 2, 4 // groups, 6),
        (6,),
    )
# PyTorch has no "same" for strides; JAX does.
case(
    "conv2d",
    lambda x, w: tg.conv2d(x, w, stride=2, padding="same"),
    None,
    lambda x, w: jax_conv(x, w, 2, "same"),
    (2, 7, 8, 3),
    (3, 2, 3, 4),
)
for stride, padding, extra, dilation in [(1, 0, 0, 1), (2, 1, 1, 1), (2, 0, 0, 2)]:
    options = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
    case(
        "conv2d_transpose",
        lambda x, w, o=options: tg.conv2d_transpose(x, w, **o),
        lambda x, w, o=options: last(F.conv_transpose2d(first(x), w.permute(3, 2, 0, 1), **o)),
        None,
        (2, 4, 5, 3),
        (3, 3, 2, 3),
    )
for size, stride in [(2, 2), (3, 2), (2, 3)]:
    window = {"window_dimensions": (1, size, size, 1), "window_strides": (1, stride, stride, 1)}
    case(
        "max_pool2d",
        lambda x, k=size, s=stride: tg.max_pool2d(x, k, s),
        lambda x, k=size, s=stride: last(F.max_pool2d(first(x), k, s)),
        lambda x, w=window: jax.lax.reduce_window(x, -np.inf, jax.lax.max, padding="VALID", **w),
        (2, 6, 7, 3),
    )
    case(
        "avg_pool2d",
        lambda x, k=size, s=stride: tg.avg_pool2d(x, k, s),
        lambda x, k=size, s=stride: last(F.avg_pool2d(first(x), k, s)),
        lambda x, k=size, w=window: (
            jax.lax.reduce_window(x, 0.0, jax.lax.add, padding="VALID", **w) / k**2
        ),
        (2, 6, 7, 3),
    )
case(
    "linear",
    tg.linear,
    lambda x, w, b: F.linear(x, w.T, b),
    lambda x, w, b: x @ w + b,
    (5, 3),
    (3, 2),
    (2,),
)
case(
    "layer_norm",
    tg.layer_norm,
    lambda x, w, b: F.layer_norm(x, (4,), w, b),
    lambda x, w, b: jax.nn.standardize(x, axis=-1, epsilon=1e-5) * w + b,
    (2, 3, 4),
    (4,),
    (4,),
)
case(
    "batch_norm",
    lambda x, w, b: tg.batch_norm(x, w, b, training=True),
    lambda x, w, b: last(F.batch_norm(first(x), None, None, w, b, training=True)),
    lambda x, w, b: jax.nn.standardize(x, axis=(0, 1, 2), epsilon=1e-5) * w + b,
    (2, 3, 4, 5),
    (5,),
    (5,),
)
case(
    "embedding",
    lambda table: tg.embedding(rows, table),
    lambda table: F.embedding(torch.tensor(rows), table),
    lambda table: jnp.take(table, rows, 0),
    (3, 2),
)

# --- Losses -----------------------------------------------------------------------------------

share = np.exp(numbers.standard_normal((4, 3)))
share /= share.sum(-1, keepdims=True)
for reduction_ in ("mean", "sum", "none"):
    how = {"reduction": reduction_}
    fold = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction_].__name__
    folded = by_name(jax, fold)
    for smoothing in (0.0, 0.1):
        case(
            "softmax_cross_entropy",
            lambda x, s=smoothing, h=how: tg.softmax_cross_entropy(x, rows, label_smoothing=s, **h),
            lambda x, s=smoothing, h=how: F.cross_entropy(
                x, torch.tensor(rows), label_smoothing=s, **h
            ),
            lambda x, s=smoothing, f=folded: f(
                -jnp.sum(jax.nn.log_softmax(x) * (np.eye(3)[rows] * (1 - s) + s / 3), -1)
            ),
            (4, 3),
        )
    case(
        "softmax_cross_entropy",
        lambda x, h=how: tg.softmax_cross_entropy(x, share, **h),
        lambda x, h=how: F.cross_entropy(x, torch.tensor(share), **h),
        lambda x, f=folded: f(-jnp.sum(jax.nn.log_softmax(x) * share, -1)),
        (4, 3),
    )
    case(
        "nll_loss",
        lambda x, h=how: tg.nll_loss(x, rows, **h),
        lambda x, h=how: F.nll_loss(x, torch.tensor(rows), **h),
        lambda x, f=folded: f(-x[np.arange(4), rows]),
        (4, 3),
    )
    case(
        "mse_loss",
        lambda a, b, h=how: tg.mse_loss(a, b, **h),
        lambda a, b, h=how: F.mse_loss(a, b, **h),
        lambda a, b, f=folded: f((a - b) ** 2),
        (4, 3),
        (4, 3),
    )
    case(
        "l1_loss",
        lambda a, b, h=how: tg.l1_loss(a, b, **h),
        lambda a, b, h=how: F.l1_loss(a, b, **h),
        lambda a, b, f=folded: f(jnp.abs(a - b)),
        (4, 3),
        (4, 3),
    )
    case(
        "huber_loss",
        lambda a, b, h=how: tg.huber_loss(a, b, delta=0.7, **h),
        lambda a, b, h=how: F.huber_loss(a, b, delta=0.7, **h),
        None,
        (4, 3),
        (4, 3),
    )
    case(
        "binary_cross_entropy_with_logits",
        lambda x, h=how: tg.binary_cross_entropy_with_logits(x, share, pos_weight=2.0, **h),
        lambda x, h=how: F.binary_cross_entropy_with_logits(
            x, torch.tensor(share), pos_weight=torch.tensor(2.0), **h
        ),
        lambda x, f=folded: f(
            -2 * share * jax.nn.log_sigmoid(x) - (1 - share) * jax.nn.log_sigmoid(-x)
        ),
        (4, 3),
    )
case(
    "kl_div",
    lambda x: tg.kl_div(x, share),
    lambda x: F.kl_div(x, torch.tensor(share), reduction="batchmean"),
    lambda x: jnp.mean(jnp.sum(share * (np.log(share) - x), -1)),
    (4, 3),
)

# Of the peers' ops, none is the same: those of the engine itself, and those that draw numbers.
NOT_SHARED = set("identity cast expand sum_to relu_grad dropout batch_statistics one_hot".split())


# --- The comparison ---------------------------------------------------------------------------


def cotangents(y: Any) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(y.shape)


def in_ours(call: Any, args: Any) -> tuple[Any, Any]:
    xs = [tg.Tensor(a, requires_grad=a.dtype.kind == "f") for a in args]
    y = call(*xs)
    if not y.requires_grad:
        return y.numpy(), None
    y.backward(cotangents(y.numpy()))
    return y.numpy(), [x.grad for x in xs]


def in_torch(call: Any, args: Any) -> tuple[Any, Any]:
    xs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in args]
    y = call(*xs)
    if not y.requires_grad:
        return y.numpy(), None
    y.backward(torch.tensor(cotangents(y.detach().numpy())))
    return y.detach().numpy(), [None if x.grad is None else x.grad.numpy() for x in xs]


def in_jax(call: Any, args: Any) -> tuple[Any, Any]:
    jax.config.update("jax_enable_x64", True)
    moving = [i for i, a in enumerate(args) if a.dtype.kind == "f"]

    def with_fixed(*xs: Any) -> Any:
        given = dict(zip(moving, xs, strict=True))
        return call(*[given.get(i, a) for i, a in enumerate(args)])

    def pulled(*xs: Any) -> Any:
        y, pull = jax.vjp(with_fixed, *xs)
        return y, pull(cotangents(y)) if y.dtype.kind == "f" else None

    # Compiled as one program: op by op JAX spends most of the time on compiling.
    y, gradients = jax.jit(pulled)(*[args[i] for i in moving])
    if gradients is None:
        return np.asarray(y), None
    found = dict(zip(moving, map(np.asarray, gradients), strict=True))
    return np.asarray(y), [found.get(i) for i in range(len(args))]


def agree(case: Case, peer: Any, call: Any) -> None:
    y, gradients = in_ours(case.ours, case.args)
    want, wanted = peer(call, case.args)
    assert y.shape == want.shape
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-11)
    if gradients is None or wanted is None:
        for g in gradients or wanted or []:
            assert g is None or not g.any()
        return
    for g, w in zip(gradients, wanted, strict=True):
        if g is None or w is None:
            assert g is w or not np.any(g if w is None else w)
        else:
            assert g.shape == w.shape
            np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-10)


def ids(cases: list[Case]) -> list[str]:
    return [f"{case.op}{n}" for n, case in enumerate(cases)]


IN_TORCH = [case for case in CASES if case.torch]
IN_JAX = [case for case in CASES if case.jax]


@pytest.mark.parametrize("case", IN_TORCH, ids=ids(IN_TORCH))
def test_torch(case):
    agree(case, in_torch, case.torch)


@pytest.mark.parametrize("case", IN_JAX, ids=ids(IN_JAX))
def test_jax(case):
    agree(case, in_jax, case.jax)


def test_every_shared_op_is_compared():
    public = {name for family in tg.ops.FAMILIES for name in family.__all__}
    compared = {case.op for case in CASES}
    assert compared | NOT_SHARED == public
    assert not compared & NOT_SHARED
