"""Operations on the entries of long arrays, block by block, for the numpy back end.

A block of each value stays in the cache for what is computed next, where a whole array would go to
memory and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .buffered import squares
from .expand import dip, peak, total
from .program import Array, Instruction, Program, Ref, Spec, is_entrywise

# Bytes from which on an array is long, and of a block.
_LONG, _BLOCK = 2**20, 2**16


# How the results for blocks become that for all; the operations are asked for all axes at once.
_FOLDS = {total: np.add, squares: np.add, peak: np.maximum, dip: np.minimum}


def fold(instruction: Instruction) -> Any:
    """The ufunc that takes results for blocks together, None for what gives an array."""
    return _FOLDS.get(instruction.op.forward)


def side_by_side(
    instructions: list[Instruction], program: Program
) -> tuple[list[Instruction], list[range]]:
    """Put operations on the entries of long arrays of one shape side by side.

    Gives the instructions, some of those of a program, in another order, and where such stand.
    """
    like = {i.out: _like(i, program.specs) for i in instructions}
    if sum(spec is not None for spec in like.values()) < 2:
        return instructions, []
    arranged: list[Instruction] = []
    chains = []
    waiting, done = instructions, {*program.inputs, *program.constants}
    while waiting:
        taken, waiting = _ready(waiting, done, lambda i: like[i.out] is None)
        arranged += taken
        ready = (i for i in waiting if done.issuperset(i.refs()))
        if first := next(ready, None):
            taken, waiting = _alike(waiting, done, like, like[first.out])
            chains.append(range(len(arranged), len(arranged) + len(taken)))
            arranged += taken
    return arranged, [chain for chain in chains if len(chain) > 1]


def _alike(
    waiting: list[Instruction], done: set[int], like: dict[int, Any], wanted: Any
) -> tuple[list[Instruction], list[Instruction]]:
    """Take what goes through arrays of a kind; folds last, since what they give comes last."""
    entries, waiting = _ready(waiting, done, lambda i: like[i.out] == wanted and not fold(i))
    folds, waiting = _ready(waiting, done, lambda i: like[i.out] == wanted and bool(fold(i)))
    return entries + folds, waiting


def _like(instruction: Instruction, specs: dict[int, Spec]) -> Any:
    """Shape and order of the long arrays that an instruction goes through entry by entry."""
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
    return spec[::2] if fits and spec.nbytes >= _LONG else None


def _ready(
    waiting: list[Instruction], done: set[int], wanted: Callable[[Instruction], bool]
) -> tuple[list[Instruction], list[Instruction]]:
    """Take what is wanted and has its arguments, one after the other; give that and the rest."""
    taken, rest, drawn = [], [], True
    for instruction in waiting:
        ready = wanted(instruction) and done.issuperset(instruction.refs())
        # Draws stay in their order.
        if ready and (instruction.pure or drawn):
            taken.append(instruction)
            done.add(instruction.out)
        else:
            rest.append(instruction)
            drawn &= instruction.pure
    return taken, rest


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

    def release(self, name: str) -> None:
        """Let others have the memory for a block of an array."""
        if name in self._inside:
            dtype, memory = self._inside[name]
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
        block = _BLOCK // like.dtype.itemsize
        self.memory = [np.empty(block, dtype) for dtype in dtypes]
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
