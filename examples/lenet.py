"""A LeNet on MNIST in full size: over 98.5 % of the 10,000 test images.

Two convolutions 5x5 with ReLU and max-pooling, then three fully connected layers (LeCun, Bottou,
Bengio and Haffner 1998, section II.B, with ReLU and max-pooling for its sigmoids and averages).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.data import load_mnist, mini_batches


class LeNet(tg.nn.Module):
    """28x28 pixels -> 6 channels -> 16 channels -> 120 -> 84 -> 10."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.conv1 = tg.nn.Conv2d(1, 6, 5, padding="same", rng=rng)
        self.conv2 = tg.nn.Conv2d(6, 16, 5, rng=rng)
        self.fc1 = tg.nn.Linear(400, 120, rng=rng)
        self.fc2 = tg.nn.Linear(120, 84, rng=rng)
        self.out = tg.nn.Linear(84, 10, rng=rng)

    def forward(self, x: Any) -> Any:
        """Give the logits (N, 10) of images (N, 28, 28, 1)."""
        h = tg.max_pool2d(tg.relu(self.conv1(x)), 2)
        h = tg.max_pool2d(tg.relu(self.conv2(h)), 2)
        h = tg.relu(self.fc1(tg.reshape(h, (len(x), 400))))
        return self.out(tg.relu(self.fc2(h)))


def main() -> None:
    """Train, and print the test accuracy of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=60000, help="how many to train with")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    images, labels, test, truth = load_mnist(options.data)
    images, labels = images[: options.images], labels[: options.images]

    model = LeNet(rng)
    batches = -(-len(images) // 64)
    adam = tg.optim.Adam(model.parameters(), lr=3e-3)
    schedule = tg.optim.OneCycle(adam, total=options.epochs * batches)
    for epoch in range(1, options.epochs + 1):
        start = time.perf_counter()
        for x, y in mini_batches(images, labels, batch_size=64, rng=rng):
            loss = tg.softmax_cross_entropy(model(pixels(x)), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
        accuracy = np.mean(predict(model, test) == truth)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}: accuracy {accuracy:.4f} ({seconds:.0f} s)", flush=True)


def pixels(images: np.ndarray) -> np.ndarray:
    """Give images (N, 28, 28) of bytes as floats (N, 28, 28, 1)."""
    return (images[..., np.newaxis] / np.float32(255)).astype(np.float32)


def predict(model: LeNet, images: np.ndarray) -> np.ndarray:
    """Classes of many images, a part at a time."""
    with tg.no_grad():
        parts = [model(pixels(part)) for part in np.array_split(images, max(len(images) // 500, 1))]
    return np.concatenate([part.numpy().argmax(axis=1) for part in parts])


if __name__ == "__main__":
    main()
