"""The numba back end: the program as native functions, as a rule one.

Elementwise operations of one shape become one loop, with the sums and extremes of what they
compute; large matrix products go to BLAS; small ones, convolution and pooling are loops of their
own. What has no native rule is left to NumPy, between two native functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import store
from .crew import together
from .expand import expanded
from .kernels import KERNELS, LIKE_ARGUMENT, multiplications
from .layout import Layout
from .loops import FOLDS, PIECES, Group, Node, Writer, spelled
from .program import Array, Instruction, Program, Ref, Spec, renumbered
from .recycle import maker
from .scalars import DTYPES, literal

_VIEWS = frozenset(
    "reshape transpose expand getitem ravel squeeze swapaxes broadcast_to expand_dims".split()
)
_ALIGN = 64
# Nanoseconds of work from which on threads are worth the microseconds they take to begin and meet.
WORTH_THREADS = 1e6


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

    def __init__(self, program: Program) -> None:
        store.require()
        lowered, numbers = renumbered(expanded(program), program.inputs)
        self.plan = plan = Plan(lowered)
        self.run = plan.function([numbers[i] for i in program.inputs], program)
        self.results, self.owned = plan.results, plan.owned
        self.sources, self.source = plan.sources, plan.source
        self.writes_in_place = plan.commits

    def explain(self) -> str:
        """Say what was fused and what memory it takes."""
        plan = self.plan
        lines = [f"{len(self.sources)} native functions, {plan.arena} bytes of buffers"]
        for _, node in plan.time:
            names = " ".join(i.op.name for i in node.instructions)
            lines.append(f"  loop: {names}" if isinstance(node, Group) else f"  {names}")
        return "\n".join(lines)


class Phase:
    """Instructions that run together: native, or one after the other with NumPy."""

    def __init__(self, native: bool) -> None:
        self.native = native
        self.instructions: list[Instruction] = []
        self.nodes: list[Node] = []
        self.commit: list[Node] = []


class Plan:
    """Decides what runs where, and writes the functions."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.layout = Layout(program)
        self.made = {i.out: i for i in program.instructions}
        self.users: dict[int, list[Instruction]] = {}
        for instruction in program.instructions:
            for i in instruction.refs():
                self.users.setdefault(i, []).append(instruction)
        self.kind: dict[int, str] = {}
        self.root_kind: dict[int, str] = {}
        self._classify()
        self.late = self._late()
        self.phases = self._schedule()
        for phase in self.phases:
            if phase.native:
                phase.nodes = self._grouped(phase.instructions)
        self.commits = self._place_commit()
        self.crew = self._nanoseconds() > WORTH_THREADS
        self._allocate()
        self.sources: list[str] = []
        self.checked: set[int] = set()

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
            i.op.name == "reshape" and len(s) == 4 and s[0] == made[0]
            for i in self.users.get(instruction.out, ())
            for s in [self.program.specs[i.out].shape]
        )

    def _kind_of(self, instruction: Instruction, probe: Writer) -> str:
        specs, op = self.program.specs, instruction.op
        involved = [specs[i] for i in (*instruction.refs(), instruction.out)]
        if specs[instruction.out].order is None or not instruction.pure:
            return "python"
        if any(s.size == 0 or s.dtype.char not in DTYPES for s in involved):
            return "python"
        if op.forward in FOLDS:
            return "fold"
        refs = [a for a in instruction.args if isinstance(a, Ref)]
        if op.forward in KERNELS:
            whole = len(refs) == len(instruction.args)
            return (
                "kernel"
                if whole and all(specs[r.index].order is not None for r in refs)
                else "python"
            )
        if spelled(instruction, specs) is not None:
            return "each"
        if op.name in _VIEWS:
            if self.layout.view(instruction):
                return "view"
            if op.name == "reshape" and len(refs) == 1:
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

    def _schedule(self) -> list[Phase]:
        waiting = [i for i in self.program.instructions if i.out not in self.late]
        ready = self.program.inputs.keys() | self.program.constants.keys()
        phases: list[Phase] = []
        native = False
        while waiting:
            phase, rest = Phase(native), []
            for instruction in waiting:
                mine = (self.kind[instruction.out] != "python") == native
                if mine and all(i in ready for i in instruction.refs()):
                    phase.instructions.append(instruction)
                    ready = ready | {instruction.out}
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
            group.instructions.append(instruction)
            if self.kind[instruction.out] in ("fold", "copy"):
                group.sinks[instruction.out] = self.kind[instruction.out]
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
            direct = {i.out for i in group.instructions} - group.sinks.keys()
            if at == first and not inside <= direct:
                continue
            if at == first or not shape or mine & (group.reads() | direct):
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
        targets = {self._target(w): w.value.index for w in writes}
        native = (
            last is not None
            and scalar
            and len(set(targets.values())) == len(writes) == len(targets)
            and targets.keys().isdisjoint({None})
            and all(i in self.late for i in targets.values())
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

    def _target(self, write: Any) -> int | None:
        """The input that a write goes to."""
        for i, source in self.program.inputs.items():
            same = source.kind == write.target.kind and source.key == write.target.key
            if same and source.owner is write.target.owner:
                spec = self.program.specs[i]
                value = self.program.specs[write.value.index]
                return i if (spec.shape, spec.dtype) == (value.shape, value.dtype) else None
        return None

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
        self.offsets: dict[int, int] = {}
        sizes: list[int] = []
        free_at: list[int] = []
        for i in sorted(born, key=born.__getitem__):
            node = self.time[born[i]][1]
            if isinstance(node, Group):
                if i in node.targets or (i not in dies and i not in node.sinks):
                    continue
                node.kept |= {i} - node.sinks.keys()
            if i in self.fresh:
                continue
            self._slot(i, born[i], dies.get(i, born[i]), sizes, free_at)
        starts = np.cumsum([0, *sizes]).tolist()
        self.offsets = {i: starts[slot] for i, slot in self.slots.items()}
        self.arena = starts[-1]
        self.memory = store.aligned(self.arena, _ALIGN)

    def _slot(self, i: int, born: int, dies: int, sizes: list[int], free_at: list[int]) -> None:
        size = -(-self.program.specs[i].nbytes // _ALIGN) * _ALIGN
        fits = [
            s for s, n in enumerate(sizes) if free_at[s] < born and size <= n <= max(4 * size, 4096)
        ]
        slot = min(fits, key=sizes.__getitem__, default=len(sizes))
        if slot == len(sizes):
            sizes.append(size)
            free_at.append(dies)
        free_at[slot] = dies
        self.slots[i] = slot

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
        self.names |= {"refit": store.refit, "together": together}
        for i, array in self.program.constants.items():
            self.names[f"v{i}"] = array
        body = []
        self.defined = {*arguments, *self.program.constants}
        for i in self.slots:
            self.names[f"v{i}"] = self._view_of_arena(i)
            self.defined.add(i)
        for number, phase in enumerate(self.phases):
            if phase.native:
                body += self._native_call(phase, number)
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
            if isinstance(write.value, Ref) and not (write.in_place and self.commits):
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
        if type(value) in (tuple, list) and any(isinstance(v, Ref) for v in value):
            inside = "".join(f"{self._shown(v)}, " for v in value)
            return f"({inside})" if type(value) is tuple else f"[{inside}]"
        return self._known(value)

    def _known(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def _native_call(self, phase: Phase, number: int) -> list[str]:
        w = Writer(self.layout, self._memory_of, crew=self.crew)
        for node in phase.nodes:
            self._write_node(node, w)
        here = {i.out for i in phase.instructions}
        for ref, value in self.program.checks:
            if ref.index in here and not np.ndim(value):
                found = self._check_text(ref.index, w)
                wanted = literal(value, self.layout.stand[ref.index].dtype)
                w.line(0, f"if {found} != {wanted}:")
                w.line(1, "return False")
                self.checked.add(ref.index)
        for node in phase.commit:
            self._write_node(node, w)
        if not w.lines:
            return []
        return self._call_of(w, phase)

    def _check_text(self, i: int, w: Writer) -> str:
        place = self.layout.places[i]
        return w.load(place.root, str(place.offset))

    def _write_node(self, node: Node, w: Writer) -> None:
        with w.node():
            if isinstance(node, Group):
                node.write(w)
            else:
                (instruction,) = node.instructions
                assert KERNELS[instruction.op.forward](w, instruction)

    def _call_of(self, w: Writer, phase: Phase) -> list[str]:
        lines: list[str] = []
        head: list[str] = []
        arguments, signature = ["arena"], ["arena"]
        targets = {
            t for node in phase.commit if isinstance(node, Group) for t in node.targets.values()
        }
        types: list[Any] = [store.array_type(np.dtype(np.uint8), 1, readonly=False)]
        for root in sorted(w.roots):
            stand = self.layout.stand[root]
            if root in self.slots:
                start = self.offsets[root]
                end = start + stand.nbytes
                head.append(f"m{root} = arena[{start}:{end}].view(np.{stand.dtype.name})")
                continue
            signature.append(f"m{root}")
            written = root in self.fresh or root in targets
            types.append(store.array_type(stand.dtype, stand.ndim, readonly=not written))
            arguments.append(self._array_argument(root, lines))
        for i in sorted(w.numbers):
            signature.append(f"n{i}")
            types.append(store.number_type())
            arguments.append(f"v{i}")
        if w.crew:
            self._add_meeting_place(w, arguments, signature, types)
        text = store.numbered(
            "\n".join(f"    {x}" for x in head) + "\n" + "\n".join(w.lines), w.memories()
        )
        source = f"def native({', '.join(signature)}):\n{text}\n    return True\n"
        self.sources.append(source)
        name = self._known(store.compiled(source, types, nogil=w.crew))
        given = ", ".join(arguments)
        call = f"together({name}, ({given},))" if w.crew else f"{name}({given})"
        writable = [k for k, s in enumerate(signature) if s in {f"m{t}" for t in targets}]
        caller = f"lambda *given: together({name}, given)" if w.crew else name
        fit = f"refit({caller}, ({given},), {writable})"
        return [
            *lines,
            "try:",
            f"    held = {call}",
            "except TypeError:",
            f"    held = {fit}",
            "if not held:",
            "    return None",
        ]

    def _add_meeting_place(
        self, w: Writer, arguments: list[str], signature: list[str], types: list[Any]
    ) -> None:
        """Add what threads need to work together; :func:`together` gives the last two."""
        shared = {"counter": np.zeros(1, np.int64)}
        shared |= {f"t{out}": np.zeros(PIECES, w.dtype(out)) for out in sorted(w.pieces)}
        for array in shared.values():
            arguments.append(self._known(array))
            types.append(store.array_type(array.dtype, 1, readonly=False))
        signature += [*shared, "me", "crew"]
        types += [store.whole_number_type()] * 2

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


def _nanoseconds(instruction: Instruction, specs: dict[int, Spec]) -> float:
    """Estimate how long an instruction takes, as measured on one core."""
    largest = max(specs[i].size for i in (instruction.out, *instruction.refs()))
    return 0.06 * multiplications(instruction, specs) + 0.15 * largest
