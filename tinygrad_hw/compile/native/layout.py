"""Where the values of a program lie in memory, and which of them are views of others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..program import Array, Instruction, Program, Ref, Spec, map_refs, repeated


class Place(NamedTuple):
    """The entries of a value within the memory of value ``root``, counted in entries."""

    root: int
    offset: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]

    def spread(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Strides of the value broadcast to a shape."""
        lead = len(shape) - len(self.shape)
        if lead < 0:
            return None
        sides = zip(self.shape, self.strides, shape[lead:], strict=True)
        return (0,) * lead + tuple(s if n == m and n > 1 else 0 for n, s, m in sides)


class Layout:
    """Lays out the values of a program.

    Each value is stood for by an empty array with the right strides, so that NumPy itself says
    where a view of it lies. ``uniform`` has the entry of constants that have but one.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.stand: dict[int, Array] = {}
        self.places: dict[int, Place] = {}
        for i in program.inputs:
            self._own(i, program.specs[i])
        self.uniform: dict[int, Any] = {}
        for i, array in program.constants.items():
            self._own(i, Spec.of(array))
            entry = repeated(array)
            if entry is not None:
                self.uniform[i] = entry.item()

    def _own(self, i: int, spec: Spec) -> None:
        if spec.order is None:
            return
        array = spec.empty()
        self.stand[i] = array
        strides = tuple(s // array.itemsize for s in array.strides)
        self.places[i] = Place(i, 0, strides, array.shape)

    def own(self, instruction: Instruction, order: tuple[int, ...] | None = None) -> None:
        """Give a value memory of its own, its axes in an order."""
        spec = self.program.specs[instruction.out]
        self._own(instruction.out, spec if order is None else spec._replace(order=order))

    def order(self, i: int) -> tuple[int, ...]:
        """Axes of a value as they lie in memory."""
        return Spec.of(self.stand[i]).order or ()

    def like_arguments(self, instruction: Instruction) -> tuple[int, ...]:
        """The order of an elementwise result: that of its largest argument, if it has all axes."""
        shape = self.program.specs[instruction.out].shape
        for i in instruction.refs():
            stand = self.stand.get(i)
            if stand is None or stand.shape != shape:
                continue
            # A view of few entries, repeated, has no order to follow; a constant of one has any.
            if 0 not in stand.strides and i not in self.uniform:
                return self.order(i)
        return tuple(range(len(shape)))

    def view(self, instruction: Instruction) -> bool:
        """Place a result that is a view of its first argument; tell whether it is."""
        source = instruction.args[0] if instruction.args else None
        if not isinstance(source, Ref) or source.index not in self.places:
            return False
        if len(instruction.refs()) > 1:
            return False
        base = self.stand[source.index]
        if base.size == 0:
            return False
        args, params = map_refs(
            lambda ref: self.stand[ref.index], (instruction.args, instruction.params)
        )
        try:
            with np.errstate(all="ignore"):
                view = instruction.op.forward(*args, **params)
        except (TypeError, ValueError, IndexError):
            return False
        root = self.places[source.index].root
        whole = self.stand[root]
        if not isinstance(view, np.ndarray) or view.dtype != whole.dtype or view.size == 0:
            return False
        low, high = np.lib.array_utils.byte_bounds(whole)
        if not low <= view.__array_interface__["data"][0] < high:
            return False
        self.stand[instruction.out] = view
        self.places[instruction.out] = self.place_of(view, root)
        return True

    def place_of(self, view: Array, root: int) -> Place:
        """Where a view lies of what stands for a value with memory of its own."""
        whole = self.stand[root]
        start = whole.__array_interface__["data"][0]
        offset = (view.__array_interface__["data"][0] - start) // whole.itemsize
        strides = tuple(s // whole.itemsize for s in view.strides)
        return Place(root, offset, strides, view.shape)


def places(layout: Layout, instruction: Instruction) -> list[Place]:
    """Where the arguments of an instruction are that are values."""
    return [layout.places[a.index] for a in instruction.args if isinstance(a, Ref)]
