"""Chains of operations on the entries of long arrays, which go block by block with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np

from ..blocks import BLOCK, LONG
from ..dispatch import is_entrywise
from .buffered import squares
from .expand import dip, peak, total
from .program import Array, Instruction, Program, Ref, Spec, aligned

# Of what is asked for of all axes at once: what to do with a block, and with what that gives.
_FOLDS: dict[Any, tuple[Callable[[Array], Any], np.ufunc]] = {
    total: (np.add.reduce, np.add),
    squares: (squares, np.add),
    peak: (np.maximum.reduce, np.maximum),
    dip: (np.minimum.reduce, np.minimum),
}


def fold(instruction: Instruction) -> tuple[Callable[[Array], Any], np.ufunc] | None:
    """Give how to fold a block, and what that gives of all blocks; None for what gives an array."""
    return _FOLDS.get(instruction.op.forward)


def side_by_side(
    instructions: list[Instruction], program: Program
) -> tuple[list[Instruction], list[range]]:
    """Put operations on the entries of long arrays of one shape side by side.

    Gives the instructions, some of those of a program, in another order, and where such stand.
    """
    kinds = [_kind(i, program.specs) for i in instructions]
    if sum(kind is not None for kind in kinds) < 2:
        return instructions, []
    waiting, chains = _Waiting(instructions, kinds), []
    arranged = waiting.take(None)
    while (kind := waiting.next_kind()) is not None:
        # What folds give is known at the end.
        taken = waiting.take((*kind[:-1], False)) + waiting.take((*kind[:-1], True))
        chains.append(range(len(arranged), len(arranged) + len(taken)))
        arranged += taken + waiting.take(None)
    return arranged, [chain for chain in chains if len(chain) > 1]


class _Waiting:
    """Instructions that wait for their arguments, and are given out by kinds."""

    def __init__(self, instructions: list[Instruction], kinds: list[Any]) -> None:
        self.instructions, self.kinds = instructions, kinds
        self.ready: dict[Any, list[int]] = {}
        self._users: dict[int, list[int]] = {i.out: [] for i in instructions}
        self._missing = []
        drawn: set[int] = set()
        for number, instruction in enumerate(instructions):
            needs = {*instruction.refs()} & self._users.keys()
            if not instruction.pure:
                # Draws stay in their order.
                needs, drawn = needs | drawn, {instruction.out}
            for i in needs:
                self._users[i].append(number)
            self._missing.append(len(needs))
            if not needs:
                heappush(self.ready.setdefault(kinds[number], []), number)

    def next_kind(self) -> Any:
        """The kind of the first one that has its arguments."""
        first = min((heap[0] for heap in self.ready.values() if heap), default=None)
        return None if first is None else self.kinds[first]

    def take(self, kind: Any) -> list[Instruction]:
        """Give those of a kind that have their arguments, or then have them, in their order."""
        taken = []
        heap = self.ready.setdefault(kind, [])
        while heap:
            instruction = self.instructions[heappop(heap)]
            taken.append(instruction)
            for number in self._users[instruction.out]:
                self._missing[number] -= 1
                if not self._missing[number]:
                    heappush(self.ready.setdefault(self.kinds[number], []), number)
        return taken


def _kind(instruction: Instruction, specs: dict[int, Spec]) -> Any:
    """Shape and order of the long arrays that an instruction goes through entry by entry, and
    whether it folds them; None for others."""
    op, args, params, out = instruction
    given = [specs[arg.index] for arg in args if isinstance(arg, Ref)]
    if not given or not (is_entrywise(op.forward) or op.forward in _FOLDS):
        return None
    spec = max(given, key=lambda s: s.size)
    if op.forward in _FOLDS:
        fits = specs[out].shape == () and specs[out].dtype == spec.dtype
    else:
        fits = op.forward.nout == 1 and not params and specs[out][::2] == spec[::2]
    fits &= all(s.shape == () or s[::2] == spec[::2] for s in given)
    return (*spec[::2], op.forward in _FOLDS) if fits and spec.nbytes >= LONG else None


class Chain:
    """Spells a function of blocks, and its call.

    Attributes
    ----------
    arrays : list of str
        Names of the long arrays that it is given a block of.
    numbers : dict
        What else it is given to the name of that.
    body : list of str
        Its lines.
    dtypes : list of dtype
        Of memory for blocks of what is computed on the way.
    """

    def __init__(self) -> None:
        self.arrays: list[str] = []
        self.numbers: dict[str, str] = {}
        self.body: list[str] = []
        self.dtypes: list[Any] = []
        self._inside: dict[str, tuple[Any, str]] = {}
        self._unused: dict[Any, list[str]] = {}

    def array(self, name: str) -> str:
        """Spell a block of an array, which is computed on the way or comes from elsewhere."""
        if name not in self._inside and name not in self.arrays:
            self.arrays.append(name)
        return name

    def number(self, text: str) -> str:
        """Spell what is the same for all blocks."""
        return self.numbers.setdefault(text, f"c{len(self.numbers)}")

    def place(self, name: str, dtype: Any) -> str:
        """Spell memory for a block of an array."""
        if not self._unused.get(dtype):
            self._unused.setdefault(dtype, []).append(f"b{len(self.dtypes)}")
            self.dtypes.append(dtype)
        self._inside[name] = dtype, self._unused[dtype].pop()
        return self._inside[name][1]

    def release(self, names: list[str]) -> None:
        """Let others have the memory for blocks of arrays."""
        for dtype, memory in [self._inside[name] for name in names if name in self._inside]:
            self._unused[dtype].append(memory)

    def definition(self, name: str) -> str:
        """Spell the function."""
        memory = [f"b{k}" for k in range(len(self.dtypes))]
        given = ", ".join([*self.arrays, *self.numbers.values(), *memory])
        return "\n    ".join([f"def {name}({given}):", *self.body])

    def call(self, blocks: str, name: str) -> str:
        """Spell its call with one block after the other."""
        arrays, numbers = ("".join(f"{t}, " for t in ts) for ts in (self.arrays, self.numbers))
        return f"{blocks}({name}, ({arrays}), ({numbers}))"


class Blocks:
    """Goes through long arrays one block after the other.

    Parameters
    ----------
    like : Spec
        Of the arrays, but for their dtypes.
    dtypes : sequence of dtype
        Of memory for blocks of what is computed on the way.
    """

    def __init__(self, like: Spec, dtypes: Sequence[Any]) -> None:
        self.order = like.order
        block = BLOCK // like.dtype.itemsize
        self.memory = [aligned(block * dtype.itemsize).view(dtype) for dtype in dtypes]
        ends = [*range(0, like.size, block), like.size]
        self.blocks = [
            (slice(start, end), [memory[: end - start] for memory in self.memory])
            for start, end in pairwise(ends)
        ]

    def __call__(
        self, function: Callable[..., None], arrays: Sequence[Array], numbers: Sequence[Any]
    ) -> None:
        """Call a function with the blocks of arrays, numbers, and memory for blocks.

        Arrays that it writes to lie as ``like`` does.
        """
        flat = [array.transpose(self.order).reshape(-1) for array in arrays]
        for place, memory in self.blocks:
            function(*[array[place] for array in flat], *numbers, *memory)
