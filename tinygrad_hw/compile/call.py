"""One run of a recorded program: read what it needs, compute, write what the function wrote.

It is written as one Python function for each program, since here every microsecond counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..graph import Handle, stamp
from .program import Array, Program, Ref, Source, Write
from .same import same_array

MISS = object()


class Effects(NamedTuple):
    """What a call does besides the writes of its program.

    Attributes
    ----------
    steps : list of (optimiser, int)
        How many steps each optimiser counts.
    pullbacks : list
        They give outputs their nodes.
    tensors : list of bool
        Which outputs are tensors.
    scalars : set of int
        Which outputs are scalars of NumPy.
    rebuild : callable
        Puts the outputs into the structure that the function returns.
    """

    steps: list[tuple[Any, int]]
    pullbacks: list[Any]
    tensors: list[bool]
    scalars: set[int]
    rebuild: Callable[..., Any]


def caller(program: Program, executable: Any, effects: Effects) -> Callable[..., Any]:
    """Give the function of the arguments' leaves that runs a program."""
    return _Caller(program, executable, effects).function()


class _Caller:
    def __init__(self, program: Program, executable: Any, effects: Effects) -> None:
        self.program, self.executable, self.effects = program, executable, effects
        self.names: dict[str, Any] = {
            "run": executable.run,
            "commit": executable.commit,
            "own": _own,
            "same": same_array,
            "new": object.__new__,
            "stamp": stamp,
            "Tensor": Handle.result,
            "MISS": MISS,
            "rebuild": effects.rebuild,
        }
        self.ids = {id(value): name for name, value in self.names.items()}
        self.given: set[int] = {*program.inputs, *program.constants}

    def known(self, value: Any) -> str:
        """Name an object in the function."""
        name = self.ids.setdefault(id(value), f"k{len(self.names)}")
        self.names[name] = value
        return name

    def function(self) -> Callable[..., Any]:
        """Write the function."""
        results = self.executable.results
        reads = ", ".join(self.read(source) for source in self.program.inputs.values())
        lines = [
            # What goes wrong here goes wrong in the function too, which says it better.
            "try:",
            f"    results = run({reads})",
            "except Exception:",
            "    return MISS",
            "if results is None:",
            "    return MISS",
        ]
        names = [f"v{i}" for i in results] + ["carried"] * (self.executable.commit is not None)
        if names:
            lines.append(f"{''.join(f'{name}, ' for name in names)} = results")
        for ref, value in self.program.checks:
            if ref.index in results:
                lines += [f"if {self.fails(ref.index, np.asarray(value))}:", "    return MISS"]
        outputs = [self.owned(value) for value in self.program.outputs[: len(self.effects.tensors)]]
        kept = self.kept()
        lines += [f"y{k} = {text}" for k, text in enumerate(outputs)]
        rebound = [(w, self.owned(w.value)) for w in self.program.writes if not w.in_place]
        lines += [f"w{k} = {text}" for k, (_, text) in enumerate(rebound)]
        lines += self.in_place([w for w in self.program.writes if w.in_place])
        lines += [self.rebind(w.target, f"w{k}") for k, (w, _) in enumerate(rebound)]
        for optimizer, steps in self.effects.steps:
            lines.append(f"{self.known(optimizer)}.steps += {steps}")
        lines += self.returned(len(outputs), kept)
        source = "def call(leaves):\n" + "\n".join(f"    {line}" for line in lines)
        exec(compile(source, "<call>", "exec"), self.names)
        call: Callable[..., Any] = self.names["call"]
        return call

    def fails(self, i: int, value: Array) -> str:
        """Spell that a result is not what was taken for granted."""
        if value.ndim == 0:
            number = f"v{i}" if self.program.specs[i].order is None else f"v{i}.item()"
            if value != value:
                return f"{number} == {number}"
            return f"{number} != {self.known(value.item())}"
        return f"not same(v{i}, {self.known(value)})"

    def read(self, source: Source) -> str:
        """Spell what is at a place."""
        if source.kind == "argument":
            leaf = f"leaves[{source.key}]"
            if source.owner == "grad":
                return f"{leaf}._node.grad"
            return f"{leaf}._data" if source.key in self.program.tensor_arguments else leaf
        owner = self.known(source.owner)
        if source.kind == "entry":
            return f"{owner}[{source.key!r}]"
        names = {"data": "._data", "grad": "._node.grad", "rate": ".lr", "steps": ".steps"}
        return owner + names[source.kind]

    def owned(self, value: Any) -> str:
        """Spell a result as an array that nobody else has."""
        if not isinstance(value, Ref):
            return self.known(value)
        i, first = value.index, value.index not in self.given
        self.given.add(i)
        if first and i in self.executable.owned:
            return f"v{i}"
        return f"own(v{i})" if first else f"own(v{i}, True)"

    def kept(self) -> list[str]:
        """Spell what pullbacks keep; of what has another owner, who may write to it, a copy."""
        count = len(self.effects.tensors)
        outputs = [v.index if isinstance(v, Ref) else None for v in self.program.outputs[:count]]
        rebound = [w.value for w in self.program.writes if not w.in_place]
        elsewhere = {value.index for value in rebound if isinstance(value, Ref)}
        texts = []
        residuals = iter(self.program.outputs[count:])
        for pullback in self.effects.pullbacks:
            others = elsewhere.union(i for k, i in enumerate(outputs) if k != pullback.output)
            for _ in pullback.residuals:
                i = next(residuals).index
                texts.append(f"own(v{i}, True)" if i in others else f"v{i}")
        return texts

    def in_place(self, writes: list[Write]) -> list[str]:
        """Spell the writes into arrays, and tell the tensors."""
        lines = []
        if self.executable.commit is not None:
            lines.append("commit(*carried)")
        elif not self.executable.writes_in_place:
            lines += [f"{self.read(w.target)}[...] = v{w.value.index}" for w in writes]
        written = [w.target.owner for w in writes if w.target.kind == "data"]
        nodes = "".join(f"{self.known(t)}._node, " for t in written if t._node is not None)
        if nodes:
            lines.append(f"stamp(({nodes}))")
        lines += [f"{self.known(t)}._stamp()" for t in written if t._node is None]
        return lines

    def rebind(self, target: Source, text: str) -> str:
        """Spell that an array takes the place of another."""
        return f"{self.read(target)} = {text}"

    def returned(self, count: int, kept: list[str]) -> list[str]:
        """Spell what the function returns."""
        lines = []
        for k, tensor in enumerate(self.effects.tensors):
            if tensor:
                lines += [
                    f"t{k} = new(Tensor)",
                    f"t{k}._data, t{k}._node, t{k}._constant = y{k}, None, None",
                ]
        names = [f"{'t' if t else 'y'}{k}" for k, t in enumerate(self.effects.tensors)]
        for k in self.effects.scalars:
            names[k] = f"y{k}[()]"
        start = 0
        for pullback in self.effects.pullbacks:
            mine = kept[start : start + len(pullback.residuals)]
            start += len(mine)
            inside = ", ".join(mine)
            attach = self.known(pullback.attach)
            lines.append(f"{attach}({names[pullback.output]}, [{inside}], leaves)")
        return [*lines, f"return rebuild(iter([{', '.join(names)}]))"]


def _own(value: Any, shared: bool = False) -> Any:
    """Give a result as an array that nobody else has."""
    if not isinstance(value, np.ndarray):
        return value
    array: Array = value
    return array.copy(order="K") if shared or array.base is not None else array
