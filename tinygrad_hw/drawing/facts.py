"""What there is to say of a node: value, gradient, sizes, cost, and what is wrong with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import FREED, Constant, Leaf, Node, no_grad

BINS = 24

# Name of the leaf that a recorded backward pass starts from.
UPSTREAM = "upstream"

# Norms of a gradient beside that of the largest parameter's gradient.
VANISHED, EXPLODED = 1e-7, 1e6


class Facts:
    """The facts of the nodes of one picture.

    Parameters
    ----------
    nodes : sequence of Node
        Oldest first.
    values, gradients : dict
        Those that are known.
    show : names of facts that labels show
    look : bool
        Whether to look at values; without it, only at what nodes say of themselves.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        values: Mapping[Node, Any],
        gradients: Mapping[Node, Any],
        show: Sequence[str],
        *,
        look: bool,
    ) -> None:
        self.show, self.look = show, look
        self.gradients = gradients
        self.values: dict[Node, Any] = {}
        self.seconds: dict[Node, float] = {}
        if look:
            self.values = dict(values)
            self._find_values(nodes)
        self.trained = any(isinstance(n, Leaf) and n.grad is not None for n in nodes)

    def _find_values(self, nodes: Sequence[Node]) -> None:
        """Take the values that the graph keeps, and compute the others from them again."""
        for node in nodes:
            if node.output is not None:
                self.values.setdefault(node, np.asarray(node.output))
            if node.inputs is None or node.inputs is FREED:
                continue
            for parent, value in zip(node.parents, node.inputs, strict=True):
                if isinstance(parent, Node) and value is not parent:
                    self.values.setdefault(parent, np.asarray(value))
        with no_grad(), np.errstate(all="ignore"):
            for node in nodes:
                if node.primitive is not None and (node not in self.values or "time" in self.show):
                    self._compute(node)

    def _compute(self, node: Node) -> None:
        op: Any = node.primitive
        args = [self.values.get(p) if isinstance(p, Node) else p for p in node.parents]
        if any(isinstance(p, Node) and a is None for p, a in zip(node.parents, args, strict=True)):
            return
        start = time.perf_counter()
        try:
            value = np.asarray(op.forward(*args, **node.params))
        except Exception:  # What cannot be computed again is shown without its value.
            return
        self.seconds[node] = time.perf_counter() - start
        self.values.setdefault(node, value)

    # --- For one node -------------------------------------------------------------------------

    def of(self, node: Node) -> tuple[tuple[str, str], ...]:
        """Give all facts by name; of a graph too large to look at, only the shape."""
        if not self.look:
            return (("shape", str(node.shape)),)
        facts = {"shape": str(node.shape), "dtype": str(node.dtype)}
        for name in ("value", "stats", "grad", "saved", "flops", "time", "source"):
            text = self._text(node, name)
            if text:
                facts[name] = text
        if node.params:
            facts["params"] = ", ".join(f"{k}={v!r}" for k, v in sorted(node.params.items()))[:200]
        return tuple(facts.items())

    def lines(self, node: Node) -> tuple[str, ...]:
        """Give the lines that the label shows; the shape stands on the arrows."""
        texts = {name: self._text(node, name) for name in self.show if name != "shape"}
        return tuple(f"{name} {text}" for name, text in texts.items() if text)

    def _text(self, node: Node, name: str) -> str:
        text: str = getattr(self, f"_{name}")(node)
        return text

    def _dtype(self, node: Node) -> str:
        return str(node.dtype)

    def _value(self, node: Node) -> str:
        return _numbers(self.values.get(node))

    def _stats(self, node: Node) -> str:
        value = self.values.get(node)
        if value is None or value.size < 2 or value.dtype.kind not in "fiu":
            return ""
        with np.errstate(all="ignore"):
            return f"{value.min():.3g} to {value.max():.3g}, mean {value.mean():.3g}"

    def _grad(self, node: Node) -> str:
        g = self.gradients.get(node)
        if g is None and isinstance(node, Leaf):
            g = node.grad
        if g is None:
            return ""
        g = np.asarray(g)
        return f"{float(g):.3g}" if g.size == 1 else f"norm {np.linalg.norm(g.ravel()):.3g}"

    def _saved(self, node: Node) -> str:
        return ", ".join(str(np.shape(a)) for a in kept_arrays(node))

    def _bytes(self, node: Node) -> str:
        total = sum(a.nbytes for a in kept_arrays(node))
        return size(total) if total else ""

    def _flops(self, node: Node) -> str:
        return count(flops(node), "FLOP") if node.primitive is not None else ""

    def _time(self, node: Node) -> str:
        seconds = self.seconds.get(node)
        return "" if seconds is None or "time" not in self.show else f"{1e6 * seconds:.0f} µs"

    def _source(self, node: Node) -> str:
        return str((node.extras or {}).get("where", ""))

    def histogram(self, node: Node) -> tuple[int, ...]:
        """Count the value's entries in equal bins."""
        value = self.values.get(node)
        if value is None or value.size < 2 or value.dtype.kind != "f":
            return ()
        finite = value[np.isfinite(value)].astype(float)
        if finite.size == 0 or not math.isfinite(float(finite.max()) - float(finite.min())):
            return ()
        return tuple(np.histogram(finite, BINS)[0].tolist())

    # --- What is wrong ------------------------------------------------------------------------

    def marks(self, node: Node) -> tuple[str, ...]:
        """Say what is wrong with a value or a gradient."""
        return (*self._value_marks(node), *self._gradient_marks(node))

    def _value_marks(self, node: Node) -> list[str]:
        value = self.values.get(node)
        if value is None or value.dtype.kind != "f" or value.size == 0:
            return []
        marks = []
        for word, test in (("NaN", np.isnan), ("infinity", np.isinf)):
            n = int(np.count_nonzero(test(value)))
            if n:
                marks.append(f"{word} in {n} of {value.size}" if value.size > 1 else word)
        if node.primitive is not None and node.primitive.name == "relu" and not value.any():
            marks.append("dead: all zero")
        return marks

    def _gradient_marks(self, node: Node) -> list[str]:
        if isinstance(node, Constant) or not isinstance(node, Leaf):
            return []
        if node.grad is None:
            return ["got no gradient"] if self.trained else []
        norm = float(np.linalg.norm(node.grad.ravel()))
        if not math.isfinite(norm):
            return ["gradient is not finite"]
        if norm == 0:
            return ["gradient is zero"]
        scale = norm / math.sqrt(node.grad.size)
        if scale < VANISHED:
            return [f"gradient vanished: {norm:.1g}"]
        return [f"gradient exploded: {norm:.1g}"] if scale > EXPLODED else []


