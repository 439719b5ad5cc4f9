"""The handout's functions once more, to compare with: none of them is ``hw5.py``'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Order = Literal["C", "F"]
Gradients = Callable[[Array, Array, Sequence[Array]], tuple[float, list[Array]]]


def fc(x: Array, w: Array, b: Array) -> Array:
    """``w x + b``."""
    y: Array = w @ x + b
    return y


def fc_backward(dl_dy: Array, x: Array, w: Array, b: Array) -> tuple[Array, ...]:
    """Gradients of :func:`fc`."""
    return w.T @ dl_dy, dl_dy @ x.T, dl_dy.copy()


def relu(x: Array) -> Array:
    """The positive part."""
    return np.where(x > 0, x, 0.0)


def relu_backward(dl_dy: Array, x: Array) -> Array:
    """``dl_dy`` where ``x`` is positive."""
    return np.where(x > 0, dl_dy, 0.0)


def softmax(x: Array) -> Array:
    """Probabilities of a column of logits."""
    exp = np.exp(x - x.max())
    p: Array = exp / exp.sum()
    return p


def loss_cross_entropy_softmax(x: Array, y: Array) -> tuple[float, Array]:
    """Cross-entropy of the softmax of one column, and its gradient."""
    log_total = x.max() + np.log(np.exp(x - x.max()).sum())
    return float((y * (log_total - x)).sum()), softmax(x) - y


def padded(x: Array, w_conv: Array) -> Array:
    """The image with the zeros around that keep its size under the filter."""
    rows, columns = w_conv.shape[0] // 2, w_conv.shape[1] // 2
    return np.pad(x, ((rows, rows), (columns, columns), (0, 0)))


def slide(around: Array, w_conv: Array) -> Array:
    """Correlation of a padded image with each filter."""
    h, w = w_conv.shape[:2]
    views = np.lib.stride_tricks.sliding_window_view(around, (h, w), axis=(0, 1))
    y: Array = np.einsum("rcaij,ijab->rcb", views, w_conv)
    return y


def conv(x: Array, w_conv: Array, b_conv: Array) -> Array:
    """Correlation with each filter, zeros around, plus its bias."""
    return slide(padded(x, w_conv), w_conv) + b_conv[:, 0]


def gather(around: Array, dl_dy: Array) -> Array:
    """Gradient of the filters of :func:`slide`."""
    views = np.lib.stride_tricks.sliding_window_view(around, dl_dy.shape[:2], axis=(0, 1))
    dl_dw: Array = np.einsum("ijarc,rcb->ijab", views, dl_dy)
    return dl_dw


def conv_backward(dl_dy: Array, x: Array, w_conv: Array, b_conv: Array) -> tuple[Array, Array]:
    """Gradients of :func:`conv` with respect to the filters and biases."""
    return gather(padded(x, w_conv), dl_dy), dl_dy.sum(axis=(0, 1))[:, np.newaxis]


def windows(x: Array) -> Array:
    """The 2x2 windows of an image as (H/2, W/2, C, 4), each row by row."""
    height, width, channels = x.shape
    tiles = x.reshape(height // 2, 2, width // 2, 2, channels)
    return tiles.transpose(0, 2, 4, 1, 3).reshape(height // 2, width // 2, channels, 4)


def from_windows(tiles: Array) -> Array:
    """Undo :func:`windows`."""
    rows, columns, channels, _ = tiles.shape
    square = tiles.reshape(rows, columns, channels, 2, 2).transpose(0, 3, 1, 4, 2)
    return square.reshape(2 * rows, 2 * columns, channels)


def pool2x2(x: Array) -> Array:
    """Largest entry of each window."""
    y: Array = windows(x).max(axis=-1)
    return y


def pool2x2_backward(dl_dy: Array, x: Array) -> Array:
    """Each window's gradient to its first largest entry."""
    winner = np.eye(4, dtype=bool)[windows(x).argmax(axis=-1)]
    # A product would make zeros with a sign, which look odd where the result is shown.
    return from_windows(np.where(winner, dl_dy[..., np.newaxis], 0.0))


def flattening(x: Array, order: Order = "C") -> Array:
    """An image as a column, row by row."""
    return x.reshape((-1, 1), order=order)


def flattening_backward(dl_dy: Array, x: Array, order: Order = "C") -> Array:
    """The column in the shape of the image."""
    return dl_dy.reshape(x.shape, order=order)


