"""Kernels of convolution and pooling that write into buffers, for the numpy back end.

They are those of ``hw5.py`` in steps: the patches of an image are a value of their own, so that
the forward and the gradient of the filters share them.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..kernels import hw5
from ..ops import activations, losses
from ..ops import conv as convolution
from .expand import REDUCTIONS, exponentials
from .images import bordered, images
from .program import Array, Instruction, Program, Spec
from .rewriting import Rewriter, rewritten

# Larger patches than this would not stay in the cache; hw5's kernels know better then.
_MOST = 16 * 2**20


# --- The steps; each takes the buffers of its result last -----------------------------------------


def patches(x: Array, out: Array, *, window: Any) -> Array:
    """Window entries (h, w, C, H', W', N) of bordered images (C, H, W, N)."""
    out[...] = window.entries(x)
    return out


def product(p: Array, w: Array, out: Array) -> Array:
    """Correlation (C2, H', W', N) of patches with filters."""
    filters = w.reshape(-1, w.shape[3])
    np.matmul(filters.T, p.reshape(len(filters), -1), out=out.reshape(w.shape[3], -1))
    return out


def product_dw(g: Array, p: Array, out: Array, rows: Array) -> Array:
    """Gradient of filters: the few as scalar products, others summed over rows of windows."""
    h, c2 = p.shape[3], out.shape[3]
    images_last = g.transpose(3, 1, 2, 0).reshape(c2, h, -1)
    if out.size <= hw5.FEW_PRODUCTS:
        flat = p.reshape(-1, 1, h * p.shape[4] * p.shape[5])
        np.vecdot(flat, images_last.reshape(c2, -1), out=out.reshape(-1, c2))
        return out
    by_row = p.reshape(-1, h, p.shape[4] * p.shape[5]).transpose(1, 0, 2)
    np.matmul(by_row, images_last.transpose(1, 2, 0), out=rows)
    np.add.reduce(rows, axis=0, out=out.reshape(-1, c2))
    return out


def spread(g: Array, w: Array, out: Array, taps: Array, *, window: Any) -> Array:
    """Adjoint of correlation in bordered images (C, H, W, N): what each tap of a window gives."""
    filters = w.reshape(-1, w.shape[3])
    images_last = g.transpose(3, 1, 2, 0).reshape(w.shape[3], -1)
    np.matmul(filters, images_last, out=taps.reshape(len(filters), -1))
    out[...] = 0
    for i, j, rows, columns in window.taps():
        out[:, rows, columns] += taps[i, j]
    return out


def surround(x: Array, out: Array, *, before: Any, after: Any) -> Array:
    """Images (N, H, W, C) as (C, H', W', N) with zeros around."""
    (top, left), (height, width) = before, x.shape[1:3]
    out[:, :top] = 0
    out[:, top + height :] = 0
    out[:, :, :left] = 0
    out[:, :, left + width :] = 0
    out[:, top : top + height, left : left + width] = x.transpose(3, 1, 2, 0)
    return out


def largest(x: Array, out: Array, high: Array, *, rows: Any, columns: Any) -> Array:
    """Largest entry of each window: of each column first, then of the columns."""
    hw5.largest([x[..., span, :, :] for span in rows], high)
    return hw5.largest([high[..., span, :] for span in columns], out)


def scattered(
    g: Array,
    x: Array,
    y: Array,
    out: Array,
    left: Array,
    part: Array,
    mask: Array,
    *,
    taps: Any,
    covered: bool,
) -> Array:
    """Each entry of ``g`` where its window, none of which overlap, first is its largest, ``y``."""
    if not covered:
        out[...] = 0
    # In the layout of the windows once, and not again for each of the taps.
    left[...] = g
    *earlier, (_, _, last_rows, last_columns) = taps
    # Masked and taken away as bits: those of inf and NaN are as good as any.
    bits = np.dtype(f"i{left.itemsize}")
    rest, taken = left.view(bits), part.view(bits)
    for _, _, rows, columns in earlier:
        np.equal(x[..., rows, columns, :], y, out=mask)
        np.multiply(rest, mask, out=taken)
        out[..., rows, columns, :] = part
        np.bitwise_xor(rest, taken, out=rest)
    out[..., last_rows, last_columns, :] = left
    return out


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


def _patches_of(r: Rewriter, x: Any, window: Any) -> tuple[Any, Spec] | None:
    spec = r.spec(x)
    assert spec is not None
    n, c = spec.shape[0], spec.shape[3]
    made = Spec((*window.size, c, *window.out, n), spec.dtype, tuple(range(6)))
    if made.nbytes > _MOST:
        return None
    around = bordered(r, x, window, surround)
    return r.emit("patches", patches, (around,), {"window": window}, made), made


def _conv(r: Rewriter, i: Instruction) -> bool:
    (x, w), p = i.args, i.params
    spec, out = r.spec(x), r.specs[i.out]
    filters = r.spec(w)
    if spec is None or filters is None or not images(spec) or spec.dtype != filters.dtype:
        return False
    window = hw5.windows_on(
        spec.shape, (filters.shape[0], filters.shape[1]), p["stride"], p["padding"], p["dilation"]
    )
    made = _patches_of(r, x, window)
    if made is None:
        return False
    n, h, k, c = out.shape
    lying = Spec((c, h, k, n), out.dtype, (0, 1, 2, 3))
    y = r.emit("conv", product, (made[0], w), {}, lying)
    return r.end_view((3, 1, 2, 0), y, i.out)


def _conv_dw(r: Rewriter, i: Instruction) -> bool:
    (g, x), p = i.args, i.params
    spec, other = r.spec(x), r.spec(g)
    if spec is None or other is None or not images(spec) or spec.dtype != other.dtype:
        return False
    window = hw5.windows_on(spec.shape, tuple(p["size"]), p["stride"], p["padding"], p["dilation"])
    made = _patches_of(r, x, window)
    if made is None or not images(other):
        return False
    return r.end("conv_dw", product_dw, (g, made[0]), {}, i.out)


def _conv_dx(r: Rewriter, i: Instruction) -> bool:
    (g, w), p, out = i.args, i.params, r.specs[i.out]
    spec, filters = r.spec(g), r.spec(w)
    if spec is None or filters is None or not images(spec) or spec.dtype != filters.dtype:
        return False
    if math.prod((*filters.shape[:3], *spec.shape[:3])) * out.dtype.itemsize > _MOST:
        return False
    size = (filters.shape[0], filters.shape[1])
    window = hw5.windows_on(out.shape, size, p["stride"], p["padding"], p["dilation"])
    n, h, k, c = out.shape
    (top, left), (bottom, right) = window.before, window.after
    lying = Spec((c, top + h + bottom, left + k + right, n), out.dtype, (0, 1, 2, 3))
    y = r.emit("conv_dx", spread, (g, w), {"window": window}, lying)
    if lying.shape != (c, h, k, n):
        inner = (slice(None), slice(top, top + h), slice(left, left + k))
        y = r.emit("getitem", operator.getitem, (y, inner), {}, lying._replace(shape=(c, h, k, n)))
        r.program.views.add(y.index)
    return r.end_view((3, 1, 2, 0), y, i.out)


def _max_pool(r: Rewriter, i: Instruction) -> bool:
    spec = r.spec(i.args[0])
    if spec is None or math.prod(i.params["size"]) == 1:
        return False
    window = hw5.windows_on(spec.shape, i.params["size"], i.params["stride"])
    spans = {"rows": window.rows, "columns": window.columns}
    return r.end("max_pool", largest, i.args, spans, i.out)


def _unpool(r: Rewriter, i: Instruction) -> bool:
    """The gradient of pooling in one step, where windows do not overlap."""
    size, stride = i.params["size"], i.params["stride"]
    won = r.made_by(i.args[1])
    if won is None or won.op.forward is not hw5.pool_winners or math.prod(size) == 1:
        return False
    if any(s < k for s, k in zip(stride, size, strict=True)):
        return False
    out, g = r.specs[i.out], r.spec(i.args[0])
    if g is None or g.dtype != out.dtype or out.dtype.char not in "fd":
        return False
    inner = zip(out.shape[-3:-1], g.shape[-3:-1], size, stride, strict=True)
    params = {
        "taps": hw5.windows_on(out.shape, size, stride).taps(),
        "covered": all(n == m * k == m * s for n, m, k, s in inner),
    }
    return r.end("unpool", scattered, (i.args[0], *won.args), params, i.out)


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
    """The mask of relu's argument is that of its result, so that the argument need not be kept."""
    g, x = i.args
    y = r.computed(activations.relu.forward, x)
    return y is not None and r.end("relu_grad", i.op.forward, (g, y), {}, i.out)


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
    if forward in (patches, product, surround):
        return []
    if forward is spread:
        g, w = (specs[arg.index] for arg in instruction.args)
        taps = (*w.shape[:3], *g.shape[1:3], g.shape[0])
        return [Spec(taps, out.dtype, tuple(range(6)))]
    if forward is largest:
        width = specs[instruction.args[0].index].shape[-2]
        return [out._replace(shape=(*out.shape[:-2], width, out.shape[-1]))]
    if forward is scattered:
        pooled = specs[instruction.args[2].index]
        part = pooled._replace(dtype=out.dtype)
        return [part, part, pooled._replace(dtype=np.dtype(bool))]
    if forward is product_dw:
        rows = specs[instruction.args[1].index].shape[3]
        k = math.prod(out.shape[:3])
        return [Spec((rows, k, out.shape[3]), out.dtype, (0, 1, 2))]
    return None
