"""autograd, by HIPS: NumPy's functions with rules; convolution as in its own examples."""

from __future__ import annotations

from typing import Any

import autograd.numpy as np
from autograd import value_and_grad

from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector


class Autograd:
    """Gradients of functions of arrays."""

    def train(self, kind: str, size: int) -> Any:
        if kind in ("lenet", "wide"):
            raise NotImplementedError("the shifted products would not fit the memory")
        self.parameters = parameters(kind)
        x, labels = batch(kind, size)
        hot = np.eye(10, dtype=np.float32)[labels]

        def loss_of(p: Any) -> Any:
            h, k = x, 0
            for layer in LAYERS.get(kind, ()):
                if layer == "pool":
                    n, rows, columns, c = h.shape
                    h = np.max(h.reshape(n, rows // 2, 2, columns // 2, 2, c), axis=(2, 4))
                else:
                    h = np.maximum(_conv(h, p[k], layer) + p[k + 1], 0)
                    k += 2
            h = h.reshape(len(x), -1)
            for n in range(k, len(p), 2):
                h = np.dot(h, p[n]) + p[n + 1]
                if n + 2 < len(p):
                    h = np.maximum(h, 0)
            h = h - np.max(h, axis=1, keepdims=True)
            log_total = np.log(np.sum(np.exp(h), axis=1))
            return np.mean(log_total - np.sum(h * hot, axis=1))

        both = value_and_grad(loss_of)

        def step() -> float:
            loss, self.last = both(self.parameters)
            self.parameters = [
                w - np.float32(LEARNING_RATE) * g
                for w, g in zip(self.parameters, self.last, strict=True)
            ]
            return float(loss)

        return step

    def gradients(self) -> list[Any]:
        return list(self.last)

    def chain(self, size: int) -> Any:
        x = vector(size)

        def loss_of(x: Any) -> Any:
            a = np.tanh(x)
            b = np.exp(a)
            d = np.tanh(b * x)
            return np.sum(np.exp(-(d + a)) * b)

        both = value_and_grad(loss_of)
        return lambda: both(x)

    def scalars(self, count: int) -> Any:
        def loss_of(x: Any) -> Any:
            y = x
            for _ in range(count // 2):
                y = y * 0.999 + x
            return y

        both = value_and_grad(loss_of)
        return lambda: both(0.5)


def _conv(x: Any, w: Any, padding: str) -> Any:
    a, b = w.shape[:2]
    if padding == "same":
        x = np.pad(x, ((0, 0), (a // 2, a // 2), (b // 2, b // 2), (0, 0)), "constant")
    rows, columns = x.shape[1] - a + 1, x.shape[2] - b + 1
    return sum(
        np.dot(x[:, i : i + rows, j : j + columns], w[i, j]) for i in range(a) for j in range(b)
    )
