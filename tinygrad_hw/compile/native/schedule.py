"""What runs as native code, what as NumPy, and in which order; which operations share a loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.shape import _reshape
from ..program import VIEWS, Instruction, Program, Ref, Spec, target_of
from .kernels import KERNELS, LIKE_ARGUMENT, multiplications
from .layout import Layout
from .loops import FOLDS, Group, Node, spelled
from .scalars import known, numpy_is_quicker
from .writer import Writer

_RESHAPES = frozenset({_reshape.forward, np.reshape})
# Nanoseconds of work from which on threads are worth the microseconds they take to begin and meet.
WORTH_THREADS = 1e6


class Phase:
    """Instructions that run together: native, or one after the other with NumPy."""

    def __init__(self, native: bool) -> None:
        self.native = native
        self.instructions: list[Instruction] = []
        self.nodes: list[Node] = []
        self.commit: list[Node] = []


class Schedule:
    """What each instruction of a program is in native code, and in which order they run.

    Attributes
    ----------
    layout : Layout
        Where the values lie.
    made : dict
        Value to the instruction that makes it.
    phases : list of Phase
    commits : bool
        Whether the last native phase writes in place.
    crew : bool
        Whether threads share the work.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.layout = Layout(program)
        self.made = {i.out: i for i in program.instructions}
        self.users: dict[int, list[Instruction]] = {}
        for instruction in program.instructions:
            for i in instruction.refs():
                self.users.setdefault(i, []).append(instruction)
        self.kind: dict[int, str] = {}
        self._classify()
        self.late = self._late()
        self.phases = self._phases()
        for phase in self.phases:
            if phase.native:
                phase.nodes = self._grouped(phase.instructions)
        self.commits = self._place_commit()
        self.crew = self._nanoseconds() > WORTH_THREADS

    # --- What each instruction is ---------------------------------------------------------------

    def _classify(self) -> None:
        specs = self.program.specs
        probe = Writer(self.layout, lambda root: 0)
        for instruction in self.program.instructions:
            out = instruction.out
            kind = self._kind_of(instruction, probe)
            self.kind[out] = kind
            if kind == "view" or specs[out].order is None:
                continue
            order = None
            like = LIKE_ARGUMENT.get(instruction.op.forward)
            if kind == "each":
                order = self.layout.like_arguments(instruction)
            elif kind == "kernel" and like is not None:
                order = self.layout.order(instruction.args[like].index)
            elif kind in ("copy", "fold"):
                order = tuple(range(len(specs[out].shape)))
                if kind == "copy" and self._batch_last(instruction):
                    order = (*order[1:], 0)
            elif kind == "kernel" and self._makes_images(instruction):
                order = (1, 0)
            self.layout.own(instruction, order)
            if kind == "kernel" and not KERNELS[instruction.op.forward](probe, instruction):
                self.kind[out] = "python"
                self.layout.own(instruction)
        self._numbers_to_python()

    def _batch_last(self, instruction: Instruction) -> bool:
        """Tell whether a copy can keep the first axis innermost, as its argument has it."""
        given, made = instruction.args[0].index, instruction.out
        a, b = self.program.specs[given].shape, self.program.specs[made].shape
        return len(a) > 1 < len(b) and a[0] == b[0] and self.layout.order(given)[-1] == 0

    def _makes_images(self, instruction: Instruction) -> bool:
        """Tell whether a product becomes images, whose kernels want the batch innermost."""
        made = self.program.specs[instruction.out].shape
        if len(made) != 2:
            return False
        return any(
            i.op.forward in _RESHAPES and len(s) == 4 and s[0] == made[0]
            for i in self.users.get(instruction.out, ())
            for s in [self.program.specs[i.out].shape]
        )

    def _kind_of(self, instruction: Instruction, probe: Writer) -> str:
        specs, op = self.program.specs, instruction.op
        involved = [specs[i] for i in (*instruction.refs(), instruction.out)]
        if specs[instruction.out].order is None or not instruction.pure:
            return "python"
        if any(s.size == 0 or not known(s.dtype) for s in involved):
            return "python"
        if op.forward in FOLDS:
            return "fold"
        if op.name in VIEWS and self.layout.view(instruction):
            return "view"
        refs = [a for a in instruction.args if isinstance(a, Ref)]
        if op.forward in KERNELS:
            whole = len(refs) == len(instruction.args)
            return (
                "kernel"
                if whole and all(specs[r.index].order is not None for r in refs)
                else "python"
            )
        if spelled(instruction, specs) is not None:
            return "python" if numpy_is_quicker(instruction, specs[instruction.out]) else "each"
        # NumPy's own may be asked for an order.
        asked = len(instruction.args) + len(instruction.params)
        if op.forward in _RESHAPES and len(refs) == 1 and asked == 2:
            return "copy"
        return "python"

    def _numbers_to_python(self) -> None:
        """Leave to Python what a Python number is computed from, such as a count of steps."""
        stack = [i for i in self.made if self.program.specs[i].order is None]
        while stack:
            for i in self.made[stack.pop()].refs():
                if self.kind.get(i) == "each" and self.program.specs[i].size == 1:
                    self.kind[i] = "python"
                    stack.append(i)

    def _late(self) -> set[int]:
        """Values that only go into what is written in place: they are computed on the way."""
        others = [
            *self.program.outputs,
            *(w.value for w in self.program.writes if not w.in_place),
            *(ref for ref, _ in self.program.checks),
        ]
        needed = {r.index for r in others if isinstance(r, Ref)}
        late: set[int] = set()
        for instruction in reversed(self.program.instructions):
            out = instruction.out
            if out not in needed and self.kind[out] == "each":
                late.add(out)
            else:
                needed.update(instruction.refs())
        return late

    # --- The order of things --------------------------------------------------------------------

    def _phases(self) -> list[Phase]:
        waiting = [i for i in self.program.instructions if i.out not in self.late]
        ready = {*self.program.inputs, *self.program.constants}
        phases: list[Phase] = []
        native = False
        while waiting:
            phase, rest = Phase(native), []
            for instruction in waiting:
                mine = (self.kind[instruction.out] != "python") == native
                if mine and all(i in ready for i in instruction.refs()):
                    phase.instructions.append(instruction)
                    ready.add(instruction.out)
                else:
                    rest.append(instruction)
            waiting, native = rest, not native
            if phase.instructions:
                phases.append(phase)
        return phases

    def _grouped(self, instructions: list[Instruction]) -> list[Node]:
        """Put what can share a loop into one."""
        nodes: list[Node] = []
        position: dict[int, int] = {}
        for instruction in instructions:
            if self.kind[instruction.out] == "view":
                position[instruction.out] = self._after(instruction, position)
                continue
            if self.kind[instruction.out] == "kernel":
                nodes.append(Node([instruction]))
                position[instruction.out] = len(nodes) - 1
                continue
            shape = self._loop_shape(instruction)
            at = self._place_for(instruction, shape, nodes, position)
            if at is None:
                nodes.append(Group(shape))
                at = len(nodes) - 1
            group = nodes[at]
            assert isinstance(group, Group)
            group.add(instruction, self.kind[instruction.out])
            position[instruction.out] = at
        return nodes

    def _after(self, instruction: Instruction, position: dict[int, int]) -> int:
        return max([position.get(i, -1) for i in instruction.refs()], default=-1)

    def _loop_shape(self, instruction: Instruction) -> tuple[int, ...]:
        i = instruction.out if self.kind[instruction.out] == "each" else instruction.args[0].index
        return self.program.specs[i].shape

    def _place_for(
        self, instruction: Instruction, shape: Any, nodes: list[Node], position: dict[int, int]
    ) -> int | None:
        """Find a loop over the shape that comes after, or is, what computes the arguments."""
        first = self._after(instruction, position)
        mine = set(instruction.refs())
        for at in range(max(first, 0), len(nodes)):
            group = nodes[at]
            if not isinstance(group, Group) or group.shape != shape:
                continue
            inside = {i for i in mine if position.get(i) == at}
            if at == first and not inside <= group.direct:
                continue
            if at == first or not shape or mine & group.taken:
                return at
        return None

    def _place_commit(self) -> bool:
        """Add the loops that write in place to the last native function, if they can be native."""
        writes = [w for w in self.program.writes if w.in_place]
        late = [i for i in self.program.instructions if i.out in self.late]
        last = self.phases[-1] if self.phases and self.phases[-1].native else None
        native_values = {i.out for p in self.phases if p.native for i in p.instructions}
        scalar = all(
            ref.index in native_values and np.ndim(v) == 0 for ref, v in self.program.checks
        )
        targets = {target_of(self.program, w): w.value.index for w in writes}
        native = (
            last is not None
            and scalar
            and len(set(targets.values())) == len(writes) == len(targets)
            and targets.keys().isdisjoint({None})
            and all(i in self.late for i in targets.values())
            and all(self.program.specs[t].dtype.isnative for t in targets if t is not None)
            and self._commit_is_safe(late, targets)
        )
        if not native:
            if late:
                phase = last or Phase(True)
                if last is None:
                    self.phases.append(phase)
                here = {i.out for i in phase.instructions} | self.late
                phase.instructions = [i for i in self.program.instructions if i.out in here]
                phase.nodes = self._grouped(phase.instructions)
            return False
        assert last is not None
        last.commit = self._grouped(late)
        for node in last.commit:
            assert isinstance(node, Group)
            made = set(node.made())
            node.targets = {v: t for t, v in targets.items() if v in made and t is not None}
        return True

    def _commit_is_safe(self, late: list[Instruction], targets: dict[Any, int]) -> bool:
        """Tell whether each target is read only where, and before, it is written."""
        groups = self._grouped(late)
        home = {v: k for k, node in enumerate(groups) for v in node.made()}
        for instruction in late:
            for i in instruction.refs():
                place = self.layout.places.get(i)
                if place is None or place.root not in targets:
                    continue
                own = home.get(targets[place.root]) == home[instruction.out]
                if i != place.root or not own:
                    return False
        return True

    def _nanoseconds(self) -> float:
        """Estimate how long a run takes, from entries and from terms of sums."""
        return sum(_nanoseconds(i, self.program.specs) for i in self.program.instructions)


def _nanoseconds(instruction: Instruction, specs: dict[int, Spec]) -> float:
    """Estimate how long an instruction takes, as measured on one core."""
    largest = max(specs[i].size for i in (instruction.out, *instruction.refs()))
    return 0.06 * multiplications(instruction, specs) + 0.15 * largest
