"""Losses of predictions against targets: means over the batch, of indices or one-hot classes."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..domains import Domain
from ..errors import ShapeError, with_graph
from ..graph import Handle, value_of
from ..settings import check, check_fraction
from . import exponential, reduce
from .activations import softplus
from .constants import _array, _real
from .elementwise import abs as absolute
from .elementwise import clip, log, negative, square, subtract, where
from .index import _checked_axis
from .nn import _hot
from .shape import expand_dims, reshape, transpose

Reduction = Literal["mean", "sum", "none"]


# --- Losses -----------------------------------------------------------------------------------


def _cross_entropy_call(draw):
    shape = (*domains.shape(draw, max_dims=2), draw.integer(1, 4))
    y = draw.array(shape, 0, 1)
    if draw.integer(0, 1):
        y = np.arange(shape[-1]) == y.argmax(axis=-1)[..., np.newaxis]
    return (draw.array(shape), y), {"reduction": draw.choice(["mean", "sum", "none"])}


def _cross_entropy_and_shares(x, y, *, reduction, needs):
    """The loss, and the softmax of the rows, which is most of its gradient."""
    # The handout's loss, on rows. A boolean target is one-hot, and its class is picked.
    x = _in_columns(x)
    shifted = x - np.maximum.reduce(x, axis=-1, keepdims=True)
    shares = np.exp(shifted)
    sums = np.add.reduce(shares, axis=-1, keepdims=True)
    shares /= sums
    losses = np.log(sums).reshape(sums.shape[:-1])
    if y.dtype == bool:
        losses = losses - shifted[y].reshape(losses.shape)
    else:
        # A logit of -inf has probability 0: it costs nothing where the target does not want it.
        wanted = y * np.where(y == 0, 0, shifted)
        losses = losses * y.sum(axis=-1) - wanted.sum(axis=-1)
    loss = losses
    if reduction != "none":
        loss = np.add.reduce(losses, axis=None)
    if reduction == "mean":
        loss = loss / losses.size
    return loss, shares if needs[0] else None


@primitive(
    name="softmax_cross_entropy",
    domain=Domain("all logits, targets >= 0", _cross_entropy_call, "axis"),
    residual=_cross_entropy_and_shares,
)
def _cross_entropy(x, y, *, reduction):
    return _cross_entropy_and_shares(x, y, reduction=reduction, needs=(False, False))[0]


@_cross_entropy.rule(keeps="x y")
def _(g, _, x, y, shares=None, *, reduction, needs):
    if reduction == "none":
        g = expand_dims(g, -1)
    elif reduction == "mean":
        g = g / math.prod(x.shape[:-1])
    dx = dy = None
    if needs[0]:
        p = exponential.softmax(x, axis=-1) if shares is None else shares
        if y.dtype != bool:
            p = p * reduce.sum(y, axis=-1, keepdims=True)
        dx = g * (p - y)
    if needs[1]:
        dy = -g * exponential.log_softmax(x, axis=-1)
    return dx, dy


def softmax_cross_entropy(
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    axis: int = -1,
) -> Any:
    """Cross-entropy of ``softmax(logits)`` against labels, without overflow.

    Parameters
    ----------
    logits : array or Tensor, shape (..., K)
    labels : array of int, shape (...), or array or Tensor, shape (..., K)
        A class for each row, or its target probabilities, as a rule one-hot. Constant targets take
        the dtype of the logits; those that require a gradient get theirs, ``-log_softmax(logits)``.
    label_smoothing : float
        Share in [0, 1] of the target that is spread evenly over the classes (Szegedy et al. 2016,
        section 7).
    reduction : "mean", "sum" or "none"
        Over the rows.
    axis : int
        Of the classes in ``logits``, and in ``labels`` if these are probabilities.

    Returns
    -------
    array or Tensor
        0-d, or of shape (...) without reduction.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    TypeError, IndexError
        If a class is no whole number, or not one of K.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> logits = tg.Tensor([[0.0, 0.0], [1000.0, 0.0]], requires_grad=True)
    >>> loss = tg.softmax_cross_entropy(logits, [0, 1], reduction="sum")
    >>> loss.backward()
    >>> print(loss.item().__round__(4), logits.grad.tolist())
    1000.6931 [[-0.5, 0.5], [1.0, -1.0]]
    """
    op = "softmax_cross_entropy"
    x, y = _real(logits), _array(labels)
    are_indices = x.shape != y.shape
    x = _rows(op, x, axis)
    if are_indices:
        y = _classes(op, y, x.shape)
    else:
        y = _rows(op, _constant_like(op, y, x), axis)
        if not _tracked(y) and value_of(y).min(initial=0) < 0:
            raise with_graph(ValueError)(f"{op}: a target is negative; want probabilities")
    if label_smoothing:
        check_fraction(op, "label_smoothing", label_smoothing)
        y = y.astype(x.dtype) if y.dtype == bool else y
        y = y * (1 - label_smoothing) + label_smoothing / x.shape[-1]
    _check_reduction(op, reduction, y.size)
    return _cross_entropy(x, y, reduction=reduction)


def nll_loss(log_probs: Any, labels: Any, *, reduction: Reduction = "mean", axis: int = -1) -> Any:
    """Negative log-likelihood: minus the entry of ``log_probs`` at each label.

    Parameters
    ----------
    log_probs : array or Tensor, shape (..., K)
        Such as ``log_softmax(logits)``.
    labels : array of int, shape (...)
    reduction : "mean", "sum" or "none"
        Over the rows.
    axis : int
        Of the classes.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    TypeError, IndexError
        If a class is no whole number, or not one of K.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nll_loss([[-1.0, -2.0], [-3.0, -4.0]], [0, 1])
    array(2.5)
    """
    x = _rows("nll_loss", _real(log_probs), axis)
    hot = _classes("nll_loss", _array(labels), x.shape)
    return _reduced("nll_loss", negative(reshape(x[hot], x.shape[:-1])), reduction)


def mse_loss(prediction: Any, target: Any, *, reduction: Reduction = "mean") -> Any:
    """Squared error.

    Parameters
    ----------
    prediction, target : arrays or Tensors of one shape
        Nothing is broadcast. A constant target takes the dtype of the prediction.
    reduction : "mean", "sum" or "none"
        Over all entries.

    Raises
    ------
    ShapeError
        If the shapes differ.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.mse_loss([1.0, 2.0], [1.0, 4.0])
    array(2.)
    """
    x, t = _matched("mse_loss", prediction, target)
    return _reduced("mse_loss", square(subtract(x, t)), reduction)


def l1_loss(prediction: Any, target: Any, *, reduction: Reduction = "mean") -> Any:
    """Absolute error; parameters as in :func:`mse_loss`.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.l1_loss([1.0, 2.0], [1.0, 4.0])
    array(1.)
    """
    x, t = _matched("l1_loss", prediction, target)
    return _reduced("l1_loss", absolute(subtract(x, t)), reduction)


def huber_loss(
    prediction: Any, target: Any, *, delta: float = 1.0, reduction: Reduction = "mean"
) -> Any:
    """Half the squared error up to ``delta``, linear beyond (Huber 1964).

    Parameters
    ----------
    prediction, target, reduction
        As in :func:`mse_loss`.
    delta : float
        Positive.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ValueError
        If ``delta`` is not positive.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.huber_loss([0.0, 0.0], [1.0, 4.0], reduction="none")
    array([0.5, 3.5])
    """
    check("huber_loss", "delta", delta, "a number above 0", lambda bound: bound > 0)
    x, t = _matched("huber_loss", prediction, target)
    error = subtract(x, t)
    near = clip(error, -delta, delta)
    return _reduced("huber_loss", near * (error - near * 0.5), reduction)


def binary_cross_entropy_with_logits(
    logits: Any, targets: Any, *, pos_weight: Any = None, reduction: Reduction = "mean"
) -> Any:
    """Cross-entropy of ``sigmoid(logits)`` against targets in [0, 1], without overflow.

    Parameters
    ----------
    logits, targets : arrays or Tensors of one shape
        Nothing is broadcast. Constant targets take the dtype of the logits.
    pos_weight : float, array or Tensor, broadcastable to ``logits``, optional
        Weight of the targets 1 against the targets 0.
    reduction : "mean", "sum" or "none"
        Over all entries.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueError
        If a target is not in [0, 1].

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.binary_cross_entropy_with_logits([-1000.0, -1000.0], [0, 1], reduction="none")
    array([   0., 1000.])
    """
    op = "binary_cross_entropy_with_logits"
    x, t = _matched(op, logits, targets)
    value = value_of(t)
    if value.size and not 0 <= value.min() <= value.max() <= 1:
        raise with_graph(ValueError)(
            f"{op}: a target is not in [0, 1]; labels -1 and 1 become (t + 1) / 2"
        )
    # -log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x). Each is small where it
    # should be; their difference x would cancel, in the loss and in its gradient.
    of_ones = softplus(negative(x))
    if pos_weight is not None:
        weight = _constant_like(op, _array(pos_weight), x)
        sides = zip(weight.shape[::-1], x.shape[::-1], strict=False)
        if weight.ndim > x.ndim or any(side not in (1, n) for side, n in sides):
            raise ShapeError(
                f"{op}: pos_weight is {weight.shape} for logits {x.shape}; want one of that shape, "
                "or that broadcasts to it"
            )
        of_ones = of_ones * weight
    return _reduced(op, t * of_ones + (1 - t) * softplus(x), reduction)


def kl_div(log_probs: Any, target: Any, *, reduction: Reduction = "mean", axis: int = -1) -> Any:
    """Kullback-Leibler divergence ``sum(target * (log(target) - log_probs))`` along an axis.

    Parameters
    ----------
    log_probs : array or Tensor, shape (..., K)
        Logarithms of the model's probabilities q, such as ``log_softmax(logits)``.
    target : array or Tensor, shape (..., K)
        Probabilities p, not their logarithms; 0 log 0 is 0, with gradient 0.
    reduction : "mean", "sum" or "none"
        Over the rows, so that the mean is the mean of KL(p || q).
    axis : int
        Of the classes.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ValueError
        If a target is negative.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> print(tg.kl_div(np.log([[0.5, 0.5]]), [[1.0, 0.0]]).round(4))
    0.6931
    """
    x, t = _matched("kl_div", log_probs, target)
    if value_of(t).min(initial=0) < 0:
        raise with_graph(ValueError)(
            "kl_div: a target is negative; want probabilities, not their logarithms"
        )
    zero = np.equal(value_of(t), 0)
    ratio = subtract(log(where(zero, 1, t)), where(zero, 0, x))
    return _reduced("kl_div", reduce.sum(t * ratio, axis=axis), reduction)


def _in_columns(x):
    """Have many short rows lie as columns in memory, so that NumPy reduces all of them at once."""
    if x.size < _MANY or x.ndim == 1 or x.shape[-1] > _SHORT:
        return x
    lead = range(x.ndim - 1)
    columns = np.ascontiguousarray(x.transpose(x.ndim - 1, *lead))
    return columns.transpose(*(i + 1 for i in lead), 0)


# So many entries, of rows that are so short, are reduced faster as columns.
_MANY, _SHORT = 1024, 20


def _rows(op, x, axis):
    """Bring the axis of the classes to the end."""
    if axis != -1:
        axis = _checked_axis(op, axis, x)
        x = transpose(x, (*range(axis), *range(axis + 1, x.ndim), axis))
    shape = x.shape
    if not shape or not shape[-1]:
        raise ShapeError(f"{op}: got shape {shape}; want (..., K) with at least one class")
    return x


def _classes(op, labels, shape):
    """Check class indices against the shape (..., K) of rows; give them one-hot, as booleans."""
    rows, given = shape[:-1], labels.shape
    if given != rows:
        hint = "; drop the last axis with labels[..., 0]" if given == (*rows, 1) else ""
        raise ShapeError(
            f"{op}: labels are {given} for {rows} rows of {shape[-1]} classes; "
            f"want class indices {rows} or probabilities {shape}{hint}"
        )
    return _hot(op, labels, shape[-1])


def _matched(op, prediction, target):
    """Check that the shapes are equal; give a constant target the dtype of the prediction."""
    x, t = _real(prediction), _array(target)
    if x.shape != t.shape:
        raise ShapeError(
            f"{op}: prediction is {x.shape}, target {t.shape}; want equal shapes, since "
            "broadcasting would compare every pair; use reshape"
        )
    return x, _constant_like(op, t, x)


def _constant_like(op, t, x):
    """Give a constant the dtype of ``x``, so that it does not promote it."""
    if t.dtype.kind not in "fiub":
        raise with_graph(TypeError)(f"{op}: got a constant of dtype {t.dtype}; want real numbers")
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(float)
    if _tracked(t) or t.dtype == dtype:
        return t
    return value_of(t).astype(dtype)


def _reduced(op, losses, reduction):
    _check_reduction(op, reduction, losses.size)
    if reduction == "none":
        return losses
    return reduce.sum(losses) if reduction == "sum" else reduce.mean(losses)


def _check_reduction(op, reduction, n):
    if reduction not in ("mean", "sum", "none"):
        raise with_graph(ValueError)(
            f'{op}: reduction is {reduction!r}; want "mean", "sum" or "none"'
        )
    if n == 0 and reduction == "mean":
        raise ShapeError(f'{op}: the batch is empty and has no mean; use reduction="sum"')


def _tracked(x):
    return isinstance(x, Handle) and x._node is not None


__all__ = [
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "softmax_cross_entropy",
]
