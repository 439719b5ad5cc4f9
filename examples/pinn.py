"""A physics-informed network: learn u with u'' = -u, u(0) = 0, u'(0) = 1 from the equation alone.

The loss holds the second derivative of the network by its input, and training differentiates that
by the weights (Raissi, Perdikaris and Karniadakis 2019, section 3). The solution is the sine.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import tinygrad_hw as tg


def main() -> None:
    """Train, and print how far the network is from the sine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    hidden = tg.nn.Linear(1, 24, rng=0)
    inner = tg.nn.Linear(24, 24, rng=1)
    out = tg.nn.Linear(24, 1, rng=2)
    parameters = [p for layer in (hidden, inner, out) for p in layer.parameters()]

    def u(t: Any) -> Any:
        return out(tg.tanh(inner(tg.tanh(hidden(t)))))

    def slope(values: Any, t: Any) -> Any:
        return tg.grad(values.sum(), t, create_graph=True)

    times = np.linspace(0, np.pi, 40, dtype=np.float32)[:, np.newaxis]
    adam = tg.optim.Adam(parameters, lr=0.01)
    schedule = tg.optim.Cosine(adam, total=options.steps)
    for step in range(options.steps + 1):
        t = tg.Tensor(times, requires_grad=True)
        first = slope(u(t), t)
        equation = tg.mean((slope(first, t) + u(t)) ** 2)
        start = (u(t)[0, 0]) ** 2 + (first[0, 0] - 1) ** 2
        loss = equation + start
        if step % 500 == 0:
            print(f"step {step}: loss {loss.item():.2e}")
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    error = np.abs(u(times).numpy() - np.sin(times)).max()
    print(f"largest error {error:.4f}")


if __name__ == "__main__":
    main()
