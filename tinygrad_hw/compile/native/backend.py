"""A program's native functions, their memory, and the Python function that calls them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np

from ..expand import expanded
from ..program import (
    LINE,
    Array,
    Instruction,
    Program,
    Ref,
    Spec,
    aligned,
    refs_in,
    renumbered,
)
from ..recycle import maker
from .arguments import Given, real, refit
from .crew import MOST, together
from .kernels import KERNELS
from .loops import PIECES, Group, Node
from .object_code import blas
from .scalars import literal
from .schedule import Phase, Schedule
from .store import compiled
from .writer import Writer


class Native:
    """Runs a program as native code; what has no native rule, with NumPy.

    Attributes
    ----------
    sources : list of str
        The native functions.
    source : str
        The Python function that calls them.
    run : callable
        Takes the inputs; returns the results, or None if what was assumed does not hold.
    results : list of int
        Numbers of the results.
    owned : set of int
        Those in arrays that nobody else has.
    """

    name = "numba"
    commit = None

    def __init__(self, program: Program) -> None:
        lowered, numbers = renumbered(expanded(program), program.inputs)
        self.plan = plan = Plan(lowered)
        self.run = plan.function([numbers[i] for i in program.inputs], program)
        self.results, self.owned = plan.results, plan.owned
        self.sources, self.source = plan.sources, plan.source
        self.writes_in_place = plan.schedule.commits

    def explain(self) -> str:
        """Say what was fused and what memory it takes."""
        plan = self.plan
        lines = [f"{len(self.sources)} native functions, {plan.arena} bytes of buffers"]
        for _, node in plan.time:
            names = " ".join(i.op.name for i in node.instructions)
            lines.append(f"  loop: {names}" if isinstance(node, Group) else f"  {names}")
        return "\n".join(lines)


class Slots:
    """Places in an arena: values that are not there at the same time share one.

    Attributes
    ----------
    sizes : list of int
        Bytes of each place.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._busy: list[tuple[int, int]] = []
        self._free: dict[int, list[int]] = {}

    def take(self, nbytes: int, born: int, dies: int) -> int:
        """Give the number of a place for a value; values come in the order of their births."""
        while self._busy and self._busy[0][0] < born:
            slot = heappop(self._busy)[1]
            heappush(self._free.setdefault(self.sizes[slot], []), slot)
        size = -(-nbytes // LINE) * LINE
        most = max(4 * size, 4096)
        fits = [n for n, free in self._free.items() if free and size <= n <= most]
        if fits:
            slot = heappop(self._free[min(fits)])
        else:
            slot = len(self.sizes)
            self.sizes.append(size)
        heappush(self._busy, (dies, slot))
        return slot


class Plan:
    """Gives the values of a schedule their memory, and writes the functions."""

    def __init__(self, program: Program) -> None:
        self.schedule = Schedule(program)
        self.program, self.layout = program, self.schedule.layout
        self.made, self.phases = self.schedule.made, self.schedule.phases
        self._allocate()
        self.sources: list[str] = []
        self.checked: set[int] = set()

    # --- Memory ---------------------------------------------------------------------------------

    def _allocate(self) -> None:
        """Find which values are stored, and give those inside one call places in an arena."""
        self.time: list[tuple[Phase, Node]] = [
            (phase, node) for phase in self.phases for node in (*phase.nodes, *phase.commit)
        ]
        self.fresh = self._fresh()
        python = {i for p in self.phases if not p.native for x in p.instructions for i in x.refs()}
        wanted = python | set(self.program.results())
        born: dict[int, int] = {}
        dies: dict[int, int] = {}
        end = len(self.time)
        for t, (_, node) in enumerate(self.time):
            for i in node.made():
                born[i] = t
            for i in node.reads():
                root = self._root(i)
                if root is not None:
                    dies[root] = t
        for i in wanted:
            root = self._root(i)
            if root is not None:
                dies[root] = end
        self.slots: dict[int, int] = {}
        slots = Slots()
        for i in sorted(born, key=born.__getitem__):
            node = self.time[born[i]][1]
            if isinstance(node, Group):
                if i in node.targets or (i not in dies and i not in node.sinks):
                    continue
                node.kept |= {i} - node.sinks.keys()
            if i in self.fresh:
                continue
            nbytes = self.program.specs[i].nbytes
            self.slots[i] = slots.take(nbytes, born[i], dies.get(i, born[i]))
        starts = np.cumsum([0, *slots.sizes]).tolist()
        self.offsets = {i: starts[slot] for i, slot in self.slots.items()}
        self.arena = starts[-1]
        self.memory = aligned(self.arena)

    def _root(self, i: int) -> int | None:
        place = self.layout.places.get(i)
        return None if place is None else place.root

    def _fresh(self) -> set[int]:
        """Native values that the caller keeps: each call has new arrays for them."""
        native = {i.out for p in self.phases if p.native for i in p.instructions}
        rebound = [w.value for w in self.program.writes if not w.in_place]
        stack = [r.index for r in (*self.program.outputs, *rebound) if isinstance(r, Ref)]
        fresh: set[int] = set()
        while stack:
            i = stack.pop()
            if i in native:
                root = self.layout.places[i].root
                if root in native:
                    fresh.add(root)
            elif i in self.made and self.made[i].pure:
                # What NumPy made may be a view of its arguments.
                stack += self.made[i].refs()
        return fresh

    def _memory_of(self, root: int) -> int:
        """A number for the memory of a value; those that share an arena slot share it."""
        return self.slots[root] if root in self.slots else len(self.slots) + root

    # --- Writing the functions ------------------------------------------------------------------

    def function(self, arguments: list[int], program: Program) -> Callable[..., Any]:
        """Write and compile everything; give the Python function that runs it."""
        self.names: dict[str, Any] = {"np": np, "arena": self.memory}
        self.names |= {"real": real, "refit": refit, "together": together}
        for i, array in self.program.constants.items():
            self.names[f"v{i}"] = array
        body = []
        self.defined = {*arguments, *self.program.constants}
        for i in self.slots:
            self.names[f"v{i}"] = self._view_of_arena(i)
            self.defined.add(i)
        for phase in self.phases:
            if phase.native:
                body += self._native_call(phase)
            else:
                for instruction in phase.instructions:
                    body += self._python_call(instruction)
        pairs = self._pairs(program)
        for i in pairs.values():
            body += self._defining(i)
        self.results = list(pairs)
        roots = [self._root(i) for i in pairs.values()]
        self.owned = {
            i
            for i, root in zip(pairs, roots, strict=True)
            if root in self.fresh and roots.count(root) == 1
        }
        shown = "".join(f"v{i}, " for i in pairs.values())
        lines = [f"def run({', '.join(f'v{i}' for i in arguments)}):"]
        lines += [f"    {line}" for line in [*body, f"return ({shown})"]]
        self.source = "\n".join(lines)
        exec(compile(self.source, "<compiled>", "exec"), self.names)
        run: Callable[..., Any] = self.names["run"]
        return run

    def _pairs(self, program: Program) -> dict[int, int]:
        """Results that are still asked for, in the given program and in the lowered one."""
        pairs: dict[int, int] = {}
        for old, new in zip(program.outputs, self.program.outputs, strict=True):
            if isinstance(old, Ref):
                pairs[old.index] = new.index
        for old_write, write in zip(program.writes, self.program.writes, strict=True):
            if isinstance(write.value, Ref) and not (write.in_place and self.schedule.commits):
                pairs[old_write.value.index] = write.value.index
        for (old, _), (new, _) in zip(program.checks, self.program.checks, strict=True):
            if new.index not in self.checked:
                pairs[old.index] = new.index
        return pairs

    def _view_of_arena(self, i: int) -> Array:
        stand = self.layout.stand[i]
        start = self.offsets[i]
        flat = self.memory[start : start + stand.nbytes].view(stand.dtype)
        order = self.layout.order(i)
        array: Array = flat.reshape([stand.shape[a] for a in order])
        return array.transpose(np.argsort(order)) if order else array

    def _defining(self, i: int) -> list[str]:
        """Lines that make a value a Python array, if it is not: views of others."""
        if i in self.defined:
            return []
        lines = []
        instruction = self.made[i]
        for source in instruction.refs():
            lines += self._defining(source)
        return lines + self._python_call(instruction)

    def _python_call(self, instruction: Instruction) -> list[str]:
        lines = []
        for i in instruction.refs():
            lines += self._defining(i)
        self.defined.add(instruction.out)
        op, args, params, out = instruction
        names = [self._shown(arg) for arg in args]
        names += [f"{key}={self._shown(value)}" for key, value in params.items()]
        call = f"{self._known(op.forward)}({', '.join(names)})"
        if self.program.specs[out].order is not None:
            call = f"np.asarray({call})"
        return [*lines, f"v{out} = {call}"]

    def _shown(self, value: Any) -> str:
        if isinstance(value, Ref):
            return f"v{value.index}"
        if type(value) in (tuple, list) and refs_in(value):
            inside = "".join(f"{self._shown(v)}, " for v in value)
            return f"({inside})" if type(value) is tuple else f"[{inside}]"
        return self._known(value)

    def _known(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def _native_call(self, phase: Phase) -> list[str]:
        w = Writer(self.layout, self._memory_of, crew=self.schedule.crew)
        for node in phase.nodes:
            self._write_node(node, w)
        here = {i.out for i in phase.instructions}
        for ref, value in self.program.checks:
            if ref.index in here and not np.ndim(value):
                place = self.layout.places[ref.index]
                found = w.load(place.root, str(place.offset))
                wanted = literal(value, self.layout.stand[ref.index].dtype)
                differs = f"{found} != {wanted}" if value == value else f"{found} == {found}"
                w.line(0, f"if {differs}:")
                w.leave(1, 0)
                self.checked.add(ref.index)
        for node in phase.commit:
            self._write_node(node, w)
        if not w.lines:
            return []
        return self._call_of(w, phase)

    def _write_node(self, node: Node, w: Writer) -> None:
        with w.node():
            if isinstance(node, Group):
                node.write(w)
            else:
                (instruction,) = node.instructions
                assert KERNELS[instruction.op.forward](w, instruction)

    def _call_of(self, w: Writer, phase: Phase) -> list[str]:
        lines: list[str] = []
        targets = {
            t for node in phase.commit if isinstance(node, Group) for t in node.targets.values()
        }
        given = Given()
        given.array("arena", "arena", self.memory, writable=True)
        for root, number in sorted(w.roots.items()):
            stand = self.layout.stand[root]
            if root in self.slots:
                start, dtype = self.offsets[root], stand.dtype.name
                given.lines.append(f"m{root} = part(arena, {start}, np.{dtype}, {number})")
                continue
            text = self._array_argument(root, lines)
            stand = stand.transpose(self.layout.order(root))
            written = root in self.fresh or root in targets
            given.array(f"m{root}", text, stand, writable=written, number=number)
            if root in targets:
                given.targets.append(len(given.texts) - 1)
        given.lines += w.views.values()
        for i in sorted(w.numbers):
            given.number(f"n{i}", f"real(v{i})", "real")
        for dtype in sorted(w.blas):
            given.number(f"{dtype.name}_blas", self._known(blas(dtype)), "whole")
        self._give_scratch(w, given)
        source = self._source(w, given)
        self.sources.append(source)
        return [*lines, *self._calling(self._known(compiled(source)), w.crew, given)]

    def _give_scratch(self, w: Writer, given: Given) -> None:
        """Give what belongs to the function alone."""
        size = -(-(w.blocks + w.packing) // LINE) * LINE
        if size:
            memory = aligned(size * (MOST if w.crew else 1))
            given.array("scratch", self._known(memory), memory, writable=True)
        if w.crew:
            counter = np.zeros(1, np.int64)
            given.array("counter", self._known(counter), counter, writable=True)
            for out, number in sorted(w.pieces.items()):
                sums = np.zeros(PIECES, w.dtype(out))
                given.array(f"t{out}", self._known(sums), sums, writable=True, number=number)
            given.place_in_crew()
        if size:
            mine = f"me * {size}" if w.crew else "0"
            given.lines.append(f"room = part(scratch, {mine}, np.uint8)")
            given.lines.append(f"packed = part(room, {w.blocks}, np.uint8)")
            given.lines += w.parts

    @staticmethod
    def _source(w: Writer, given: Given) -> str:
        w.leave(0, 1)
        misfit = [f"if not ({' and '.join(given.checks)}):", "    return answer(-1)"]
        start = ["state = let_go()"] if w.crew else []
        head = [f"    {line}" for line in [*misfit, *given.lines, *start]]
        steps = [f"    def {name}{text}" for text, name in w.functions.items()]
        return "\n".join(["def native(self, objects, count):", *head, *steps, *w.lines, ""])

    def _calling(self, name: str, crew: bool, given: Given) -> list[str]:
        shown, dtypes = ", ".join(given.texts), self._known(given.dtypes)
        call = f"together({name}, ({shown},))" if crew else f"{name}({shown})"
        caller = f"lambda *given: together({name}, given)" if crew else name
        return [
            f"held = {call}",
            "if held < 0:",
            f"    held = refit({caller}, ({shown},), {dtypes}, {given.targets})",
            "if not held:",
            "    return None",
        ]

    def _array_argument(self, root: int, lines: list[str]) -> str:
        """Spell an argument in C order; a result gets its array here."""
        stand, order = self.layout.stand[root], self.layout.order(root)
        plain = order == tuple(range(stand.ndim))
        back = tuple(np.argsort(order).tolist())
        if root in self.fresh:
            if root in self.defined:
                return f"f{root}"
            self.defined.add(root)
            lines.append(f"f{root} = {self._known(maker(Spec.of(stand)))}()")
            lines.append(f"v{root} = f{root}" + ("" if plain else f".transpose({back})"))
            return f"f{root}"
        return f"v{root}" if plain else f"v{root}.transpose({order})"
