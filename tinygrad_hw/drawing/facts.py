"""What there is to say of a node: value, gradient, sizes, cost, and what is wrong with it."""

from __future__ import annotations

import itertools
import math
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..graph import FREED, Constant, Leaf, Node, no_grad
from .graph import Cost, Histogram

BINS = 24

# Name of the leaf that a recorded backward pass starts from.
UPSTREAM = "upstream"

# Norms of a gradient that float32 loses beside weights of about 1, and that throws them away.
VANISHED, EXPLODED = 1e-7, 1e6


# Before what a label shows, where the text does not say itself what it is.
_PREFIX = {"value": "value ", "grad": "grad ", "saved": "saved ", "bytes": "keeps "}


class Facts:
    """The facts of the nodes of one picture.

    Parameters
    ----------
    nodes : sequence of Node
        Oldest first.
    values, gradients : dict
        Those that are known; gradients also of a backward pass's results.
    show : names of facts that labels show
    look : bool
        Whether to describe values; without it, only their shapes and what is wrong is said.
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
        self.labelled = [name for name in show if name != "shape"]
        self.gradients = gradients
        self.values: dict[Node, Any] = dict(values)
        self.seconds: dict[Node, float] = {}
        with no_grad(), np.errstate(all="ignore"):
            self._find_values(nodes)
        self.broken: set[Node] = set()
        self.value_marks = self._find_value_marks(nodes)
        self.trained = any(isinstance(n, Leaf) and n.grad is not None for n in nodes)

    def _find_values(self, nodes: Sequence[Node]) -> None:
        """Take the values that the graph keeps, and compute the others from them again."""
        for node in nodes:
            if node.output is not None:
                self.values.setdefault(node, np.asarray(node.output))
            for parent, value in node.kept():
                self.values.setdefault(parent, np.asarray(value))
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
        facts = {"shape": str(node.shape)}
        for name in ("dtype", "value", "stats", "grad", "saved", "bytes", "flops", "time"):
            facts[name] = self._text(node, name)
        gradient = self._gradient(node)
        if gradient is not None and gradient.size > 1:
            facts["grad"] += f": {_numbers(gradient)}"
        facts["params"] = ", ".join(
            f"{name}={reprlib.repr(value)}" for name, value in sorted(node.params.items())
        )
        facts["source"] = self.source(node)
        return tuple((name, text) for name, text in facts.items() if text)

    def lines(self, node: Node) -> tuple[str, ...]:
        """Give the lines that the label shows; the shape stands on the arrows."""
        if not self.labelled:
            return ()
        texts = {name: self._text(node, name) for name in self.labelled}
        if "source" in texts:
            texts["source"] = Path(texts["source"]).name
        return tuple(_PREFIX.get(name, "") + text for name, text in texts.items() if text)

    def _text(self, node: Node, name: str) -> str:
        text: str = self.source(node) if name == "source" else getattr(self, f"_{name}")(node)
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
        g = self._gradient(node)
        if g is None:
            return ""
        return f"{float(g.ravel()[0]):.3g}" if g.size == 1 else f"norm {length(g):.3g}"

    def _gradient(self, node: Node) -> Any:
        g = self.gradients.get(node)
        if g is None and isinstance(node, Leaf):
            g = node.grad
        return None if g is None else np.asarray(g)

    def _saved(self, node: Node) -> str:
        return ", ".join(str(np.shape(a)) for a in kept_arrays(node))

    def _bytes(self, node: Node) -> str:
        total = sum(map(memory, kept_arrays(node)))
        return size(total) if total else ""

    def _flops(self, node: Node) -> str:
        n = flops(node)
        return count(n, "FLOP") if n else ""

    def _time(self, node: Node) -> str:
        seconds = self.seconds.get(node)
        return "" if seconds is None or "time" not in self.show else f"{1e6 * seconds:.0f} µs"

    def source(self, node: Node) -> str:
        extras = node.extras or {}
        return str(extras.get("where") or extras.get("line") or "")

    def histogram(self, node: Node) -> Histogram | None:
        """Count the value's entries."""
        value = self.values.get(node)
        if not self.look or value is None or value.size < 2 or value.dtype.kind not in "fiu":
            return None
        finite = value[np.isfinite(value)].astype(float)
        if finite.size == 0:
            return None
        low, high = float(finite.min()), float(finite.max())
        if not math.isfinite(high - low):
            return None
        # NumPy takes no range that has fewer numbers than bins.
        counts = np.histogram((finite - low) / (high - low or 1.0), BINS)[0].tolist()
        return Histogram(low, high, tuple(counts))

    def cost(self, node: Node) -> Cost:
        """Count what the node stands for."""
        if node.primitive is None:
            return Cost(parameters=math.prod(node.shape) if is_parameter(node) else 0)
        return Cost(1, 0, sum(map(memory, kept_arrays(node))), flops(node))

    # --- What is wrong ------------------------------------------------------------------------

    def marks(self, node: Node) -> tuple[str, ...]:
        """Say what is wrong with a value or a gradient."""
        marks = self.value_marks.get(node, []) + self._gradient_marks(node)
        return tuple(dict.fromkeys(marks)) if marks else ()

    def _find_value_marks(self, nodes: Sequence[Node]) -> dict[Node, list[str]]:
        found: dict[Node, list[str]] = {}
        for node in nodes:
            value = self.values.get(node)
            if value is None or value.dtype.kind != "f" or value.size == 0:
                continue
            if not (math.isfinite(value.item()) if value.size == 1 else np.isfinite(value).all()):
                marks = _trouble(value)
                if node.parents and all(map(self._is_finite, node.parents)):
                    marks[-1] += ", from finite inputs"
                self.broken.add(node)
                found[node] = marks
            elif node.primitive is not None and node.primitive.name == "relu" and not value.any():
                found[node] = ["dead: all zero"]
        return found

    def _is_finite(self, parent: Any) -> bool:
        """Tell whether an input is finite, for all that is known."""
        if not isinstance(parent, Node):
            # Whole numbers may be too large for isfinite.
            return bool(parent - parent == 0)
        # A constant that no rule keeps may be a mask of infinities.
        masks = type(parent) is Constant and parent.dtype.kind == "f" and parent not in self.values
        return not masks and parent not in self.broken

    def _gradient_marks(self, node: Node) -> list[str]:
        if self.trained and isinstance(node, Leaf) and node.grad is None and is_parameter(node):
            return ["got no gradient"]
        g = self._gradient(node)
        if g is None:
            return []
        norm = length(g)
        if not math.isfinite(norm):
            # Where values are broken, broken gradients follow, and hide where it began.
            if self.broken and not (isinstance(node, Leaf) and node.grad is not None):
                return []
            return ["gradient has NaN" if math.isnan(norm) else "gradient is infinite"]
        if norm == 0:
            return ["gradient is zero"] if isinstance(node, Leaf) and node.grad is not None else []
        if norm < VANISHED:
            return [f"gradient vanished: {norm:.1g}"]
        return [f"gradient exploded: {norm:.1g}"] if norm > EXPLODED else []


