"""Native source: loops over the entries of values, where many operations share one loop."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..expand import dip, peak, total
from ..program import Instruction, Ref, Spec
from .scalars import cast, literal, spell
from .writer import BLOCK, VALUE, Writer

Shape = tuple[int, ...]


# Entries of which a loop takes one vector at a time.
_FEW = 64
# Sums over everything are taken in so many pieces where threads share the work: the result does not
# depend on how many threads there are.
PIECES = 16
# What takes many instructions; two in one loop keep the processor from overlapping its rounds.
_OURS = re.compile(r"(exp|tanh|sigmoid|erf)32\(")
_LONG = re.compile(_OURS.pattern + r"|(np|math)\.(?!float|u?int|bool|sqrt|inf|nan)\w+\(")
_READ = re.compile(r"\bl(\d+)\b")


class Fold(NamedTuple):
    """How entries are taken together.

    Attributes
    ----------
    start : float
        What to start with.
    join : str
        The function of two.
    along : str
        The same where an innermost loop goes on with it: LLVM makes vectors of that.
    """

    start: float
    join: str
    along: str


FOLDS = {
    total: Fold(0, "plus", "plus"),
    peak: Fold(-math.inf, "larger", "peak"),
    dip: Fold(math.inf, "smaller", "dip"),
}
# Loops of so few entries are no vectors.
_SHORT = 8


class Operand(NamedTuple):
    """One way of going through memory along with a loop."""

    root: int
    offset: int
    strides: Shape

    def load(self, w: Writer, index: str) -> str:
        """Spell a read."""
        return w.load(self.root, index, self.offset)

    def store(self, w: Writer, index: str, value: str) -> str:
        """Spell a write."""
        return w.store(self.root, index, value, self.offset)


class Nest:
    """Loops over a shape, as few and as long as the operands allow."""

    def __init__(self, shape: Shape, operands: Sequence[Operand], reference: Operand) -> None:
        order = sorted(range(len(shape)), key=lambda a: -abs(reference.strides[a]))
        axes = [a for a in order if shape[a] != 1]
        longest = max(axes, key=lambda a: self._run(a, shape, operands), default=None)
        if axes and longest is not None and shape[axes[-1]] < 8 <= shape[longest]:
            # A short innermost loop would waste the vector registers.
            axes.remove(longest)
            axes.append(longest)
        self.sides: list[int] = []
        self.steps: list[list[int]] = [[] for _ in operands]
        for axis in axes:
            n = shape[axis]
            steps = [operand.strides[axis] for operand in operands]
            joined = self.sides and all(
                mine[-1] == step * n for mine, step in zip(self.steps, steps, strict=True)
            )
            if joined:
                self.sides[-1] *= n
                for mine, step in zip(self.steps, steps, strict=True):
                    mine[-1] = step
            else:
                self.sides.append(n)
                for mine, step in zip(self.steps, steps, strict=True):
                    mine.append(step)

    @staticmethod
    def _run(axis: int, shape: Shape, operands: Sequence[Operand]) -> int:
        return shape[axis] if any(abs(o.strides[axis]) == 1 for o in operands) else 0

    def index(self, k: int, names: Sequence[str]) -> str:
        """Spell where an operand is, with the loops' variables."""
        terms = [
            name if step == 1 else f"{name} * {step}"
            for name, step in zip(names, self.steps[k], strict=False)
            if step
        ]
        return " + ".join(terms) or "0"


class Node:
    """A step of a native function."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self.instructions = instructions

    def reads(self) -> set[int]:
        """Values that it needs from elsewhere."""
        made = {i.out for i in self.instructions}
        return {v for i in self.instructions for v in i.refs()} - made

    def made(self) -> list[int]:
        """Values that it computes."""
        return [i.out for i in self.instructions]


class Group(Node):
    """Operations on entries that share a loop over one shape.

    Attributes
    ----------
    taken : set of int
        Values that members are computed from.
    direct : set of int
        Members that have a value at each entry.
    sinks : dict
        The other members to their kinds, "fold" or "copy".
    kept : set of int
        Members whose values others need: they are stored.
    targets : dict
        Member to the input that it is written to in place.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__([])
        self.shape = shape
        self.taken: set[int] = set()
        self.direct: set[int] = set()
        self.sinks: dict[int, str] = {}
        self.kept: set[int] = set()
        self.targets: dict[int, int] = {}

    def add(self, instruction: Instruction, kind: str) -> None:
        """Add an operation."""
        self.instructions.append(instruction)
        self.taken.update(instruction.refs())
        if kind == "each":
            self.direct.add(instruction.out)
        else:
            self.sinks[instruction.out] = kind

    def write(self, w: Writer) -> None:
        """Write the loop."""
        _GroupWriter(self, w).write()


