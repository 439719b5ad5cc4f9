"""Rewrite convolution and the gradient of pooling, for native code: loops over images."""

from __future__ import annotations

import math
import operator
from typing import Any, TypeGuard

import numpy as np

from ..kernels import hw5
from ..ops import activations
from ..ops import conv as convolution
from .program import Array, Instruction, Ref, Spec
from .rewriting import Rewrite, Rewriter, plain

# Beyond so many products for each entry of the result, a convolution is left to BLAS.
DIRECT = 3000


# --- The simpler operations; their forwards say what they mean, in NumPy ------------------------


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


def correlation(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    out: Any,
    stride: Any,
    dilation: Any,
    relu: bool = False,
) -> Array:
    """Correlate bordered images (C1, H', W', N) with filters: (N, H, W, C2); add ``b``, if given,
    and then do as relu does, if wanted."""
    images = x.transpose(3, 1, 2, 0)
    size = {"stride": stride, "padding": "valid", "dilation": dilation}
    y = hw5.correlate(images, w, **size)[:, : out[0], : out[1]]
    if b is not None:
        y = y + b
    return hw5.relu(y) if relu else y


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


def pool_dx(
    g: Array, x: Array, y: Array, *, shape: Any, size: Any, stride: Any, relu: bool
) -> Array:
    """Gradient of pooling ``x`` to ``y``, and that of the relu that made ``x``, if one did."""
    winners = hw5.pool_winners(x, y, size=size, stride=stride)
    gradient = hw5.max_unpool(g, winners, shape=shape, size=size, stride=stride)
    return hw5.relu_backward(gradient, x) if relu else gradient


# --- Rewriting ----------------------------------------------------------------------------------


def images(spec: Spec | None) -> TypeGuard[Spec]:
    """Tell whether a value is a batch of images (N, H, W, C) of floats."""
    return (
        spec is not None and len(spec.shape) == 4 and 0 not in spec.shape and spec.dtype.kind == "f"
    )


def windows(shape: tuple[int, ...], size: Any, params: dict[str, Any]) -> Any:
    """The windows of a convolution on images of a shape, by its parameters."""
    return hw5.windows_on(
        shape, tuple(size), params["stride"], params["padding"], params["dilation"]
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
        plain((c, top + h + bottom, left + w + right, n), spec.dtype),
    )


def _conv(r: Rewriter, i: Instruction) -> bool:
    (x, w), out = i.args, r.specs[i.out]
    xs, ws = r.spec(x), r.spec(w)
    if not images(xs) or ws is None or not xs.dtype == ws.dtype == out.dtype:
        return False
    if math.prod(ws.shape[:3]) > DIRECT:
        return False
    p = i.params
    window = windows(xs.shape, ws.shape[:2], p)
    params = {"out": window.out, "stride": p["stride"], "dilation": p["dilation"]}
    r.specs[i.out] = out._replace(order=(3, 1, 2, 0))
    return r.end("conv", correlation, (bordered(r, x, window, border), w), params, i.out)


def _conv_dw(r: Rewriter, i: Instruction) -> bool:
    (g, x), out = i.args, r.specs[i.out]
    gs, xs = r.spec(g), r.spec(x)
    if not images(xs) or not images(gs) or xs.dtype != gs.dtype:
        return False
    if math.prod(out.shape[:3]) > DIRECT:
        return False
    p = i.params
    window = windows(xs.shape, p["size"], p)
    params = {"size": tuple(p["size"]), "stride": p["stride"], "dilation": p["dilation"]}
    # A view, where the images lie as convolution makes them, else a copy.
    slopes = r.reshaped(r.transposed(g, (3, 1, 2, 0)), (gs.size,))
    args = slopes, bordered(r, x, window, border)
    return r.end("conv_dw", correlation_dw, args, params | {"out": window.out}, i.out)


