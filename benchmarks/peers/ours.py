"""This package: eager, and compiled with each back end."""

from __future__ import annotations

from typing import Any

import tinygrad_hw as tg
from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector


class Eager:
    """Every operation when it is called."""

    def compiled(self, function: Any) -> Any:
        return function

    def train(self, kind: str, size: int) -> Any:
        self.parameters = p = [tg.Tensor(w, requires_grad=True) for w in parameters(kind)]
        optimizer = tg.optim.SGD(p, lr=LEARNING_RATE)
        x, labels = batch(kind, size)

        def step(x: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            h, k = x, 0
            for layer in LAYERS.get(kind, ()):
                if layer == "pool":
                    h = tg.max_pool2d(h, 2)
                else:
                    h = tg.relu(tg.conv2d(h, p[k], p[k + 1], padding=layer))
                    k += 2
            h = tg.reshape(h, (len(x), -1))
            for n in range(k, len(p), 2):
                h = tg.linear(h, p[n], p[n + 1])
                if n + 2 < len(p):
                    h = tg.relu(h)
            loss = tg.softmax_cross_entropy(h, labels)
            loss.backward()
            optimizer.step()
            return loss

        run = self.compiled(step)
        return lambda: run(x, labels).item()

    def gradients(self) -> list[Any]:
        return [p.grad for p in self.parameters]

    def chain(self, size: int) -> Any:
        x = tg.Tensor(vector(size), requires_grad=True)

        def forward_and_backward(x: Any) -> Any:
            x.grad = None
            a = tg.tanh(x)
            b = tg.exp(a)
            d = tg.tanh(b * x)
            loss = (tg.exp(-(d + a)) * b).sum()
            loss.backward()
            return loss

        run = self.compiled(forward_and_backward)
        return lambda: (run(x).item(), x.grad)

    def scalars(self, count: int) -> Any:
        x = tg.Tensor(0.5, requires_grad=True)

        def run() -> Any:
            x.grad = None
            y = x
            for _ in range(count // 2):
                y = y * 0.999 + x
            y.backward()
            return y.item(), x.grad

        return run


class CompiledNumpy(Eager):
    """Recorded, and run by NumPy."""

    scalars = None  # type: ignore[assignment]

    def compiled(self, function: Any) -> Any:
        return tg.compile(function, backend="numpy")


class CompiledNumba(CompiledNumpy):
    """Recorded, and run as native code."""

    def compiled(self, function: Any) -> Any:
        return tg.compile(function, backend="numba")
