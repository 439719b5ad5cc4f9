"""The handout's CNN as tensor expressions: conv 3x3 to 3 channels -> ReLU -> max-pool -> 10."""

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
    images, test = (
        (x[..., np.newaxis] / 255.0).astype(np.float32)
        for x in (digits.image_train, digits.image_test)
    )
    labels, truth = digits.label_train.ravel(), digits.label_test.ravel()

    def weights(*shape: int, inputs: int) -> tg.Tensor:
        values = rng.normal(0, np.sqrt(2 / inputs), shape)
        return tg.Tensor(values, dtype=np.float32, requires_grad=True)

    filters, bias = weights(3, 3, 1, 3, inputs=9), weights(3, inputs=9)
    w, b = weights(147, 10, inputs=147), weights(10, inputs=147)

    def model(x: Any) -> Any:
        h = tg.relu(tg.conv2d(x, filters, bias, padding="same"))
        h = tg.max_pool2d(h, 2)
        return h.reshape(len(x), 147) @ w + b

    sgd = tg.optim.SGD([filters, bias, w, b], lr=0.05, momentum=0.9)
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
