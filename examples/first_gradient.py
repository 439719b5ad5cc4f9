"""The first gradient: a function of two variables, its slope, and a few steps downhill."""

from __future__ import annotations

import tinygrad_hw as tg


def rosenbrock(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    """A narrow valley, with its lowest point at (1, 1)."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def main() -> None:
    """Print the gradient at a point, then walk down along it."""
    x = tg.Tensor(-1.0, requires_grad=True, name="x")
    y = tg.Tensor(2.0, requires_grad=True, name="y")
    height = rosenbrock(x, y)
    print(height.graph().text())
    height.backward()
    print(f"at (-1, 2) the height is {height.item()}, the slope ({x.grad}, {y.grad})")

    downhill = tg.optim.SGD([x, y], lr=1e-3, momentum=0.9)
    for _ in range(5000):
        downhill.zero_grad()
        rosenbrock(x, y).backward()
        downhill.step()
    print(f"after 5000 steps we are at ({x.item():.4f}, {y.item():.4f})")


if __name__ == "__main__":
    main()
