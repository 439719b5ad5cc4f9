"""Rewrite a program: composite operations into simpler ones that can be fused, or have buffers.

Both back ends take reductions apart in the same way.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..kernels import hw5
from ..ops import conv as convolution
from ..ops import exponential, index, linalg, losses, nn, reduce, shape
from .program import Array, Instruction, Operation, Program, Ref, Spec
from .traced import as_type, set_item

# Beyond so many products for each entry of the result, a convolution is left to BLAS.
DIRECT = 3000


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


def border(x: Array, *, before: Any, after: Any) -> Array:
    """Images (N, H, W, C) as (C, H', W', N) with zeros around."""
    (top, left), (bottom, right) = before, after
    return np.pad(x.transpose(3, 1, 2, 0), ((0, 0), (top, bottom), (left, right), (0, 0)))


def spaced(x: Array, *, before: Any, after: Any, step: Any) -> Array:
    """Images (N, H, W, C) as (C, H', W', N) with zeros around and between their pixels."""
    n, height, width, c = x.shape
    (down, across), (top, left), (bottom, right) = step, before, after
    y = np.zeros((c, *_spaced_sides((height, width), before, after, step), n), x.dtype)
    y[:, top : y.shape[1] - bottom : down, left : y.shape[2] - right : across] = x.transpose(
        3, 1, 2, 0
    )
    return y


def _spaced_sides(sides: Any, before: Any, after: Any, step: Any) -> tuple[int, ...]:
    return tuple(
        b + s * (n - 1) + 1 + a for n, b, a, s in zip(sides, before, after, step, strict=True)
    )


def correlation(x: Array, w: Array, *, out: Any, stride: Any, dilation: Any) -> Array:
    """Correlate bordered images (C1, H', W', N) with filters: (N, H, W, C2)."""
    images = x.transpose(3, 1, 2, 0)
    size = {"stride": stride, "padding": "valid", "dilation": dilation}
    y = hw5.correlate(images, w, **size)
    return y[:, : out[0], : out[1]]


def correlation_dw(g: Array, x: Array, *, size: Any, out: Any, stride: Any, dilation: Any) -> Array:
    """Adjoint of :func:`correlation` in its filters; of ``g`` the entries (C2, H', W', N)."""
    reach = [
        s * (n - 1) + d * (k - 1) + 1
        for n, k, s, d in zip(out, size, stride, dilation, strict=True)
    ]
    images = x.transpose(3, 1, 2, 0)[:, : reach[0], : reach[1]]
    window = {"stride": stride, "padding": "valid", "dilation": dilation}
    slopes = g.reshape(-1, *out, x.shape[3]).transpose(3, 1, 2, 0)
    return hw5.correlate_dw(slopes, images, size=size, **window)


def turned(w: Array) -> Array:
    """Filters turned by half a circle, with inputs and outputs exchanged."""
    return np.ascontiguousarray(w[::-1, ::-1].transpose(0, 1, 3, 2))


# --- Rewriting ----------------------------------------------------------------------------------


class Rewriter:
    """Builds the instructions of a rewritten program."""

    def __init__(self, program: Program) -> None:
        constants = dict(program.constants)
        self.program = replace(program, views=set(program.views), constants=constants)
        self.made = {i.out: i for i in program.instructions}
        self.specs = dict(program.specs)
        self.instructions: list[Instruction] = []
        self.next = max(self.specs, default=0) + 1

    def spec(self, arg: Any) -> Spec | None:
        """What is known of an argument that is a value."""
        return self.specs[arg.index] if isinstance(arg, Ref) else None

    def made_by(self, arg: Any) -> Instruction | None:
        """The instruction of the given program that made an argument."""
        return self.made.get(arg.index) if isinstance(arg, Ref) else None

    def computed(self, forward: Any, arg: Any) -> Ref | None:
        """The result of a function of one argument, if it is there already."""
        for i in self.instructions if isinstance(arg, Ref) else ():
            if i.op.forward is forward and i.refs() == [arg.index]:
                return Ref(i.out)
        return None

    def emit(self, name: str, forward: Any, args: Any, params: Any, spec: Spec) -> Ref:
        """Add an instruction with a new result."""
        self.specs[self.next] = spec
        self.end(name, forward, args, params, self.next)
        self.next += 1
        return Ref(self.next - 1)

    def end(self, name: str, forward: Any, args: Any, params: Any, out: int) -> bool:
        """Add the instruction that makes the result of the rewritten one."""
        self.instructions.append(Instruction(Operation(name, forward), tuple(args), params, out))
        self.program.views.discard(out)
        return True

    def constant(self, array: Array) -> Ref:
        """Add a constant."""
        self.specs[self.next] = Spec.of(array)
        self.program.constants[self.next] = array
        self.next += 1
        return Ref(self.next - 1)

    def transposed(self, x: Ref, axes: tuple[int, ...]) -> Ref:
        """Exchange axes."""
        spec = self.specs[x.index]
        if axes == tuple(range(len(axes))):
            return x
        shape = [spec.shape[a] for a in axes]
        y = self.emit("transpose", np.transpose, (x,), {"axes": axes}, _plain(shape, spec.dtype))
        self.program.views.add(y.index)
        return y

    def reshaped(self, x: Ref, shape: tuple[int, ...]) -> Ref:
        """Give the same entries another shape."""
        spec = self.specs[x.index]
        if spec.shape == shape:
            return x
        return self.emit("reshape", np.reshape, (x, shape), {}, _plain(shape, spec.dtype))

    def end_view(self, axes: tuple[int, ...], arg: Any, out: int) -> bool:
        """Make the result of the rewritten instruction another one with its axes exchanged."""
        self.end("transpose", np.transpose, (arg,), {"axes": axes}, out)
        self.program.views.add(out)
        return True


def _plain(shape: Any, dtype: Any) -> Spec:
    return Spec(tuple(shape), np.dtype(dtype), tuple(range(len(shape))))


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


def _extreme(fold: Callable[..., Array]) -> Callable[[Rewriter, Instruction], bool]:
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
    whole = r.emit("sum", total, i.args[:1], params, _plain(out.shape, out.dtype))
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
    product = r.emit("multiply", np.multiply, args, {}, _plain(a.shape, a.dtype))
    axes = tuple(range(len(a.shape)))
    return r.end("sum", total, (product,), {"axis": axes, "shape": ()}, i.out)


def _whole_sum(r: Rewriter, i: Instruction) -> bool:
    """Rewrite a sum, which has a wider dtype if it is one of whole numbers."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype.kind not in "biu":
        return _sum(r, i)
    wide = r.emit("cast", as_type, i.args[:1], {"dtype": out.dtype}, _plain(spec.shape, out.dtype))
    return r.end("sum", total, (wide,), _over(i.params.get("axis"), spec, out), i.out)