def length(g: Any) -> float:
    """The norm of a gradient, whose squares may overflow or vanish before it does."""
    largest = float(np.abs(g).max(initial=0))
    scaled = 0 < largest < math.inf
    return largest * float(np.linalg.norm(g / largest)) if scaled else largest


def _trouble(value: Any) -> list[str]:
    """Say how many entries are NaN or infinite."""
    counts = {"NaN": np.isnan(value).sum(), "infinity": np.isinf(value).sum()}
    return [
        f"{word} in {n:,} of {value.size:,}" if value.size > 1 else word
        for word, n in counts.items()
        if n
    ]


# --- Sizes ------------------------------------------------------------------------------------


def is_parameter(node: Node) -> bool:
    """Tell whether a node is a variable of the user's."""
    return type(node) is Leaf and node.name != UPSTREAM


def kept_arrays(node: Node) -> list[Any]:
    """Give the arrays that a node keeps for its rule."""
    if node.inputs is None or node.inputs is FREED:
        values: tuple[Any, ...] = (node.output,)
    else:
        values = (*node.inputs, node.output)
    return [v for v in values if isinstance(v, (np.ndarray, np.generic))]


def memory(array: Any) -> int:
    """Bytes that an array takes; views may show the same ones several times, as patches do."""
    base = getattr(array, "base", None)
    nbytes: int = array.nbytes
    return min(nbytes, base.nbytes) if isinstance(base, np.ndarray) else nbytes


# They move entries and compute nothing; so do all views.
_MOVES = frozenset("cast concatenate identity pick setitem shift unpool where".split())
# To their leading power, without the factor that depends on the method.
_CUBIC = frozenset(
    "cholesky cofactors cofactors_grad det eigh inv logabsdet qr solve svd svdvals".split()
)
_FLOPS: dict[str, Callable[..., int]] = {
    "matmul": lambda y, a, b: 2 * math.prod(y) * a[-1],
    "conv": lambda y, x, w: 2 * math.prod(y) * math.prod(w[:3]),
    "conv_dx": lambda y, g, w: 2 * math.prod(g) * math.prod(w[:3]),
    "conv_dw": lambda y, g, x: 2 * math.prod(g) * math.prod(y[:3]),
}


def flops(node: Node) -> int:
    """Estimate the floating-point operations of a call; a multiplication and addition are two."""
    op: Any = node.primitive
    if op is None or op.view or op.name in _MOVES:
        return 0
    shapes = [p.shape for p in node.parents if isinstance(p, Node)]
    if op.name in _FLOPS and len(shapes) == 2 and all(shapes):
        return _FLOPS[op.name](node.shape, *shapes)
    if op.name == "einsum":
        letters = node.params["spec"].partition("->")[0].replace(",", "")
        sides = dict(zip(letters, itertools.chain(*shapes), strict=False))
        return len(shapes) * math.prod(sides.values())
    if op.name in _CUBIC and shapes and shapes[0]:
        return math.prod(shapes[0]) * shapes[0][-1]
    return max(map(math.prod, [node.shape, *shapes]))


def caption(nodes: Sequence[Node], costs: Sequence[Cost], facts: Facts) -> str:
    """Sum a picture up: ops, parameters, memory, work."""
    ops = [n for n in nodes if n.primitive is not None]
    parameters = list(filter(is_parameter, nodes))
    entries = sum(cost.parameters for cost in costs)
    # Several nodes may keep the same array.
    arrays = {id(a): memory(a) for n in ops for a in kept_arrays(n)}
    parts = [
        count(len(ops), "op"),
        f"{count(entries, 'parameter')} in {count(len(parameters), 'tensor')}",
        f"{size(sum(arrays.values()))} kept for backward",
        count(sum(cost.flops for cost in costs), "FLOP"),
    ]
    if any(n.inputs is FREED for n in ops):
        parts[2] = "freed by backward"
    text = "; ".join(parts)
    if "source" in facts.show and not any(map(facts.source, ops)):
        text += "\nlines are known of what module.graph, tinygrad-hw draw or tg.debug() ran"
    return text


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
    shown = [f"{v:.3g}" for v in value.ravel()[:4].tolist()]
    # A longer line of a label would be cut in the midst of a number.
    while len(", ".join(shown)) > 28:
        shown.pop()
    return f"[{', '.join([*shown, '…'] if value.size > len(shown) else shown)}]"
