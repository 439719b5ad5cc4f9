"""An op of your own: the forward on arrays, its rule, and its test."""

from __future__ import annotations

import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.testing import check_gradients


@tg.primitive(conventions="slope 1 at 0")
def softsign(x):
    """The curve x / (1 + |x|), between -1 and 1."""
    return x / (1 + np.abs(x))


@softsign.rule(keeps="x")
def _(g, y, x):
    # Of primitives, so it can be differentiated again: the slope is 1 / (1 + |x|)^2.
    return (g / tg.square(1 + tg.abs(x)),)


def main() -> None:
    """Print the slopes, and compare them with differences, once and again."""
    x = np.array([-2.0, -0.5, 0.25, 3.0])
    first = tg.grad(lambda t: softsign(t).sum())
    second = tg.grad(lambda t: first(t).sum())
    print("softsign", softsign(x))
    print("slope   ", first(x).numpy())
    print("bend    ", second(x).numpy())
    print(check_gradients(softsign, x, order=2))


if __name__ == "__main__":
    main()
