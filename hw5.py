"""Neural networks for 14x14 digits in plain NumPy: an MLP and a CNN, with hand-written gradients.

The ten functions of the handout come first, in the order in which a network uses them. Behind them
stand the two training loops (Algorithm 1: mini-batch SGD), then the pipeline around them, then the
kernels that the ten functions share (windows, convolution, pooling), how freed memory is kept, the
checks of arguments, and last the assignment itself, which trains both networks.

Shapes follow the handout: one vector is a column (m, 1), one image is (H, W, C). Every function
also takes more than one at a time: columns (m, R) side by side, or images (..., H, W, C) with batch
axes in front. The gradients of weights are then sums over the batch, as in Algorithm 1. Nothing
here changes its arguments, and float32 arguments give float32 results.

Run ``python hw5.py`` beside ``mnist_train.npz`` and ``mnist_test.npz`` to train both networks; it
writes ``mlp.npz``, ``cnn.npz`` and, where matplotlib is installed, the figures of the write-up.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Pair = int | tuple[int, int]
Padding = str | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]

N_CLASSES = 10
IMAGE_SHAPE = (14, 14)


# --- The ten functions of the handout ---------------------------------------------------------


def get_mini_batch(
    im_train: Array,
    label_train: Array,
    batch_size: int,
    *,
    rng: int | np.random.Generator | None = None,
) -> tuple[list[Array], list[Array]]:
    """Split the training set into randomly permuted mini-batches.

    Parameters
    ----------
    im_train : array, shape (196, N)
        One image a column.
    label_train : array of int, shape (1, N)
        Classes 0 to 9.
    batch_size : int
        Images in a batch, at least 1. The last batch holds what is left over.
    rng : None, int or numpy.random.Generator
        Source of the permutation.

    Returns
    -------
    mini_batch_x : list of arrays, shape (196, batch_size)
    mini_batch_y : list of arrays, shape (10, batch_size)
        One-hot labels, float64.

    Raises
    ------
    ValueError
        If a shape is wrong, the set is empty, a label is not a class or ``batch_size`` is not a
        whole number of at least 1.

    Examples
    --------
    >>> x, y = get_mini_batch(np.ones((196, 5)), np.array([[3, 1, 4, 1, 5]]), 2, rng=0)
    >>> [b.shape for b in x], y[0].shape
    ([(196, 2), (196, 2), (196, 1)], (10, 2))
    """
    op = "get_mini_batch"
    im_train, label_train = _arrays(op, im_train=im_train, label_train=label_train)
    if im_train.ndim != 2:
        raise ValueError(
            f"{op}: im_train has the shape {im_train.shape}; want (196, N), one image a column: "
            "use im_train.reshape((-1, 196)).T"
        )
    n = im_train.shape[1]
    if n == 0:
        raise ValueError(f"{op}: the training set is empty; want at least one image")
    if label_train.shape != (1, n):
        transposed = label_train.shape == (n, 1)
        raise ValueError(
            f"{op}: label_train has the shape {label_train.shape} and im_train {im_train.shape}, "
            f"that is {n} images; want labels (1, {n}){': use label_train.T' if transposed else ''}"
        )
    _check_whole(op, "batch_size", batch_size)
    one_hot = _one_hot(op, label_train.ravel())
    order = np.random.default_rng(rng).permutation(n)
    parts = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    return [im_train[:, part] for part in parts], [one_hot[:, part] for part in parts]


def fc(x: Array, w: Array, b: Array) -> Array:
    """Fully connected layer ``y = w x + b``.

    Parameters
    ----------
    x : array, shape (m, 1) or (m, R)
    w : array, shape (n, m)
    b : array, shape (n, 1)

    Returns
    -------
    y : array, shape (n, 1) or (n, R)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> fc(np.ones((3, 1)), np.eye(2, 3), np.zeros((2, 1)))
    array([[1.],
           [1.]])
    """
    x, w, b = _arrays("fc", x=x, w=w, b=b)
    _check_fc("fc", x, w, b)
    return w @ x + b


def fc_backward(dl_dy: Array, x: Array, w: Array, b: Array) -> tuple[Array, Array, Array]:
    """Gradients of :func:`fc`; those of ``w`` and ``b`` are summed over the columns.

    Parameters
    ----------
    dl_dy : array, shape (n, 1) or (n, R)
    x, w, b : arrays
        The arguments of :func:`fc`.

    Returns
    -------
    dl_dx : array, shape (m, 1) or (m, R)
    dl_dw : array, shape (n, m)
    dl_db : array, shape (n, 1)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> dx, dw, db = fc_backward(np.ones((2, 1)), np.ones((3, 1)), np.eye(2, 3), np.ones((2, 1)))
    >>> dx.ravel()
    array([1., 1., 0.])
    """
    op = "fc_backward"
    dl_dy, x, w, b = _arrays(op, dl_dy=dl_dy, x=x, w=w, b=b)
    _check_fc(op, x, w, b)
    _check_same(op, "dl_dy", dl_dy.shape, (w.shape[0], x.shape[1]))
    return w.T @ dl_dy, dl_dy @ x.T, dl_dy.sum(axis=1, keepdims=True)


def relu(x: Array) -> Array:
    """Rectified linear unit ``max(0, x)``, element by element, for any shape.

    Examples
    --------
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    (x,) = _arrays("relu", x=x)
    if AVX512 or x.size < MANY or x.dtype.kind != "f":
        return np.maximum(x, 0)
    # With an array NumPy may take a third of the time that it takes with a number.
    y = np.empty_like(x, dtype=x.dtype.newbyteorder("="))
    y.fill(0)
    return np.maximum(x, y, out=y)


def relu_backward(dl_dy: Array, x: Array) -> Array:
    """Gradient of :func:`relu`: ``dl_dy`` where ``x > 0``, else 0 (at the kink too).

    Examples
    --------
    >>> relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 5.])
    """
    dl_dy, x = _arrays("relu_backward", dl_dy=dl_dy, x=x)
    _check_same("relu_backward", "dl_dy", dl_dy.shape, x.shape)
    return masked(dl_dy, x > 0)


def loss_cross_entropy_softmax(x: Array, y: Array) -> tuple[float, Array]:
    """Cross-entropy of softmax(x) against the target ``y``, and its gradient.

    The largest logit of each column is subtracted first, so that nothing overflows
    (Goodfellow, Bengio and Courville, Deep Learning, section 4.1).

    Parameters
    ----------
    x : array, shape (m, 1) or (m, R)
        Logits.
    y : array, shape (m, 1) or (m, R)
        Target distribution of each column, as a rule one-hot.

    Returns
    -------
    l : float
        The loss, summed over the columns.
    dl_dx : array, shape of ``x``

    Raises
    ------
    ValueError
        If the shapes differ or are not columns.

    Examples
    --------
    >>> l, dl_dx = loss_cross_entropy_softmax(np.array([[1000.0], [0.0]]), np.array([[0.0], [1.0]]))
    >>> print(l, dl_dx.ravel())
    1000.0 [ 1. -1.]
    """
    op = "loss_cross_entropy_softmax"
    x, y = _arrays(op, x=x, y=y)
    _check_column(op, "x", x)
    _check_same(op, "y", y.shape, x.shape)
    if x.dtype.kind != "f":
        # A difference of small or unsigned integers would wrap around.
        x = x.astype(float)
    shifted = x - x.max(axis=0)
    exp = np.exp(shifted)
    total = exp.sum(axis=0)
    weight = y.sum(axis=0)
    # A logit of -inf has probability 0: it costs nothing where the target does not want it.
    finite = np.where(y == 0, 0, shifted)
    loss = weight @ np.log(total) - np.vdot(y, finite)
    exp *= weight / total
    exp -= y
    return loss, exp


def conv(
    x: Array, w_conv: Array, b_conv: Array, *, stride: Pair = 1, padding: Padding = "same"
) -> Array:
    """Convolution layer: correlate ``x`` with every filter and add its bias.

    Parameters
    ----------
    x : array, shape (..., H, W, C1)
    w_conv : array, shape (h, w, C1, C2)
    b_conv : array, shape (C2, 1)
    stride : int or (int, int)
        Rows and columns from one window to the next.
    padding : "same", "valid", int, (rows, columns) or ((top, bottom), (left, right))
        Zeros around the image. "same" gives an output of size H / stride, rounded up; an odd zero
        goes to the bottom and right.

    Returns
    -------
    y : array, shape (..., H', W', C2)
        (..., H, W, C2) with the default stride and padding.

    Raises
    ------
    ValueError
        If the shapes do not fit or the filter is larger than the padded image.

    Examples
    --------
    >>> conv(np.ones((3, 4, 1)), np.ones((3, 3, 1, 1)), np.zeros((1, 1)))[..., 0]
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]])
    """
    x, w_conv, b_conv = _arrays("conv", x=x, w_conv=w_conv, b_conv=b_conv)
    _check_conv("conv", x, w_conv, b_conv)
    return correlate(x, w_conv, stride=stride, padding=padding) + b_conv[:, 0]


