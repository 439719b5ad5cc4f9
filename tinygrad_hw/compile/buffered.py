"""Convolution and pooling as steps that write into buffers, for the numpy back end.

They are the kernels of ``hw5.py`` in parts: the patches of an image are a value of their own, so
that the forward and the gradient of the filters share them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import hw5
from ..ops import activations, losses
from ..ops import conv as convolution
from ..ops import shape as moving
from .expand import REDUCTIONS, exponentials, total
from .images import bordered, images, pooled, relu_grad, turned, unpool_by_relu, windows
from .program import Array, Instruction, Program, Ref, Spec
from .rewriting import Rewriter, plain, rewritten

# Larger patches than this would not stay in the cache; hw5's kernels know better then.
_MOST = 16 * 2**20

# What fills the buffers that a step was given.
Step = Callable[..., Array]


# --- The steps ------------------------------------------------------------------------------------
#
# Each is given its buffers, that of its result first, and gives the function of its arguments that
# fills them: the views that it writes through are made once, and not at every call.


def surround(out: Array, *, before: Any, after: Any) -> Step:
    """Images (N, H, W, C) as (C, H', W', N) with zeros around."""
    (top, left), (bottom, right) = before, after
    rows = slice(top, out.shape[1] - bottom)
    inner = out[:, rows, left : out.shape[2] - right].transpose(3, 1, 2, 0)
    sides = [out[:, :top], out[:, rows.stop :], out[:, rows, :left]]
    sides = [side for side in (*sides, out[:, rows, out.shape[2] - right :]) if side.size]

    def run(x: Array) -> Array:
        for side in sides:
            side.fill(0)
        inner[...] = x
        return out

    return run


def copied(out: Array) -> Step:
    """The same entries, one after the other."""

    def run(x: Array) -> Array:
        out[...] = x
        return out

    return run


def laid_in_rows(out: Array, *, lines: slice, rows: slice) -> Step:
    """Rows (rows, C, W, N) of images (N, H, W, C), in the given lines, and zeros in the others."""
    inner, sides = out[lines], [out[: lines.start], out[lines.stop :]]

    def run(x: Array) -> Array:
        for side in sides:
            side.fill(0)
        inner[...] = x[:, rows].transpose(1, 3, 2, 0)
        return out

    return run


def spread(out: Array, *, places: Any) -> Step:
    """Bordered images (C, H, W, N) of what windows (h, w, C, H', W', N) give to their entries."""
    met = [(i, j, out[:, rows, columns]) for i, j, rows, columns in places]

    def run(taps: Array) -> Array:
        out.fill(0)
        for i, j, place in met:
            np.add(place, taps[i, j], out=place)
        return out

    return run


def scattered(
    out: Array, left: Array, mask: Array, one: Array, other: Array, *, taps: Any, covered: bool
) -> Step:
    """Each entry of ``g`` where its window, none of which overlap, first is its largest, ``y``."""
    # Masked as bits: those of inf and NaN are as good as any.
    bits = np.dtype(f"i{left.itemsize}")
    given, sent = left.view(bits), out.view(bits)
    *places, last = [(..., rows, columns, slice(None)) for _, _, rows, columns in taps]
    earlier = [(place, sent[place]) for place in places]
    final = sent[last]

    def run(g: Array, x: Array, y: Array) -> Array:
        if not covered:
            out.fill(0)
        # In the layout of the windows once, and not again for each of the taps.
        left[...] = g
        # Where no entry so far is the largest, and where none is with the next one.
        below, still = one, other
        below.fill(True)
        for place, target in earlier:
            np.logical_and(np.not_equal(x[place], y, out=still), below, out=still)
            np.multiply(given, np.greater(below, still, out=mask), out=target)
            below, still = still, below
        np.multiply(given, below, out=final)
        return out

    return run


def scattered_by_relu(
    out: Array,
    left: Array,
    mask: Array,
    one: Array,
    other: Array,
    hits: Array,
    *,
    taps: Any,
    tiles: Any,
) -> Step:
    """The same behind a relu that made ``x``, with its gradient: nothing for windows of zeros.

    So equal entries, which are zeros as a rule, need not be told apart. Whole images are compared
    and masked then, which takes a third less than one tap after the other.
    """
    bits, zero = np.dtype(f"i{left.itemsize}"), np.zeros((), left.dtype)
    rest, result, windows = left.view(bits), out.view(bits), out.reshape(tiles)
    # Of each window the same for all its entries: (..., H', 1, W', 1, C).
    each = (..., slice(None), None, slice(None), None, slice(None))
    of_each = left[each]
    carefully = scattered(out, left, mask, one, other, taps=taps, covered=True)

    def run(g: Array, x: Array, y: Array) -> Array:
        windows[...] = y[each]
        np.equal(x, out, out=hits)
        numbers = np.count_nonzero(np.greater_equal(y, zero, out=mask))
        positive = np.count_nonzero(np.greater(y, zero, out=mask))
        once = np.count_nonzero(hits) == positive + (y.size - positive) * len(taps)
        if once and numbers == y.size:
            left[...] = g
            np.multiply(rest, mask, out=rest)
            windows[...] = of_each
        else:
            carefully(g, x, y)
            np.greater(x, zero, out=hits)
        np.multiply(result, hits, out=result)
        return out

    return run


# --- Other functions ------------------------------------------------------------------------------


def entries(x: Array, *, window: Any) -> Array:
    """What each window meets in bordered images (C, H, W, N): a view (h, w, C, H', W', N)."""
    met: Array = window.entries(x)
    return met


def strips(x: Array, *, window: Any) -> Array:
    """What windows meet in each row of bordered images: a view (rows, w, C, W', N)."""
    met: Array = window.strips(x)
    return met


def consecutive(x: Array, *, count: int, step: int) -> Array:
    """Every ``count`` rows of (rows, m, n) that follow each other: a view (rows', count * m, n)."""
    return hw5.consecutive(x[..., np.newaxis], count, step)[..., 0]


# These give views, if the argument lies as it should.
LOOKS = (entries, strips, consecutive)


def masked(x: Any, mask: Array, out: Array) -> Array:
    """Write ``x`` where the mask holds, else 0."""
    if x.dtype.kind != "f" or x.itemsize not in (4, 8) or x.dtype != out.dtype:
        out[...] = np.where(mask, x, 0)
        return out
    # A product of floats would make inf * 0 = nan; that of their bits does not.
    bits = np.dtype(f"i{x.itemsize}")
    np.multiply(x.view(bits), mask, out=out.view(bits))
    return out


def cost(log_total: Array, shifted: Array, hot: Array, *, reduction: str) -> Any:
    """Cross-entropy of rows, from the logarithm of their sums and the entries at one-hot."""
    losses = log_total.ravel() - shifted[hot]
    if reduction == "none":
        return losses.reshape(log_total.shape[:-1])
    total = np.add.reduce(losses)
    return total if reduction == "sum" else total / losses.size


def squares(x: Array) -> Any:
    """Sum of the squares."""
    flat = x.ravel(order="K")
    return flat.dot(flat)


# --- Rewriting ------------------------------------------------------------------------------------


def _part(r: Rewriter, x: Ref, axis: int, span: slice) -> Ref:
    """Some of the rows, or of the columns, of images."""
    spec = r.specs[x.index]
    shape = list(spec.shape)
    shape[axis] = len(range(*span.indices(shape[axis])))
    index = (..., span, *[slice(None)] * (-1 - axis))
    made = spec._replace(shape=tuple(shape))
    return r.viewed("getitem", operator.getitem, (x, index), {}, made)


def _patches_of(r: Rewriter, x: Ref, window: Any) -> Ref | None:
    """Patches as in hw5: (rows, h*w*C, n), of each row of windows or of all of them."""
    spec = r.specs[x.index]
    (n, _, _, c), (h, k), (high, wide) = spec.shape, window.size, window.out
    if window.patches_nbytes(c, n, spec.dtype.itemsize) > _MOST:
        return None
    around = bordered(r, x, window, surround)
    params = {"window": window}
    if window.overlap and window.apart(c, n):
        made = plain((window.rows[-1].stop, k, c, wide, n), spec.dtype)
        met = r.viewed("strips", strips, (around,), params, made)
        laid = r.emit("patches", copied, (met,), {}, made)
        rows = r.reshaped(laid, (made.shape[0], k * c, wide * n))
        return _consecutive(r, rows, h, window.stride[0])
    made = plain((h, k, c, high, wide, n), spec.dtype)
    met = r.viewed("entries", entries, (around,), params, made)
    many, each = 1, high * wide * n
    if window.apart(c, n):
        met, many, each = r.transposed(met, (3, 0, 1, 2, 4, 5)), high, wide * n
    laid = r.emit("patches", copied, (met,), {}, r.specs[met.index])
    return r.reshaped(laid, (many, h * k * c, each))


def _consecutive(r: Rewriter, x: Ref, count: int, step: int = 1) -> Ref:
    (many, m, n), dtype = r.specs[x.index][:2]
    made = plain(((many - count) // step + 1, count * m, n), dtype)
    return r.viewed("consecutive", consecutive, (x,), {"count": count, "step": step}, made)


def _conv(r: Rewriter, i: Instruction) -> bool:
    x, w = i.args
    spec, filters = r.spec(x), r.spec(w)
    if not images(spec) or filters is None or spec.dtype != filters.dtype:
        return False
    met = _patches_of(r, x, windows(spec.shape, filters.shape[:2], i.params))
    if met is None:
        return False
    flat = r.reshaped(w, (math.prod(filters.shape[:3]), filters.shape[3]))
    y = _weighed(r, "conv", r.transposed(flat, (1, 0)), met)
    return _end_images(r, y, i.out)


def _end_images(r: Rewriter, y: Ref, out: int) -> bool:
    """Make the result, images, of what there is of each channel."""
    n, h, k, c = r.specs[out].shape
    return r.end_view((3, 1, 2, 0), r.reshaped(y, (c, h, k, n)), out)


def _weighed(r: Rewriter, name: str, w: Ref, x: Ref) -> Ref:
    """Products of weights (k, m) and patches (rows, m, n): (k, rows, n)."""
    many, (rows, m, n), dtype = r.specs[w.index].shape[0], *r.specs[x.index][:2]
    if rows == 1:
        y = r.emit(name, np.matmul, (w, r.reshaped(x, (m, n))), {}, plain((many, n), dtype))
        return r.reshaped(y, (many, rows, n))
    made = Spec((rows, many, n), dtype, (1, 0, 2))
    return r.transposed(r.emit(name, np.matmul, (w, x), {}, made), (1, 0, 2))


def _conv_dw(r: Rewriter, i: Instruction) -> bool:
    """Gradient of filters: the few as scalar products, others summed over rows of windows."""
    (g, x), out = i.args, r.specs[i.out]
    spec, other = r.spec(x), r.spec(g)
    if not images(spec) or not images(other) or spec.dtype != other.dtype:
        return False
    n, h, k, c = other.shape
    terms = math.prod(out.shape[:3])
    window = windows(spec.shape, i.params["size"], i.params)
    if out.nbytes * (h if window.apart(spec.shape[3], n) else 1) > _MOST:
        return False
    met = _patches_of(r, x, window)
    if met is None:
        return False
    rows, _, each = r.specs[met.index].shape
    slopes = r.reshaped(r.transposed(g, (3, 1, 2, 0)), (c, rows, each))
    if hw5.one_by_one(out.size, h * k * n):
        left = r.reshaped(r.transposed(met, (1, 0, 2)), (terms, 1, rows, each))
        stack, axis = plain((terms, c, rows), out.dtype), 2
        products = r.emit("conv_dw", np.vecdot, (left, slopes), {}, stack)
    else:
        stack, axis = plain((rows, terms, c), out.dtype), 0
        columns = r.transposed(slopes, (1, 2, 0))
        products = r.emit("conv_dw", np.matmul, (met, columns), {}, stack)
    sums = plain((terms, c), out.dtype)
    y = products
    if rows > 1:
        y = r.emit("sum", total, (products,), {"axis": (axis,), "shape": sums.shape}, sums)
    r.end("reshape", moving._reshape.forward, (y,), {"shape": out.shape}, i.out)
    r.program.views.add(i.out)
    return True


def _conv_dx(r: Rewriter, i: Instruction) -> bool:
    (g, w), out = i.args, r.specs[i.out]
    spec, filters = r.spec(g), r.spec(w)
    if not images(spec) or filters is None or spec.dtype != filters.dtype:
        return False
    window = windows(out.shape, filters.shape[:2], i.params)
    way = window.way_back(*filters.shape[2:], spec.shape[0], out.dtype.itemsize)
    ways = {"turned": _dx_turned, "rows": _dx_by_rows, "taps": _dx_by_taps}
    return ways[way](r, i, window)


def _dx_turned(r: Rewriter, i: Instruction, window: Any) -> bool:
    """As in hw5: a correlation with the turned filters."""
    (g, w), out = i.args, r.specs[i.out]
    spec, (h, k, c1, c2) = r.specs[g.index], r.specs[w.index].shape
    settings = {"stride": (1, 1), "padding": window.around(), "dilation": window.dilation}
    met = _patches_of(r, g, windows(spec.shape, (h, k), settings))
    if met is None:
        return False
    filters = r.emit("turned", turned, (w,), {}, plain((h, k, c2, c1), out.dtype))
    weights = r.transposed(r.reshaped(filters, (h * k * c2, c1)), (1, 0))
    return _end_images(r, _weighed(r, "conv_dx", weights, met), i.out)


def _dx_by_rows(r: Rewriter, i: Instruction, window: Any) -> bool:
    """As in hw5: each row of the images is met by windows in rows that follow each other."""
    (g, w), out = i.args, r.specs[i.out]
    (h, k, c1, c2), (n, height, width, _) = r.specs[w.index].shape, out.shape
    wide, left, right = window.out[1], window.before[1], window.after[1]
    if k * c1 * height * wide * n * out.dtype.itemsize > _MOST:
        return False
    lines, rows = window.meeting(slice(0, height))
    laid = plain((height + h - 1, c2, wide, n), out.dtype)
    theirs = r.emit("rows", laid_in_rows, (g,), {"lines": lines, "rows": rows}, laid)
    met = _consecutive(r, r.reshaped(theirs, (laid.shape[0], c2, wide * n)), h)
    weights = r.emit("filters", hw5.meeting_filters, (w,), {}, plain((k * c1, h * c2), out.dtype))
    taps = r.reshaped(_weighed(r, "conv_dx", weights, met), (1, k, c1, height, wide, n))
    places = [(0, j, slice(None), columns) for j, columns in enumerate(window.columns)]
    lying = plain((c1, height, left + width + right, n), out.dtype)
    y = r.emit("conv_dx", spread, (taps,), {"places": places}, lying)
    if left or right:
        y = _part(r, y, -2, slice(left, left + width))
    return r.end_view((3, 1, 2, 0), y, i.out)


def _dx_by_taps(r: Rewriter, i: Instruction, window: Any) -> bool:
    """As in hw5: each tap of the filters gives to the entries that it meets."""
    (g, w), out = i.args, r.specs[i.out]
    spec, filters = r.specs[g.index], r.specs[w.index]
    if math.prod((*filters.shape[:3], *spec.shape[:3])) * out.dtype.itemsize > _MOST:
        return False
    weights = r.reshaped(w, (math.prod(filters.shape[:3]), filters.shape[3]))
    n, h, k, c = spec.shape
    slopes = r.reshaped(r.transposed(g, (3, 1, 2, 0)), (1, c, h * k * n))
    met = (*filters.shape[:3], h, k, n)
    taps = r.reshaped(_weighed(r, "conv_dx", weights, slopes), met)
    n, h, k, c = out.shape
    (top, left), (bottom, right) = window.before, window.after
    lying = plain((c, top + h + bottom, left + k + right, n), out.dtype)
    y = r.emit("conv_dx", spread, (taps,), {"places": window.taps}, lying)
    if lying.shape != (c, h, k, n):
        y = _part(r, _part(r, y, -3, slice(top, top + h)), -2, slice(left, left + k))
    return r.end_view((3, 1, 2, 0), y, i.out)


def _max_pool(r: Rewriter, i: Instruction) -> bool:
    """Largest entry of each window: of each column first, then of the columns."""
    spec, x = r.spec(i.args[0]), i.args[0]
    if spec is None or math.prod(i.params["size"]) == 1:
        return False
    window = hw5.windows_on(spec.shape, i.params["size"], i.params["stride"])
    high = _largest(r, [_part(r, x, -3, span) for span in window.rows])
    *some, last = [_part(r, high, -2, span) for span in window.columns]
    return r.end("max_pool", np.maximum, (_largest(r, some or [last]), last), {}, i.out)


def _largest(r: Rewriter, parts: list[Ref]) -> Ref:
    y, *others = parts
    for part in others:
        y = r.emit("maximum", np.maximum, (y, part), {}, r.specs[y.index])
    return y


def _unpool(r: Rewriter, i: Instruction) -> bool:
    """The gradient of pooling in one step, where windows do not overlap."""
    found = _unpooling(r, i)
    return found is not None and r.end("unpool", scattered, *found, i.out)


def _unpooling(r: Rewriter, i: Instruction) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments and parameters of that step."""
    size, stride, args = i.params["size"], i.params["stride"], pooled(r, i)
    if args is None or math.prod(size) == 1:
        return None
    if any(s < k for s, k in zip(stride, size, strict=True)):
        return None
    out, g = r.specs[i.out], r.specs[args[0].index]
    if out.dtype.char not in "fd":
        return None
    inner = zip(out.shape[-3:-1], g.shape[-3:-1], size, stride, strict=True)
    params = {
        "taps": hw5.windows_on(out.shape, size, stride).taps,
        "covered": all(n == m * k == m * s for n, m, k, s in inner),
    }
    return args, params


def _flatten(r: Rewriter, i: Instruction) -> bool:
    """Images whose batch lies innermost as rows, by a copy in long runs."""
    spec, out = r.spec(i.args[0]), r.specs[i.out]
    if not images(spec) or spec.order not in ((3, 1, 2, 0), (1, 2, 3, 0)):
        return False
    n, h, w, c = spec.shape
    if out.shape != (n, h * w * c):
        return False
    y = r.transposed(i.args[0], (1, 2, 3, 0))
    if spec.order == (3, 1, 2, 0):
        y = r.emit("copy", copied, (y,), {}, plain((h, w, c, n), spec.dtype))
    return r.end_view((1, 0), r.reshaped(y, (h * w * c, n)), i.out)


def _cross_entropy(r: Rewriter, i: Instruction) -> bool:
    (x, y), hot = i.args, r.spec(i.args[1])
    if hot is None or hot.dtype.kind != "b":
        return False
    e = exponentials(r, x, -1)
    if e is None:
        return False
    log_sums = r.emit("log", np.log, (e.sums,), {}, e.thin)
    return r.end("cross_entropy", cost, (log_sums, e.shifted, y), i.params, i.out)


def _relu_grad(r: Rewriter, i: Instruction) -> bool:
    return _unpool_by_relu(r, i) or relu_grad(r, i)


def _unpool_by_relu(r: Rewriter, i: Instruction) -> bool:
    """The gradient of pooling what a relu gave, with that of the relu."""
    made = unpool_by_relu(r, i)
    found = None if made is None else _unpooling(r, made)
    if made is None or found is None or not found[1]["covered"]:
        return False
    args, params = found
    (*lead, height, width, channels), (h, w) = (
        r.specs[made.args[0].index].shape,
        made.params["size"],
    )
    tiles = (*lead, height, h, width, w, channels)
    return r.end("unpool", scattered_by_relu, args, {"taps": params["taps"], "tiles": tiles}, i.out)


def _vdot(r: Rewriter, i: Instruction) -> bool:
    """The sum of squares that backward looks for NaN in."""
    flat = r.made_by(i.args[0])
    if i.args[0] != i.args[1] or flat is None or flat.op.forward is not np.ravel:
        return False
    spec = r.spec(flat.args[0])
    if spec is None or spec.dtype.kind != "f":
        return False
    return r.end("squares", squares, flat.args[:1], {}, i.out)


_REWRITES = REDUCTIONS | {
    convolution.conv.forward: _conv,
    convolution.conv_dw.forward: _conv_dw,
    convolution.conv_dx.forward: _conv_dx,
    convolution.max_pool.forward: _max_pool,
    convolution.unpool.forward: _unpool,
    moving._reshape.forward: _flatten,
    losses._cross_entropy.forward: _cross_entropy,
    activations.relu_grad.forward: _relu_grad,
    np.vdot: _vdot,
}


def with_buffers(program: Program) -> Program:
    """Give the same program with convolution and pooling in steps that write into buffers."""
    return rewritten(program, _REWRITES)


def scratch(instruction: Instruction, specs: dict[int, Spec]) -> list[Spec] | None:
    """What buffers a step takes besides that of its result; None if it is not one of them."""
    forward, out = instruction.op.forward, specs[instruction.out]
    if forward in (surround, copied, laid_in_rows, spread):
        return []
    if forward in (scattered, scattered_by_relu):
        pooled = specs[instruction.args[2].index]
        truth = np.dtype(bool)
        hits = [out._replace(dtype=truth)] if forward is scattered_by_relu else []
        return [pooled._replace(dtype=out.dtype), *[pooled._replace(dtype=truth)] * 3, *hits]
    return None
