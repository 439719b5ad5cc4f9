"""Newton's method: with the Hessian, every step doubles the number of right digits."""

from __future__ import annotations

import numpy as np

import tinygrad_hw as tg


def cost(x: tg.Tensor) -> tg.Tensor:
    """A convex function of five variables with one lowest point."""
    return tg.logsumexp(x * np.arange(1.0, 6.0)) + tg.sum((x - 1) ** 4) + tg.sum(x * x)


def main() -> None:
    """Print the norm of the gradient at each step."""
    gradient, hessian = tg.grad(cost), tg.hessian(cost)
    x = np.zeros(5)
    for step in range(8):
        g = gradient(x).numpy()
        print(f"step {step}: cost {cost(tg.Tensor(x)).item():.12f}, slope {np.linalg.norm(g):.1e}")
        x = x - np.linalg.solve(hessian(x).numpy(), g)


if __name__ == "__main__":
    main()