def conv_backward(
    dl_dy: Array,
    x: Array,
    w_conv: Array,
    b_conv: Array,
    *,
    stride: Pair = 1,
    padding: Padding = "same",
) -> tuple[Array, Array]:
    """Gradients of :func:`conv` with respect to its weights, summed over the batch axes.

    The gradient with respect to the image is :func:`correlate_dx`.

    Parameters
    ----------
    dl_dy : array, shape (..., H', W', C2)
    x, w_conv, b_conv, stride, padding
        The arguments of :func:`conv`.

    Returns
    -------
    dl_dw : array, shape (h, w, C1, C2)
    dl_db : array, shape (C2, 1)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> x, w, b = np.ones((3, 3, 1)), np.ones((3, 3, 1, 1)), np.zeros((1, 1))
    >>> dl_dw, dl_db = conv_backward(np.ones((3, 3, 1)), x, w, b)
    >>> dl_dw[1, 1, 0, 0], dl_db[0, 0]
    (np.float64(9.0), np.float64(9.0))
    """
    op = "conv_backward"
    dl_dy, x, w_conv, b_conv = _arrays(op, dl_dy=dl_dy, x=x, w_conv=w_conv, b_conv=b_conv)
    _check_conv(op, x, w_conv, b_conv)
    size = w_conv.shape[:2]
    window = windows_on(x.shape, size, stride, padding)
    _check_same(op, "dl_dy", dl_dy.shape, (*x.shape[:-3], *window.out, w_conv.shape[3]))
    dl_dw = correlate_dw(dl_dy, x, size=size, stride=stride, padding=padding)
    dl_db = dl_dy.sum(axis=tuple(range(dl_dy.ndim - 1)))
    return dl_dw, dl_db[:, np.newaxis]


