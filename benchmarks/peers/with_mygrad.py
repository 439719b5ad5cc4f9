"""MyGrad: tensors on NumPy, with its own convolution and pooling."""

from __future__ import annotations

from typing import Any

import mygrad as mg
from mygrad.nnet.layers import conv_nd, max_pool
from mygrad.nnet.losses import softmax_crossentropy

from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector


class MyGrad:
    """Eager tensors; filters (C2, C1, h, w), images (N, C, H, W)."""

    def train(self, kind: str, size: int) -> Any:
        self.parameters = p = [
            mg.tensor(w.transpose(3, 2, 0, 1).copy() if w.ndim == 4 else w)
            for w in parameters(kind)
        ]
        x, labels = batch(kind, size)
        if x.ndim == 4:
            x = x.transpose(0, 3, 1, 2).copy()

        def step() -> float:
            h, k = x, 0
            for layer in LAYERS.get(kind, ()):
                if layer == "pool":
                    h = max_pool(h, (2, 2), 2)
                else:
                    pad = p[k].shape[2] // 2 if layer == "same" else 0
                    bias = p[k + 1].reshape(1, -1, 1, 1)
                    h = mg.maximum(conv_nd(h, p[k], stride=1, padding=pad) + bias, 0)
                    k += 2
            if h.ndim == 4:
                h = h.transpose(0, 2, 3, 1)
            h = h.reshape(len(x), -1)
            for n in range(k, len(p), 2):
                h = mg.matmul(h, p[n]) + p[n + 1]
                if n + 2 < len(p):
                    h = mg.maximum(h, 0)
            loss = softmax_crossentropy(h, labels)
            loss.backward()
            self.last = [w.grad for w in p]
            for w, g in zip(p, self.last, strict=True):
                w.data -= LEARNING_RATE * g
            return float(loss)

        return step

    def gradients(self) -> list[Any]:
        return [g.transpose(2, 3, 1, 0) if g.ndim == 4 else g for g in self.last]

    def chain(self, size: int) -> Any:
        x = mg.tensor(vector(size))

        def run() -> Any:
            a = mg.tanh(x)
            b = mg.exp(a)
            d = mg.tanh(b * x)
            loss = (mg.exp(-(d + a)) * b).sum()
            loss.backward()
            return float(loss), x.grad

        return run

    def scalars(self, count: int) -> Any:
        x = mg.tensor(0.5)

        def run() -> Any:
            y = x
            for _ in range(count // 2):
                y = y * 0.999 + x
            y.backward()
            return float(y), x.grad

        return run