def _conv_dx(r: Rewriter, i: Instruction) -> bool:
    """The adjoint is a correlation with the turned filters, of pixels as far apart as windows."""
    (g, w), out, p = i.args, r.specs[i.out], i.params
    gs, ws = r.spec(g), r.spec(w)
    if not images(gs) or ws is None or gs.dtype != ws.dtype:
        return False
    if math.prod((*ws.shape[:2], ws.shape[3], *p["stride"])) > DIRECT:
        return False
    n, *sides, c = gs.shape
    window = windows((*p["shape"], 1), ws.shape[:2], p)
    reach = [d * (k - 1) for d, k in zip(p["dilation"], ws.shape[:2], strict=True)]
    before = tuple(map(operator.sub, reach, window.before))
    bare = _spaced_sides(sides, before, (0, 0), p["stride"])
    after = tuple(m + d - k for m, d, k in zip(p["shape"], reach, bare, strict=True))
    if min(*before, *after) < 0:
        return False
    around = {"before": before, "after": after}
    spec = plain((c, *map(operator.add, bare, after), n), gs.dtype)
    if tuple(p["stride"]) == (1, 1):
        bordered_g = r.emit("border", border, (g,), around, spec)
    else:
        bordered_g = r.emit("border", spaced, (g,), around | {"step": tuple(p["stride"])}, spec)
    a, b, c1, c2 = ws.shape
    filters = r.emit("turned", turned, (w,), {}, plain((a, b, c2, c1), ws.dtype))
    params = {"out": tuple(p["shape"]), "stride": (1, 1), "dilation": p["dilation"]}
    r.specs[i.out] = out._replace(order=(3, 1, 2, 0))
    return r.end("conv_dx", correlation, (bordered_g, filters), params, i.out)


def relu_grad(r: Rewriter, i: Instruction) -> bool:
    """The mask of relu's argument is that of its result, so that the argument need not be kept."""
    y = r.computed(activations.relu.forward, i.args[1])
    return y is not None and r.end("relu_grad", i.op.forward, (i.args[0], y), {}, i.out)


def pooled(r: Rewriter, unpool: Instruction) -> tuple[Any, ...] | None:
    """The gradient of what was pooled, what was, and what it became."""
    won, g = r.made_by(unpool.args[1]), r.spec(unpool.args[0])
    if won is None or won.op.forward is not hw5.pool_winners or len(won.args) != 2:
        return None
    spec = r.spec(won.args[0])
    same = spec is not None and g is not None and spec.dtype == g.dtype
    return (unpool.args[0], *won.args) if same else None


def unpool_by_relu(r: Rewriter, i: Instruction) -> Instruction | None:
    """The gradient of pooling what a relu gave, given the gradient of that relu."""
    y, made = r.computed(activations.relu.forward, i.args[1]), r.made_by(i.args[0])
    if y is None or made is None or made.op.forward is not convolution.unpool.forward:
        return None
    found = pooled(r, made)
    return made if found is not None and found[1] == y else None


def _unpool(r: Rewriter, i: Instruction) -> bool:
    return _pool_dx(r, i, i.out, relu=False)


def _relu_grad(r: Rewriter, i: Instruction) -> bool:
    """The gradient of pooling what a relu gave comes with that of the relu."""
    unpool = unpool_by_relu(r, i)
    return (unpool is not None and _pool_dx(r, unpool, i.out, relu=True)) or relu_grad(r, i)


def _pool_dx(r: Rewriter, unpool: Instruction, out: int, *, relu: bool) -> bool:
    """Find the winners on the way."""
    args = pooled(r, unpool) if images(r.spec(unpool.args[0])) else None
    params = unpool.params | {"relu": relu}
    return args is not None and r.end("unpool", pool_dx, args, params, out)


def _add(r: Rewriter, i: Instruction) -> bool:
    """A convolution adds what is the same for all of a channel, while it has the sums at hand."""
    found = _with_bias(r, i)
    return found is not None and r.end("conv", correlation, *found, i.out)


def _relu(r: Rewriter, i: Instruction) -> bool:
    """And makes zeros of what is negative."""
    made = r.made_by(i.args[0])
    found = _with_bias(r, made) if made is not None and r.alone(i.args[0]) else None
    if found is None:
        return False
    args, params = found
    return r.end("conv", correlation, args, params | {"relu": True}, i.out)


def _with_bias(r: Rewriter, add: Instruction) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """What a convolution is of whose result nobody wants but a sum with a vector."""
    if add.op.forward is not np.add or len(add.args) != 2:
        return None
    made, bias = r.made_by(add.args[0]), r.spec(add.args[1])
    if made is None or made.op.forward is not correlation or len(made.args) != 2 or bias is None:
        return None
    out = r.specs[made.out]
    if bias != plain(out.shape[-1:], out.dtype) or not r.alone(add.args[0]):
        return None
    return (*made.args, add.args[1]), made.params | {"relu": False}


# In a program of these operations: what comes after a convolution is done by it.
FUSIONS: dict[Any, Rewrite] = {np.add: _add, activations.relu.forward: _relu}
IMAGES: dict[Any, Rewrite] = {
    convolution.conv.forward: _conv,
    convolution.conv_dw.forward: _conv_dw,
    convolution.conv_dx.forward: _conv_dx,
    convolution.unpool.forward: _unpool,
    activations.relu_grad.forward: _relu_grad,
}
