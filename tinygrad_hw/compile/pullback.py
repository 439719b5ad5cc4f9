"""Gradients through a compiled function: the pullback of each output is a program too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .. import graph, tree
from ..dispatch import Primitive, parent_of
from ..errors import GraphError
from ..graph import FREED, Handle, Leaf, Node
from ..walk import pull
from .program import Program, Ref, Source, pruned
from .recording import Recorder
from .same import same_array


class Pullback:
    """What a compiled function does to the cotangent of one of its outputs.

    It is recorded together with the function. What the function computes and the pullback needs
    are further outputs of the function's program and inputs of the pullback's.
    """

    def __init__(
        self,
        output: int,
        keeps_output: bool,
        program: Program,
        residuals: list[int],
        parents: list[Any],
        call: Any,
    ) -> None:
        self.output, self.program, self.residuals = output, program, residuals
        self.parents, self.call = parents, call
        self.keeps_output = keeps_output
        self.op = Primitive(_no_forward, "compiled", None, None, "", view=False)
        self.op.rule(self._rule)
        self.executable: Any = None
        self._lock = threading.Lock()

    def attach(self, tensor: Any, residuals: list[Any], leaves: Sequence[Any]) -> None:
        """Give an output a node whose rule runs the program."""
        parents = [leaves[p] if isinstance(p, int) else p for p in self.parents]
        node = Node()
        node.primitive, node.parents = self.op, tuple(map(parent_of, parents))
        # Backward raises if one of these arrays was written to meanwhile.
        node.inputs = tuple(p._data for p in parents)
        node.output = tensor._data if self.keeps_output else None
        node.params = {"residuals": residuals, "leaves": leaves}
        node.index, node.extras = graph.tick(), None
        node.shape, node.dtype = tensor._data.shape, tensor._data.dtype
        tensor._node = node

    def _rule(self, g: Any, y: Any, *inputs: Any, residuals: Any, leaves: Any) -> Any:
        if isinstance(g, Handle):
            raise GraphError(
                "compile: second derivatives do not go through a compiled function; compile the "
                "function that computes the derivative"
            )
        pulled = self._run([*residuals, np.asarray(g)])
        return self.call.eagerly(self.output, self.parents, g, leaves) if pulled is None else pulled

    def _run(self, inputs: list[Any]) -> Any:
        """Run the program, which has one set of buffers; None if what was assumed does not hold."""
        with self._lock:
            if self.executable is None:
                self.executable = self.call.backend(self.program)
            values = self.executable.run(*inputs)
            if values is None or not _hold(self.program, self.executable.results, values):
                return None
            results = dict(zip(self.executable.results, values, strict=True))
            return tuple(
                np.array(results[r.index]) if isinstance(r, Ref) else r
                for r in self.program.outputs
            )


class MadeLeaf(NamedTuple):
    """An output that is a leaf made by the function: the caller gets a leaf, with its gradient."""

    output: int
    residuals: list[int]
    name: str | None

    def attach(self, tensor: Any, residuals: list[Any], leaves: Sequence[Any]) -> None:
        """Make an output a leaf."""
        tensor._node = leaf = Leaf(tensor._data, self.name)
        leaf.grad = residuals[0].copy() if residuals else None


class Call(NamedTuple):
    """What a pullback needs of the function: itself, and how programs are run."""

    function: Callable[..., Any]
    rebuild: Any
    backend: Callable[[Program], Any]

    def eagerly(self, output: int, parents: list[Any], g: Any, leaves: Any) -> Any:
        """Pull back through the graph of another, ordinary call."""
        args, kwargs = self.rebuild(iter(leaves))
        with graph.enable_grad():
            y = tree.flatten(self.function(*args, **kwargs))[0][output]
        nodes = [(leaves[p] if isinstance(p, int) else p)._node for p in parents]
        wanted = [node for node in nodes if node is not None]
        cotangents, _ = _pull(y._node, g, wanted)
        return tuple(cotangents.get(node) for node in nodes)


def _pull(node: Node, g: Any, parents: list[Any]) -> tuple[dict[Node, Any], list[Node]]:
    """Pull back to the parents without their hooks: the backward that comes by calls those."""
    hooked = [p.extras for p in parents if p.extras is not None and "hooks" in p.extras]
    hooks = [extras.pop("hooks") for extras in hooked]
    try:
        return pull([(node, g)], parents, beyond=False)
    finally:
        for extras, calls in zip(hooked, hooks, strict=True):
            extras["hooks"] = calls


def _no_forward(*values: Any) -> Any:
    raise GraphError("compile: a compiled function's node cannot be computed from arrays alone")


def _hold(program: Program, order: list[int], values: Sequence[Any]) -> bool:
    """Tell whether what was taken for granted turned out so."""
    results = dict(zip(order, values, strict=True))
    return all(
        same_array(np.asarray(results[ref.index]), value)
        for ref, value in program.checks
        if ref.index in results
    )


def record_pullbacks(
    recorder: Recorder, outputs: list[Any], given: list[Any], call: Call
) -> list[Pullback | MadeLeaf]:
    """Record the pullback of each output that has a graph; ``given`` are the arguments' leaves."""
    whole = recorder.program
    forward = len(whole.instructions)
    made: list[Pullback | MadeLeaf] = []
    parents: list[Any] = [t for t in recorder.tensors if t._node is not None]
    for number, y in enumerate(outputs):
        if not isinstance(y, Handle) or y._node is None or not _alive(y._node):
            continue
        if isinstance(y._node, Leaf) and id(y) in recorder.made_here:
            gradient = recorder._result(y._node.grad)
            kept = [] if gradient is None else [gradient.index]
            made.append(MadeLeaf(number, kept, y._node.name))
            continue
        start, checks = len(whole.instructions), len(whole.checks)
        g = recorder.input(Source("cotangent", None, number), np.ones(y._data.shape, y._data.dtype))
        cotangents, visited = _pull(y._node, g, [t._node for t in parents])
        # Also those that get no cotangent, as through `floor`: their gradients are zeros.
        there = {*visited}
        reached = [t for t in parents if t._node in there]
        program = replace(
            whole,
            inputs={},
            instructions=whole.instructions[start:],
            outputs=[recorder._result(cotangents.get(t._node)) for t in reached],
            writes=[],
            checks=whole.checks[checks:],
        )
        del whole.checks[checks:], whole.inputs[g.index]
        program = pruned(program)
        own = {i.out for i in program.instructions} | program.constants.keys() | {g.index}
        used = [i for instruction in program.instructions for i in instruction.refs()]
        residuals = list(dict.fromkeys(i for i in (*used, *program.results()) if i not in own))
        sources = {i: Source("residual", None, i) for i in residuals}
        program.inputs = {**sources, g.index: Source("cotangent", None, number)}
        # Constants among them are parents without a cotangent: a write to one is noticed.
        constants = _constants(whole, residuals, given)
        program.outputs += [None] * len(constants)
        numbers = {id(leaf): i for i, leaf in enumerate(given)}
        places = [numbers.get(id(t), t) for t in (*reached, *constants)]
        value = whole.outputs[number]
        keeps_output = isinstance(value, Ref) and value.index in residuals
        made.append(Pullback(number, keeps_output, program, residuals, places, call))
    del whole.instructions[forward:]
    return made


def _constants(program: Program, values: list[int], leaves: Sequence[Any]) -> list[Any]:
    """Give the constant tensors from outside whose arrays are among some values."""
    sources = [program.inputs[i] for i in values if i in program.inputs]
    owners = [leaves[s.key] if s.kind == "argument" else s.owner for s in sources]
    return [t for t in owners if isinstance(t, Handle) and t._node is None]


def _alive(root: Node) -> bool:
    """Tell whether a graph was not freed by a backward."""
    stack, seen = [root], {root}
    while stack:
        node = stack.pop()
        if node.inputs is FREED:
            return False
        for parent in node.parents:
            if isinstance(parent, Node) and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return True
