"""The handout's MLP as tensor expressions: 196 -> 30 -> ReLU -> 10, with nothing hidden."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.data import load_digits, mini_batches


def main() -> None:
    """Train on the digits that are here, and print the test accuracy of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    digits = load_digits()
    print(f"data: {digits.source}")
    images, test = (x.reshape(-1, 196) / 255.0 for x in (digits.image_train, digits.image_test))
    labels, truth = digits.label_train.ravel(), digits.label_test.ravel()

    w1 = tg.Tensor(rng.normal(0, np.sqrt(2 / 196), (196, 30)), requires_grad=True, name="w1")
    b1 = tg.Tensor(np.zeros(30), requires_grad=True, name="b1")
    w2 = tg.Tensor(rng.normal(0, np.sqrt(2 / 30), (30, 10)), requires_grad=True, name="w2")
    b2 = tg.Tensor(np.zeros(10), requires_grad=True, name="b2")

    def model(x: Any) -> Any:
        return tg.relu(x @ w1 + b1) @ w2 + b2

    sgd = tg.optim.SGD([w1, b1, w2, b2], lr=0.1, momentum=0.9)
    schedule = tg.optim.Cosine(sgd, total=options.epochs)
    for epoch in range(1, options.epochs + 1):
        for x, y in mini_batches(images, labels, batch_size=32, rng=rng):
            loss = tg.softmax_cross_entropy(model(x), y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        schedule.step()
        with tg.no_grad():
            accuracy = np.mean(tg.argmax(model(test), axis=1) == truth)
        print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