def mlp_logits(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    """The network of part 1 on one image."""
    return fc(relu(fc(x, w1, b1)), w2, b2)


def cnn_logits(
    x: Array, w_conv: Array, b_conv: Array, w_fc: Array, b_fc: Array, order: Order = "C"
) -> Array:
    """The network of part 2 on one image."""
    pooled = pool2x2(relu(conv(x, w_conv, b_conv)))
    return fc(flattening(pooled, order), w_fc, b_fc)


def infer_mlp(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> int:
    """The class by :func:`mlp_logits`."""
    return int(mlp_logits(x, w1, b1, w2, b2).argmax())


def infer_cnn(
    x: Array, w_conv: Array, b_conv: Array, w_fc: Array, b_fc: Array, order: Order = "C"
) -> int:
    """The class by :func:`cnn_logits`."""
    return int(cnn_logits(x, w_conv, b_conv, w_fc, b_fc, order).argmax())


def _through_relu(dl_dy: Array, x: Array, mistake: str) -> Array:
    """``relu_backward``, or what stands in its place."""
    if mistake == "relu_backward":
        return dl_dy
    return relu_backward(x, dl_dy) if mistake == "swapped" else relu_backward(dl_dy, x)


def mlp_gradients(
    x: Array, y: Array, weights: Sequence[Array], *, mistake: str = ""
) -> tuple[float, list[Array]]:
    """Loss and gradients of the network of part 1 for one image.

    The mistake is ``"relu"`` or ``"relu_backward"``, which is missing, or ``"swapped"``, of the
    latter's arguments.
    """
    w1, b1, w2, b2 = weights
    a = fc(x, w1, b1)
    h = a if mistake == "relu" else relu(a)
    loss, dl_dy = loss_cross_entropy_softmax(fc(h, w2, b2), y)
    dl_dh, dl_dw2, dl_db2 = fc_backward(dl_dy, h, w2, b2)
    _, dl_dw1, dl_db1 = fc_backward(_through_relu(dl_dh, a, mistake), x, w1, b1)
    return loss, [dl_dw1, dl_db1, dl_dw2, dl_db2]


def cnn_gradients(
    x: Array,
    y: Array,
    weights: Sequence[Array],
    *,
    mistake: str = "",
    image_order: Order = "C",
    order: Order = "C",
) -> tuple[float, list[Array]]:
    """Loss and gradients of the network of part 2 for one image; see :func:`mlp_gradients`.

    The orders are those in which a column becomes an image and an image a column.
    """
    w_conv, b_conv, w_fc, b_fc = weights
    image = x.reshape((14, 14, 1), order=image_order)
    a = conv(image, w_conv, b_conv)
    h = a if mistake == "relu" else relu(a)
    p = pool2x2(h)
    f = flattening(p, order)
    loss, dl_dy = loss_cross_entropy_softmax(fc(f, w_fc, b_fc), y)
    dl_df, dl_dw_fc, dl_db_fc = fc_backward(dl_dy, f, w_fc, b_fc)
    dl_dh = pool2x2_backward(flattening_backward(dl_df, p, order), h)
    dl_da = _through_relu(dl_dh, a, mistake)
    return loss, [*conv_backward(dl_da, image, w_conv, b_conv), dl_dw_fc, dl_db_fc]


def train(
    gradients: Gradients,
    start: Sequence[Array],
    batches: Sequence[tuple[Array, Array]],
    learning_rate: float,
    num_iters: int,
    *,
    averaged: bool = True,
    last_image_only: bool = False,
    carried_over: bool = False,
) -> list[Array]:
    """Algorithm 1 from given weights, too short for the learning rate to decay.

    The keywords are for the mistakes that can be made in it.
    """
    weights = [w.copy() for w in start]
    sums: list[Array] = [np.zeros(w.shape) for w in weights]
    for step in range(num_iters):
        x, y = batches[step % len(batches)]
        size = x.shape[1]
        if not carried_over:
            sums = [0.0 * total for total in sums]
        for n in range(size):
            _, parts = gradients(x[:, [n]], y[:, [n]], weights)
            if last_image_only:
                sums = parts
            else:
                sums = [total + part for total, part in zip(sums, parts, strict=True)]
        for w, total in zip(weights, sums, strict=True):
            w -= learning_rate / (size if averaged else 1) * total
    return weights
