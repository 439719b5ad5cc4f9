"""What students get wrong in convolution and pooling; `mistakes` has the other functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import reference as right

Array = right.Array
Formula = Callable[..., Any]


def _around(x: Array, w_conv: Array, before: int, **mode: Any) -> Array:
    """The image under the filter with the border only before (2), or only behind it (0)."""
    (rows, columns), h = (k // 2 for k in w_conv.shape[:2]), before
    row, column = (h * rows, (2 - h) * rows), (h * columns, (2 - h) * columns)
    return np.pad(x, (row, column, (0, 0)), **mode)


def _zero_border(y: Array, w_conv: Array, border: Array | float) -> Array:
    rows, columns = (k // 2 for k in w_conv.shape[:2])
    out = np.zeros(y.shape) + border
    inside = slice(rows, len(y) - rows), slice(columns, y.shape[1] - columns)
    out[inside] = y[inside]
    return out


def _ends_early(y: Array) -> Array:
    out = np.zeros(y.shape)
    out[:-1, :-1] = y[:-1, :-1]
    return out


def _channels_first(w_conv: Array) -> Array:
    """The filter that meets patches which are flattened channel by channel."""
    h, w, c1, c2 = w_conv.shape
    return w_conv.reshape(c1, h, w, c2).transpose(1, 2, 0, 3)


def _tap_products(x: Array, w_conv: Array, dl_dy: Array, row: int, column: int) -> Array:
    """What one position of the output adds to the gradient of the filters."""
    h, w = w_conv.shape[:2]
    row, column = row % len(dl_dy), column % dl_dy.shape[1]
    under = right.padded(x, w_conv)[row : row + h, column : column + w]
    products: Array = under[..., np.newaxis] * dl_dy[row, column]
    return products


def _winners(x: Array) -> Array:
    tiles = right.windows(x)
    largest: Array = tiles == tiles.max(axis=-1, keepdims=True)
    return largest


def _to(mask: Array, dl_dy: Array) -> Array:
    return right.from_windows(mask * dl_dy[..., np.newaxis])


_SPREAD = "the gradient of a window goes to all of its entries; only its maximum gets it"
_ENDS_EARLY = "the last row and column are left out: the loops end one too early"
_WRONG_AXES = "it is summed along the wrong axes: of dl_dy (H, W, C2) those are (0, 1)"

IMAGE_MISTAKES: dict[tuple[str, str], list[tuple[str, Formula]]] = {
    ("conv", "y"): [
        (
            "the filter is flipped: the handout's convolution is a correlation",
            lambda x, w_conv, b_conv: right.conv(x, w_conv[::-1, ::-1], b_conv),
        ),
        ("the bias is missing", lambda x, w_conv, b_conv: right.conv(x, w_conv, 0 * b_conv)),
        ("the bias is subtracted", lambda x, w_conv, b_conv: right.conv(x, w_conv, -b_conv)),
        (
            "the bias is added once for each input channel",
            lambda x, w_conv, b_conv: right.conv(x, w_conv, x.shape[2] * b_conv),
        ),
        (
            "the bias is added once for each entry of the filter",
            lambda x, w_conv, b_conv: right.conv(x, w_conv, w_conv[..., 0].size * b_conv),
        ),
        (
            "the bias of one filter goes to all of them",
            lambda x, w_conv, b_conv: right.conv(x, w_conv, 0 * b_conv + b_conv[0]),
        ),
        (
            "off by the padding: the zeros are needed on all sides, not only bottom and right",
            lambda x, w_conv, b_conv: right.slide(_around(x, w_conv, 0), w_conv) + b_conv[:, 0],
        ),
        (
            "off by the padding: the zeros are needed on all sides, not only top and left",
            lambda x, w_conv, b_conv: right.slide(_around(x, w_conv, 2), w_conv) + b_conv[:, 0],
        ),
        (
            "the padding is missing: zeros around keep the size (H, W)",
            lambda x, w_conv, b_conv: right.slide(x, w_conv) + b_conv[:, 0],
        ),
        (
            "the border is padded by its own pixels: the handout pads with zeros",
            lambda x, w_conv, b_conv: (
                right.slide(_around(x, w_conv, 1, mode="edge"), w_conv) + b_conv[:, 0]
            ),
        ),
        (
            "the image wraps around at its border: the handout pads with zeros",
            lambda x, w_conv, b_conv: (
                right.slide(_around(x, w_conv, 1, mode="wrap"), w_conv) + b_conv[:, 0]
            ),
        ),
        (
            "the border of the output is never computed: pad the image with zeros",
            lambda x, w_conv, b_conv: _zero_border(right.conv(x, w_conv, b_conv), w_conv, 0.0),
        ),
        (
            "the border of the output is never computed: pad the image with zeros",
            lambda x, w_conv, b_conv: _zero_border(
                right.conv(x, w_conv, b_conv), w_conv, b_conv[:, 0]
            ),
        ),
        (_ENDS_EARLY, lambda x, w_conv, b_conv: _ends_early(right.conv(x, w_conv, b_conv))),
        (
            "rows and columns of the filter are swapped",
            lambda x, w_conv, b_conv: right.conv(x, w_conv.swapaxes(0, 1), b_conv),
        ),
        (
            "the patches of the image are flattened in another order than the filter (h, w, C1)",
            lambda x, w_conv, b_conv: right.conv(x, _channels_first(w_conv), b_conv),
        ),
        (
            "the product is (C2, H * W): transpose it before it is reshaped to (H, W, C2)",
            lambda x, w_conv, b_conv: (
                right.conv(x, w_conv, b_conv).transpose(2, 0, 1).reshape(*x.shape[:2], -1)
            ),
        ),
        (
            "only the first input channel counts: sum over all of them",
            lambda x, w_conv, b_conv: right.conv(x[..., :1], w_conv[:, :, :1], b_conv),
        ),
        (
            "only the last input channel counts: sum over all of them (+= where = stands)",
            lambda x, w_conv, b_conv: right.conv(x[..., -1:], w_conv[:, :, -1:], b_conv),
        ),
        (
            "the first filter is used for all outputs",
            lambda x, w_conv, b_conv: right.conv(x, 0 * w_conv + w_conv[..., :1], b_conv),
        ),
        (
            "only the last filter's output is filled in",
            lambda x, w_conv, b_conv: (
                right.conv(x, w_conv, b_conv) * (np.arange(len(b_conv)) == len(b_conv) - 1)
            ),
        ),
        (
            "it is averaged over the window: it is a sum",
            lambda x, w_conv, b_conv: right.conv(x, w_conv / w_conv[:, :, 0, 0].size, b_conv),
        ),
    ],
    ("conv_backward", "dl_dw"): [
        (
            "the filter's gradient is flipped",
            lambda dl_dy, x, w_conv, b_conv: right.gather(right.padded(x, w_conv), dl_dy)[
                ::-1, ::-1
            ],
        ),
        (
            "off by the padding: the zeros are needed on all sides, not only bottom and right",
            lambda dl_dy, x, w_conv, b_conv: right.gather(_around(x, w_conv, 0), dl_dy),
        ),
        (
            "off by the padding: the zeros are needed on all sides, not only top and left",
            lambda dl_dy, x, w_conv, b_conv: right.gather(_around(x, w_conv, 2), dl_dy),
        ),
        (
            "the border is padded by its own pixels: the handout pads with zeros",
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                _around(x, w_conv, 1, mode="edge"), dl_dy
            ),
        ),
        (
            "the border of the output is left out: pad x with zeros as in conv",
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                right.padded(x, w_conv), _zero_border(dl_dy, w_conv, 0.0)
            ),
        ),
        (
            "the padding is missing: x is padded with zeros as in conv",
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                x, dl_dy[: len(x) - len(w_conv) + 1, : x.shape[1] - w_conv.shape[1] + 1]
            ),
        ),
        (
            _ENDS_EARLY,
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                right.padded(x, w_conv), _ends_early(dl_dy)
            ),
        ),
        (
            "rows and columns of the filter are swapped",
            lambda dl_dy, x, w_conv, b_conv: right.gather(right.padded(x, w_conv), dl_dy).swapaxes(
                0, 1
            ),
        ),
        (
            "the patches of the image are flattened in another order than the filter (h, w, C1)",
            lambda dl_dy, x, w_conv, b_conv: (
                right.gather(right.padded(x, w_conv), dl_dy)
                .transpose(2, 0, 1, 3)
                .reshape(w_conv.shape)
            ),
        ),
        (
            "it is averaged over the output: it is a sum over all positions",
            lambda dl_dy, x, w_conv, b_conv: (
                right.gather(right.padded(x, w_conv), dl_dy) / dl_dy[..., 0].size
            ),
        ),
        (
            "only the last position counts: add up over all of them (+= where = stands)",
            lambda dl_dy, x, w_conv, b_conv: _tap_products(x, w_conv, dl_dy, -1, -1),
        ),
        (
            "only the first position counts: add up over all of them",
            lambda dl_dy, x, w_conv, b_conv: _tap_products(x, w_conv, dl_dy, 0, 0),
        ),
        (
            "dl_dy is missing",
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                right.padded(x, w_conv), np.ones_like(dl_dy)
            ),
        ),
        (
            "only the first input channel gets a gradient",
            lambda dl_dy, x, w_conv, b_conv: (
                right.gather(right.padded(x, w_conv), dl_dy)
                * (np.arange(x.shape[2]) == 0)[:, np.newaxis]
            ),
        ),
        (
            "the first input channel is used for all of them",
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                right.padded(0 * x + x[..., :1], w_conv), dl_dy
            ),
        ),
        (
            "the first output channel is used for all of them",
            lambda dl_dy, x, w_conv, b_conv: right.gather(
                right.padded(x, w_conv), 0 * dl_dy + dl_dy[..., :1]
            ),
        ),
    ],
    ("conv_backward", "dl_db"): [
        (
            "it is averaged over the output: it is a sum over all positions",
            lambda dl_dy, x, w_conv, b_conv: dl_dy.mean(axis=(0, 1))[:, None],
        ),
        (
            "only the last position counts: add up over all of them (+= where = stands)",
            lambda dl_dy, x, w_conv, b_conv: dl_dy[-1, -1][:, None],
        ),
        (
            "only the last row counts: add up over all of them (+= where = stands)",
            lambda dl_dy, x, w_conv, b_conv: dl_dy[-1].sum(axis=0)[:, None],
        ),
        (_WRONG_AXES, lambda dl_dy, x, w_conv, b_conv: dl_dy.sum(axis=(0, 2))[:, None]),
        (_WRONG_AXES, lambda dl_dy, x, w_conv, b_conv: dl_dy.sum(axis=(1, 2))[:, None]),
        (
            "it is summed over the filters, too: each has its own bias",
            lambda dl_dy, x, w_conv, b_conv: dl_dy.sum() + 0 * b_conv,
        ),
        (
            "it is added once for each entry of the filter",
            lambda dl_dy, x, w_conv, b_conv: w_conv[..., 0].size * dl_dy.sum(axis=(0, 1))[:, None],
        ),
        (
            "it is added once for each input channel",
            lambda dl_dy, x, w_conv, b_conv: x.shape[2] * dl_dy.sum(axis=(0, 1))[:, None],
        ),
        (
            "dl_dy is missing",
            lambda dl_dy, x, w_conv, b_conv: np.full(b_conv.shape, dl_dy[..., 0].size),
        ),
        (
            "dl_dy is missing: dl_db is its sum over all positions",
            lambda dl_dy, x, w_conv, b_conv: np.ones(b_conv.shape),
        ),
    ],
    ("pool2x2", "y"): [
        (
            "the maximum starts from 0, so that negative entries are lost",
            lambda x: np.maximum(right.pool2x2(x), 0),
        ),
        ("this is the mean of each window: it is the maximum", lambda x: right.windows(x).mean(-1)),
        ("this is the sum of each window: it is the maximum", lambda x: right.windows(x).sum(-1)),
        ("this is the minimum of each window", lambda x: right.windows(x).min(-1)),
        (
            "each window's first entry is taken, not the largest",
            lambda x: right.windows(x)[..., 0],
        ),
        ("each window's last entry is taken, not the largest", lambda x: right.windows(x)[..., 3]),
        (
            "the maximum runs over the channels too: each has its own",
            lambda x: 0 * x[::2, ::2] + right.pool2x2(x).max(axis=-1, keepdims=True),
        ),
        (
            "the first channel is used for all of them",
            lambda x: 0 * x[::2, ::2] + right.pool2x2(x[..., :1]),
        ),
        (
            "the entry of largest absolute value is taken",
            lambda x: np.abs(right.windows(x)).max(-1),
        ),
        (
            "the reshape takes windows of neighbours in memory: reshape to (H/2, 2, W/2, 2, C) and "
            "take the maximum along the axes 1 and 3",
            lambda x: x.reshape(len(x) // 2, x.shape[1] // 2, 2, 2, -1).max((2, 3)),
        ),
        (
            "the windows overlap: the stride is 2",
            lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 2), (0, 1)).max((-1, -2)),
        ),
        (
            "the windows overlap: the stride is 2",
            lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 2), (0, 1)).max((-1, -2))[
                : len(x) // 2, : x.shape[1] // 2
            ],
        ),
    ],
    ("pool2x2_backward", "dl_dx"): [
        (
            "row and column of a window's maximum are swapped: its place k is row k // 2, column "
            "k % 2",
            lambda dl_dy, x: _to(np.eye(4)[:, [0, 2, 1, 3]][right.windows(x).argmax(-1)], dl_dy),
        ),
        (
            "the maximum starts from 0, so that the first of all negative entries is taken for it",
            lambda dl_dy, x: right.pool2x2_backward(dl_dy, np.maximum(x, 0)),
        ),
        (
            "the maximum is sought over all channels at once: each has its own",
            lambda dl_dy, x: right.pool2x2_backward(dl_dy, 0 * x + x.max(axis=-1, keepdims=True)),
        ),
        (
            "the gradient is copied to all ties: where a window has its maximum twice, only one "
            "entry gets it",
            lambda dl_dy, x: _to(_winners(x), dl_dy),
        ),
        (_SPREAD, lambda dl_dy, x: _to(np.ones(4), dl_dy)),
        (_SPREAD, lambda dl_dy, x: _to(np.ones(4) / 4, dl_dy)),
        (
            "the gradient of a window goes to its first entry: its maximum gets it",
            lambda dl_dy, x: _to(np.eye(4)[0], dl_dy),
        ),
        (
            "the gradient of a window goes to its last entry: its maximum gets it",
            lambda dl_dy, x: _to(np.eye(4)[3], dl_dy),
        ),
        (
            "the gradient goes to the minimum",
            lambda dl_dy, x: _to(np.eye(4)[right.windows(x).argmin(-1)], dl_dy),
        ),
        (
            "dl_dy is missing",
            lambda dl_dy, x: right.pool2x2_backward(np.ones_like(dl_dy), x),
        ),
        (
            "the maximum itself stands for its slope, 1",
            lambda dl_dy, x: x * right.pool2x2_backward(dl_dy, x),
        ),
        (
            "the maximum stands where dl_dy belongs",
            lambda dl_dy, x: x * (_to(_winners(x), dl_dy) != 0),
        ),
        (
            "only the first channel gets a gradient",
            lambda dl_dy, x: right.pool2x2_backward(dl_dy, x) * (np.arange(x.shape[2]) == 0),
        ),
        (
            "the winners of the first channel are used for all of them",
            lambda dl_dy, x: right.pool2x2_backward(dl_dy, 0 * x + x[..., :1]),
        ),
        (
            "the first channel's dl_dy is used for all of them",
            lambda dl_dy, x: right.pool2x2_backward(0 * dl_dy + dl_dy[..., :1], x),
        ),
    ],
}