@dataclass
class Part:
    """Some of what a loop does at an entry, and the values it takes from and leaves to others."""

    body: list[str]
    folds: list[tuple[int, int, str]]
    stores: list[tuple[int, int, str]]
    given: list[int] = field(default_factory=list)
    handed_on: list[int] = field(default_factory=list)

    def text(self) -> str:
        """All that is computed and kept."""
        return " ".join([*self.body, *(text for _, _, text in (*self.folds, *self.stores))])


class _GroupWriter:
    def __init__(self, group: Group, w: Writer) -> None:
        self.group, self.w = group, w
        self.operands: list[Operand] = []
        self.loads: dict[Any, int] = {}
        self.body: list[str] = []
        self.texts: dict[int, str] = {}
        self.stores: list[tuple[int, int, str]] = []
        self.folds: list[tuple[int, int, str]] = []
        self.fold_of: dict[int, Fold] = {}
        self.reads: dict[int, str] = {}
        # Of each operand, its step in the innermost loop; which folds add up within that.
        self.steps: list[int] = []
        self.inside: set[int] = set()

    def operand(self, root: int, offset: int, strides: Shape) -> int:
        self.operands.append(Operand(root, offset, strides))
        return len(self.operands) - 1

    def argument(self, arg: Any, dtype: np.dtype[Any]) -> str:
        """Spell an argument as an entry of a dtype."""
        if not isinstance(arg, Ref):
            return literal(arg, dtype)
        i = arg.index
        layout = self.w.layout
        if i in self.texts:
            return cast(self.texts[i], self.w.dtype(i), dtype)
        if i not in layout.places:
            self.w.numbers.add(i)
            return f"np.{dtype.name}(n{i})"
        if i in layout.uniform:
            return literal(layout.uniform[i], dtype)
        place = layout.places[i]
        strides = place.spread(self.group.shape)
        assert strides is not None
        key = (place.root, place.offset, strides)
        if key not in self.loads:
            self.loads[key] = self.operand(*key)
            self.reads[self.loads[key]] = f"l{self.loads[key]}"
        return cast(self.reads[self.loads[key]], self.w.dtype(i), dtype)

    def write(self) -> None:
        group = self.group
        for instruction in group.instructions:
            kind = group.sinks.get(instruction.out, "each")
            getattr(self, f"_{kind}")(instruction)
        stored = {k for k, *_ in self.stores}
        full = [o for k, o in enumerate(self.operands) if k in stored] or self.operands
        reference = max(full, key=lambda o: sum(1 for s in o.strides if s)) if full else None
        if reference is None:
            reference = Operand(0, 0, (0,) * len(group.shape))
        self._emit(Nest(group.shape, self.operands, reference))

    def _each(self, instruction: Instruction) -> None:
        specs, out = self.w.layout.program.specs, instruction.out
        dtype = specs[out].dtype
        dtypes, form = spelled(instruction, specs)
        args = [self.argument(a, d) for a, d in zip(instruction.args, dtypes, strict=False)]
        text = f"x{out}"
        self.body.append(f"{text} = {cast_to(form(dtype, *args), dtype)}")
        self.texts[out] = text
        if out in self.group.kept:
            place = self.w.layout.places[out]
            self.stores.append((self.operand(out, 0, place.strides), out, text))
        if out in self.group.targets:
            place = self.w.layout.places[self.group.targets[out]]
            self.stores.append((self.operand(place.root, 0, place.strides), out, text))

    def _copy(self, instruction: Instruction) -> None:
        """The same entries in another shape, in C order."""
        dtype = self.w.dtype(instruction.out)
        text = self.argument(instruction.args[0], dtype)
        shape = self.group.shape
        strides = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
        order = self.w.layout.order(instruction.out)
        if len(order) > 1 and order[-1] == 0:
            strides = [1, *(stride * shape[0] for stride in strides[1:])]
        self.stores.append(
            (self.operand(instruction.out, 0, tuple(strides)), instruction.out, text)
        )

    def _fold(self, instruction: Instruction) -> None:
        """Take together what lies along the axes where the result has stride 0."""
        out, axis = instruction.out, instruction.params["axis"]
        dtype = self.w.dtype(out)
        text = self.argument(instruction.args[0], dtype)
        kept = [a for a in range(len(self.group.shape)) if a not in axis]
        strides = [0] * len(self.group.shape)
        size = 1
        for a in reversed(kept):
            strides[a] = size
            size *= self.group.shape[a]
        self.folds.append((self.operand(out, 0, tuple(strides)), out, text))
        self.fold_of[out] = FOLDS[instruction.op.forward]

    def start(self, out: int) -> str:
        """Spell what a fold starts with."""
        return literal(self.fold_of[out].start, self.w.dtype(out))

    def join(self, out: int, before: str, text: str) -> str:
        """Spell a fold with one entry more."""
        return f"{self.fold_of[out].join}({before}, {text})"

    # --- The loops ------------------------------------------------------------------------------

    def _emit(self, nest: Nest) -> None:
        w = self.w
        inner = nest.sides[-1] if nest.sides else None
        self.inner = inner or 1
        self.steps = [steps[-1] if steps else 0 for steps in nest.steps]
        self.inside = {k for k, *_ in self.folds if self.steps[k] == 0}
        parts, way = self._parts(inner), self._way(nest)
        self._start_folds(way)
        for part in parts:
            for i in part.handed_on:
                w.block(i)
        names = [f"i{a}" for a in range(len(nest.sides) - 1)]
        spans = [f"0, {side}" for side in nest.sides]
        if way == "shared":
            spans[0] = w.share(nest.sides[0])
        for depth, (name, span) in enumerate(zip(names, spans, strict=False)):
            w.line(depth, f"for {name} in range({span}):")
        depth = len(names)
        if way == "pieces":
            w.line(0, f"for i in range({w.share(PIECES)}):")
            depth, spans = 1, [f"i * {inner} // {PIECES}, (i + 1) * {inner} // {PIECES}"]
        for k in range(len(self.operands)):
            w.line(depth, f"p{k} = {nest.index(k, names)}")
        for k, text in self.reads.items():
            if self.steps[k] == 0:
                w.line(depth, f"{text} = {self.operands[k].load(w, f'p{k}')}")
        for k, out, _ in self.folds:
            if k in self.inside:
                w.line(depth, f"s{k} = {self.start(out)}")
        if inner is None:
            self._entry(depth, parts[0])
        else:
            self._innermost(depth, spans[-1], inner, parts)
        self._end_folds(depth, way)

    def _way(self, nest: Nest) -> str:
        """How threads go through the loops.

        "shared" where none writes what another does; "pieces" where all sum into one entry: the
        sums of so many pieces, whoever takes which, are then summed in order. Else "alone".
        """
        if not self.w.crew or not nest.sides:
            return "alone"
        if len(nest.sides) == 1 and self.inside and nest.sides[0] >= PIECES * BLOCK:
            return "pieces" if len(self.inside) == len(self.folds) else "alone"
        apart = all(nest.steps[k][0] for k, *_ in self.folds)
        return "shared" if apart and math.prod(nest.sides) >= BLOCK else "alone"

    def _start_folds(self, way: str) -> None:
        w = self.w
        for _, out, _ in self.folds:
            w.line(0, f"for i in range({w.layout.stand[out].size}):")
            w.line(1, w.store(out, "i", self.start(out)))
        if way != "alone" and self.folds:
            w.meet()

    def _end_folds(self, depth: int, way: str) -> None:
        """Add what the innermost loop took together to what there was."""
        w, folds = self.w, [(k, out) for k, out, _ in self.folds if k in self.inside]
        if way == "pieces":
            for k, out in folds:
                w.line(depth, f"{w.piece(out, 'i')} = s{k}")
            w.meet()
            w.line(0, f"for i in range({PIECES}):")
            depth = 1
            for k, out in folds:
                w.line(1, f"s{k} = {w.piece(out, 'i')}")
                w.line(1, f"p{k} = 0")
        for k, out in folds:
            before = w.load(out, f"p{k}")
            w.line(depth, w.store(out, f"p{k}", self.join(out, before, f"s{k}")))

    def _innermost(self, depth: int, span: str, inner: int, parts: list[Part]) -> None:
        """The innermost loop; of several parts each has its own, over a block of the entries."""
        if len(parts) > 1:
            last = span.split(", ")[1]
            self.w.line(depth, f"for q in range({span}, {BLOCK}):")
            self.w.line(depth + 1, f"o = min(q + {BLOCK}, {last})")
            depth, span = depth + 1, "q, o"
        for part in parts:
            self.w.line(depth, f"for j in {_pace(part, parts, inner)}({span}):")
            self._entry(depth + 1, part)

    def _parts(self, inner: int | None) -> list[Part]:
        """Split the body behind each long operation, if there are several and a long way to go."""
        long = [line for line in self.body if _LONG.search(line)]
        if inner is None or inner < 2 * BLOCK or len(long) < 2:
            return [Part(self.body, self.folds, self.stores)]
        parts = [Part([], [], [])]
        home: dict[int, Part] = {}
        for line in self.body:
            if parts[-1].body and _LONG.search(parts[-1].body[-1]):
                parts.append(Part([], [], []))
            parts[-1].body.append(line)
            home[_value_in(line)] = parts[-1]
        for fold in self.folds:
            home.get(_value_in(fold[2]), parts[0]).folds.append(fold)
        # Stores come last: one may be into memory that another part still reads.
        parts[-1].stores += self.stores
        for part in parts:
            for i in sorted({int(i) for i in VALUE.findall(part.text())}):
                if home[i] is not part:
                    part.given.append(i)
                    if i not in home[i].handed_on:
                        home[i].handed_on.append(i)
        return parts

    def _entry(self, depth: int, part: Part) -> None:
        """The body of the innermost loop."""
        w, steps = self.w, self.steps

        def at(k: int) -> str:
            return f"p{k}" if steps[k] == 0 else f"p{k} + j" + f" * {steps[k]}" * (steps[k] != 1)

        used = set(_READ.findall(part.text()))
        for k, text in self.reads.items():
            if steps[k] != 0 and str(k) in used:
                w.line(depth, f"{text} = {self.operands[k].load(w, at(k))}")
        for i in part.given:
            w.line(depth, f"x{i} = b{i}[j - q]")
        for line in part.body:
            w.line(depth, line)
        for i in part.handed_on:
            w.line(depth, f"b{i}[j - q] = x{i}")
        for k, out, text in part.folds:
            if k in self.inside and self.inner >= _SHORT:
                w.line(depth, f"s{k} = {self.fold_of[out].along}(s{k}, {text})")
            elif k in self.inside:
                w.line(depth, f"s{k} = {self.join(out, f's{k}', text)}")
            else:
                joined = self.join(out, w.load(out, at(k)), text)
                w.line(depth, w.store(out, at(k), joined))
        for k, _, text in part.stores:
            w.line(depth, self.operands[k].store(w, at(k), text))


