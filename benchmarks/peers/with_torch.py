"""PyTorch, eager and compiled. Filters become (C2, C1, h, w), images (N, C, H, W)."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector


class Torch:
    """Eager, with ``torch.optim.SGD``."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    def compiled(self, function: Any) -> Any:
        return function

    def train(self, kind: str, size: int) -> Any:
        self.parameters = p = [
            torch.tensor(w.transpose(3, 2, 0, 1).copy() if w.ndim == 4 else w, requires_grad=True)
            for w in parameters(kind)
        ]
        self.last: list[Any] = []
        optimizer = torch.optim.SGD(p, lr=LEARNING_RATE)
        images, classes = batch(kind, size)
        x = torch.tensor(images.transpose(0, 3, 1, 2).copy() if images.ndim == 4 else images)
        labels = torch.tensor(classes)

        def loss_of(x: Any, labels: Any) -> Any:
            h, k = x, 0
            for layer in LAYERS.get(kind, ()):
                if layer == "pool":
                    h = F.max_pool2d(h, 2)
                else:
                    h = F.relu(F.conv2d(h, p[k], p[k + 1], padding=layer))
                    k += 2
            if h.ndim == 4:
                h = h.permute(0, 2, 3, 1)
            h = h.reshape(len(x), -1)
            for n in range(k, len(p), 2):
                h = torch.addmm(p[n + 1], h, p[n])
                if n + 2 < len(p):
                    h = F.relu(h)
            return F.cross_entropy(h, labels)

        run = self.compiled(loss_of)

        def step() -> float:
            loss = run(x, labels)
            self.update(loss, optimizer)
            return float(loss.detach())

        return step

    def update(self, loss: Any, optimizer: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def gradients(self) -> list[Any]:
        return [
            (g.permute(2, 3, 1, 0) if g.ndim == 4 else g).numpy()
            for g in (p.grad for p in self.parameters)
            if g is not None
        ]

    def chain(self, size: int) -> Any:
        x = torch.tensor(vector(size), requires_grad=True)

        def loss_of(x: Any) -> Any:
            a = torch.tanh(x)
            b = torch.exp(a)
            d = torch.tanh(b * x)
            return (torch.exp(-(d + a)) * b).sum()

        forward = self.compiled(loss_of)

        def run() -> Any:
            x.grad = None
            loss = forward(x)
            loss.backward()
            assert x.grad is not None
            return float(loss.detach()), x.grad.numpy()

        return run

    def scalars(self, count: int) -> Any:
        x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

        def run() -> Any:
            x.grad = None
            y = x
            for _ in range(count // 2):
                y = y * 0.999 + x
            y.backward()
            assert x.grad is not None
            return float(y.detach()), x.grad.numpy()

        return run


class TorchCompile(Torch):
    """The same through ``torch.compile``."""

    scalars = None  # type: ignore[assignment]

    def compiled(self, function: Any) -> Any:
        return torch.compile(function)


class TorchFewest(Torch):
    """With the fewest calls: no optimiser, and one call that changes all parameters."""

    scalars = None  # type: ignore[assignment]
    chain = None  # type: ignore[assignment]

    def update(self, loss: Any, optimizer: Any) -> None:
        found = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            torch._foreach_add_(self.parameters, found, alpha=-LEARNING_RATE)
        for p, g in zip(self.parameters, found, strict=True):
            p.grad = g
