"""What the tensors and optimisers that a program meets must be for it to fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import graph
from ..graph import Leaf, Node
from ..optim import Optimizer
from .guards import Test


class Reached:
    """Tensors that are no arguments, and optimisers, as a program was recorded with them."""

    def __init__(self, tensors: Sequence[Any], optimizers: Sequence[Optimizer]) -> None:
        self.tensors = tensors
        self._facts = [_facts(t) for t in tensors]
        self._memories = [
            (o, o.memory, [(entries, len(entries)) for entries in o.memory]) for o in optimizers
        ]
        # When a hook was registered or removed last, as far as it is known to change nothing here.
        self._hooks_at = [graph.clock.latest_hook]

    def test(self, test: Test) -> None:
        """Test that they are the same; fails, too, when a hook of another tensor came or went."""
        test.term(f"{test.known(graph.clock)}.latest_hook == {test.known(self._hooks_at)}[0]")
        for tensor, (shape, dtype, node, has_grad, _) in zip(
            self.tensors, self._facts, strict=True
        ):
            t, s, d, n = map(test.known, (tensor, shape, dtype, node))
            test.term(f"type({t}._node) is {n}" if node is Leaf else f"{t}._node is {n}")
            test.term(f"{t}._data.shape == {s} and {t}._data.dtype == {d}")
            if node is Leaf:
                test.term(f"{t}._node.grad is {'not ' if has_grad else ''}None")
        for optimizer, memory, there in self._memories:
            m = test.known(memory)
            test.term(f"{test.known(optimizer)}.memory is {m}")
            for i, (entries, length) in enumerate(there):
                e = test.known(entries)
                test.term(f"{m}[{i}] is {e} and len({e}) == {length}")

    def changed(self) -> str:
        """Say what is different, if anything."""
        for tensor, facts in zip(self.tensors, self._facts, strict=True):
            for what, before, now in zip(_FACTS, facts, _facts(tensor), strict=True):
                if now != before:
                    name = tensor.name or f"a tensor {facts[0]}"
                    return f"{name}: {what} was {_in_words(before)}, is {_in_words(now)}"
        for optimizer, memory, there in self._memories:
            same = optimizer.memory is memory and len(memory) == len(there)
            now = zip(memory, there, strict=False)
            if not same or any(e is not kept or len(e) != n for e, (kept, n) in now):
                return "an optimiser's memory has other entries"
        return ""

    def accept_hooks(self) -> None:
        """Take the hooks that there are now as those that change nothing here."""
        self._hooks_at[0] = graph.clock.latest_hook


_FACTS = ("the shape", "the dtype", "the kind", "whether it has a gradient", "the hooks")


def _facts(tensor: Any) -> tuple[Any, ...]:
    node = tensor._node
    leaf = isinstance(node, Leaf)
    has_grad = leaf and node.grad is not None
    return tensor._data.shape, tensor._data.dtype, Leaf if leaf else node, has_grad, hooks_of(node)


def _in_words(fact: Any) -> Any:
    """Say what a fact is, where it does not show itself."""
    if fact is None or isinstance(fact, Node):
        return "constant" if fact is None else "another computed one"
    return "leaf" if fact is Leaf else fact


def hooks_of(node: Node | None) -> tuple[Any, ...]:
    """The hooks of a tensor, given its node."""
    return () if node is None or node.extras is None else tuple(node.extras.get("hooks", ()))
