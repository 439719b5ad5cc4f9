"""A function and its derivatives along directions, each as outputs with weights.

The level 0 of a function are its outputs, weighed by u. The level 1 is the gradient of that number,
weighed by a direction v: its weighed sum is the slope along v. The level 2 is the gradient of the
level 1, and so on. No primitive is spent on the weights, so a wrong one cannot hide there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Handle, Node, enable_grad, wrap
from ..walk import pull
from .functions import Flat, float_leaves, precision_of, variable, weigh
from .oracle import Sample, scale_of, watching

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Level:
    """Outputs of a list of tensors, and the weights that make one number of them.

    ``least`` is a bound below its magnitude: a derivative that vanishes by cancellation is rounded
    relative to what it was derived from.
    """

    outputs: Callable[[Sequence[Any]], list[Any]]
    weights: Sequence[Array]
    least: float = 0.0

    def value(self, values: Sequence[Array]) -> tuple[float, float, float]:
        """Compute the number, its magnitude, and its rounding unit."""
        outputs = self.outputs([variable(x) for x in values])
        value, magnitude, precision = weigh([array_of(y) for y in outputs], self.weights)
        return value, max(magnitude, self.least), precision

    def along(self, values: Sequence[Array]) -> Callable[[Sequence[Array]], Any]:
        """Give the functions of one parameter along directions from a point."""

        def along(direction: Sequence[Array]) -> Callable[[float], Sample]:
            def phi(t: float) -> Sample:
                moved = [np.asarray(x + t * v) for x, v in zip(values, direction, strict=True)]
                with watching() as watch, np.errstate(all="ignore"):
                    value, magnitude, precision = self.value(moved)
                return watch.sample(value, magnitude, precision)

            return phi

        return along

    def gradient(self, variables: Sequence[Any]) -> list[Array]:
        """Compute the gradient of the number as a plain backward does."""
        outputs = self.outputs(variables)
        return [array_of(g) for g in pulled(outputs, self.weights, variables)]

    def next(self, direction: Sequence[Array], magnitude: float = 0.0) -> Level:
        """Give the derivative along a direction."""
        least = max(self.least, magnitude)

        def outputs(variables: Sequence[Any]) -> list[Any]:
            return pulled(self.outputs(variables), self.weights, variables, create_graph=True)

        return Level(outputs, direction, least)


def first_level(fn: Callable[..., Any], flat: Flat, weights: Sequence[Array]) -> Level:
    """Give the level 0 of a function."""
    return Level(lambda variables: float_leaves(flat.call(fn, variables)), weights)


class BackwardFailed(Exception):
    """A rule raised an error or did damage; the message says which."""


def pulled(
    outputs: Sequence[Any],
    weights: Sequence[Array],
    variables: Sequence[Any],
    *,
    create_graph: bool = False,
) -> list[Any]:
    """Pull weights of the outputs back to the variables; zeros where nothing arrives.

    Raises
    ------
    BackwardFailed
    """
    nodes = [x._node for x in variables]
    seeds: list[tuple[Node, Any]] = []
    for y, u in zip(outputs, weights, strict=True):
        if isinstance(y, Handle) and y._node is not None:
            seed = np.array(u, dtype=y._data.dtype)
            seeds.append((y._node, wrap(seed) if create_graph else seed))
    try:
        with enable_grad() if create_graph else nullcontext():
            cotangents, _ = pull(seeds, nodes, create_graph=create_graph)
    except Exception as error:
        raise BackwardFailed(f"the backward raised {type(error).__name__}: {error}") from error
    given = [u for y, u in zip(outputs, weights, strict=True) if getattr(y, "_node", None)]
    for (_, seed), u in zip(seeds, given, strict=True):
        if not np.array_equal(array_of(seed), u.astype(seed.dtype), equal_nan=True):
            raise BackwardFailed("a rule writes to the cotangent that it gets")
    return [
        cotangents.get(node, np.zeros(node.shape, node.dtype)) if node is not None else None
        for node in nodes
    ]


def array_of(value: Any) -> Array:
    """Give the array of a tensor, array or number."""
    return value._data if isinstance(value, Handle) else np.asarray(value)


def random_weights(rng: np.random.Generator, outputs: Sequence[Any]) -> list[Array]:
    """Choose weights for outputs: none near 0, no two alike, so that no error cancels."""
    return [_away_from_zero(rng, np.shape(y)) for y in outputs]


def random_direction(rng: np.random.Generator, values: Sequence[Array]) -> list[Array]:
    """Choose a direction that moves every entry, by a length that suits the argument."""
    return [_away_from_zero(rng, x.shape) * scale_of(x) for x in values]


def _away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    sign = rng.integers(0, 2, shape) * 2 - 1
    return np.asarray(sign * rng.uniform(0.5, 1.5, shape))


def dot(arrays: Sequence[Array], direction: Sequence[Array]) -> tuple[float, float]:
    """Give the product of a gradient and a direction, and the sum of its absolute terms."""
    value, magnitude, _ = weigh(arrays, direction)
    return value, magnitude


__all__ = [
    "BackwardFailed",
    "Level",
    "array_of",
    "dot",
    "first_level",
    "precision_of",
    "pulled",
    "random_direction",
    "random_weights",
]
