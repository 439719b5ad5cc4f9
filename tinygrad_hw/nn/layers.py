"""Layers: parameters with initial values, and the op that uses them.

Parameters are float32 unless ``dtype`` says otherwise. ``rng`` is None, an int or a Generator: pass
one Generator to all layers of a model, since layers that get the same int get the same weights.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ops.conv import _pair, _pooling, _window
from ..ops.shape import _sides
from ..settings import check_fraction, check_least, check_share, check_whole
from ..tensor import Tensor
from . import init
from .module import Module

__all__ = [
    "ELU",
    "GELU",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]

Rng: TypeAlias = "int | np.random.Generator | None"
Pair = int | tuple[int, int]


def _parameter(array: Any) -> Tensor:
    return Tensor(array, requires_grad=True)


class Linear(Module):
    """``x @ weight + bias`` on rows (..., inputs): (..., outputs).

    Parameters
    ----------
    inputs, outputs : int
    bias : bool
    rng, dtype
        Of the initial weights, which are those of He et al. (2015).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.Linear(3, 2, rng=0)(np.ones((4, 3), np.float32)).shape
    (4, 2)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        rng: Rng = None,
        dtype: Any = np.float32,
    ) -> None:
        check_whole("Linear", "inputs", inputs, 1)
        check_whole("Linear", "outputs", outputs, 1)
        self.weight = _parameter(init.kaiming_normal((inputs, outputs), rng=rng, dtype=dtype))
        self.bias = _parameter(init.zeros((outputs,), dtype=dtype)) if bias else None

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class Conv2d(Module):
    """Convolution of images (..., H, W, inputs) with ``outputs`` filters.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    size : int or (int, int)
        Rows and columns of a filter.
    stride, padding, dilation, groups
        As in :func:`tinygrad_hw.conv2d`.
    bias : bool
    rng, dtype
        Of the initial weights, which are those of He et al. (2015).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> layer = tg.nn.Conv2d(1, 3, 3, padding="same", rng=0)
    >>> layer(np.ones((5, 14, 14, 1), np.float32)).shape
    (5, 14, 14, 3)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Pair,
        *,
        stride: Pair = 1,
        padding: Any = "valid",
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        rng: Rng = None,
        dtype: Any = np.float32,
    ) -> None:
        for name, n in (("inputs", inputs), ("outputs", outputs), ("groups", groups)):
            check_whole("Conv2d", name, n, 1)
        if inputs % groups or outputs % groups:
            raise ValueError(
                f"Conv2d: {inputs} and {outputs} channels do not divide into {groups} groups"
            )
        rows, columns = _pair("Conv2d", "size", size)
        shape = (rows, columns, inputs // groups, outputs)
        self.weight = _parameter(init.kaiming_normal(shape, rng=rng, dtype=dtype))
        self.bias = _parameter(init.zeros((outputs,), dtype=dtype)) if bias else None
        self.options = {**_window("Conv2d", stride, padding, dilation), "groups": groups}

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        return ops.conv2d(x, self.weight, self.bias, **self.options)

    def extra_repr(self) -> str:
        rows, columns, inputs, outputs = self.weight.shape
        return f"{inputs * self.options['groups']}, {outputs}, {rows}x{columns}"


class MaxPool2d(Module):
    """Largest entry of each window.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.MaxPool2d(2)(np.ones((5, 14, 14, 3))).shape
    (5, 7, 7, 3)
    """

    def __init__(self, size: Pair, stride: Pair | None = None, padding: Any = "valid") -> None:
        _pooling(type(self).__name__, size, stride, padding)
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        return ops.max_pool2d(x, self.size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return str(self.size)


class AvgPool2d(MaxPool2d):
    """Mean of each window.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.AvgPool2d(2)(np.ones((5, 14, 14, 3))).shape
    (5, 7, 7, 3)
    """

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        return ops.avg_pool2d(x, self.size, self.stride, self.padding)


class BatchNorm(Module):
    """Normalise each channel by the batch in training, by running averages in use.

    The batch's variance is divided by the number of entries N, its share in the running average by
    N - 1: that one is to estimate the variance of all data.

    Parameters
    ----------
    channels : int
        The last axis; any axes in front are averaged over.
    momentum : float
        Share of the batch in the running averages.
    eps : float
    dtype

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> layer = tg.nn.BatchNorm(3)
    >>> layer(np.random.default_rng(0).normal(size=(8, 3))).shape
    (8, 3)
    """

    def __init__(
        self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5, dtype: Any = np.float32
    ) -> None:
        check_whole("BatchNorm", "channels", channels, 1)
        check_fraction("BatchNorm", "momentum", momentum)
        check_least("BatchNorm", "eps", eps, 0)
        self.weight = _parameter(init.ones((channels,), dtype=dtype))
        self.bias = _parameter(init.zeros((channels,), dtype=dtype))
        self.running_mean = Tensor(init.zeros((channels,), dtype=dtype))
        self.running_var = Tensor(init.ones((channels,), dtype=dtype))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Any) -> Any:
        """Apply the layer; in training, update the running averages."""
        y = ops.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            training=self.training,
            eps=self.eps,
        )
        if self.training:
            mean, var = ops.batch_statistics(x)
            n = math.prod(np.shape(x)[:-1])  # More than 1, or there was no variance above.
            unbiased = var * (n / (n - 1))
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                # A new array: a graph may still use the old one.
                running._data = ((1 - self.momentum) * running._data + self.momentum * now).astype(
                    running.dtype
                )
        return y

    def extra_repr(self) -> str:
        return str(self.weight.size)


class LayerNorm(Module):
    """Normalise over the last axes, entry by entry scaled and shifted.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the last axes.
    eps : float
    dtype

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.LayerNorm(4)(np.arange(8.0).reshape(2, 4)).shape
    (2, 4)
    """

    def __init__(
        self, shape: int | tuple[int, ...], *, eps: float = 1e-5, dtype: Any = np.float32
    ) -> None:
        self.shape = _sides("LayerNorm", (shape,))
        for n in self.shape:
            check_whole("LayerNorm", "shape", n, 1)
        check_least("LayerNorm", "eps", eps, 0)
        self.weight = _parameter(init.ones(self.shape, dtype=dtype))
        self.bias = _parameter(init.zeros(self.shape, dtype=dtype))
        self.eps = eps

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        axis = tuple(range(-len(self.shape), 0))
        return ops.layer_norm(x, self.weight, self.bias, axis=axis, eps=self.eps)

    def extra_repr(self) -> str:
        return str(self.shape)


class Dropout(Module):
    """Set entries to zero with probability ``p`` in training; do nothing in use.

    Parameters
    ----------
    p : float
        In [0, 1).
    rng : None, int or Generator
        Drawn from at every call.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.Dropout(0.5, rng=0).eval()(np.ones(3))
    array([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, *, rng: Rng = None) -> None:
        check_share("Dropout", "p", p)
        self.p, self.rng = p, np.random.default_rng(rng)

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        return ops.dropout(x, self.p, rng=self.rng, training=self.training)

    def extra_repr(self) -> str:
        return str(self.p)


class Embedding(Module):
    """Rows of a table by their numbers.

    Parameters
    ----------
    n, size : int
        Rows of the table, and their length.
    rng, dtype
        Of the initial table, Gaussian of variance 1.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.Embedding(10, 4, rng=0)(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    def __init__(self, n: int, size: int, *, rng: Rng = None, dtype: Any = np.float32) -> None:
        check_whole("Embedding", "n", n, 1)
        check_whole("Embedding", "size", size, 1)
        self.weight = _parameter(init.normal((n, size), rng=rng, dtype=dtype))

    def forward(self, indices: Any) -> Any:
        """Look up."""
        return ops.embedding(indices, self.weight)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class Flatten(Module):
    """Images (N, H, W, C), or whatever comes per sample, as rows (N, H * W * C).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.Flatten()(np.ones((5, 7, 7, 3))).shape
    (5, 147)
    """

    def forward(self, x: Any) -> Any:
        """Apply the layer."""
        shape = np.shape(x)
        if not shape:
            raise ShapeError("Flatten: got a 0-d tensor; want (N, ...)")
        return ops.reshape(x, (shape[0], math.prod(shape[1:])))


class _Activation(Module):
    """An op of one tensor as a module."""

    op: Any

    def forward(self, x: Any) -> Any:
        """Apply the function."""
        return type(self).op(x)


def _activation(name: str, op: Any) -> Any:
    text = f"The function :func:`tinygrad_hw.{op.__name__}` as a module."
    members = {"op": staticmethod(op), "__doc__": text, "__module__": __name__}
    return type(name, (_Activation,), members)


ReLU = _activation("ReLU", ops.relu)
Tanh = _activation("Tanh", ops.tanh)
Sigmoid = _activation("Sigmoid", ops.sigmoid)
GELU = _activation("GELU", ops.gelu)
SiLU = _activation("SiLU", ops.silu)
ELU = _activation("ELU", ops.elu)
Softplus = _activation("Softplus", ops.softplus)
Softmax = _activation("Softmax", ops.softmax)


class LeakyReLU(Module):
    """``x`` where positive, ``slope * x`` elsewhere.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nn.LeakyReLU(0.1)(np.array([-1.0, 1.0]))
    array([-0.1,  1. ])
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:
        """Apply the function."""
        return ops.leaky_relu(x, self.slope)

    def extra_repr(self) -> str:
        return str(self.slope)
