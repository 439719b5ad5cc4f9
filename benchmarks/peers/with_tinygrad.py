"""tinygrad, with its ``TinyJit`` around the whole step."""

from __future__ import annotations

from typing import Any

from tinygrad import Tensor, TinyJit, nn

from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector


class Tinygrad:
    """Lazy tensors; filters (C2, C1, h, w), images (N, C, H, W)."""

    def train(self, kind: str, size: int) -> Any:
        self.parameters = p = [
            Tensor(w.transpose(3, 2, 0, 1).copy() if w.ndim == 4 else w).is_param_()
            for w in parameters(kind)
        ]
        optimizer = nn.optim.SGD(p, lr=LEARNING_RATE)
        images, classes = batch(kind, size)
        x = Tensor(images.transpose(0, 3, 1, 2).copy() if images.ndim == 4 else images)
        labels = Tensor(classes.astype("int32"))

        @TinyJit
        def update(x: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            h, k = x, 0
            for layer in LAYERS.get(kind, ()):
                if layer == "pool":
                    h = h.max_pool2d((2, 2))
                else:
                    pad = p[k].shape[2] // 2 if layer == "same" else 0
                    h = h.conv2d(p[k], p[k + 1], padding=pad).relu()
                    k += 2
            if len(h.shape) == 4:
                h = h.permute(0, 2, 3, 1)
            h = h.reshape(len(images), -1)
            for n in range(k, len(p), 2):
                h = h @ p[n] + p[n + 1]
                if n + 2 < len(p):
                    h = h.relu()
            loss = h.sparse_categorical_crossentropy(labels)
            loss.backward()
            gradients = [w.grad.realize() for w in p]
            optimizer.step()
            return loss.realize(), gradients

        def step() -> float:
            with Tensor.train():
                loss, self.last = update(x, labels)
            return float(loss.item())

        return step

    def gradients(self) -> list[Any]:
        arrays = [g.numpy() for g in self.last]
        return [g.transpose(2, 3, 1, 0) if g.ndim == 4 else g for g in arrays]

    def chain(self, size: int) -> Any:
        data = vector(size)

        @TinyJit
        def both(x: Any) -> Any:
            a = x.tanh()
            b = a.exp()
            d = (b * x).tanh()
            loss = ((-(d + a)).exp() * b).sum()
            (gradient,) = loss.gradient(x)
            return loss.realize(), gradient.realize()

        x = Tensor(data).realize()

        def run() -> Any:
            loss, gradient = both(x)
            return float(loss.item()), gradient.numpy()

        return run