def _pace(part: Part, parts: list[Part], inner: int) -> str:
    """Choose how many vectors of entries the innermost loop for a part takes at a time.

    The steps of our functions wait for each other, and the processor sees too few instructions
    ahead to begin with the next vector meanwhile. Where much else is done, four at a time would
    not fit into the registers.
    """
    if inner < _FEW or not any(_OURS.search(p.text()) for p in parts):
        return "range"
    return "quads" if inner >= 2 * BLOCK and len(part.body) < 4 else "pairs"


def _value_in(text: str) -> int:
    """Number of the first value that a text names, -1 for none."""
    found = VALUE.search(text)
    return int(found[1]) if found else -1


def spelled(instruction: Instruction, specs: dict[int, Spec]) -> Any:
    """How an instruction is spelled entry by entry, or None."""
    dtypes: list[Any] = []
    args: list[Any] = []
    for arg in instruction.args:
        spec = specs[arg.index] if isinstance(arg, Ref) else None
        number = spec is not None and spec.order is None
        args.append(_number(spec) if number and spec is not None else arg)
        if spec is not None:
            dtypes.append(None if number else spec.dtype)
        else:
            dtypes.append(arg.dtype if isinstance(arg, np.generic) else None)
    out = specs[instruction.out].dtype
    return spell(instruction.op, args, instruction.params, dtypes, out)


def _number(spec: Spec) -> Any:
    """A Python number of the kind that a value is: only its type matters."""
    return 1.5 if spec.dtype.kind == "f" else 7


def cast_to(text: str, dtype: np.dtype[Any]) -> str:
    """Make sure of the dtype of a result: NumPy's scalars in native code may promote."""
    return text if dtype.kind == "b" else f"np.{dtype.name}({text})"
