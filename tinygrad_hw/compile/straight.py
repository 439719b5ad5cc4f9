"""The numpy back end: a program as straight Python functions on buffers that it uses again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..dispatch import is_entrywise
from .buffered import LOOKS, scratch, squares, with_buffers
from .chains import Blocks, Chain, fold, side_by_side
from .program import (
    VIEWS,
    Array,
    Instruction,
    Program,
    Ref,
    Spec,
    aliases,
    last_uses,
    map_refs,
    repeated,
    target_of,
)
from .recycle import maker
from .spelling import ENTRYWISE, SLOW_IN_PLACE, Call, spelled


class Straight:
    """Runs a program with NumPy.

    Parameters
    ----------
    program : Program

    Attributes
    ----------
    source : str
        The Python functions.
    buffers : list of array
        That are used again at every call.
    run : callable
        Takes the inputs; returns the results, and behind them a tuple of what ``commit`` takes.
    commit : callable or None
        Computes what is written in place, where it belongs.
    results : list of int
        Numbers of the results.
    """

    name = "numpy"
    writes_in_place = False
    owned: frozenset[int] = frozenset()

    def __init__(self, program: Program) -> None:
        given, program = program, with_buffers(program)
        late, self._targets = _committed(program)
        self._made_late = {i.out for i in late}
        early = [i for i in program.instructions if i.out not in self._made_late]
        early, self._chains = side_by_side(early, program)
        self.program = replace(program, instructions=[*early, *late])
        self.buffers: list[Array] = []
        self._numbers: dict[Any, str] = {}
        self._scalars: set[int] = set()
        self._lasting = lasting(program)
        # Values that lie at the same place at every call.
        self._fixed: dict[int, Array] = {
            i: array if i in self._lasting else _stretched(array)
            for i, array in program.constants.items()
        }
        self._names: dict[str, Any] = {f"v{i}": array for i, array in self._fixed.items()}
        self._names["np"] = np
        self._functions: list[str] = []
        body = self._body()
        # The walk back computes slopes that may be infinite where nothing asks for them.
        first = [line for out, line in body if out not in self._made_late]
        lines = [*self._functions, f"def run({', '.join(f'v{i}' for i in given.inputs)}):"]
        lines.append("    with np.errstate(all='ignore'):")
        lines += [f"        {line}" for line in [*first, "pass"]]
        pairs = _pairs(given, program, with_writes=not late)
        self.results = list(pairs)
        carried = _carried(program, late, self._targets)
        shown = [f"v{i}" for i in pairs.values()]
        if late:
            shown.append(f"({''.join(f'v{i}, ' for i in carried)})")
        lines.append(f"    return ({''.join(f'{text}, ' for text in shown)})")
        if late:
            lines.append(f"def commit({', '.join(f'v{i}' for i in carried)}):")
            lines += [f"    {line}" for out, line in body if out in self._made_late]
        self.source = "\n".join(lines)
        exec(compile(self.source, "<compiled>", "exec"), self._names)
        self.run: Callable[..., Any] = self._names["run"]
        self.commit: Callable[..., None] | None = self._names.get("commit")

    def explain(self) -> str:
        """Say what memory it takes."""
        size = sum(array.nbytes for array in self.buffers)
        lines = [f"{len(self.buffers)} buffers of {size} bytes, used again at every call"]
        for chain in self._chains:
            names = " ".join(i.op.name for i in self.program.instructions[chain.start : chain.stop])
            lines.append(f"  block by block: {names}")
        return "\n".join(lines)

    def _body(self) -> list[tuple[int, str]]:
        """Spell the instructions, each on a line, with what they make."""
        program = self.program
        last = last_uses(program)
        ends: dict[int, list[int]] = {}
        for i, time in last.items():
            ends.setdefault(time, []).append(i)
        free: dict[Spec, list[str]] = {}
        held: dict[int, tuple[Spec, str]] = {}
        lines = []
        chains = {chain.start: chain for chain in self._chains}
        chained = {time for chain in self._chains for time in chain}
        for time, instruction in enumerate(program.instructions):
            out = instruction.out
            if time in chains:
                chain = chains[time]
                lines += [(out, line) for line in self._blockwise(chain, last, free, held)]
                for end in chain:
                    self._release(ends.get(end, []), held, free)
            if time in chained:
                continue
            dying = ends.get(time, [])
            forward = instruction.op.forward
            by_entries = is_entrywise(forward) or forward in ENTRYWISE
            in_place = by_entries and forward not in SLOW_IN_PLACE
            if in_place:
                # Entry by entry, the result may take the place of an argument of its layout.
                self._release(dying, held, free)
            scratch: list[tuple[Spec, str]] = []

            def buffer(
                spec: Spec, out: int = out, scratch: list[tuple[Spec, str]] = scratch
            ) -> str:
                if spec is program.specs[out]:
                    return self._place(out, free, held)
                scratch.append((spec, self._buffer(spec, free)))
                return scratch[-1][1]

            made = self._view(instruction) or self._call(instruction, buffer)
            lines.append((out, f"v{out} = {made}"))
            for spec, name in scratch:
                free.setdefault(spec, []).append(name)
            if not in_place:
                self._release(dying, held, free)
        return lines

    def _place(self, out: int, free: dict[Spec, list[str]], held: Any) -> str:
        """Spell the array of a result."""
        spec = self.program.specs[out]
        if out in self._targets:
            return f"v{self._targets[out]}"
        if out in self._lasting:
            return self._fresh(spec)
        name = self._buffer(spec, free)
        held[out] = (spec, name)
        self._fixed[out] = self._names[name]
        return name

    def _blockwise(
        self, members: range, last: dict[int, int], free: dict[Spec, list[str]], held: Any
    ) -> list[str]:
        """Spell operations on long arrays as a function of blocks, and the lines that call it."""
        specs, chain = self.program.specs, Chain()
        before, after = [], []
        for time in members:
            instruction = self.program.instructions[time]
            op, args, _, out = instruction
            shown = [self._of_block(arg, instruction, chain) for arg in args]
            dying = [f"v{i}" for i in {*instruction.refs()} if last[i] == time]
            if op.forward not in SLOW_IN_PLACE:
                chain.release(dying)
            if folds := fold(instruction):
                part, whole = map(self._known, folds)
                before.append(f"f{out} = []")
                chain.body.append(f"{chain.number(f'f{out}')}.append({part}({shown[0]}))")
                after.append(f"v{out} = {self._single(f'{whole}.reduce(f{out})', instruction)}")
                continue
            if last[out] in members:
                place = chain.place(f"v{out}", specs[out].dtype)
            else:
                before.append(f"v{out} = {self._place(out, free, held)}")
                place = chain.array(f"v{out}")
            call = f"{self._known(op.forward)}({', '.join(shown)}, out={place})"
            chain.body.append(f"v{out} = {call}")
            if op.forward in SLOW_IN_PLACE:
                chain.release(dying)
        first = self.program.instructions[members.start]
        like = next(specs[i] for i in first.refs() if specs[i].shape)
        blocks = Blocks(like, chain.dtypes)
        self.buffers += blocks.memory
        name = f"chain_{len(self._functions)}"
        self._functions.append(chain.definition(name))
        return [*before, chain.call(self._known(blocks), name), *after]

    def _of_block(self, arg: Any, instruction: Instruction, chain: Chain) -> str:
        """Spell a block of an argument, or the number that it is."""
        if not isinstance(arg, Ref) or not self.program.specs[arg.index].shape:
            return chain.number(self._as_array(arg, instruction))
        entry = repeated(self.program.constants.get(arg.index))
        if entry is not None:
            return chain.number(self._known(entry))
        return chain.array(f"v{arg.index}")

    def _release(self, values: list[int], held: Any, free: dict[Spec, list[str]]) -> None:
        for i in values:
            if i in held:
                spec, name = held.pop(i)
                free.setdefault(spec, []).append(name)

    def _buffer(self, spec: Spec, free: dict[Spec, list[str]]) -> str:
        if free.get(spec):
            return free[spec].pop()
        array = spec.empty()
        self.buffers.append(array)
        return self._known(array, "b")

    def _fresh(self, spec: Spec) -> str:
        """Spell a new array."""
        call = f"{self._known(maker(spec))}()"
        order = spec.order or ()
        if order == tuple(range(len(order))):
            return call
        return f"{call}.transpose({tuple(np.argsort(order).tolist())})"

    def _known(self, value: Any, prefix: str = "k") -> str:
        """Name an object in the function."""
        name = f"{prefix}{len(self._names)}"
        self._names[name] = value
        return name

    def _shown(self, value: Any) -> str:
        if isinstance(value, Ref):
            return f"v{value.index}"
        if type(value) in (int, float, bool, str, type(None)) and value == value:
            text = repr(value)
            return text if "inf" not in text else self._known(value)
        if type(value) is tuple:
            return f"({''.join(self._shown(part) + ', ' for part in value)})"
        if type(value) is list:
            return f"[{', '.join(map(self._shown, value))}]"
        return self._known(value)

    def _call(self, instruction: Instruction, buffer: Callable[[Spec], str]) -> str:
        """Spell the call, into a buffer where there is a way."""
        op, args, params, out = instruction
        specs = self.program.specs
        spec, shown = specs[out], [self._shown(arg) for arg in args]
        given = [specs[arg.index] if isinstance(arg, Ref) else None for arg in args]
        asked = Call(shown, given, params, spec, buffer, self._known, self._shown)
        written = out in self._targets
        call = None if written else spelled(op.forward, asked)
        into = written or (spec.shape and isinstance(op.forward, np.ufunc) and not params)
        if call is None and into:
            shown = [self._as_array(arg, instruction) for arg in args]
            call = f"{self._known(op.forward)}({', '.join(shown)}, out={buffer(spec)})"
        if call is None:
            if not isinstance(op.forward, np.ufunc):
                shown = [self._no_scalar(arg) for arg in args]
            named = [f"{key}={self._shown(value)}" for key, value in params.items()]
            extra = scratch(instruction, specs)
            if extra is not None:
                buffers = [buffer(spec) for spec in (spec, *extra)]
                return f"{self._step(op.forward, buffers, params, named)}({', '.join(shown)})"
            call = f"{self._known(op.forward)}({', '.join([*shown, *named])})"
        return call if spec.shape or spec.order is None else self._single(call, instruction)

    def _step(
        self, forward: Any, buffers: list[str], params: dict[str, Any], named: list[str]
    ) -> str:
        """Spell a step on buffers; if all lie at the same place at every call, it is laid out."""
        if all(name in self._names for name in buffers):
            return self._known(forward(*map(self._names.get, buffers), **params))
        return f"{self._known(forward)}({', '.join([*buffers, *named])})"

    def _view(self, instruction: Instruction) -> str | None:
        """Make a view of what lies at the same place at every call once, and name it."""
        op, args, params, out = instruction
        refs = instruction.refs()
        if out not in self.program.views or len(refs) != 1:
            return None
        viewed = self._fixed.get(refs[0])
        # Of others, what they give may depend on entries, which are not there yet.
        if viewed is None or not (op.name in VIEWS or op.forward in LOOKS):
            return None
        args, params = map_refs(lambda ref: viewed, (args, params))
        view = op.forward(*args, **params)
        if not view.ndim or not np.may_share_memory(view, viewed):
            return None
        self._fixed[out] = view
        return self._known(view, "b")

    def _no_scalar(self, arg: Any) -> str:
        """Spell an argument of a function that may want arrays, and no scalars of NumPy."""
        text = self._shown(arg)
        return (
            f"np.asarray({text})" if isinstance(arg, Ref) and arg.index in self._scalars else text
        )

    def _as_array(self, arg: Any, instruction: Instruction) -> str:
        """Spell a Python number as an array of the dtype it is taken for: NumPy is faster so."""
        specs, text = self.program.specs, self._shown(arg)
        given, dtype = [specs[i] for i in instruction.refs()], specs[instruction.out].dtype
        is_number = type(arg) is float or (isinstance(arg, Ref) and specs[arg.index].order is None)
        if not is_number or dtype.kind != "f":
            return text
        if any(spec.order is not None and spec.dtype != dtype for spec in given):
            return text
        if type(arg) is float:
            return self._known(np.array(arg, dtype))
        key = (text, dtype, instruction.out in self._made_late)
        if key in self._numbers:
            return self._numbers[key]
        self._numbers[key] = name = f"n{len(self._numbers)}"
        return f"({name} := np.array({text}, {self._known(dtype)}))"

    def _single(self, call: str, instruction: Instruction) -> str:
        """Make what a call returns for an array of one number: NumPy is faster with scalars."""
        if instruction.out in self._lasting:
            return f"np.asarray({call})"
        scalar = isinstance(instruction.op.forward, np.ufunc) or instruction.op.forward is squares
        dtype = self.program.specs[instruction.out].dtype
        self._scalars.add(instruction.out)
        return call if scalar else f"{self._known(dtype.type)}({call})"


def _stretched(array: Array) -> Array:
    """Give an array of one number in no layout of its own, which might not be that of others."""
    entry = repeated(array)
    return array if entry is None else np.broadcast_to(entry, array.shape)


# --- Which results there are, and what is written in place ----------------------------------------


def lasting(program: Program) -> set[int]:
    """Values whose memory outlives the call: no buffer may hold them."""
    same = aliases(program)
    rebound = [w.value for w in program.writes if not w.in_place]
    found: set[int] = set()
    for result in (*program.outputs, *rebound):
        if isinstance(result, Ref):
            found |= same.get(result.index, {result.index})
    return found


def _pairs(given: Program, program: Program, *, with_writes: bool) -> dict[int, int]:
    """Results in the given program and in the rewritten one."""
    outputs = zip(given.outputs, program.outputs, strict=True)
    writes = zip(given.writes, program.writes, strict=True)
    checks = zip(given.checks, program.checks, strict=True)
    found = [
        *outputs,
        *((w.value, new.value) for w, new in writes if with_writes or not w.in_place),
        *((ref, new) for (ref, _), (new, _) in checks),
    ]
    return {old.index: new.index for old, new in found if isinstance(old, Ref)}


def _committed(program: Program) -> tuple[list[Instruction], dict[int, int]]:
    """Find the instructions that only serve what is written in place, and the inputs written to.

    They can run last, after all that may fail, with the results where they belong; unless one would
    read what another has overwritten.
    """
    writes = [w for w in program.writes if w.in_place]
    targets = {w.value.index: target_of(program, w) for w in writes if isinstance(w.value, Ref)}
    late = _late(program)
    made = {i.out: i for i in late}
    same = aliases(program)
    last: dict[int, int] = {}
    for time, instruction in enumerate(late):
        for i in instruction.refs():
            last |= dict.fromkeys(same.get(i, {i}), time)
    position = {i.out: time for time, i in enumerate(late)}
    for value, target in targets.items():
        if value not in made or target is None or last.get(target, -1) > position[value]:
            return [], {}
        if not isinstance(made[value].op.forward, np.ufunc) or made[value].params:
            return [], {}
    if not len(writes) == len(targets) == len(set(targets.values())):
        return [], {}
    return late, {value: target for value, target in targets.items() if target is not None}


def _late(program: Program) -> list[Instruction]:
    """Give the instructions that only serve what is written in place."""
    others = replace(program, writes=[w for w in program.writes if not w.in_place])
    needed = set(others.results())
    late = []
    for instruction in reversed(program.instructions):
        if instruction.out in needed or not instruction.pure:
            needed.update(instruction.refs())
        else:
            late.append(instruction)
    return late[::-1]


def _carried(program: Program, late: list[Instruction], targets: dict[int, int]) -> list[int]:
    """Values that the last instructions need, and that come from before them."""
    read = [i for instruction in late for i in instruction.refs()]
    own = {i.out for i in late} | program.constants.keys()
    return list(dict.fromkeys(i for i in (*read, *targets.values()) if i not in own))
