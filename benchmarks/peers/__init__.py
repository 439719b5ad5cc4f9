"""The contenders. Each is a class with the same four methods, in a module of its own.

``train(kind, batch)`` gives a function that does one training step and returns the loss;
``gradients()`` those of its last step, as arrays in the workload's shapes; ``chain(size)`` and
``scalars(count)`` give a function that does W5 or W6, forward and backward, and returns the value
and the gradient. A method that is missing means that the peer does not take part.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name of a contender: module, class, and the package that it needs.
PEERS = {
    "numpy": ("by_hand", "ByHand", "numpy"),
    "tg": ("ours", "Eager", "tinygrad_hw"),
    "tg-numpy": ("ours", "CompiledNumpy", "tinygrad_hw"),
    "tg-numba": ("ours", "CompiledNumba", "numba"),
    "torch": ("with_torch", "Torch", "torch"),
    "torch-fewest": ("with_torch", "TorchFewest", "torch"),
    "torch-compile": ("with_torch", "TorchCompile", "torch"),
    "jax": ("with_jax", "Jax", "jax"),
    "autograd": ("with_autograd", "Autograd", "autograd"),
    "mygrad": ("with_mygrad", "MyGrad", "mygrad"),
    "tinygrad": ("with_tinygrad", "Tinygrad", "tinygrad"),
}


def load(name: str) -> Any:
    """Make a contender."""
    module, kind, _ = PEERS[name]
    return getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)()
