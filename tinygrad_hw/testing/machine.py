"""A state machine that builds graphs step by step, beside a naive reference that has none.

The reference is forward mode by hand: next to each value it carries the change of the value by
every entry of every leaf. It has no graph and no backward, so it shares no error with the engine.

Run it in a test module with ``TestGraphs = GraphMachine.TestCase``. A subclass may add rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tinygrad_hw as tg

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import (
        Bundle,
        RuleBasedStateMachine,
        initialize,
        invariant,
        multiple,
        rule,
    )
except ImportError as error:  # pragma: no cover
    raise ImportError('the machine needs Hypothesis: pip install "tinygrad_hw[test]"') from error

from .draws import HypothesisDraw

__all__ = ["GraphMachine", "Naive"]

Array = np.ndarray[Any, Any]

# Beyond it, exp and squares leave nothing to compare.
_LARGEST = 1e4


@dataclass
class Naive:
    """A value, how it changes with the leaves, and which recorded ops it came from.

    Attributes
    ----------
    value : array
    changes : dict
        For the number of a leaf, an array of shape ``(leaf.size, *value.shape)``.
    ops : frozenset of int
    """

    value: Array
    changes: dict[int, Array] = field(default_factory=dict)
    ops: frozenset[int] = frozenset()

    def gradient(self, leaf: int, weights: Array) -> Array:
        """Weigh the changes by one leaf, flattened."""
        return np.array([float((change * weights).sum()) for change in self.changes[leaf]])


@dataclass
class Twin:
    """A tensor of the engine, what it should be, and its number if it is a leaf."""

    tensor: Any
    naive: Naive
    leaf: int | None = None


Push = Callable[..., Array]

# Value and change of each op: the change of the result by the changes of the arguments.
UNARY: dict[str, tuple[Any, Push]] = {
    "negative": (np.negative, lambda x, t: -t),
    "exp": (np.exp, lambda x, t: t * np.exp(x)),
    "sin": (np.sin, lambda x, t: t * np.cos(x)),
    "tanh": (np.tanh, lambda x, t: t * (1 - np.tanh(x) ** 2)),
    "square": (np.square, lambda x, t: 2 * x * t),
    "relu": (lambda x: np.maximum(x, 0), lambda x, t: np.where(x > 0, t, 0)),
    "abs": (np.abs, lambda x, t: t * np.sign(x)),
}
BINARY: dict[str, tuple[Any, Push]] = {
    "add": (np.add, lambda a, b, s, t: s + t),
    "subtract": (np.subtract, lambda a, b, s, t: s - t),
    "multiply": (np.multiply, lambda a, b, s, t: s * b + a * t),
    "matmul": (np.matmul, lambda a, b, s, t: s @ b + a @ t),
    "maximum": (
        np.maximum,
        lambda a, b, s, t: np.where(a > b, s, np.where(a < b, t, (s + t) / 2)),
    ),
}


class GraphMachine(RuleBasedStateMachine):
    """Operators, indexing, assignment, detach, ``no_grad`` and backward, in any order."""

    tensors: Any = Bundle("tensors")
    shapes = st.sampled_from([(), (2,), (3,), (2, 2), (2, 3)])

    def __init__(self) -> None:
        super().__init__()
        self.twins: list[Twin] = []
        self.leaves: list[Twin] = []
        self.sums: dict[int, Array | None] = {}
        self.freed: set[int] = set()
        self.recorded = 0

    # --- What the reference does ----------------------------------------------------------------

    def keep(self, tensor: Any, naive: Naive) -> Any:
        twin = Twin(tensor, naive)
        self.twins.append(twin)
        return twin

    def pushed(self, value: Array, arguments: list[Naive], push: Push) -> Naive:
        """Make the result of a recorded op: ``push`` gets one change of each argument."""
        leaves = {leaf for x in arguments for leaf in x.changes}
        if not leaves:
            return Naive(value)
        changes = {}
        for leaf in leaves:
            size = next(len(x.changes[leaf]) for x in arguments if leaf in x.changes)
            columns = [
                x.changes[leaf] if leaf in x.changes else np.zeros((size, *x.value.shape))
                for x in arguments
            ]
            changes[leaf] = np.array([push(*column) for column in zip(*columns, strict=True)])
            changes[leaf] = changes[leaf].reshape(size, *value.shape)
        self.recorded += 1
        ops = frozenset({self.recorded}).union(*(x.ops for x in arguments))
        return Naive(value, changes, ops)

    # --- New tensors ----------------------------------------------------------------------------

    @initialize(target=tensors, data=st.data(), shape=shapes)
    def first(self, data: Any, shape: tuple[int, ...]) -> Any:
        return self.new_leaf(data, shape)

    @rule(target=tensors, data=st.data(), shape=shapes)
    def leaf(self, data: Any, shape: tuple[int, ...]) -> Any:
        return self.new_leaf(data, shape)

    def new_leaf(self, data: Any, shape: tuple[int, ...]) -> Any:
        value = HypothesisDraw(data.draw).array(shape)
        twin = self.keep(tg.Tensor(value, requires_grad=True), Naive(value))
        twin.leaf = len(self.leaves)
        twin.naive.changes = {twin.leaf: np.eye(value.size).reshape(value.size, *shape)}
        self.leaves.append(twin)
        self.sums[twin.leaf] = None
        return twin

    @rule(target=tensors, data=st.data(), shape=shapes)
    def constant(self, data: Any, shape: tuple[int, ...]) -> Any:
        value = HypothesisDraw(data.draw).array(shape)
        return self.keep(tg.Tensor(value), Naive(value))

    @rule(target=tensors, x=tensors)
    def detach(self, x: Twin) -> Any:
        return self.keep(x.tensor.detach(), Naive(x.naive.value))

    @rule(target=tensors, x=tensors)
    def copy(self, x: Twin) -> Any:
        return self.keep(x.tensor.copy(), self.pushed(x.naive.value, [x.naive], lambda t: t))

    # --- Operators ------------------------------------------------------------------------------

    @rule(target=tensors, x=tensors, op=st.sampled_from(sorted(UNARY)), recording=st.booleans())
    def unary(self, x: Twin, op: str, recording: bool) -> Any:
        return self._applied(op, UNARY[op], [x], recording)

    @rule(
        target=tensors,
        x=tensors,
        y=tensors,
        op=st.sampled_from(sorted(BINARY)),
        recording=st.booleans(),
    )
    def binary(self, x: Twin, y: Twin, op: str, recording: bool) -> Any:
        return self._applied(op, BINARY[op], [x, y], recording)

    def _applied(
        self, op: str, reference: tuple[Any, Push], twins: list[Twin], recording: bool
    ) -> Any:
        forward, push = reference
        values = [twin.naive.value for twin in twins]
        tensors = [twin.tensor for twin in twins]
        try:
            # Too large a value is left out below, as infinity is.
            with np.errstate(over="ignore"):
                value = np.asarray(forward(*values))
        except ValueError:
            with _raises(tg.ShapeError):
                getattr(tg, op)(*tensors)
            return multiple()
        if np.abs(value).max(initial=0.0) > _LARGEST:
            return multiple()
        if not recording:
            with tg.no_grad():
                return self.keep(getattr(tg, op)(*tensors), Naive(value))
        naive = self.pushed(
            value, [twin.naive for twin in twins], lambda *changes: push(*values, *changes)
        )
        return self.keep(getattr(tg, op)(*tensors), naive)

    @rule(target=tensors, x=tensors, axis=st.sampled_from([None, 0, -1]), keepdims=st.booleans())
    def sum(self, x: Twin, axis: int | None, keepdims: bool) -> Any:
        if axis is not None and x.naive.value.ndim == 0:
            return multiple()
        return self._linear(x, "sum", axis=axis, keepdims=keepdims)

    @rule(target=tensors, x=tensors, how=st.sampled_from(["ravel", "transpose"]))
    def rearrange(self, x: Twin, how: str) -> Any:
        return self._linear(x, how)

    def _linear(self, x: Twin, method: str, **options: Any) -> Any:
        value = np.asarray(getattr(x.naive.value, method)(**options))
        naive = self.pushed(value, [x.naive], lambda t: getattr(t, method)(**options))
        return self.keep(getattr(x.tensor, method)(**options), naive)

    # --- Indices and assignments ----------------------------------------------------------------

    @rule(target=tensors, x=tensors, data=st.data())
    def getitem(self, x: Twin, data: Any) -> Any:
        index = data.draw(_indices(x.naive.value.shape))
        naive = self.pushed(np.asarray(x.naive.value[index]), [x.naive], lambda t: t[index])
        return self.keep(x.tensor[index], naive)

    @rule(x=tensors, v=tensors, data=st.data())
    def setitem(self, x: Twin, v: Twin, data: Any) -> None:
        index = data.draw(_indices(x.naive.value.shape))
        try:
            value = _assigned(x.naive.value, v.naive.value, index)
        except ValueError:
            with _raises(tg.ShapeError):
                x.tensor[index] = v.tensor
            return
        if x.leaf is not None:
            with _raises(tg.GraphError):
                x.tensor[index] = v.tensor
            return
        x.tensor[index] = v.tensor
        x.naive = self.pushed(value, [x.naive, v.naive], lambda s, t: _assigned(s, t, index))

    @rule(x=tensors, v=tensors, op=st.sampled_from(["add", "multiply"]))
    def in_place(self, x: Twin, v: Twin, op: str) -> None:
        forward, push = BINARY[op]
        a, b = x.naive.value, v.naive.value
        try:
            value = np.asarray(forward(a, b))
        except ValueError:
            value = None
        if value is None or value.shape != a.shape:
            with _raises(tg.ShapeError):
                _in_place(x.tensor, v.tensor, op)
        elif x.leaf is not None:
            with _raises(tg.GraphError):
                _in_place(x.tensor, v.tensor, op)
        elif np.abs(value).max(initial=0.0) <= _LARGEST:
            _in_place(x.tensor, v.tensor, op)
            x.naive = self.pushed(value, [x.naive, v.naive], lambda s, t: push(a, b, s, t))

    @rule(x=tensors)
    def step(self, x: Twin) -> None:
        """Update a leaf as an optimiser does; what was computed from it keeps the old value."""
        if x.leaf is None:
            return
        with tg.no_grad():
            x.tensor -= 0.125
        x.naive = Naive(x.naive.value - 0.125, x.naive.changes)

    # --- Backward -------------------------------------------------------------------------------

    @rule(x=tensors, data=st.data(), retain=st.booleans())
    def backward(self, x: Twin, data: Any, retain: bool) -> None:
        weights = HypothesisDraw(data.draw).array(x.naive.value.shape)
        if not x.naive.changes or x.naive.ops & self.freed:
            with _raises(tg.GraphError):
                x.tensor.backward(weights)
            return
        x.tensor.backward(weights, retain_graph=retain)
        if not retain:
            self.freed |= x.naive.ops
        for leaf in x.naive.changes:
            more = x.naive.gradient(leaf, weights)
            before = self.sums[leaf]
            self.sums[leaf] = more if before is None else before + more

    @rule(x=tensors, data=st.data())
    def grad(self, x: Twin, data: Any) -> None:
        """Compute a gradient that is left nowhere, as arrays and as a graph of its own."""
        self._compare_gradients(x, HypothesisDraw(data.draw).array(x.naive.value.shape))

    def _compare_gradients(self, x: Twin, weights: Array) -> None:
        if not x.naive.changes or x.naive.ops & self.freed:
            return
        leaves = list(x.naive.changes)
        tensors = [self.leaves[leaf].tensor for leaf in leaves]
        for create_graph in (False, True):
            gradients = tg.grad(x.tensor, tensors, weights, create_graph=create_graph)
            for leaf, g in zip(leaves, gradients, strict=True):
                _assert_close(g.numpy().ravel(), x.naive.gradient(leaf, weights))

    def teardown(self) -> None:
        """Compare the gradients of all that is left at the end."""
        for x in self.twins:
            shape = x.naive.value.shape
            self._compare_gradients(x, np.linspace(0.5, 1.5, x.naive.value.size).reshape(shape))

    @rule(x=tensors)
    def zero_grad(self, x: Twin) -> None:
        if x.leaf is not None:
            x.tensor.zero_grad()
            self.sums[x.leaf] = None

    # --- What must hold after every step --------------------------------------------------------

    @invariant()
    def values_agree(self) -> None:
        for twin in self.twins:
            assert twin.tensor.requires_grad == bool(twin.naive.changes)
            _assert_close(twin.tensor.numpy(), twin.naive.value)

    @invariant()
    def gradients_agree(self) -> None:
        for number, twin in enumerate(self.leaves):
            wanted = self.sums[number]
            if wanted is None:
                assert twin.tensor.grad is None, f"leaf {number} has a gradient; want none"
            else:
                found, shape = np.shape(twin.tensor.grad), twin.naive.value.shape
                assert found == shape, f"leaf {number} has a gradient of {found}; want {shape}"
                _assert_close(twin.tensor.grad.ravel(), wanted)


def _in_place(x: Any, v: Any, op: str) -> None:
    if op == "add":
        x += v
    else:
        x *= v


def _assigned(x: Array, v: Array, index: Any) -> Array:
    new = np.array(x)
    new[index] = v
    return new


@st.composite
def _indices(draw: Any, shape: tuple[int, ...]) -> Any:
    if not shape:
        return draw(st.sampled_from([(), ...]))
    n = shape[0]
    slices = st.sampled_from([slice(None), slice(1, None), slice(None, None, -1)])
    if n == 0:
        return draw(slices)
    rows = st.lists(st.integers(0, n - 1), min_size=1, max_size=3).map(np.array)
    return draw(st.one_of(st.integers(-n, n - 1), slices, rows))


def _assert_close(found: Array, wanted: Array) -> None:
    size = float(np.abs(wanted).max(initial=1.0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * size)


@contextlib.contextmanager
def _raises(kind: type[Exception]) -> Any:
    """Expect an error, without pytest."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"want a {kind.__name__}, but nothing was raised")
