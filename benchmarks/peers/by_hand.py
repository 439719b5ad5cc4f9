"""Hand-written NumPy: the least that a Python program can do, with every gradient spelled out."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector


class ByHand:
    """Forward and backward by hand, images with the batch innermost in memory."""

    def train(self, kind: str, size: int) -> Any:
        self.parameters = parameters(kind)
        x, labels = batch(kind, size)
        rows = np.arange(size)

        def step() -> float:
            p = self.parameters
            tape: list[Any] = []
            h = x
            k = 0
            if kind in LAYERS:
                h = np.ascontiguousarray(x.transpose(3, 1, 2, 0))
                for layer in LAYERS[kind]:
                    if layer == "pool":
                        h = _pool(h, tape)
                    else:
                        h = _conv(h, p[k], p[k + 1], layer, tape)
                        k += 2
                tape.append(("flat", h.shape))
                h = h.transpose(3, 1, 2, 0).reshape(size, -1)
            for n in range(k, len(p), 2):
                tape.append(("fc", h))
                h = h @ p[n] + p[n + 1]
                if n + 2 < len(p):
                    mask = h > 0
                    tape.append(("relu", mask))
                    h = h * mask
            h -= h.max(axis=1, keepdims=True)
            e = np.exp(h)
            total = e.sum(axis=1)
            loss = (np.log(total) - h[rows, labels]).mean()
            e /= total[:, None]
            e[rows, labels] -= 1
            e *= np.float32(1 / size)
            self.last = _backward(e, p, tape)
            for w, g in zip(p, self.last, strict=True):
                w -= np.float32(LEARNING_RATE) * g
            return float(loss)

        return step

    def gradients(self) -> list[Any]:
        return self.last

    def chain(self, size: int) -> Any:
        x = vector(size)

        def run() -> Any:
            a = np.tanh(x)
            b = np.exp(a)
            c = b * x
            d = np.tanh(c)
            e = d + a
            f = np.exp(-e)
            loss = (f * b).sum()
            df, db = b, f.copy()
            de = -df * f
            dc = de * (1 - d * d)
            db += dc * x
            da = de + db * b
            return loss, dc * b + da * (1 - a * a)

        return run


def _patches(x: Any, size: tuple[int, int], padding: str) -> Any:
    a, b = size
    if padding == "same":
        x = np.pad(x, ((0, 0), (a // 2, a // 2), (b // 2, b // 2), (0, 0)))
    c, h, w, n = x.shape
    out = np.empty((a, b, c, h - a + 1, w - b + 1, n), x.dtype)
    for i in range(a):
        for j in range(b):
            out[i, j] = x[:, i : i + h - a + 1, j : j + w - b + 1]
    return out


def _conv(x: Any, w: Any, bias: Any, padding: str, tape: list[Any]) -> Any:
    """Images (C, H, W, N): correlate, add the bias, relu."""
    patches = _patches(x, w.shape[:2], padding)
    matrix = patches.reshape(w[..., 0].size, -1)
    y = (w.reshape(-1, w.shape[3]).T @ matrix).reshape(-1, *patches.shape[3:])
    y += bias[:, None, None, None]
    np.maximum(y, 0, out=y)
    tape.append(("conv", x.shape, matrix, y, padding))
    return y


def _pool(x: Any, tape: list[Any]) -> Any:
    corners = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    y = np.maximum(np.maximum(*corners[:2]), np.maximum(*corners[2:]))
    tape.append(("pool", x, y))
    return y


def _backward(g: Any, p: list[Any], tape: list[Any]) -> list[Any]:
    grads: list[Any] = []
    k = len(p) - 2
    for index in range(len(tape) - 1, -1, -1):
        op, *saved = tape[index]
        if op == "fc":
            grads += [g.sum(axis=0), saved[0].T @ g]
            if index:
                g = g @ p[k].T
            k -= 2
        elif op == "relu":
            g = g * saved[0]
        elif op == "flat":
            c, h, w, n = saved[0]
            g = np.ascontiguousarray(g.reshape(n, h, w, c).transpose(3, 1, 2, 0))
        elif op == "pool":
            x, y = saved
            dx = np.empty_like(x)
            rest = np.ones(y.shape, bool)
            for i in (0, 1):
                for j in (0, 1):
                    won = (x[:, i::2, j::2] == y) & rest
                    rest ^= won
                    np.multiply(g, won, out=dx[:, i::2, j::2])
            g = dx
        else:
            g = _conv_backward(g, p[k], saved, grads, first=index == 0)
            k -= 2
    return grads[::-1]


def _conv_backward(g: Any, w: Any, saved: Any, grads: list[Any], *, first: bool) -> Any:
    shape, matrix, y, padding = saved
    g = g * (y > 0)
    rows, c2 = g.shape[1], g.shape[0]
    by_row = matrix.reshape(len(matrix), rows, -1).transpose(1, 0, 2)
    dw = (by_row @ g.reshape(c2, rows, -1).transpose(1, 2, 0)).sum(axis=0)
    grads += [g.sum(axis=(1, 2, 3)), dw.reshape(w.shape)]
    if first:
        return None
    taps = (w.reshape(-1, c2) @ g.reshape(c2, -1)).reshape(*w.shape[:3], *g.shape[1:])
    a, b = w.shape[:2]
    pad = (a // 2, b // 2) if padding == "same" else (0, 0)
    dx = np.zeros((shape[0], shape[1] + 2 * pad[0], shape[2] + 2 * pad[1], shape[3]), g.dtype)
    for i in range(a):
        for j in range(b):
            dx[:, i : i + g.shape[1], j : j + g.shape[2]] += taps[i, j]
    return dx[:, pad[0] : pad[0] + shape[1], pad[1] : pad[1] + shape[2]]