def _count(r: Rewriter, i: Instruction) -> bool:
    spec = r.spec(i.args[0])
    if spec is None or spec.dtype != bool or i.params or len(i.args) > 1:
        return False
    whole = r.emit("cast", as_type, i.args, {"dtype": np.dtype(np.int64)}, _plain(spec.shape, "q"))
    axes = tuple(range(len(spec.shape)))
    return r.end("sum", total, (whole,), {"axis": axes, "shape": ()}, i.out)


def _truth(r: Rewriter, i: Instruction, *, whole: bool) -> bool:
    """Rewrite whether any, or all, are true: by how many are."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype != bool or out.dtype != bool:
        return False
    params = _over(i.params.get("axis"), spec, out)
    counts = _plain(out.shape, np.int64)
    ones = r.emit("cast", as_type, i.args, {"dtype": counts.dtype}, _plain(spec.shape, "q"))
    count = r.emit("sum", total, (ones,), params, counts)
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
    thin = _plain([1 if a in axes else n for a, n in enumerate(spec.shape)], spec.dtype)
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
    sums = r.emit("sum", total, (d.squares,), params, _plain(out.shape, out.dtype))
    return sums, d.number - correction


def _std(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the root of the variance."""
    parts, out = _variance(r, i), r.specs[i.out]
    if parts is None:
        return False
    variance = r.emit("divide", np.divide, parts, {}, _plain(out.shape, out.dtype))
    return r.end("sqrt", np.sqrt, (variance,), {}, i.out)


