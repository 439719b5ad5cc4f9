"""Native source: the lines of a function, the memory that they name, and where threads meet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .layout import Layout

# Entries in a block, which stays in the fastest cache.
BLOCK = 1024
# Numbers of scratch memories begin here, beyond those of values.
_SCRATCH, _PIECES = 1_000_000, 2_000_000
# The name of a value in a loop.
VALUE = re.compile(r"\bx(\d+)\b")
# What a function is given: memories, Python numbers, addresses, who the thread is.
_GIVEN = re.compile(r"\b(?:[mnbt]\d+(?:_\d+)?|packed|me|crew|\w+_blas)\b")


class Writer:
    """Collects the lines of a native function, and what memory it names.

    Attributes
    ----------
    roots : dict
        Root value to the number of its memory; values that share memory share a number.
    views : dict
        Name of memory that begins further on to the line that makes it.
    pieces : dict
        Sum to the number of the memory that holds those of its pieces.
    numbers : set of int
        Python numbers that are arguments.
    blas : set of dtype
        Of what matrices BLAS multiplies.
    parts : list of str
        Lines that make memory for blocks of values.
    functions : dict
        Parameters and body of a function to its name.
    blocks, packing : int
        Bytes that each thread needs for blocks of values, and to pack matrices.
    """

    def __init__(self, layout: Layout, memory_of: Any, *, crew: bool = False) -> None:
        self.layout, self._memory_of = layout, memory_of
        self.lines: list[str] = []
        self.roots: dict[int, int] = {}
        self.views: dict[str, str] = {}
        self.pieces: dict[int, int] = {}
        self.numbers: set[int] = set()
        self.blas: set[np.dtype[Any]] = set()
        self.parts: list[str] = []
        self.blocks = self.packing = 0
        self.functions: dict[str, str] = {}
        # Whether threads share the work, and whether they share the lines since they met last.
        self.crew, self.shared, self.met = crew, False, 0
        # Where they met last after one of them did it all.
        self.alone = -1

    def line(self, depth: int, text: str) -> None:
        """Add a line."""
        self.lines.append("    " * (depth + 1) + text)

    def share(self, count: int) -> str:
        """Spell from where to where this thread goes in a loop that the threads share."""
        if not self.crew or count < 2:
            return f"0, {count}"
        self.shared = True
        return f"me * {count} // crew, (me + 1) * {count} // crew"

    def meet(self) -> None:
        """Have the threads wait for each other; the lines since they met last, if not shared, are
        for one of them."""
        if self.crew:
            self._close()
            self.line(0, "meet(counter, crew)")
            self.shared, self.met = False, len(self.lines)

    def _close(self) -> None:
        """Make the lines since the threads met last a function, if there is none like it, and call
        it."""
        given: dict[str, str] = {}
        values: dict[str, str] = {}
        text = "\n".join(f"    {line}" for line in self.lines[self.met :])
        text = _GIVEN.sub(lambda m: given.setdefault(m[0], f"a{len(given)}"), text)
        text = VALUE.sub(lambda m: values.setdefault(m[0], f"x{len(values)}"), text)
        del self.lines[self.met :]
        if not text:
            return
        text = f"({', '.join(given.values())}):\n{text}"
        name = self.functions.setdefault(text, f"step_{len(self.functions) + 1}")
        self._call(f"{name}({', '.join(given)})")

    def _call(self, text: str) -> None:
        """Call a function in all threads, or in one, which goes on where it did all before."""
        if not self.crew or self.shared:
            self.line(0, text)
            return
        if self.alone == self.met:
            self.lines.pop()
        else:
            self.line(0, "if me == 0:")
        self.line(1, text)
        self.alone = len(self.lines) + 1

    @contextmanager
    def node(self) -> Iterator[None]:
        """Write the lines of a node."""
        self.met = len(self.lines)
        yield
        if self.crew:
            self.meet()
        else:
            self._close()

    def outside(self) -> None:
        """Leave the lines written so far outside of functions, since they may leave."""
        self.met = len(self.lines)

    def memory(self, root: int, offset: int = 0) -> str:
        """Name the flat memory of a value, or what of it begins at an entry.

        Loops that differ in nothing but where they begin are one function.
        """
        self.roots.setdefault(root, self._memory_of(root))
        if not offset:
            return f"m{root}"
        name = f"m{root}_{offset}"
        self.views[name] = f"{name} = beyond(m{root}, {offset})"
        return name

    def load(self, root: int, index: str, offset: int = 0) -> str:
        """Spell a read."""
        return f"{self.memory(root, offset)}[{index}]"

    def store(self, root: int, index: str, value: str, offset: int = 0) -> str:
        """Spell a write."""
        return f"{self.memory(root, offset)}[{index}] = {value}"

    def block(self, i: int) -> None:
        """Make memory for a block of a value, ``b`` and its number."""
        dtype = self.dtype(i)
        self.parts.append(f"b{i} = part(room, {self.blocks}, np.{dtype.name}, {_SCRATCH + i})")
        self.blocks += BLOCK * dtype.itemsize

    def piece(self, out: int, index: str) -> str:
        """Spell the sum of a piece."""
        self.pieces[out] = _PIECES + out
        return f"t{out}[{index}]"

    def dtype(self, i: int) -> np.dtype[Any]:
        """Dtype of a value."""
        dtype: np.dtype[Any] = self.layout.stand[i].dtype
        return dtype

    def leave(self, depth: int, held: int) -> None:
        """Write the end of the function, or that of one way through it."""
        if self.crew:
            # The next call may write to what a slower thread has yet to look at.
            self.line(depth, "meet(counter, crew)")
            self.line(depth, "take_back(state)")
        self.line(depth, f"return answer({held})")
