"""Logistic regression: two clouds of points, a line between them, and how sure it is."""

from __future__ import annotations

import numpy as np

import tinygrad_hw as tg


def main() -> None:
    """Fit the line by gradient descent and print its weights and accuracy."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 1.0], 200)
    points = rng.normal(size=(400, 2)) + np.outer(labels, [2.0, 1.0])

    w = tg.Tensor(np.zeros(2), requires_grad=True)
    b = tg.Tensor(0.0, requires_grad=True)
    sgd = tg.optim.SGD([w, b], lr=0.5)
    for step in range(501):
        logits = points @ w + b
        loss = tg.binary_cross_entropy_with_logits(logits, labels) + 1e-3 * tg.sum(w * w)
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    sure = tg.sigmoid(points @ w + b).numpy()
    print(f"weights {w.numpy().round(3)}, bias {b.item():.3f}")
    print(f"accuracy {np.mean((sure > 0.5) == labels):.3f}")


if __name__ == "__main__":
    main()
