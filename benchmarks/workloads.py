"""The workloads, as plain data that every peer can read: NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Workload:
    """What is measured.

    ``kind`` is "mlp", "cnn", "lenet", "wide", "chain", "scalars", "process" or "memory".
    """

    name: str
    title: str
    kind: str
    batch: int = 0
    steps: int = 1
    unit: str = "us"


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", "MLP 196-30-10, batch 32", "mlp", 32, 100),
        Workload("W1b", "MLP 196-30-10, batch 256", "mlp", 256, 50),
        Workload("W2", "CNN 14x14, conv 3x3x3, FC 10, batch 32", "cnn", 32, 50),
        Workload("W2b", "CNN 14x14, conv 3x3x3, FC 10, batch 256", "cnn", 256, 20),
        Workload("W3", "LeNet-5-like on 28x28, batch 128", "lenet", 128, 2),
        Workload("W4", "wider CNN on 32x32x3, batch 64", "wide", 64, 1),
        Workload("W5", "ten elementwise ops on 1e6 entries", "chain", 1_000_000, 3),
        Workload("W6", "1000 tiny ops on 0-d tensors, per op", "scalars", 1000, 2, "ns"),
        Workload("W7", "cold process: import, build, 200 steps of W2", "process", 32, 1, "s"),
        Workload("W8", "peak memory of a process that trains W3", "memory", 128, 1, "MB"),
    )
}
# Filters and matrices of the networks, in order: (h, w, C1, C2) and (m, n).
SHAPES = {
    "mlp": [(196, 30), (30, 10)],
    "cnn": [(3, 3, 1, 3), (147, 10)],
    "lenet": [(5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)],
    "wide": [
        (3, 3, 3, 32),
        (3, 3, 32, 32),
        (3, 3, 32, 64),
        (3, 3, 64, 64),
        (4096, 256),
        (256, 10),
    ],
}
IMAGES = {"mlp": (196,), "cnn": (14, 14, 1), "lenet": (28, 28, 1), "wide": (32, 32, 3)}
# Layers of the convolutional networks: "conv", with its padding, or "pool"; then the matrices.
LAYERS = {
    "cnn": ["same", "pool"],
    "lenet": ["same", "pool", "valid", "pool"],
    "wide": ["same", "same", "pool", "same", "same", "pool"],
}


def model_kind(workload: Workload) -> str:
    """The network that a workload trains."""
    return {"process": "cnn", "memory": "lenet"}.get(workload.kind, workload.kind)


def parameters(kind: str) -> list[Array]:
    """Weights and biases in turn, float32, the same for every peer."""
    rng = np.random.default_rng(0)
    made = []
    for shape in SHAPES[kind]:
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        made.append((rng.normal(size=shape) * scale).astype(np.float32))
        made.append(np.zeros(shape[-1], np.float32))
    return made


def batch(kind: str, size: int) -> tuple[Array, Array]:
    """Images (N, ...) and labels (N,)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(size, *IMAGES[kind])).astype(np.float32)
    return x, rng.integers(0, 10, size)


def vector(size: int) -> Array:
    """The entries of W5, float32 in [-1, 1]."""
    return np.random.default_rng(2).uniform(-1, 1, size).astype(np.float32)


def fingerprint(loss: float, gradients: list[Array]) -> dict[str, Any]:
    """What peers must agree on: the loss, and the norm and a projection of each gradient."""
    rng = np.random.default_rng(3)
    numbers = []
    for gradient in gradients:
        g = np.asarray(gradient, float).ravel()
        numbers += [float(np.linalg.norm(g)), float(g @ rng.normal(size=g.size))]
    return {"loss": float(loss), "gradients": numbers}
