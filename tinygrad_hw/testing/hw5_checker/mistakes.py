"""What students get wrong, as wrong formulas: the one that gives their numbers is the likely one.

Each formula takes the handout's arguments by name and gives the result that the mistake gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import reference as right

Array = right.Array
Formula = Callable[..., Any]


# --- Convolution and pooling ------------------------------------------------------------------


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


def _top(scores: Array) -> int:
    return int(scores.argmax())


# --- Function by function ---------------------------------------------------------------------

_LEAKS = (0.01, 0.001, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3)


def _leak_y(slope: float) -> Formula:
    return lambda x: np.where(x > 0, x, slope * x)


def _leak_dx(slope: float) -> Formula:
    return lambda dl_dy, x: np.where(x > 0, dl_dy, slope * dl_dy)


def _log_p(x: Array) -> Array:
    return np.log(right.softmax(x))


def _through_p(x: Array, y: Array) -> Array:
    """The gradient of the loss by the chain rule, as it is where a probability has become 0."""
    p = right.softmax(x)
    slopes: Array = np.diagflat(p) - p @ p.T
    return slopes @ (-y / np.maximum(p, np.finfo(float).tiny))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


_SPREAD = "the gradient of a window goes to all of its entries; only its maximum gets it"
_RELU_LAST = "the scores go through a ReLU: the class may be that of a negative one"
_OFF_BY_ONE = "the class is off by one: the first is 0"
_FLAT_SUM = "a flat (n,) and a column (n, 1) were added, which gives a matrix (n, n)"
_SATURATED = (
    "the gradient is lost where a probability has become 0: the softmax's own times -y / p is p - y"
)
_ENDS_EARLY = "the last row and column are left out: the loops end one too early"
_WRONG_AXES = "it is summed along the wrong axes: of dl_dy (H, W, C2) those are (0, 1)"
_TWO_ORDERS = (
    "of flattening and its backward one goes along the image's rows, the other down its columns"
)
_LEAK = "this is a leaky ReLU: the handout's gives 0 below 0"

MISTAKES: dict[tuple[str, str], list[tuple[str, Formula]]] = {
    ("fc", "y"): [
        ("the bias b is missing", lambda x, w, b: w @ x),
        ("the bias b is subtracted", lambda x, w, b: w @ x - b),
        ("w x is subtracted", lambda x, w, b: b - w @ x),
        ("the bias b is added twice", lambda x, w, b: w @ x + 2 * b),
        ("w is transposed: it is y = w x + b", lambda x, w, b: w.T @ x + b),
        ("w * x multiplies entry by entry: the matrix product is w @ x", lambda x, w, b: w * x + b),
        (_FLAT_SUM, lambda x, w, b: (w @ x).ravel() + b),
        (_FLAT_SUM, lambda x, w, b: w @ x + b.ravel()),
        ("the bias is added once for each input", lambda x, w, b: w @ x + len(x) * b),
        ("the result of w x is overwritten by what is added", lambda x, w, b: b),
    ],
    ("fc_backward", "dl_dx"): [
        ("w is transposed: dl_dx = w.T @ dl_dy", lambda dl_dy, x, w, b: w @ dl_dy),
        ("w is missing: dl_dx = w.T @ dl_dy", lambda dl_dy, x, w, b: dl_dy),
        ("dl_dy is missing: dl_dx = w.T @ dl_dy", lambda dl_dy, x, w, b: w.sum(0)[:, None]),
        (
            "a row is returned where the column (m, 1) is due",
            lambda dl_dy, x, w, b: dl_dy.T @ w,
        ),
        ("the sum over the outputs is missing", lambda dl_dy, x, w, b: w.T * dl_dy.T),
    ],
    ("fc_backward", "dl_dw"): [
        ("it is transposed: dl_dw = dl_dy @ x.T", lambda dl_dy, x, w, b: x @ dl_dy.T),
        (
            "dl_dy is missing: dl_dw = dl_dy @ x.T",
            lambda dl_dy, x, w, b: np.ones_like(dl_dy) @ x.T,
        ),
        ("x is missing: dl_dw = dl_dy @ x.T", lambda dl_dy, x, w, b: dl_dy @ np.ones_like(x.T)),
        ("w stands where x belongs: dl_dw = dl_dy @ x.T", lambda dl_dy, x, w, b: dl_dy * w),
        ("an inner product in place of the outer one", lambda dl_dy, x, w, b: dl_dy.T @ x),
    ],
    ("fc_backward", "dl_db"): [
        ("it is dl_dy itself: dy/db is 1", lambda dl_dy, x, w, b: np.ones_like(dl_dy)),
        ("it is dl_dy, not multiplied by b", lambda dl_dy, x, w, b: dl_dy * b),
        ("it is dl_dy, not its sum over the outputs", lambda dl_dy, x, w, b: dl_dy.sum()),
        (
            "it is dl_dy, not its sum over the outputs",
            lambda dl_dy, x, w, b: dl_dy.sum(keepdims=True),
        ),
        ("it is dl_dy, not b", lambda dl_dy, x, w, b: b),
    ],
    ("relu", "y"): [
        *((_LEAK, _leak_y(slope)) for slope in _LEAKS),
        ("this is the absolute value: below 0 it is 0", lambda x: np.abs(x)),
        ("the comparison is the wrong way round", lambda x: np.minimum(x, 0)),
        ("the comparison is the wrong way round", lambda x: np.maximum(-x, 0)),
        ("it returns where x > 0, not x there", lambda x: (x > 0) * 1.0),
        ("it returns x as it is", lambda x: x),
        (
            "np.max takes the one largest entry: np.maximum compares entry by entry",
            lambda x: np.max(x),
        ),
        ("this is the sigmoid", _sigmoid),
        ("it is cut off above, too", lambda x: np.clip(x, 0, 1)),
        ("it is cut off above, too", lambda x: np.clip(x, 0, 6)),
    ],
    ("relu_backward", "dl_dx"): [
        *((_LEAK, _leak_dx(slope)) for slope in _LEAKS),
        (
            "the sign of dl_dy decides what passes: that of x does",
            lambda dl_dy, x: np.where(dl_dy > 0, dl_dy, 0),
        ),
        ("dl_dy is missing: where x > 0 it passes on", lambda dl_dy, x: (x > 0) * 1.0),
        ("x and dl_dy are swapped", lambda dl_dy, x: np.where(dl_dy > 0, x, 0)),
        ("x is passed on where dl_dy is due", lambda dl_dy, x: np.where(x > 0, x, 0)),
        (
            "the ReLU's value stands for its slope, 1",
            lambda dl_dy, x: np.where(x > 0, x, 0) * dl_dy,
        ),
        ("the slope below 0 is 0, not -1", lambda dl_dy, x: np.sign(x) * dl_dy),
        ("x stands for the slope of the ReLU", lambda dl_dy, x: x * dl_dy),
        ("the comparison is the wrong way round", lambda dl_dy, x: np.where(x < 0, dl_dy, 0)),
        ("dl_dy passes everywhere: it is 0 where x is below 0", lambda dl_dy, x: dl_dy),
    ],
    ("loss_cross_entropy_softmax", "l"): [
        ("the minus of -log(p) is missing", lambda x, y: (y * _log_p(x)).sum()),
        ("it is averaged over the classes: it is a sum", lambda x, y: -(y * _log_p(x)).mean()),
        (
            "all classes count: only the labelled one does, -sum(y * log(p))",
            lambda x, y: -_log_p(x).sum(),
        ),
        ("the logarithm is one to base 2", lambda x, y: -(y * _log_p(x)).sum() / np.log(2)),
        ("the logarithm is one to base 10", lambda x, y: -(y * _log_p(x)).sum() / np.log(10)),
        ("the logarithm is missing", lambda x, y: (y * right.softmax(x)).sum()),
        ("the logarithm is missing", lambda x, y: -(y * right.softmax(x)).sum()),
        (
            "the other classes' log(1 - p) counts too: that is the loss of a sigmoid",
            lambda x, y: -(y * _log_p(x) + (1 - y) * np.log(1 - right.softmax(x))).sum(),
        ),
        (
            "the softmax runs along the wrong axis, over single entries: it sums over axis 0",
            lambda x, y: 0.0,
        ),
        (
            "the largest logit is sought along the wrong axis, so that each is taken from itself",
            lambda x, y: np.log(len(x)),
        ),
        (
            "the first class is taken for the labelled one: np.argmax(y) without an axis finds it",
            lambda x, y: -_log_p(x)[0, 0],
        ),
        ("the exp is missing from the softmax", lambda x, y: -(y * np.log(x / x.sum())).sum()),
        ("this is the Euclidean loss", lambda x, y: ((right.softmax(x) - y) ** 2).sum()),
        (
            "it is not summed over the classes to one number",
            lambda x, y: -y * _log_p(x),
        ),
        ("x and y are swapped", lambda x, y: -(x * _log_p(y)).sum()),
    ],
    ("loss_cross_entropy_softmax", "dl_dx"): [
        ("the label is missing: dl_dx = p - y", lambda x, y: right.softmax(x)),
        ("it is the other way round: dl_dx = p - y", lambda x, y: y - right.softmax(x)),
        (
            "it is averaged over the classes: dl_dx = p - y",
            lambda x, y: (right.softmax(x) - y) / len(x),
        ),
        (
            "it is the gradient with respect to p: the softmax's own is missing, dl_dx = p - y",
            lambda x, y: -y / right.softmax(x),
        ),
        (_SATURATED, _through_p),
        ("the softmax is missing: dl_dx = p - y", lambda x, y: x - y),
        (
            "the softmax runs along the wrong axis, over single entries: it sums over axis 0",
            lambda x, y: 1.0 - y,
        ),
        ("a sigmoid stands where the softmax belongs", lambda x, y: _sigmoid(x) - y),
        (
            "only the labelled entry has a gradient here: all of p - y counts",
            lambda x, y: y * (right.softmax(x) - y),
        ),
        ("x and y are swapped", lambda x, y: right.softmax(y) - x),
    ],
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
    ("flattening_backward", "dl_dx"): [
        (_TWO_ORDERS, lambda dl_dy, x: dl_dy.reshape(x.shape, order="F")),
        (_TWO_ORDERS, lambda dl_dy, x: dl_dy.reshape(x.shape)),
    ],
    ("infer_mlp", "y"): [
        ("the ReLU is missing", lambda x, w1, b1, w2, b2: _top(w2 @ (w1 @ x + b1) + b2)),
        ("the biases are missing", lambda x, w1, b1, w2, b2: _top(w2 @ right.relu(w1 @ x))),
        (
            "the class of the smallest score is taken",
            lambda **given: _top(-right.mlp_logits(**given)),
        ),
        (_RELU_LAST, lambda **given: _top(right.relu(right.mlp_logits(**given)))),
        (_OFF_BY_ONE, lambda **given: right.infer_mlp(**given) + 1),
    ],
    ("infer_cnn", "y"): [
        (
            "the ReLU is missing",
            lambda x, w_conv, b_conv, w_fc, b_fc: _top(
                w_fc @ right.flattening(right.pool2x2(right.conv(x, w_conv, b_conv))) + b_fc
            ),
        ),
        (
            "the image is transposed",
            lambda x, **weights: _top(right.cnn_logits(x.swapaxes(0, 1), **weights)),
        ),
        (
            "the image is flattened down its columns: the handout goes along the rows",
            lambda **given: _top(right.cnn_logits(**given, order="F")),
        ),
        (
            "the class of the smallest score is taken",
            lambda **given: _top(-right.cnn_logits(**given)),
        ),
        (_RELU_LAST, lambda **given: _top(right.relu(right.cnn_logits(**given)))),
        (_OFF_BY_ONE, lambda **given: right.infer_cnn(**given) + 1),
    ],
}