def pool2x2(x: Array, *, size: Pair = 2) -> Array:
    """Max-pooling over windows that tile the image.

    Parameters
    ----------
    x : array, shape (..., H, W, C)
        H and W even (multiples of ``size``).
    size : int or (int, int)
        Rows and columns of a window, and the stride.

    Returns
    -------
    y : array, shape (..., H/2, W/2, C)

    Raises
    ------
    ValueError
        If the windows do not tile the image.

    Examples
    --------
    >>> pool2x2(np.arange(16.0).reshape(4, 4, 1))[..., 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    (x,) = _arrays("pool2x2", x=x)
    _check_tiles("pool2x2", x, size)
    return max_pool(x, size=size)


def pool2x2_backward(dl_dy: Array, x: Array, *, size: Pair = 2) -> Array:
    """Gradient of :func:`pool2x2`: each window's goes to its maximum, to the first of equal ones.

    Parameters
    ----------
    dl_dy : array, shape (..., H/2, W/2, C)
    x : array, shape (..., H, W, C)
    size : int or (int, int)
        As in :func:`pool2x2`.

    Returns
    -------
    dl_dx : array, shape (..., H, W, C)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> pool2x2_backward(np.array([[[7.0]]]), np.zeros((2, 2, 1)))[..., 0]
    array([[7., 0.],
           [0., 0.]])
    """
    op = "pool2x2_backward"
    dl_dy, x = _arrays(op, dl_dy=dl_dy, x=x)
    rows, columns = _check_tiles(op, x, size)
    pooled = (*x.shape[:-3], x.shape[-3] // rows, x.shape[-2] // columns, x.shape[-1])
    _check_same(op, "dl_dy", dl_dy.shape, pooled)
    return max_pool_dx(dl_dy, x, size=size)


# --- The rest of the two networks -------------------------------------------------------------


def flattening(x: Array) -> Array:
    """Turn an image (H, W, C) into a column (H*W*C, 1), row-major.

    Examples
    --------
    >>> flattening(np.zeros((7, 7, 3))).shape
    (147, 1)
    """
    (x,) = _arrays("flattening", x=x)
    return x.reshape(-1, 1).copy()


def flattening_backward(dl_dy: Array, x: Array) -> Array:
    """Gradient of :func:`flattening`: the column (H*W*C, 1) in the shape of ``x``.

    Examples
    --------
    >>> flattening_backward(np.zeros((147, 1)), np.zeros((7, 7, 3))).shape
    (7, 7, 3)
    """
    dl_dy, x = _arrays("flattening_backward", dl_dy=dl_dy, x=x)
    _check_same("flattening_backward", "dl_dy", dl_dy.shape, (x.size, 1))
    return dl_dy.reshape(x.shape).copy()


def train_mlp(
    mini_batch_x: Sequence[Array],
    mini_batch_y: Sequence[Array],
    learning_rate: float = 0.1,
    decay_rate: float = 0.95,
    num_iters: int = 10000,
    *,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> tuple[Array, Array, Array, Array, Array]:
    """Train 196 -> FC 30 -> ReLU -> FC 10 -> softmax by Algorithm 1.

    Parameters
    ----------
    mini_batch_x, mini_batch_y : lists of arrays, shapes (196, R) and (10, R)
        As :func:`get_mini_batch` returns them.
    learning_rate : float
    decay_rate : float
        Factor in (0, 1] on the learning rate at every 1000th iteration.
    num_iters : int
    rng : None, int or numpy.random.Generator
        Source of the initial weights.
    progress : bool
        Show a progress bar on a terminal, where tqdm is installed.

    Returns
    -------
    w1, b1, w2, b2 : arrays, shapes (30, 196), (30, 1), (10, 30), (10, 1)
    losses : array, shape (num_iters, 1)
        Mean loss of each iteration's mini-batch.

    Raises
    ------
    ValueError
        If there are no batches, their shapes do not fit, a setting is out of range or the loss is
        no longer finite.

    Examples
    --------
    >>> x, y = get_mini_batch(np.eye(196, 20), np.arange(20)[np.newaxis] % 10, 10, rng=0)
    >>> w1, b1, w2, b2, losses = train_mlp(x, y, num_iters=50, rng=0)
    >>> bool(losses[-1] < losses[0])
    True
    """
    batches = _batches("train_mlp", mini_batch_x, mini_batch_y)
    rng = np.random.default_rng(rng)
    w1, b1 = _gaussian(rng, (30, 196), fan_in=196), np.zeros((30, 1))
    w2, b2 = _gaussian(rng, (10, 30), fan_in=30), np.zeros((10, 1))

    def gradients(x: Array, y: Array) -> tuple[float, tuple[Array, ...]]:
        a = fc(x, w1, b1)
        h = relu(a)
        loss, dl_dy = loss_cross_entropy_softmax(fc(h, w2, b2), y)
        dl_dh, dl_dw2, dl_db2 = fc_backward(dl_dy, h, w2, b2)
        # Not fc_backward: nobody wants the gradient of the images.
        dl_da = relu_backward(dl_dh, a)
        return loss, (dl_da @ x.T, dl_da.sum(axis=1, keepdims=True), dl_dw2, dl_db2)

    losses = _sgd(
        "MLP",
        gradients,
        (w1, b1, w2, b2),
        batches,
        learning_rate=learning_rate,
        decay_rate=decay_rate,
        num_iters=num_iters,
        progress=progress,
    )
    return w1, b1, w2, b2, losses


def infer_mlp(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> int:
    """Class of one image (196, 1) by the network of :func:`train_mlp`.

    Examples
    --------
    >>> w1, b1, w2, b2 = np.eye(30, 196), np.zeros((30, 1)), np.eye(10, 30), np.zeros((10, 1))
    >>> infer_mlp(np.eye(196)[:, 3:4], w1, b1, w2, b2)
    3
    """
    return _one_class("infer_mlp", fc(relu(fc(x, w1, b1)), w2, b2))


def train_cnn(
    mini_batch_x: Sequence[Array],
    mini_batch_y: Sequence[Array],
    learning_rate: float = 0.05,
    decay_rate: float = 0.95,
    num_iters: int = 10000,
    *,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> tuple[Array, Array, Array, Array, Array]:
    """Train conv 3x3 to 3 channels -> ReLU -> pool 2x2 -> FC 10 -> softmax by Algorithm 1.

    Parameters
    ----------
    mini_batch_x, mini_batch_y : lists of arrays, shapes (196, R) and (10, R)
        As :func:`get_mini_batch` returns them.
    learning_rate, decay_rate, num_iters, rng, progress
        As in :func:`train_mlp`.

    Returns
    -------
    w_conv, b_conv, w_fc, b_fc : arrays, shapes (3, 3, 1, 3), (3, 1), (10, 147), (10, 1)
    losses : array, shape (num_iters, 1)
        Mean loss of each iteration's mini-batch.

    Raises
    ------
    ValueError
        If there are no batches, their shapes do not fit, a setting is out of range or the loss is
        no longer finite.

    Examples
    --------
    >>> x, y = get_mini_batch(np.eye(196, 20), np.arange(20)[np.newaxis] % 10, 10, rng=0)
    >>> w_conv, b_conv, w_fc, b_fc, losses = train_cnn(x, y, num_iters=50, rng=0)
    >>> bool(losses[-1] < losses[0])
    True
    """
    batches = [
        (x.T.reshape(-1, *IMAGE_SHAPE, 1), y)
        for x, y in _batches("train_cnn", mini_batch_x, mini_batch_y)
    ]
    rng = np.random.default_rng(rng)
    w_conv, b_conv = _gaussian(rng, (3, 3, 1, 3), fan_in=9), np.zeros((3, 1))
    w_fc, b_fc = _gaussian(rng, (10, 147), fan_in=147), np.zeros((10, 1))

    def gradients(x: Array, y: Array) -> tuple[float, tuple[Array, ...]]:
        # conv and pool2x2 with their gradients, which share the patches and the pooled entries.
        taps = patches(x, size=(3, 3))
        a = correlate(x, w_conv, taps=taps)
        a += b_conv[:, 0]
        # The ReLU is monotone: behind the pooling it gives the same values and gradients as before
        # it, on a quarter of the entries.
        p = max_pool(a)
        f = relu(p).transpose(1, 2, 3, 0).reshape(-1, len(p))
        loss, dl_dy = loss_cross_entropy_softmax(fc(f, w_fc, b_fc), y)
        dl_df, dl_dw_fc, dl_db_fc = fc_backward(dl_dy, f, w_fc, b_fc)
        dl_dp = relu_backward(dl_df.T.reshape(p.shape), p)
        dl_da = max_pool_dx(dl_dp, a, p)
        dl_dw = correlate_dw(dl_da, x, size=(3, 3), taps=taps)
        return loss, (dl_dw, dl_da.sum(axis=(0, 1, 2))[:, np.newaxis], dl_dw_fc, dl_db_fc)

    losses = _sgd(
        "CNN",
        gradients,
        (w_conv, b_conv, w_fc, b_fc),
        batches,
        learning_rate=learning_rate,
        decay_rate=decay_rate,
        num_iters=num_iters,
        progress=progress,
    )
    return w_conv, b_conv, w_fc, b_fc, losses


def infer_cnn(x: Array, w_conv: Array, b_conv: Array, w_fc: Array, b_fc: Array) -> int:
    """Class of one image (14, 14, 1) by the network of :func:`train_cnn`.

    Examples
    --------
    >>> w_conv, b_conv = np.zeros((3, 3, 1, 3)), np.zeros((3, 1))
    >>> w_fc, b_fc = np.zeros((10, 147)), np.eye(10)[:, 4:5]
    >>> infer_cnn(np.ones((14, 14, 1)), w_conv, b_conv, w_fc, b_fc)
    4
    """
    features = flattening(pool2x2(relu(conv(x, w_conv, b_conv))))
    return _one_class("infer_cnn", fc(features, w_fc, b_fc))


def _sgd(
    name: str,
    gradients: Callable[[Array, Array], tuple[float, tuple[Array, ...]]],
    weights: tuple[Array, ...],
    batches: list[tuple[Array, Array]],
    *,
    learning_rate: float,
    decay_rate: float,
    num_iters: int,
    progress: bool,
) -> Array:
    """Algorithm 1 of the handout: update ``weights`` in place and return the losses."""
    op = f"train_{name.lower()}"
    if not (isinstance(learning_rate, Real) and 0 < learning_rate < np.inf):
        raise ValueError(f"{op}: learning_rate is {learning_rate!r}; want a number above 0")
    if not (isinstance(decay_rate, Real) and 0 < decay_rate <= 1):
        raise ValueError(f"{op}: decay_rate is {decay_rate!r}; want in (0, 1]")
    _check_whole(op, "num_iters", num_iters)
    keep_freed_memory()
    losses = np.empty((num_iters, 1))
    for i in _progress_bar(range(num_iters), name, show=progress):
        if i > 0 and i % 1000 == 0:
            learning_rate *= decay_rate
        x, y = batches[i % len(batches)]
        loss, grads = gradients(x, y)
        for w, g in zip(weights, grads, strict=True):
            g *= learning_rate / y.shape[1]
            w -= g
        losses[i] = loss / y.shape[1]
        if not np.isfinite(loss):
            raise ValueError(
                f"{op}: the loss of iteration {i + 1} is {loss}; use a learning_rate below "
                f"{learning_rate:g}, or look for NaN among the images"
            )
    return losses


def _gaussian(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Array:
    # Unit variance saturates the softmax at the first step; He et al. (2015), section 2.2, keeps
    # the signal's variance through ReLU layers.
    return rng.normal(0.0, np.sqrt(2 / fan_in), shape)


def _one_class(op: str, logits: Array) -> int:
    if logits.shape[1] != 1:
        raise ValueError(f"{op}: got {logits.shape[1]} images; want one at a time")
    if np.isnan(logits).any():
        raise ValueError(f"{op}: the logits are NaN; look for NaN in the image and the weights")
    return int(np.argmax(logits))


def _progress_bar(steps: Iterable[int], name: str, *, show: bool) -> Iterable[int]:
    if not show:
        return steps
    try:
        from tqdm import tqdm
    except ImportError:
        return steps
    bar: Iterable[int] = tqdm(steps, desc=f"training the {name}", disable=None)
    return bar


# --- Data, evaluation, figures ----------------------------------------------------------------


def get_MNIST_data(resource_dir: str | Path) -> tuple[Array, Array, Array, Array, list[str]]:
    """Read the course's data.

    Parameters
    ----------
    resource_dir : str or Path
        The folder that holds ``mnist_train.npz`` and ``mnist_test.npz``, each with the images
        ``img`` (N, 14, 14) and the labels ``label`` (N, 1), both uint8.

    Returns
    -------
    image_train, label_train, image_test, label_test : arrays of uint8
    label_classes : list of str
        The names of the ten classes.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, lacks a key or holds other shapes.
    """
    train = _read_digits(Path(resource_dir) / "mnist_train.npz")
    test = _read_digits(Path(resource_dir) / "mnist_test.npz")
    return *train, *test, [str(i) for i in range(N_CLASSES)]


def compute_confusion_matrix_and_accuracy(
    pred: Array, label: Array, n_classes: int
) -> tuple[Array, float]:
    """Confusion matrix and accuracy of predicted classes.

    Parameters
    ----------
    pred, label : arrays of int, N entries each, such as (N,) or (N, 1)
    n_classes : int

    Returns
    -------
    confusion : array, shape (n_classes, n_classes)
        Entry (i, j) is the share of all samples that have the true class j and were taken for i.
    accuracy : float
        Share of right predictions, the sum of the diagonal.

    Raises
    ------
    ValueError
        If the sets are empty or of different sizes, or an entry is not a class.

    Examples
    --------
    >>> confusion, accuracy = compute_confusion_matrix_and_accuracy([0, 1, 1, 1], [0, 1, 1, 0], 2)
    >>> confusion
    array([[0.25, 0.  ],
           [0.25, 0.5 ]])
    >>> accuracy
    0.75
    """
    op = "compute_confusion_matrix_and_accuracy"
    pred, label = (array.ravel() for array in _arrays(op, pred=pred, label=label))
    _check_whole(op, "n_classes", n_classes)
    if pred.size == 0 or pred.size != label.size:
        raise ValueError(
            f"{op}: got {pred.size} predictions for {label.size} labels; want as many, at least one"
        )
    for name, classes in (("pred", pred), ("label", label)):
        if np.any((classes < 0) | (classes >= n_classes) | (classes != np.floor(classes))):
            raise ValueError(f"{op}: {name} has entries that are no class; want 0..{n_classes - 1}")
    cell = pred.astype(np.intp) * n_classes + label.astype(np.intp)
    counts = np.bincount(cell, minlength=n_classes**2).reshape(n_classes, n_classes)
    return counts / pred.size, float(np.trace(counts) / pred.size)


def visualize_training_progress(
    losses: Array, num_batches: int, *, title: str = "", path: str | Path | None = None
) -> None:
    """Plot the loss per iteration and the mean loss per epoch side by side (needs matplotlib).

    Parameters
    ----------
    losses : array, shape (num_iters, 1)
    num_batches : int
        Iterations in an epoch.
    title : str
    path : str or Path, optional
        Write the figure there; without it the figure is shown.
    """
    op = "visualize_training_progress"
    (losses,) = (array.ravel() for array in _arrays(op, losses=losses))
    _check_whole(op, "num_batches", num_batches)
    if losses.size == 0:
        raise ValueError(f"{op}: got no losses; want at least one")
    starts = np.arange(0, losses.size, num_batches)
    sizes = np.diff(np.append(starts, losses.size))
    means = np.add.reduceat(losses, starts) / sizes
    with _figure(path, figsize=(9.0, 3.4)) as figure:
        left, right = figure.subplots(1, 2)
        left.set(xlabel="iteration", ylabel="loss", title="Loss per iteration")
        right.set(xlabel="epoch", ylabel="mean loss", title="Loss per epoch")
        for axes, values, colour, width in (
            (left, losses, "tab:blue", 0.5),
            (right, means, "tab:orange", 1.5),
        ):
            # With markers while they can be told apart: a line through one point is not seen.
            marker = "o" if values.size <= 20 else ""
            numbers = np.arange(1, values.size + 1)
            axes.plot(numbers, values, linewidth=width, color=colour, marker=marker, markersize=3)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if values.max() > 0:
                axes.set_yscale("log")
            axes.grid(alpha=0.3, which="both")
        figure.suptitle(title)


def visualize_confusion_matrix(
    confusion: Array,
    accuracy: float,
    label_classes: Sequence[str],
    *,
    title: str = "",
    path: str | Path | None = None,
) -> None:
    """Plot a confusion matrix as percentages of each true class (needs matplotlib).

    Parameters
    ----------
    confusion : array, shape (n, n)
        As :func:`compute_confusion_matrix_and_accuracy` returns it.
    accuracy : float
    label_classes : sequence of n str
    title : str
    path : str or Path, optional
        Write the figure there; without it the figure is shown.
    """
    confusion = np.asarray(confusion)
    n = len(label_classes)
    _check_same("visualize_confusion_matrix", "confusion", confusion.shape, (n, n))
    share = confusion / np.maximum(confusion.sum(axis=0), np.finfo(float).tiny)
    with _figure(path, figsize=(5.6, 5.2)) as figure:
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(n, n):
            if share[i, j] >= 0.0005:
                colour = "white" if share[i, j] > 0.5 else "black"
                text = f"{100 * share[i, j]:.1f}"
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
        axes.set(xlabel="true class", ylabel="predicted class")
        axes.set_xticks(range(n), label_classes)
        axes.set_yticks(range(n), label_classes)
        name = f"{title}: accuracy" if title else "Accuracy"
        axes.set_title(f"{name} {100 * accuracy:.2f} % (cells in % of the true class)", fontsize=10)


@contextlib.contextmanager
def _figure(path: str | Path | None, figsize: tuple[float, float]) -> Iterator[Any]:
    """Give a figure to draw on; then show it, or write it to ``path``."""
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=figsize, layout="constrained")
    try:
        yield figure
        if path is None:
            with warnings.catch_warnings():
                # A backend without a window warns that it cannot show anything.
                warnings.simplefilter("ignore", UserWarning)
                plt.show()
        else:
            path = Path(path)
            # No creation date, so that the same figure has the same bytes.
            meta = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
            with replacing(path) as temporary:
                figure.savefig(temporary, dpi=150, metadata=meta, format=path.suffix[1:] or "png")
    finally:
        plt.close(figure)


def save_weights(path: str | Path, **weights: Array) -> None:
    """Write named arrays as ``.npz``, whole or not at all."""
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        # Without allow_pickle=False, which NumPy 2.0 would write as one more array.
        np.savez(file, **weights)  # type: ignore[arg-type]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to ``path`` once it is written."""
    import tempfile

    with _naming(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
        # mkstemp keeps others out; a result is an ordinary file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        with _naming(path):
            os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error name the path that was asked for, not a temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _read_digits(path: Path) -> tuple[Array, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; put the course's mnist_*.npz there")
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            keys = sorted(archive.files)
            found = {key: archive[key] for key in ("img", "label") if key in keys}
        except Exception as error:  # Damaged bytes raise whatever they happen to spell.
            # NumPy takes all that is no archive for a pickle, and says how to load one.
            reason = "no archive" if "pickled" in str(error) else error
            raise ValueError(
                f"{path}: damaged or not an .npz file ({reason}); fetch it again"
            ) from error
    if len(found) < 2:
        raise ValueError(f"{path}: has the keys {keys}; want 'img' and 'label'")
    image, label = found["img"], found["label"]
    if image.dtype != np.uint8 or image.shape[1:] != IMAGE_SHAPE or image.ndim != 3:
        raise ValueError(f"{path}: img is {image.dtype} {image.shape}; want uint8 (N, 14, 14)")
    if len(image) == 0:
        raise ValueError(f"{path}: holds no images; want at least one")
    if label.shape != (len(image), 1) or label.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: label is {label.dtype} {label.shape}; want integers ({len(image)}, 1)"
        )
    _one_hot(str(path), label.ravel())
    return image, label


# --- Kernels: how images lie, and windows of any size on them ---------------------------------
#
# Inside, an image batch lies as (C, H, W, N) in memory: what moves are long contiguous runs, and
# products of matrices do the arithmetic. The axes are transposed back as a view, which costs
# nothing, and elementwise functions keep the order.


# NumPy knows what the processor has. This file may meet one before 2.0 where it is handed in, which
# has neither that nor np.vecdot.
AVX512: bool = getattr(
    getattr(getattr(np, "_core", None), "_multiarray_umath", None), "__cpu_features__", {}
).get("AVX512_SKX", False)
# From so many entries on, making an array of zeros to compare with pays without AVX-512.
MANY = 4096


class Window:
    """Where the windows of a kernel lie on an image.

    Parameters
    ----------
    shape : tuple of int
        Shape of the images, (..., H, W, C).
    size : int or (int, int)
        Rows and columns of the kernel.
    stride, padding
        As in :func:`conv`.
    dilation : int or (int, int)
        Distance between neighbouring taps of the kernel.

    Attributes
    ----------
    out : (int, int)
        Windows in a column and in a row.
    before, after : (int, int)
        Zeros at the top and left, at the bottom and right.
    rows, columns : list of slice
        For each row and each column of the kernel, those of the image that it meets.
    taps : list of (i, j, slice, slice)
        The taps of the kernel, each with the rows and columns of the image that it meets.
    tiles : bool
        Whether every entry of the image is in exactly one window.
    overlap : bool
        Whether each row of windows meets rows that follow each other, some with the next.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        size: Pair,
        stride: Pair = 1,
        padding: Padding = "valid",
        dilation: Pair = 1,
    ) -> None:
        self.size, self.stride = _pair("size", size), _pair("stride", stride)
        self.dilation = _pair("dilation", dilation)
        self.image = shape[-3:-1]
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.size, strict=True)]
        rows, columns = _padding(padding, self.image, reach, self.stride)
        self.before, self.after = (rows[0], columns[0]), (rows[1], columns[1])
        room = [n + sum(p) - r for n, p, r in zip(self.image, (rows, columns), reach, strict=True)]
        if min(room) < 0:
            raise ValueError(
                f"window: {reach[0]}x{reach[1]} is larger than the image "
                f"{self.image[0]}x{self.image[1]} padded by {rows} and {columns}; pad more"
            )
        self.out = (room[0] // self.stride[0] + 1, room[1] // self.stride[1] + 1)
        full = tuple(n * s for n, s in zip(self.out, self.stride, strict=True))
        unpadded = rows == columns == (0, 0)
        dense = self.size == self.stride and self.dilation == (1, 1)
        self.tiles = unpadded and dense and full == self.image
        self.rows, self.columns = (
            [slice(i * d, i * d + s * (n - 1) + 1, s) for i in range(k)]
            for k, s, d, n in zip(self.size, self.stride, self.dilation, self.out, strict=True)
        )
        self.overlap = self.stride[0] < self.size[0] and self.dilation[0] == 1
        self.taps = [
            (i, j, rows, columns)
            for i, rows in enumerate(self.rows)
            for j, columns in enumerate(self.columns)
        ]

    def pad(self, x: Array, value: float = 0) -> Array:
        """Surround images (C, H, W, N) by a border of ``value``."""
        (top, left), (bottom, right) = self.before, self.after
        if top == left == bottom == right == 0:
            return x
        channels, height, width, n = x.shape
        padded = np.empty((channels, top + height + bottom, left + width + right, n), x.dtype)
        padded.fill(value)
        padded[:, top : top + height, left : left + width] = x
        return padded

    def entries(self, padded: Array) -> Array:
        """What each window meets in padded images (C, H, W, N), as a view (h, w, C, H', W', N).

        The images must be contiguous.
        """
        channels, _, _, n = padded.shape
        channel, row, column, image = padded.strides
        (down, right), (below, beside) = self.dilation, self.stride
        steps = (row * down, column * right, channel, row * below, column * beside, image)
        return np.ndarray((*self.size, channels, *self.out, n), padded.dtype, padded, 0, steps)

    def strips(self, padded: Array) -> Array:
        """What windows meet in each row of padded images (C, H, W, N): a view (rows, w, C, W', N).

        The images must be contiguous. Windows below each other share what they meet in a row.
        """
        channels, _, _, n = padded.shape
        channel, row, column, image = padded.strides
        shape = (self.rows[-1].stop, self.size[1], channels, self.out[1], n)
        steps = (row, column * self.dilation[1], channel, column * self.stride[1], image)
        return np.ndarray(shape, padded.dtype, padded, 0, steps)

    def apart(self, channels: int, n: int) -> bool:
        """Whether rows of windows on ``n`` images are long enough for a product each."""
        terms = self.size[0] * self.size[1] * channels
        return self.out[1] * n >= max(SHORT, terms // 16)

    def patches_nbytes(self, channels: int, n: int, itemsize: int) -> int:
        """Bytes of memory that :func:`patches` of ``n`` images take."""
        high = self.size[0] * self.out[0]
        if self.overlap and self.apart(channels, n):
            high = self.rows[-1].stop
        return high * self.size[1] * channels * self.out[1] * n * itemsize

    def way_back(self, c1: int, c2: int, n: int, itemsize: int) -> str:
        """How the gradient of images is best made: by "turned" filters, by "rows" or by "taps".

        Correlation with the turned filters has few terms, if there are few filters. Of rows of
        windows that meet the same row of an image w parts are to be added up, but the windows are
        copied first. Taps leave h * w parts, and no copy. As measured on random shapes.
        """
        (h, k), long = self.size, self.apart(c2, n)
        dense = self.stride[0] == self.dilation[0] == 1 < h and long
        few = c2 * (1 if long and not dense else 2) <= c1 or self.size == (1, 1)
        # To turn many weights takes longer than to multiply few windows by them, unless there are
        # so few filters that what the taps give is much more.
        much = h * k * c1 * c2 > FEW_WEIGHTS and math.prod(self.out) * n < FEW_WINDOWS
        few = few and (not much or 8 * c2 <= c1)
        if few and self.stride == (1, 1) and min(map(min, self.around())) >= 0:
            return "turned"
        fits = self.row_nbytes(c1, c2, n, itemsize) <= LARGE
        return "rows" if dense and fits and 2 * k * c1 >= c2 else "taps"

    def around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The padding, negative if there is none, with which windows at stride 1 meet all of what
        was made of windows like these."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.size, strict=True)]
        sides = zip(reach, self.before, self.after, strict=True)
        rows, columns = ((r - before, r - after) for r, before, after in sides)
        return rows, columns

    def row_nbytes(self, c1: int, c2: int, n: int, itemsize: int) -> int:
        """Bytes of memory for each row, where the gradient of images is made by rows."""
        (h, k), wide = self.size, self.out[1]
        return (h * c2 + k * c1) * wide * n * itemsize

    def meeting(self, rows: slice) -> tuple[slice, slice]:
        """Where to lay rows of windows, so that each row of images is met by h of them.

        These follow each other, and the last begins in the row. Zeros are where there is none.
        The second slice tells which rows of windows they are.
        """
        h, (high, _) = self.size[0], self.out
        first = rows.start + self.before[0] - (h - 1)
        start = max(first, 0)
        stop = max(min(rows.stop + self.before[0], high), start)
        return slice(start - first, stop - first), slice(start, stop)

    def parts(self, most: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of at most so many windows at a time, of whole rows if they fit."""
        rows, columns = self.out
        high, wide = max(most // columns, 1), max(min(most, columns), 1)
        for top in range(0, rows, high):
            for left in range(0, columns, wide):
                yield slice(top, min(top + high, rows)), slice(left, min(left + wide, columns))

    def crop(self, x: Array) -> Array:
        """Undo :meth:`pad`."""
        (top, left), (height, width) = self.before, self.image
        return x[:, top : top + height, left : left + width]


_kept_windows = functools.lru_cache(maxsize=256, typed=True)(Window)


def windows_on(shape: tuple[int, ...], *settings: Any) -> Window:
    """Give a :class:`Window`, laid out once for all calls with the same arguments."""
    try:
        return _kept_windows(shape, *settings)
    except TypeError:  # A list does not hash.
        return Window(shape, *settings)


def _pair(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(n, (int, np.integer)) and n >= least for n in pair):
        raise ValueError(f"{name} is {value!r}; want a whole number >= {least} or a pair of them")
    return int(pair[0]), int(pair[1])


def _padding(
    padding: Padding, image: Sequence[int], reach: Sequence[int], stride: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Spell out a padding as ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = [
            max((-(-n // s) - 1) * s + r - n, 0)
            for n, r, s in zip(image, reach, stride, strict=True)
        ]
        rows, columns = ((t // 2, t - t // 2) for t in totals)
        return rows, columns
    if isinstance(padding, str):
        raise ValueError(f"padding is {padding!r}; want 'same', 'valid' or numbers")
    both = padding if isinstance(padding, (tuple, list)) and len(padding) == 2 else (padding,) * 2
    rows, columns = (_pair("padding", p, least=0) for p in both)
    return rows, columns


def _batch_last(x: Array) -> Array:
    """Images (..., H, W, C) as (C, H, W, N)."""
    return x.reshape(-1, *x.shape[-3:]).transpose(3, 1, 2, 0)


def _batch_first(x: Array, lead: tuple[int, ...]) -> Array:
    """Undo :func:`_batch_last`, with the batch axes ``lead`` in front."""
    c, h, w, _ = x.shape
    return x.transpose(3, 1, 2, 0).reshape(*lead, h, w, c)


# Numbers of the same bits.
_BITS: dict[str, Any] = {"e": np.dtype("i2"), "f": np.dtype("i4"), "d": np.dtype("i8")}


def masked(x: Array, mask: Array) -> Array:
    """``x`` where the mask holds, else 0."""
    bits = _BITS.get(x.dtype.char)
    if bits is None:
        return np.where(mask, x, x.dtype.type(0))
    # np.where branches at every entry, which costs three times as much when the mask is random; a
    # product does not, but makes inf * 0 = nan. The bits of a float know neither trouble.
    kept: Array = x.view(bits) * mask
    return kept.view(x.dtype)


# --- Kernels: convolution of images (..., H, W, C) --------------------------------------------
#
# Patches, what each window meets, repeat an entry as often as a filter has taps. Windows in a row
# share what they meet in a row of the image: only that is copied, one strip for each row, and the
# strips that follow each other are what a row of windows meets, as they lie.


# OpenBLAS copies both factors of a product first, but with AVX-512 not those of so many terms or
# fewer. The copy costs more than the product, for few weights and, in double precision, few terms.
AT_ONCE, FEW_WEIGHTS, FEW_TERMS = 1_000_000, 4096, 96
# Gradients of filters are added up in stacks of so many entries, which fit in the cache.
STACK = 2**17
# Filters of many weights are turned for so many windows.
FEW_WINDOWS = 256
# So few scalar products are faster one by one than copied first, and of so few entries in any case.
FEW_PRODUCTS, FEW_ENTRIES = 64, 2048
# Rows of windows with so many entries, and a 16th of the terms of a product, are multiplied apart.
SHORT = 48
# Patches of more bytes are made in parts, and again for the gradient: to keep them costs more.
# Parts stay in the cache; for many filters they are larger, since what strips share counts more.
LARGE, PART, MANY_FILTERS = 2**23, 2**20, 16


def patches(
    x: Array,
    *,
    size: tuple[int, ...],
    stride: Pair = 1,
    padding: Padding = "same",
    dilation: Pair = 1,
) -> Array:
    """What filters of ``size`` (h, w) meet in images (..., H, W, C): (rows, h*w*C, columns, N).

    The rows are those of the windows, or one for all windows, where a row has few entries. They
    may overlap in memory: to write to one would write to others.

    Examples
    --------
    >>> patches(np.arange(5.0).reshape(1, 5, 1), size=(1, 2), padding="valid")[0, :, :, 0]
    array([[0., 1., 2., 3.],
           [1., 2., 3., 4.]])
    """
    window = windows_on(x.shape, (size[0], size[1]), stride, padding, dilation)
    padded = np.ascontiguousarray(window.pad(_batch_last(x)))
    return _patches_at(window, padded, slice(0, window.out[0]), slice(0, window.out[1]))


def correlate(
    x: Array,
    w: Array,
    *,
    stride: Pair = 1,
    padding: Padding = "same",
    dilation: Pair = 1,
    taps: Array | None = None,
) -> Array:
    """Correlate images (..., H, W, C1) with filters (h, w, C1, C2): (..., H', W', C2).

    Linear in ``x`` and in ``w``; :func:`correlate_dx` and :func:`correlate_dw` are its adjoints.
    ``taps`` is what :func:`patches` returned, computed again by default.

    Examples
    --------
    >>> correlate(np.arange(5.0).reshape(1, 5, 1), np.ones((1, 2, 1, 1)), padding="valid").ravel()
    array([1., 3., 5., 7.])
    """
    window = windows_on(x.shape, w.shape[:2], stride, padding, dilation)
    weights, n = w.reshape(-1, w.shape[3]).T, math.prod(x.shape[:-3])
    y = np.empty((len(weights), *window.out, n), np.result_type(w, x))
    if taps is not None:
        _weigh(weights, taps, y)
    else:
        for rows, columns, part in _blocks(window, x, len(y)):
            _weigh(weights, part, y[:, rows, columns])
    return _batch_first(y, x.shape[:-3])


def correlate_dx(
    dl_dy: Array,
    w: Array,
    *,
    shape: tuple[int, int],
    stride: Pair = 1,
    padding: Padding = "same",
    dilation: Pair = 1,
) -> Array:
    """Adjoint of :func:`correlate` in its images: (..., H', W', C2) to (..., H, W, C1).

    ``shape`` is the size (H, W) of the images.

    Examples
    --------
    >>> g, w = np.ones((1, 4, 1)), np.ones((1, 2, 1, 1))
    >>> correlate_dx(g, w, shape=(1, 5), padding="valid").ravel()
    array([1., 2., 2., 2., 1.])
    """
    window = windows_on((*shape, w.shape[2]), w.shape[:2], stride, padding, dilation)
    g = _batch_last(dl_dy)
    way = window.way_back(w.shape[2], w.shape[3], g.shape[-1], np.result_type(w, g).itemsize)
    if way == "turned":
        turned = w[::-1, ::-1].transpose(0, 1, 3, 2)
        return correlate(dl_dy, turned, padding=window.around(), dilation=dilation)
    dl_dx = (_dx_by_rows if way == "rows" else _dx_by_taps)(g, w, window)
    return _batch_first(dl_dx, dl_dy.shape[:-3])


def _dx_by_rows(g: Array, w: Array, window: Window) -> Array:
    """Each row of the images is met by windows in rows that follow each other: one matrix."""
    (h, k, c1, c2), (height, width), (_, wide, n) = w.shape, window.image, g.shape[1:]
    left, right = window.before[1], window.after[1]
    dl_dx = np.zeros((c1, height, left + width + right, n), np.result_type(w, g))
    weights = meeting_filters(w)
    most = max(LARGE // max(window.row_nbytes(c1, c2, n, dl_dx.itemsize), 1), 1)
    for start in range(0, height, most):
        rows = slice(start, min(start + most, height))
        laid = np.zeros((rows.stop - start + h - 1, c2, wide, n), g.dtype)
        lines, theirs = window.meeting(rows)
        laid[lines] = g[:, theirs].transpose(1, 0, 2, 3)
        part = np.empty((k * c1, rows.stop - start, wide, n), dl_dx.dtype)
        _weigh(weights, consecutive(laid, h), part)
        for columns, taps in zip(window.columns, part.reshape(k, c1, *part.shape[1:]), strict=True):
            dl_dx[:, rows, columns] += taps
    return dl_dx[:, :, left : left + width]


def meeting_filters(w: Array) -> Array:
    """Filters (h, w, C1, C2) as a row of an image meets them, from above: (w * C1, h * C2)."""
    h, k, c1, c2 = w.shape
    return w[::-1].transpose(1, 2, 0, 3).reshape(k * c1, h * c2)


def _dx_by_taps(g: Array, w: Array, window: Window) -> Array:
    """Each tap of the filters gives to the entries that it meets."""
    (h, k, c1, c2), (height, width), n = w.shape, window.image, g.shape[-1]
    (top, left), (bottom, right) = window.before, window.after
    weights = w.reshape(-1, c2)
    dl_dx = np.zeros((c1, top + height + bottom, left + width + right, n), np.result_type(w, g))
    # Each tap takes a step of its own, which pays for more than a part that fits in the cache.
    most = LARGE // 2 // max(len(weights) * n * dl_dx.itemsize, 1)
    for rows, columns in window.parts(most):
        part = g[:, rows, columns]
        high, wide = part.shape[1:3]
        taps = np.empty((h, k, c1, high, wide, n), dl_dx.dtype)
        _weigh(
            weights, part.reshape(1, c2, high * wide, n), taps.reshape(len(weights), high, wide, n)
        )
        for i, j, down, across in window.taps:
            dl_dx[:, down, across][:, rows, columns] += taps[i, j]
    return window.crop(dl_dx)


def correlate_dw(
    dl_dy: Array,
    x: Array,
    *,
    size: tuple[int, ...],
    stride: Pair = 1,
    padding: Padding = "same",
    dilation: Pair = 1,
    taps: Array | None = None,
) -> Array:
    """Adjoint of :func:`correlate` in its filters, summed over the batch: (h, w, C1, C2).

    ``size`` is the size (h, w) of the filters, ``taps`` as in :func:`correlate`.

    Examples
    --------
    >>> g, x = np.ones((1, 4, 1)), np.arange(5.0).reshape(1, 5, 1)
    >>> correlate_dw(g, x, size=(1, 2), padding="valid").ravel()
    array([ 6., 10.])
    """
    g = _batch_last(dl_dy)
    if taps is not None:
        dl_dw = _products(taps, g)
    else:
        window = windows_on(x.shape, (size[0], size[1]), stride, padding, dilation)
        blocks = _blocks(window, x, len(g))
        dl_dw = _sum(_products(part, g[:, rows, columns]) for rows, columns, part in blocks)
    return dl_dw.reshape(*size, x.shape[-1], dl_dy.shape[-1])


def _patches_at(window: Window, padded: Array, rows: slice, columns: slice) -> Array:
    """Patches of the windows in some rows and columns, of contiguous padded images."""
    channels, _, _, n = padded.shape
    h, step = window.size[0], window.stride[0]
    if window.overlap and window.apart(channels, n):
        met = slice(rows.start * step, (rows.stop - 1) * step + h)
        strips = window.strips(padded)[met, :, :, columns]
        many, k, _, wide, _ = strips.shape
        return consecutive(strips.reshape(many, k * channels, wide, n), h, step)
    entries = window.entries(padded)[:, :, :, rows, columns]
    h, k, _, high, wide, _ = entries.shape
    if window.apart(channels, n):
        return entries.transpose(3, 0, 1, 2, 4, 5).reshape(high, h * k * channels, wide, n)
    return entries.reshape(1, h * k * channels, high * wide, n)


def consecutive(rows: Array, count: int, step: int = 1) -> Array:
    """Every ``count`` rows of (rows, m, W, N) that follow each other: (rows', count * m, W, N).

    They are one matrix as they lie, and share their entries with those a ``step`` further.
    """
    rows = np.ascontiguousarray(rows)
    many, m, wide, n = rows.shape
    row, *strides = rows.strides
    shape = ((many - count) // step + 1, count * m, wide, n)
    return np.ndarray(shape, rows.dtype, rows, 0, (step * row, *strides))


def _blocks(window: Window, x: Array, filters: int) -> Iterator[tuple[slice, slice, Array]]:
    """Rows and columns of windows, with their patches: all at once unless these are large.

    How large a part is best depends on the number of filters that it is multiplied by.
    """
    padded = np.ascontiguousarray(window.pad(_batch_last(x)))
    (high, wide), (channels, _, _, n) = window.out, padded.shape
    most = high * wide
    if window.patches_nbytes(channels, n, x.itemsize) > LARGE:
        (h, k), step = window.size, window.stride[0]
        shared = h - step if window.overlap and window.apart(channels, n) else 0
        weights, each = h * k * channels * filters, k * channels * n * x.itemsize
        # To add up gradients of many weights takes as long as to go through as many patches.
        room = LARGE if shared and filters >= MANY_FILTERS else max(PART, weights * x.itemsize)
        rows_at_once = (room // (each * wide) - shared) // (h - shared)
        most = rows_at_once * wide if rows_at_once > 0 else room // (h * each)
    for rows, columns in window.parts(most):
        yield rows, columns, _patches_at(window, padded, rows, columns)


def _weigh(w: Array, x: Array, out: Array) -> None:
    """Write products of weights (k, m) and patches (rows, m, columns, N) to (k, H', W', N)."""
    rows, m, columns, n = x.shape
    x, y = x.reshape(rows, m, columns * n), out.reshape(len(w), rows, columns * n)
    for run in _runs(m, len(w), columns * n, x.itemsize):
        np.matmul(w, x[:, :, run], out=y[:, :, run].transpose(1, 0, 2))


def _runs(terms: int, filters: int, entries: int, itemsize: int) -> list[slice]:
    """Parts of rows of patches that BLAS multiplies as they lie, or the whole of them."""
    weights = terms * filters
    few = weights <= FEW_WEIGHTS and (itemsize < 8 or terms <= FEW_TERMS)
    if not (AVX512 and few and weights * entries > AT_ONCE):
        return [slice(0, entries)]
    most = max(AT_ONCE // weights, 1)
    return [slice(start, start + most) for start in range(0, entries, most)]


def _products(x: Array, g: Array) -> Array:
    """Scalar products of patches (rows, m, columns, N) with images (k, H', W', N): (m, k)."""
    rows, m, columns, n = x.shape
    k, each = len(g), columns * n
    left, right = x.reshape(rows, m, each), g.reshape(k, rows, each)
    if left.dtype.kind == right.dtype.kind == "f" and one_by_one(m * k, rows * each):
        of_rows: Array = np.vecdot(left.transpose(1, 0, 2)[:, np.newaxis], right)
        return of_rows.sum(axis=-1) if rows > 1 else of_rows[..., 0]
    if not each:
        return np.zeros((m, k), np.result_type(x, g))
    right, runs = right.transpose(1, 2, 0), _runs(m, k, each, x.itemsize)
    if len(runs) == 1 and rows * m * k <= STACK:
        return _sum_of_rows(left @ right)
    some = max(STACK // max(m * k, 1), 1)
    return _sum(
        _sum_of_rows(left[i : i + some, :, run] @ right[i : i + some, run])
        for i in range(0, rows, some)
        for run in runs
    )


def one_by_one(products: int, entries: int) -> bool:
    """Whether so many scalar products of so many floats are faster than a product of matrices."""
    if products > FEW_PRODUCTS or not hasattr(np, "vecdot"):
        return False
    return entries <= FEW_ENTRIES or not AVX512


def _sum_of_rows(stack: Array) -> Array:
    summed: Array = stack[0] if len(stack) == 1 else stack.sum(axis=0, dtype=stack.dtype)
    return summed


def _sum(arrays: Iterator[Array]) -> Array:
    """Add up in the first array."""
    total = next(arrays)
    for array in arrays:
        total += array
    return total


# --- Kernels: pooling of images (..., H, W, C) ------------------------------------------------


def max_pool(x: Array, *, size: Pair = 2, stride: Pair | None = None) -> Array:
    """Largest entry of each window of images (..., H, W, C): (..., H', W', C).

    ``stride`` is ``size`` by default. Rows and columns that fill no whole window are left out.

    Examples
    --------
    >>> max_pool(np.array([3.0, 1.0, 4.0, 1.0, 5.0]).reshape(1, 5, 1), size=(1, 3), stride=1)[
    ...     0, :, 0
    ... ]
    array([4., 4., 5.])
    """
    window = windows_on(x.shape, size, size if stride is None else stride)
    # Of each column first, then of the columns: whole rows are long runs in memory.
    high = largest([x[..., rows, :, :] for rows in window.rows])
    return largest([high[..., columns, :] for columns in window.columns])


def largest(parts: list[Array], out: Array | None = None) -> Array:
    """The largest of the entries at the same place, as a new array or in ``out``.

    Examples
    --------
    >>> largest([np.array([1, 5]), np.array([4, 2]), np.array([0, 3])])
    array([4, 5])
    """
    y: Array = np.maximum(parts[0], parts[min(1, len(parts) - 1)], out=out)
    for part in parts[2:]:
        np.maximum(y, part, out=y)
    return y


def max_pool_dx(
    dl_dy: Array, x: Array, y: Array | None = None, *, size: Pair = 2, stride: Pair | None = None
) -> Array:
    """Gradient of :func:`max_pool`: each window's goes to its first largest entry, row-major.

    ``y`` is what ``max_pool`` returned, computed again by default.

    Examples
    --------
    >>> x = np.array([[0.0, 7.0], [7.0, 1.0]]).reshape(2, 2, 1)
    >>> max_pool_dx(np.array([[[5.0]]]), x)[..., 0]
    array([[0., 5.],
           [0., 0.]])
    """
    window = windows_on(x.shape, size, size if stride is None else stride)
    y = max_pool(x, size=size, stride=stride) if y is None else y
    below = _below(x, y, window)
    # The winner is where no entry before it is the largest and it is, or the last of all.
    masks: Iterator[Any] = iter([np.True_])
    if below:
        between = map(np.greater, below, below[1:])
        masks = itertools.chain([~below[0]], between, [below[-1]])
    return _to_winners(dl_dy, masks, window, y, x.shape)


def pool_winners(
    x: Array, y: Array | None = None, *, size: Pair = 2, stride: Pair | None = None
) -> Array:
    """For each window of :func:`max_pool`, which of its entries is the first largest: row-major.

    ``y`` is what ``max_pool`` returned, computed again by default.

    Examples
    --------
    >>> pool_winners(np.array([[0.0, 7.0], [7.0, 1.0]]).reshape(2, 2, 1)).ravel()
    array([1], dtype=int8)
    """
    window = windows_on(x.shape, size, size if stride is None else stride)
    y = max_pool(x, size=size, stride=stride) if y is None else y
    kind = np.int8 if len(window.taps) <= 2**7 else np.intp
    # The winner's number is how many entries stand before it, none of them the largest.
    winners: Array = np.zeros_like(y, dtype=kind)
    for mask in _below(x, y, window):
        winners += mask.view(np.int8)
    return winners


def pool_pick(x: Array, winners: Array, *, size: Pair = 2, stride: Pair | None = None) -> Array:
    """From each window of images (..., H, W, C) the entry that ``winners`` names.

    Linear in ``x``; :func:`max_unpool` is its adjoint.

    Examples
    --------
    >>> x = np.array([[0.0, 7.0], [7.0, 1.0]]).reshape(2, 2, 1)
    >>> pool_pick(x, np.array([[[3]]])).ravel()
    array([1.])
    """
    window = windows_on(x.shape, size, size if stride is None else stride)
    y = np.zeros_like(winners, dtype=x.dtype)
    for number, (_, _, rows, columns) in enumerate(window.taps):
        y += masked(x[..., rows, columns, :], winners == number)
    return y


def max_unpool(
    dl_dy: Array,
    winners: Array,
    *,
    shape: tuple[int, ...],
    size: Pair = 2,
    stride: Pair | None = None,
) -> Array:
    """Adjoint of :func:`pool_pick`: send each window's entry to its winner, add where they meet.

    ``shape`` is the size (H, W) of the images.

    Examples
    --------
    >>> max_unpool(np.array([[[5.0]]]), np.array([[[3]]]), shape=(2, 2))[..., 0]
    array([[0., 0.],
           [0., 5.]])
    """
    full = (*dl_dy.shape[:-3], *shape, dl_dy.shape[-1])
    window = windows_on(full, size, size if stride is None else stride)
    masks = (winners == number for number in range(len(window.taps)))
    return _to_winners(dl_dy, masks, window, winners, full)


def _below(x: Array, y: Array, window: Window) -> list[Array]:
    """For each tap of a window but the last: where no entry up to it is ``y``, the largest."""
    below: list[Array] = [x[..., rows, columns, :] != y for _, _, rows, columns in window.taps[:-1]]
    for earlier, later in itertools.pairwise(below):
        later &= earlier
    return below


def _to_winners(
    dl_dy: Array, masks: Iterator[Array], window: Window, y: Array, shape: tuple[int, ...]
) -> Array:
    """Send each entry to the one of its window, of images of ``shape``, whose mask holds."""
    # In the layout of what was pooled, ``y``, at once and not again for each tap.
    lying = np.empty_like(y, dtype=dl_dy.dtype)
    lying[...] = dl_dy
    bits = _BITS.get(lying.dtype.char)
    if bits is None or not window.tiles:
        dl_dx = np.zeros_like(lying, shape=shape)
        for mask, (_, _, rows, columns) in zip(masks, window.taps, strict=True):
            dl_dx[..., rows, columns, :] += masked(lying, mask)
        return dl_dx
    # As every entry is met once, there is nothing to add to.
    dl_dx = np.empty_like(lying, shape=shape)
    given, sent = lying.view(bits), dl_dx.view(bits)
    for mask, (_, _, rows, columns) in zip(masks, window.taps, strict=True):
        np.multiply(given, mask, out=sent[..., rows, columns, :])
    return dl_dx


# --- Memory -----------------------------------------------------------------------------------


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed arrays for the next ones.

    By default glibc hands large blocks back to the system, which has to clear them again at every
    step of a training; that can take longer than the arithmetic. Elsewhere, and where the
    environment already says what to do, nothing is changed.
    """
    said = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform == "linux" and not said:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3  # Of malloc.h.
            mallopt(trim_threshold, 2**28)
            mallopt(mmap_threshold, 2**25)


# --- Checks of arguments ----------------------------------------------------------------------


_NUMBERS = "fiubc"


def _arrays(op: str, **given: Any) -> list[Array]:
    """The arguments of a function as arrays of numbers."""
    return [
        value
        if type(value) is np.ndarray and value.dtype.kind in _NUMBERS
        else _array(op, name, value)
        for name, value in given.items()
    ]


def _array(op: str, name: str, value: Any) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{op}: {name} is no array: {error}") from None
    if array.dtype.kind not in _NUMBERS:
        raise ValueError(f"{op}: {name} is {type(value).__name__} of {array.dtype}; want numbers")
    return array


def _check_same(op: str, name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if given != wanted:
        flat = len(given) == 1 and wanted == (*given, 1)
        advice = f": use {name}.reshape(-1, 1)" if flat else ""
        raise ValueError(f"{op}: {name} has the shape {given}; want {wanted}{advice}")


def _check_column(op: str, name: str, x: Array) -> None:
    if x.ndim != 2 or x.shape[0] == 0:
        advice = f": use {name}.reshape(-1, 1)" if x.ndim == 1 else ""
        raise ValueError(
            f"{op}: {name} has the shape {x.shape}; want a column (m, 1), or columns (m, R){advice}"
        )


def _check_fc(op: str, x: Array, w: Array, b: Array) -> None:
    _check_column(op, "x", x)
    if w.ndim != 2 or x.shape[0] != w.shape[1]:
        transposed = w.ndim == 2 and x.shape[0] == w.shape[0]
        raise ValueError(
            f"{op}: w has the shape {w.shape} and x {x.shape}; "
            f"want w (n, {x.shape[0]}){': use w.T' if transposed else ''}"
        )
    _check_same(op, "b", b.shape, (w.shape[0], 1))


def _check_conv(op: str, x: Array, w: Array, b: Array) -> None:
    _check_images(op, x)
    if w.ndim != 4 or x.shape[-1] != w.shape[2] or 0 in w.shape:
        raise ValueError(
            f"{op}: w_conv has the shape {w.shape} and x {x.shape}; want (h, w, {x.shape[-1]}, C2)"
        )
    _check_same(op, "b_conv", b.shape, (w.shape[3], 1))


def _check_images(op: str, x: Array) -> None:
    if x.ndim < 3 or 0 in x.shape[-3:]:
        advice = ": use x[:, :, np.newaxis] for one channel" if x.ndim == 2 else ""
        raise ValueError(
            f"{op}: x has the shape {x.shape}; want (H, W, C) or (..., H, W, C){advice}"
        )


def _check_tiles(op: str, x: Array, size: Pair) -> tuple[int, int]:
    rows, columns = _pair(f"{op}: size", size)
    _check_images(op, x)
    if x.shape[-3] % rows or x.shape[-2] % columns:
        raise ValueError(
            f"{op}: x has the shape {x.shape}; want H a multiple of {rows} and W of {columns}"
        )
    return rows, columns


def _check_whole(op: str, name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{op}: {name} is {value!r}; want a whole number >= 1")


def _batches(op: str, xs: Iterable[Array], ys: Iterable[Array]) -> list[tuple[Array, Array]]:
    """The mini-batches as pairs of arrays, images innermost in memory."""
    try:
        xs, ys = list(xs), list(ys)
    except TypeError:
        raise ValueError(
            f"{op}: mini_batch_x is a {type(xs).__name__} and mini_batch_y a {type(ys).__name__}; "
            "want two lists of arrays, as get_mini_batch gives them"
        ) from None
    if len(xs) == 0 or len(xs) != len(ys):
        raise ValueError(
            f"{op}: got {len(xs)} and {len(ys)} mini-batches; want as many, at least 1"
        )
    pixels = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
    batches = []
    for given_x, given_y in zip(xs, ys, strict=True):
        x, y = _arrays(op, mini_batch_x=given_x, mini_batch_y=given_y)
        if x.ndim != 2 or x.size == 0 or (len(x), y.shape) != (pixels, (N_CLASSES, x.shape[1])):
            raise ValueError(
                f"{op}: a mini-batch has the shapes {x.shape} and {y.shape}; "
                f"want ({pixels}, R) and ({N_CLASSES}, R)"
            )
        batches.append((np.ascontiguousarray(x), y))
    return batches


def _one_hot(op: str, label: Array) -> Array:
    """Labels (N,) as columns (10, N)."""
    bad = label[(label < 0) | (label >= N_CLASSES) | (label != np.floor(label))]
    if bad.size:
        raise ValueError(
            f"{op}: label {bad[0]} is no class; want whole numbers 0 to {N_CLASSES - 1}"
        )
    return np.eye(N_CLASSES)[:, label.astype(np.intp)]


# --- The assignment ---------------------------------------------------------------------------


class Network(NamedTuple):
    """One part of the assignment."""

    name: str
    train: Callable[..., Any]
    infer: Callable[..., int]
    image_shape: tuple[int, ...]
    weights: tuple[str, ...]
    learning_rate: float


BATCH_SIZE = 32
NUM_ITERS = 20000
# These and the learning rates did best on 2,000 images held out of the training set.
DECAY_RATE = 0.8
NETWORKS = (
    Network("mlp", train_mlp, infer_mlp, (196, 1), ("w1", "b1", "w2", "b2"), 0.3),
    Network("cnn", train_cnn, infer_cnn, (14, 14, 1), ("w_conv", "b_conv", "w_fc", "b_fc"), 0.4),
)


class Result(NamedTuple):
    """What came of training and testing a network."""

    weights: dict[str, Array]
    losses: Array
    num_batches: int
    pred: Array
    confusion: Array
    accuracy: float
    seconds: float


def train_and_test(
    network: Network,
    image_train: Array,
    label_train: Array,
    image_test: Array,
    label_test: Array,
    *,
    seed: int,
    num_iters: int,
) -> Result:
    """Do one part of the assignment, with a progress bar where tqdm is installed.

    Parameters
    ----------
    network : Network
    image_train, label_train, image_test, label_test
        As :func:`get_MNIST_data` returns them.
    seed : int
        Of the batches and the initial weights.
    num_iters : int

    Returns
    -------
    Result
    """
    im_train, im_test = (im.reshape((-1, 196)).T / 255.0 for im in (image_train, image_test))
    x, y = get_mini_batch(im_train, label_train.T, BATCH_SIZE, rng=seed)
    start = time.perf_counter()
    *weights, losses = network.train(
        x, y, network.learning_rate, DECAY_RATE, num_iters, rng=seed, progress=True
    )
    seconds = time.perf_counter() - start
    pred = np.array([network.infer(im.reshape(network.image_shape), *weights) for im in im_test.T])
    confusion, accuracy = compute_confusion_matrix_and_accuracy(pred, label_test, N_CLASSES)
    named = dict(zip(network.weights, weights, strict=True))
    return Result(named, losses, len(x), pred, confusion, accuracy, seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and test both networks on the course's data; write weights and figures."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, help="folder of mnist_train.npz and mnist_test.npz")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results")
    parser.add_argument("--seed", type=int, default=0, help="of the batches and initial weights")
    options = parser.parse_args(arguments)
    here = Path(__file__).parent
    beside = here if (here / "mnist_train.npz").exists() else Path()
    try:
        _run(options.data or beside, options.out, options.seed)
    except (OSError, ValueError) as error:
        print(f"hw5: {error}", file=sys.stderr)
        return 2
    return 0


def _run(data: Path, out: Path, seed: int) -> None:
    if seed < 0:
        raise ValueError(f"seed is {seed}; want at least 0")
    *arrays, label_classes = get_MNIST_data(data)
    if not (out.is_dir() and os.access(out, os.W_OK)):
        raise OSError(f"{out}: not a folder that can be written to; name another with --out")
    for network in NETWORKS:
        result = train_and_test(network, *arrays, seed=seed, num_iters=NUM_ITERS)
        name, title = network.name, network.name.upper()
        save_weights(out / f"{name}.npz", **result.weights)
        print(
            f"{title}: accuracy {result.accuracy:.4f} on {len(result.pred)} test images "
            f"({result.seconds:.1f} s)"
        )
        try:
            visualize_training_progress(
                result.losses, result.num_batches, title=title, path=out / f"{name}_loss.png"
            )
            visualize_confusion_matrix(
                result.confusion,
                result.accuracy,
                label_classes,
                title=title,
                path=out / f"{name}_confusion.png",
            )
        except ImportError:
            print(f"{title}: no figures, since matplotlib is not installed")


if __name__ == "__main__":
    sys.exit(main())
