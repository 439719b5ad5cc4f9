"""JAX: the whole step under ``jit``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workloads import LAYERS, LEARNING_RATE, batch, parameters, vector

_FORMAT = ("NHWC", "HWIO", "NHWC")


class Jax:
    """Functions of arrays, compiled by XLA."""

    def train(self, kind: str, size: int) -> Any:
        self.parameters = [jnp.asarray(w) for w in parameters(kind)]
        x, labels = map(jnp.asarray, batch(kind, size))

        def loss_of(p: Any, x: Any, labels: Any) -> Any:
            h, k = x, 0
            for layer in LAYERS.get(kind, ()):
                if layer == "pool":
                    window = (1, 2, 2, 1)
                    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")
                else:
                    h = jax.lax.conv_general_dilated(
                        h, p[k], (1, 1), layer.upper(), dimension_numbers=_FORMAT
                    )
                    h = jax.nn.relu(h + p[k + 1])
                    k += 2
            h = h.reshape(len(x), -1)
            for n in range(k, len(p), 2):
                h = h @ p[n] + p[n + 1]
                if n + 2 < len(p):
                    h = jax.nn.relu(h)
            return -jax.nn.log_softmax(h)[jnp.arange(len(labels)), labels].mean()

        @jax.jit
        def update(p: Any, x: Any, labels: Any) -> Any:
            loss, grads = jax.value_and_grad(loss_of)(p, x, labels)
            return loss, grads, [w - LEARNING_RATE * g for w, g in zip(p, grads, strict=True)]

        def step() -> float:
            loss, self.last, self.parameters = update(self.parameters, x, labels)
            jax.block_until_ready(self.parameters)
            return float(loss)

        return step

    def gradients(self) -> list[Any]:
        return [np.asarray(g) for g in self.last]

    def chain(self, size: int) -> Any:
        x = jnp.asarray(vector(size))

        def loss_of(x: Any) -> Any:
            a = jnp.tanh(x)
            b = jnp.exp(a)
            d = jnp.tanh(b * x)
            return (jnp.exp(-(d + a)) * b).sum()

        both = jax.jit(jax.value_and_grad(loss_of))

        def run() -> Any:
            loss, gradient = both(x)
            jax.block_until_ready(gradient)
            return float(loss), np.asarray(gradient)

        return run
