"""Take composite operations apart into simpler ones that can be fused, or have buffers.

Both back ends take reductions apart in the same way; the rest is for native code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..ops import elementwise, exponential, linalg, losses, nn, reduce, shape
from .images import FUSIONS, IMAGES
from .indices import INDICES
from .program import Array, Instruction, Program, Ref, Spec
from .rewriting import Rewrite, Rewriter, plain, rewritten
from .traced import as_type

# --- The simpler operations; their forwards say what they mean, in NumPy ------------------------


def total(x: Array, *, axis: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Sum over some axes, in the shape given."""
    return np.asarray(x.sum(axis=axis)).reshape(shape)


def peak(x: Array, *, axis: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Largest entry over some axes, in the shape given."""
    return np.asarray(x.max(axis=axis)).reshape(shape)


def dip(x: Array, *, axis: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Smallest entry over some axes, in the shape given."""
    return np.asarray(x.min(axis=axis)).reshape(shape)


# --- Rewriting ----------------------------------------------------------------------------------


def _sum(r: Rewriter, i: Instruction) -> bool:
    spec = r.spec(i.args[0])
    if spec is None or spec.dtype != r.specs[i.out].dtype:
        return False
    axis = i.params.get("axis")
    return r.end("sum", total, i.args[:1], _over(axis, spec, r.specs[i.out]), i.out)


def _over(axis: Any, spec: Spec, out: Spec) -> dict[str, Any]:
    ndim = len(spec.shape)
    if axis is None or not ndim:
        # NumPy takes a single number to have an axis 0, too.
        axis = tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return {"axis": tuple(sorted(int(a) % ndim for a in axes)), "shape": out.shape}


def _extreme(fold: Callable[..., Array]) -> Rewrite:
    """The rewrite of a maximum or minimum."""

    def rewrite(r: Rewriter, i: Instruction) -> bool:
        spec = r.spec(i.args[0])
        if spec is None or spec.dtype.kind != "f" or not spec.size:
            return False
        params = _over(i.params.get("axis"), spec, r.specs[i.out])
        return r.end(fold.__name__, fold, i.args[:1], params, i.out)

    return rewrite


def _mean(r: Rewriter, i: Instruction) -> bool:
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    # NumPy adds up half precision in single.
    if spec is None or spec.dtype != out.dtype or spec.dtype.char not in "fd" or not spec.size:
        return False
    params = _over(i.params.get("axis"), spec, out)
    count = math.prod(spec.shape[a] for a in params["axis"])
    whole = r.emit("sum", total, i.args[:1], params, plain(out.shape, out.dtype))
    return r.end("divide", np.divide, (whole, float(count)), {}, i.out)


def _sum_to(r: Rewriter, i: Instruction) -> bool:
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype != out.dtype:
        return False
    lead = len(spec.shape) - len(out.shape)
    kept = (1,) * lead + out.shape
    axis = tuple(a for a, n in enumerate(kept) if a < lead or n == 1 != spec.shape[a])
    return r.end("sum", total, i.args, {"axis": axis, "shape": out.shape}, i.out)


def _vdot(r: Rewriter, i: Instruction) -> bool:
    args = i.args
    made = r.made_by(args[0]) if args[0] == args[1] else None
    if made is not None and made.op.forward is np.ravel:
        # The order of the entries does not matter when each is multiplied by itself.
        args = (made.args[0], made.args[0])
    a, b = map(r.spec, args)
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind != "f":
        return False
    product = r.emit("multiply", np.multiply, args, {}, plain(a.shape, a.dtype))
    axes = tuple(range(len(a.shape)))
    return r.end("sum", total, (product,), {"axis": axes, "shape": ()}, i.out)


def _whole_sum(r: Rewriter, i: Instruction) -> bool:
    """Rewrite a sum, which has a wider dtype if it is one of whole numbers."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype.kind not in "biu":
        return _sum(r, i)
    wide = _cast(r, i.args[0], out.dtype)
    return r.end("sum", total, (wide,), _over(i.params.get("axis"), spec, out), i.out)


def _cast(r: Rewriter, x: Ref, dtype: Any) -> Ref:
    made = plain(r.specs[x.index].shape, dtype)
    return r.emit("cast", as_type, (x,), {"dtype": made.dtype}, made)


def _count(r: Rewriter, i: Instruction) -> bool:
    """Rewrite how many are true as a sum."""
    spec = r.spec(i.args[0])
    return spec is not None and spec.dtype == bool and _whole_sum(r, i)


def _truth(r: Rewriter, i: Instruction, *, whole: bool) -> bool:
    """Rewrite whether any, or all, are true: by how many are."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype != bool or out.dtype != bool:
        return False
    params, counts = _over(i.params.get("axis"), spec, out), plain(out.shape, np.int64)
    count = r.emit("sum", total, (_cast(r, i.args[0], np.int64),), params, counts)
    if not whole:
        return r.end("not_equal", np.not_equal, (count, 0), {}, i.out)
    size = math.prod(spec.shape[axis] for axis in params["axis"])
    return r.end("equal", np.equal, (count, size), {}, i.out)


class Exponentials(NamedTuple):
    """Entries less the largest over some axes, their exponentials, and the sums of these."""

    shifted: Ref
    powers: Ref
    sums: Ref
    thin: Spec


def exponentials(r: Rewriter, x: Any, axis: Any) -> Exponentials | None:
    """Add what softmax is made of, if the argument is one of floats with entries and axes."""
    spec = r.spec(x)
    if spec is None or spec.dtype.kind != "f" or not spec.size or not spec.shape:
        return None
    params, thin = _along(axis, spec)
    top = r.emit("peak", peak, (x,), params, thin)
    shifted = r.emit("subtract", np.subtract, (x, top), {}, spec)
    powers = r.emit("exp", np.exp, (shifted,), {}, spec)
    sums = r.emit("sum", total, (powers,), params, thin)
    return Exponentials(shifted, powers, sums, thin)


def _along(axis: Any, spec: Spec) -> tuple[dict[str, Any], Spec]:
    """Give the parameters of a reduction that keeps its axes, and what is known of its result."""
    axes = _over(axis, spec, spec)["axis"]
    thin = plain([1 if a in axes else n for a, n in enumerate(spec.shape)], spec.dtype)
    return {"axis": axes, "shape": thin.shape}, thin


class Deviations(NamedTuple):
    """Entries less their mean over some axes, the squares of that, and how many there are."""

    centred: Ref
    squares: Ref
    number: float
    params: dict[str, Any]
    thin: Spec


def _deviations(r: Rewriter, x: Any, axis: Any, correction: float = 0) -> Deviations | None:
    """Add them, if the argument is one of floats with more entries than the correction."""
    spec = r.spec(x)
    # NumPy adds up half precision in single.
    if spec is None or spec.dtype.char not in "fd" or not spec.size:
        return None
    params, thin = _along(axis, spec)
    count = float(spec.size // thin.size)
    if correction >= count:
        return None
    whole = r.emit("sum", total, (x,), params, thin)
    mean = r.emit("divide", np.divide, (whole, count), {}, thin)
    centred = r.emit("subtract", np.subtract, (x, mean), {}, spec)
    squares = r.emit("square", np.square, (centred,), {}, spec)
    return Deviations(centred, squares, count, params, thin)


def _standardize(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the shift and scale to mean 0 and variance 1; its rule shares most of it."""
    d = _deviations(r, i.args[0], i.params["axis"])
    if d is None:
        return False
    whole = r.emit("sum", total, (d.squares,), d.params, d.thin)
    mean = r.emit("divide", np.divide, (whole, d.number), {}, d.thin)
    variance = r.emit("add", np.add, (mean, i.params["eps"]), {}, d.thin)
    scale = r.emit("sqrt", np.sqrt, (variance,), {}, d.thin)
    return r.end("divide", np.divide, (d.centred, scale), {}, i.out)


def _var(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the variance."""
    parts = _variance(r, i)
    return parts is not None and r.end("divide", np.divide, parts, {}, i.out)


def _variance(r: Rewriter, i: Instruction) -> tuple[Ref, float] | None:
    """Add the sum of squares that a variance, or its root, is of; and what to divide it by."""
    out, correction = r.specs[i.out], i.params.get("correction", 0)
    d = _deviations(r, i.args[0], i.params.get("axis"), correction)
    if d is None:
        return None
    params = {**d.params, "shape": out.shape}
    sums = r.emit("sum", total, (d.squares,), params, plain(out.shape, out.dtype))
    return sums, d.number - correction


def _std(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the root of the variance."""
    parts, out = _variance(r, i), r.specs[i.out]
    if parts is None:
        return False
    variance = r.emit("divide", np.divide, parts, {}, plain(out.shape, out.dtype))
    return r.end("sqrt", np.sqrt, (variance,), {}, i.out)


def _ptp(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the largest less the smallest entry."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype.kind != "f" or not spec.size:
        return False
    params, made = _over(i.params.get("axis"), spec, out), plain(out.shape, out.dtype)
    high, low = (r.emit(fold.__name__, fold, i.args, params, made) for fold in (peak, dip))
    return r.end("subtract", np.subtract, (high, low), {}, i.out)


def _norm(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the root of the sum of squares."""
    (x,), out = i.args, r.specs[i.out]
    spec = r.spec(x)
    if spec is None or spec.dtype.char not in "fd" or spec.dtype != out.dtype:
        return False
    squares = r.emit("square", np.square, (x,), {}, spec)
    params = _over(i.params["axis"], spec, out)
    sums = r.emit("sum", total, (squares,), params, plain(out.shape, out.dtype))
    return r.end("sqrt", np.sqrt, (sums,), {}, i.out)


def _logsumexp(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the logarithm of a sum of exponentials; what is infinite is not subtracted."""
    (x,), out = i.args, r.specs[i.out]
    spec = r.spec(x)
    if spec is None or spec.dtype.kind != "f" or spec.dtype != out.dtype or not spec.size:
        return False
    params, thin = _along(i.params["axis"], spec)
    peaks = r.emit("peak", peak, (x,), params, thin)
    finite = r.emit("isfinite", np.isfinite, (peaks,), {}, plain(thin.shape, bool))
    top = r.emit("where", np.where, (finite, peaks, 0.0), {}, thin)
    shifted = r.emit("subtract", np.subtract, (x, top), {}, spec)
    powers = r.emit("exp", np.exp, (shifted,), {}, spec)
    sums = r.emit("sum", total, (powers,), params, thin)
    log = r.emit("log", np.log, (sums,), {}, thin)
    level = r.emit("add", np.add, (log, top), {}, thin)
    return r.end("sum", total, (level,), {**params, "shape": out.shape}, i.out)


def _softmax(r: Rewriter, i: Instruction) -> bool:
    """Rewrite softmax over any axes."""
    e = exponentials(r, i.args[0], i.params["axis"])
    return e is not None and r.end("divide", np.divide, (e.powers, e.sums), {}, i.out)


def _log_softmax(r: Rewriter, i: Instruction) -> bool:
    """Rewrite its logarithm."""
    e = exponentials(r, i.args[0], i.params["axis"])
    if e is None:
        return False
    log_sums = r.emit("log", np.log, (e.sums,), {}, e.thin)
    return r.end("subtract", np.subtract, (e.shifted, log_sums), {}, i.out)


def _cross_entropy(r: Rewriter, i: Instruction) -> bool:
    """The logarithm of the sum, as often as the targets sum to, less the entries wanted."""
    (x, y), out = i.args, r.specs[i.out]
    spec, targets = r.spec(x), r.spec(y)
    if spec is None or targets is None or spec.dtype != out.dtype:
        return False
    hot = targets.dtype.kind == "b"
    if not hot and (targets.dtype != spec.dtype or targets.shape != spec.shape):
        return False
    e = exponentials(r, x, -1)
    if e is None:
        return False
    thin, along = e.thin, _over(-1, spec, e.thin)
    log_sums = r.emit("log", np.log, (e.sums,), {}, thin)
    if hot:
        chosen = r.emit("where", np.where, (y, e.shifted, 0.0), {}, spec)
    else:
        none = r.emit("equal", np.equal, (y, 0.0), {}, plain(spec.shape, bool))
        some = r.emit("where", np.where, (none, 0.0, e.shifted), {}, spec)
        chosen = r.emit("multiply", np.multiply, (y, some), {}, spec)
        count = r.emit("sum", total, (y,), along, thin)
        log_sums = r.emit("multiply", np.multiply, (log_sums, count), {}, thin)
    wanted = r.emit("sum", total, (chosen,), along, thin)
    flat = r.emit("subtract", np.subtract, (log_sums, wanted), {}, thin)
    if i.params["reduction"] == "none":
        return r.end("sum", total, (flat,), _over(-1, thin, out), i.out)
    everything = {"axis": tuple(range(len(thin.shape))), "shape": out.shape}
    if i.params["reduction"] == "sum":
        return r.end("sum", total, (flat,), everything, i.out)
    whole = r.emit("sum", total, (flat,), everything, plain(out.shape, out.dtype))
    return r.end("divide", np.divide, (whole, float(thin.size)), {}, i.out)


def _einsum(r: Rewriter, i: Instruction) -> bool:
    """Rewrite a product of two operands as one of stacks of matrices, if it is one."""
    plan, out = linalg.contraction(i.params["spec"]), r.specs[i.out]
    specs = [spec for spec in map(r.spec, i.args) if spec is not None]
    if plan is None or len(specs) != 2 or any(s.dtype != out.dtype or not s.size for s in specs):
        return False
    if out.dtype.kind != "f":
        return False
    a, b = (r.transposed(x, axes) for x, axes in zip(i.args, (plan.left, plan.right), strict=True))
    left, right, made = plan.shapes(r.specs[a.index].shape, r.specs[b.index].shape)
    a, b = r.reshaped(a, left), r.reshaped(b, right)
    spec = plain((*left[:-1], right[-1]), out.dtype)
    y = r.emit("matmul", np.matmul, (a, b), {}, spec)
    return r.end_view(plan.result, r.reshaped(y, made), i.out)


def _power(r: Rewriter, i: Instruction) -> bool:
    """Rewrite whole powers of floats, with which NumPy is slow, as the engine computes them."""
    (x, exponent), spec = i.args, r.specs[i.out]
    given = r.spec(x)
    floats = given is not None and given.dtype == spec.dtype and spec.dtype.kind == "f"
    if i.params or not floats or type(exponent) not in (int, float) or exponent % 1:
        return False
    if exponent in (-1, 2):
        name, form = ("square", np.square) if exponent == 2 else ("reciprocal", np.reciprocal)
        return r.end(name, form, (x,), {}, i.out)
    if exponent == 3:
        square = r.emit("square", np.square, (x,), {}, spec)
        return r.end("multiply", np.multiply, (square, x), {}, i.out)
    if exponent in (0, 1) or not elementwise.is_ordinary(exponent, spec.dtype):
        return False
    positive = r.emit("absolute", np.abs, (x,), {}, spec)
    if exponent % 2 == 0:
        return r.end("power", np.power, (positive, exponent), {}, i.out)
    power = r.emit("power", np.power, (positive, exponent), {}, spec)
    return r.end("copysign", np.copysign, (power, x), {}, i.out)


def _numpys(rewrite: Rewrite) -> Any:
    """The rewrite of NumPy's own reduction, which may be asked for more: a start, a mask."""

    def rewrite_plain(r: Rewriter, i: Instruction) -> bool:
        x, *axis = i.args
        params = dict(zip(("axis",), axis, strict=False)) | i.params
        if len(axis) > 1 or params.keys() - {"axis", "correction", "keepdims"}:
            return False
        return rewrite(r, i._replace(args=(x,), params=params))

    return rewrite_plain


# What both back ends take apart.
REDUCTIONS: dict[Any, Rewrite] = {
    reduce._sum.forward: _sum,
    np.sum: _numpys(_sum),
    reduce._mean.forward: _mean,
    np.mean: _numpys(_mean),
    reduce._max.forward: _extreme(peak),
    np.max: _numpys(_extreme(peak)),
    reduce._min.forward: _extreme(dip),
    np.min: _numpys(_extreme(dip)),
    shape.sum_to.forward: _sum_to,
    exponential._softmax.forward: _softmax,
    exponential._log_softmax.forward: _log_softmax,
    nn.standardize.forward: _standardize,
    reduce._var.forward: _var,
    np.var: _numpys(_var),
    reduce._std.forward: _std,
    np.std: _numpys(_std),
    np.ptp: _numpys(_ptp),
    np.power: _power,
    reduce._norm.forward: _norm,
}
_REWRITES: dict[Any, Rewrite] = (
    REDUCTIONS
    | IMAGES
    | INDICES
    | {
        losses._cross_entropy.forward: _cross_entropy,
        exponential._logsumexp.forward: _logsumexp,
        reduce._sum.forward: _whole_sum,
        np.sum: _numpys(_whole_sum),
        linalg._einsum.forward: _einsum,
        np.vdot: _vdot,
        np.count_nonzero: _numpys(_count),
        np.any: _numpys(partial(_truth, whole=False)),
        np.all: _numpys(partial(_truth, whole=True)),
    }
)


def expanded(program: Program) -> Program:
    """Give the same program in simpler operations."""
    return rewritten(rewritten(program, _REWRITES), FUSIONS)
