"""The handout's two networks as modules, with their weights in the handout's names and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops
from .nn import Conv2d, Linear, Module
from .tensor import Tensor

__all__ = ["CNN", "MLP", "example_loss"]

Weights = dict[str, np.ndarray[Any, Any]]


class MLP(Module):
    """14x14 pixels -> FC 30 -> ReLU -> FC 10.

    Parameters
    ----------
    rng : None, int or Generator
        Of the initial weights.

    Examples
    --------
    >>> MLP(rng=0)(np.zeros((5, 14, 14), np.float32)).shape
    (5, 10)
    """

    def __init__(self, rng: int | np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.hidden = Linear(196, 30, rng=rng)
        self.out = Linear(30, 10, rng=rng)

    def forward(self, images: Any) -> Any:
        """Give the logits (N, 10) of images (N, 14, 14)."""
        x = ops.reshape(images, (len(images), 196))
        return self.out(ops.relu(self.hidden(x)))

    def weights(self) -> Weights:
        """Give the weights as ``hw5.infer_mlp`` takes them."""
        w1, b1 = _columns(self.hidden)
        w2, b2 = _columns(self.out)
        return {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


class CNN(Module):
    """14x14 pixels -> conv 3x3 to 3 channels -> ReLU -> max-pool 2x2 -> FC 10.

    Parameters
    ----------
    rng : None, int or Generator
        Of the initial weights.

    Examples
    --------
    >>> CNN(rng=0)(np.zeros((5, 14, 14), np.float32)).shape
    (5, 10)
    """

    def __init__(self, rng: int | np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.conv = Conv2d(1, 3, 3, padding="same", rng=rng)
        self.out = Linear(147, 10, rng=rng)

    def forward(self, images: Any) -> Any:
        """Give the logits (N, 10) of images (N, 14, 14)."""
        x = ops.reshape(images, (*images.shape, 1))
        x = ops.max_pool2d(ops.relu(self.conv(x)), 2)
        return self.out(ops.reshape(x, (len(images), 147)))

    def weights(self) -> Weights:
        """Give the weights as ``hw5.infer_cnn`` takes them."""
        w_fc, b_fc = _columns(self.out)
        w_conv, b_conv = self.conv.weight.numpy(), self.conv.bias.numpy()  # type: ignore[union-attr]
        return {
            "w_conv": w_conv.astype(float),
            "b_conv": b_conv[:, np.newaxis].astype(float),
            "w_fc": w_fc,
            "b_fc": b_fc,
        }


def example_loss(model: Any) -> tuple[Any, dict[str, Any]]:
    """Compute the loss of a network on noise, for a picture; give it and names for what is in it.

    Examples
    --------
    >>> loss, names = example_loss(MLP(rng=0))
    >>> sorted(names)
    ['images', 'loss', 'model']
    """
    rng = np.random.default_rng(0)
    images = Tensor(rng.random((32, 14, 14), dtype=np.float32))
    loss = ops.softmax_cross_entropy(model(images), rng.integers(0, 10, 32))
    return loss, {"images": images, "loss": loss, "model": model}


def _columns(layer: Linear) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights (outputs, inputs) and bias (outputs, 1), for the handout's columns."""
    assert layer.bias is not None
    return layer.weight.numpy().T.astype(float), layer.bias.numpy()[:, np.newaxis].astype(float)
