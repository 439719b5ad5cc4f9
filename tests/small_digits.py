"""A small set of digits in the course's files, made up, for tests of the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_small_digits(folder: Path, *, n_train: int = 640, n_test: int = 100) -> Path:
    """Write images that a network learns in a few epochs: each class has its own bright bar."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("mnist_train.npz", n_train), ("mnist_test.npz", n_test)):
        labels = rng.integers(0, 10, (n, 1), dtype=np.uint8)
        images = rng.integers(0, 60, (n, 14, 14), dtype=np.uint8)
        images[np.arange(n), 2 + labels.ravel(), 3:11] = 255
        np.savez(folder / name, img=images, label=labels)
    return folder