# --- Sizes ------------------------------------------------------------------------------------


def kept_arrays(node: Node) -> list[Any]:
    """Give the arrays that a node keeps for its rule."""
    values = [] if node.inputs is None or node.inputs is FREED else list(node.inputs)
    return [v for v in [*values, node.output] if isinstance(v, (np.ndarray, np.generic))]


_FLOPS: dict[str, Callable[..., int]] = {
    "matmul": lambda y, a, b: 2 * math.prod(y) * a[-1],
    "conv": lambda y, x, w: 2 * math.prod(y) * math.prod(w[:3]),
    "conv_dx": lambda y, g, w: 2 * math.prod(g) * math.prod(w[:3]),
    "conv_dw": lambda y, g, x: 2 * math.prod(g) * math.prod(y[:3]),
}


def flops(node: Node) -> int:
    """Estimate the floating-point operations of a call; a multiplication and addition are two."""
    op: Any = node.primitive
    shapes = [p.shape for p in node.parents if isinstance(p, Node)]
    if op.name in _FLOPS and len(shapes) == 2 and all(shapes):
        return _FLOPS[op.name](node.shape, *shapes)
    return max(map(math.prod, [node.shape, *shapes]))


def caption(nodes: Sequence[Node], facts: Facts) -> str:
    """Sum a picture up: ops, parameters, memory, work."""
    ops = [n for n in nodes if n.primitive is not None]
    parameters = [n for n in nodes if type(n) is Leaf and n.name != UPSTREAM]
    entries = sum(math.prod(n.shape) for n in parameters)
    arrays = {id(a): a.nbytes for n in ops for a in kept_arrays(n)}
    parts = [
        count(len(ops), "op"),
        f"{count(entries, 'parameter')} in {count(len(parameters), 'tensor')}",
        f"{size(sum(arrays.values()))} kept for backward",
        count(sum(map(flops, ops)), "FLOP"),
    ]
    if any(n.inputs is FREED for n in ops):
        parts[2] = "freed by backward"
    return "; ".join(parts)


def count(n: int, noun: str) -> str:
    """Say a number with its noun."""
    if n >= 10**6:
        for power, prefix in ((9, "G"), (6, "M")):
            if n >= 10**power:
                return f"{n / 10**power:.3g} {prefix}{noun}s"
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def size(n: int) -> str:
    """Say a number of bytes."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n >= 2**power:
            return f"{n / 2**power:.3g} {unit}"
    return f"{n} bytes"


def _numbers(value: Any) -> str:
    if value is None:
        return ""
    value = np.asarray(value)
    if value.size == 1:
        return f"{value.item():.4g}" if value.dtype.kind in "fiu" else str(value.item())
    if value.size == 0:
        return "empty"
    some = ", ".join(f"{v:.3g}" for v in value.ravel()[:4].tolist())
    return f"[{some}, …]" if value.size > 4 else f"[{some}]"