def _ptp(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the largest less the smallest entry."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if spec is None or spec.dtype.kind != "f" or not spec.size:
        return False
    params, made = _over(i.params.get("axis"), spec, out), _plain(out.shape, out.dtype)
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
    sums = r.emit("sum", total, (squares,), params, _plain(out.shape, out.dtype))
    return r.end("sqrt", np.sqrt, (sums,), {}, i.out)


def _logsumexp(r: Rewriter, i: Instruction) -> bool:
    """Rewrite the logarithm of a sum of exponentials; what is infinite is not subtracted."""
    (x,), out = i.args, r.specs[i.out]
    spec = r.spec(x)
    if spec is None or spec.dtype.kind != "f" or spec.dtype != out.dtype or not spec.size:
        return False
    params, thin = _along(i.params["axis"], spec)
    peaks = r.emit("peak", peak, (x,), params, thin)
    finite = r.emit("isfinite", np.isfinite, (peaks,), {}, _plain(thin.shape, bool))
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
        none = r.emit("equal", np.equal, (y, 0.0), {}, _plain(spec.shape, bool))
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
    whole = r.emit("sum", total, (flat,), everything, _plain(out.shape, out.dtype))
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
    spec = _plain((*left[:-1], right[-1]), out.dtype)
    y = r.emit("matmul", np.matmul, (a, b), {}, spec)
    return r.end_view(plan.result, r.reshaped(y, made), i.out)


def _index(r: Rewriter, i: Instruction) -> bool:
    """Make arrays of positions in an index values of the program."""
    given = i.params["index"]
    parts = given if isinstance(given, tuple) else (given,)
    named = tuple(r.constant(part) if _is_positions(part) else part for part in parts)
    params = i.params | {"index": named if isinstance(given, tuple) else named[0]}
    r.instructions.append(i._replace(params=params))
    return True


def _is_positions(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind in "iu"


def _writing(r: Rewriter, i: Instruction) -> bool:
    """Make a number that is written at an index a value of the program."""
    (x, v), out = i.args, r.specs[i.out]
    if not isinstance(v, Ref):
        if type(v) not in (int, float) or out.dtype.kind != "f":
            return False
        v = r.constant(np.array(v, out.dtype))
    r.instructions.append(i._replace(args=(x, v)))
    return True


def _bracket_writing(r: Rewriter, i: Instruction) -> bool:
    """Rewrite what is written to an array itself at an index."""
    x, given, v = i.args
    spec = r.spec(v)
    if spec is not None and spec.dtype != r.specs[i.out].dtype:
        return False
    op = Operation(i.op.name, index._setitem.forward)
    return _writing(r, Instruction(op, (x, v), {"index": given}, i.out))


def _brackets(r: Rewriter, i: Instruction) -> bool:
    """Rewrite what an array itself is asked for at an index."""
    x, index_given = i.args
    op = Operation(i.op.name, index._getitem.forward)
    return _index(r, Instruction(op, (x,), {"index": index_given}, i.out))


def images(spec: Spec | None) -> bool:
    """Tell whether a value is a batch of images (N, H, W, C) of floats."""
    return (
        spec is not None and len(spec.shape) == 4 and 0 not in spec.shape and spec.dtype.kind == "f"
    )


def bordered(r: Rewriter, x: Any, window: Any, forward: Any) -> Ref:
    """Put zeros around images, as a window needs them."""
    spec = r.spec(x)
    assert spec is not None
    n, h, w, c = spec.shape
    (top, left), (bottom, right) = window.before, window.after
    sides = {"before": window.before, "after": window.after}
    return r.emit(
        "border",
        forward,
        (x,),
        sides,
        _plain((c, top + h + bottom, left + w + right, n), spec.dtype),
    )


def _conv(r: Rewriter, i: Instruction) -> bool:
    (x, w), out = i.args, r.specs[i.out]
    xs, ws = r.spec(x), r.spec(w)
    if not images(xs) or ws is None or xs is None or not xs.dtype == ws.dtype == out.dtype:
        return False
    if math.prod(ws.shape[:3]) > DIRECT:
        return False
    p = i.params
    window = hw5.windows_on(
        xs.shape, (ws.shape[0], ws.shape[1]), p["stride"], p["padding"], p["dilation"]
    )
    params = {"out": window.out, "stride": p["stride"], "dilation": p["dilation"]}
    r.specs[i.out] = out._replace(order=(3, 1, 2, 0))
    return r.end("conv", correlation, (bordered(r, x, window, border), w), params, i.out)


def _conv_dw(r: Rewriter, i: Instruction) -> bool:
    (g, x), out = i.args, r.specs[i.out]
    gs, xs = r.spec(g), r.spec(x)
    if not images(xs) or not images(gs) or xs is None or gs is None or xs.dtype != gs.dtype:
        return False
    if math.prod(out.shape[:3]) > DIRECT:
        return False
    p = i.params
    window = hw5.windows_on(xs.shape, p["size"], p["stride"], p["padding"], p["dilation"])
    params = {"size": tuple(p["size"]), "stride": p["stride"], "dilation": p["dilation"]}
    # A view, where the images lie as convolution makes them, else a copy.
    slopes = r.reshaped(r.transposed(g, (3, 1, 2, 0)), (gs.size,))
    args = slopes, bordered(r, x, window, border)
    return r.end("conv_dw", correlation_dw, args, params | {"out": window.out}, i.out)


def _conv_dx(r: Rewriter, i: Instruction) -> bool:
    """The adjoint is a correlation with the turned filters, of pixels as far apart as windows."""
    (g, w), out, p = i.args, r.specs[i.out], i.params
    gs, ws = r.spec(g), r.spec(w)
    if not images(gs) or gs is None or ws is None or gs.dtype != ws.dtype:
        return False
    if math.prod((*ws.shape[:2], ws.shape[3], *p["stride"])) > DIRECT:
        return False
    n, *sides, c = gs.shape
    window = hw5.windows_on(
        (*p["shape"], 1), (ws.shape[0], ws.shape[1]), p["stride"], p["padding"], p["dilation"]
    )
    reach = [d * (k - 1) for d, k in zip(p["dilation"], ws.shape[:2], strict=True)]
    before = tuple(map(operator.sub, reach, window.before))
    bare = _spaced_sides(sides, before, (0, 0), p["stride"])
    after = tuple(m + d - k for m, d, k in zip(p["shape"], reach, bare, strict=True))
    if min(*before, *after) < 0:
        return False
    around = {"before": before, "after": after}
    spec = _plain((c, *map(operator.add, bare, after), n), gs.dtype)
    if tuple(p["stride"]) == (1, 1):
        bordered_g = r.emit("border", border, (g,), around, spec)
    else:
        bordered_g = r.emit("border", spaced, (g,), around | {"step": tuple(p["stride"])}, spec)
    a, b, c1, c2 = ws.shape
    filters = r.emit("turned", turned, (w,), {}, _plain((a, b, c2, c1), ws.dtype))
    params = {"out": tuple(p["shape"]), "stride": (1, 1), "dilation": p["dilation"]}
    r.specs[i.out] = out._replace(order=(3, 1, 2, 0))
    return r.end("conv_dx", correlation, (bordered_g, filters), params, i.out)


def _numpys(rewrite: Callable[[Rewriter, Instruction], bool]) -> Any:
    """The rewrite of NumPy's own reduction, which may be asked for more: a start, a mask."""

    def rewrite_plain(r: Rewriter, i: Instruction) -> bool:
        x, *axis = i.args
        params = dict(zip(("axis",), axis, strict=False)) | i.params
        if len(axis) > 1 or params.keys() - {"axis", "correction", "keepdims"}:
            return False
        return rewrite(r, i._replace(args=(x,), params=params))

    return rewrite_plain


# What both back ends take apart.
REDUCTIONS: dict[Any, Callable[[Rewriter, Instruction], bool]] = {
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
    reduce._std.forward: _std,
    np.std: _numpys(_std),
    np.ptp: _numpys(_ptp),
    reduce._norm.forward: _norm,
    np.var: _numpys(_var),
}
_REWRITES = REDUCTIONS | {
    losses._cross_entropy.forward: _cross_entropy,
    exponential._logsumexp.forward: _logsumexp,
    reduce._sum.forward: _whole_sum,
    np.sum: _numpys(_whole_sum),
    linalg._einsum.forward: _einsum,
    index._getitem.forward: _index,
    index._scatter_add.forward: _index,
    index._setitem.forward: _writing,
    operator.getitem: _brackets,
    set_item: _bracket_writing,
    np.vdot: _vdot,
    np.count_nonzero: _count,
    np.any: _numpys(partial(_truth, whole=False)),
    np.all: _numpys(partial(_truth, whole=True)),
    convolution.conv.forward: _conv,
    convolution.conv_dw.forward: _conv_dw,
    convolution.conv_dx.forward: _conv_dx,
}


def expanded(program: Program) -> Program:
    """Give the same program in simpler operations."""
    return rewritten(program, _REWRITES)


def rewritten(program: Program, rewrites: Any) -> Program:
    """Put simpler operations in the place of those that a table of rewrites knows."""
    rewriter = Rewriter(program)
    for instruction in program.instructions:
        rewrite = rewrites.get(instruction.op.forward)
        if rewrite is None or not rewrite(rewriter, instruction):
            rewriter.instructions.append(instruction)
    made = replace(rewriter.program, instructions=rewriter.instructions, specs=rewriter.specs)
    return made.merged()
