"""Rewrite a program instruction by instruction, by a table of what takes the place of which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..ops.shape import _reshape
from .program import Array, Instruction, Operation, Program, Ref, Spec


class Rewriter:
    """Builds the instructions of a rewritten program."""

    def __init__(self, program: Program) -> None:
        constants = dict(program.constants)
        self.program = replace(program, views=set(program.views), constants=constants)
        self.made = {i.out: i for i in program.instructions}
        everywhere = (*program.results(), *(r for i in program.instructions for r in i.refs()))
        self.uses = Counter(everywhere)
        self.specs = dict(program.specs)
        self.instructions: list[Instruction] = []
        self.next = max(self.specs, default=0) + 1

    def spec(self, arg: Any) -> Spec | None:
        """What is known of an argument that is a value."""
        return self.specs[arg.index] if isinstance(arg, Ref) else None

    def made_by(self, arg: Any) -> Instruction | None:
        """The instruction of the given program that made an argument."""
        return self.made.get(arg.index) if isinstance(arg, Ref) else None

    def computed(self, forward: Any, arg: Any) -> Ref | None:
        """The result of a function of one argument, if it is there already."""
        for i in self.instructions if isinstance(arg, Ref) else ():
            if i.op.forward is forward and i.refs() == [arg.index]:
                return Ref(i.out)
        return None

    def alone(self, arg: Ref) -> bool:
        """Tell whether a value of the given program is asked for in but one place."""
        return self.uses[arg.index] == 1

    def emit(self, name: str, forward: Any, args: Any, params: Any, spec: Spec) -> Ref:
        """Add an instruction with a new result."""
        self.specs[self.next] = spec
        self.end(name, forward, args, params, self.next)
        self.next += 1
        return Ref(self.next - 1)

    def end(self, name: str, forward: Any, args: Any, params: Any, out: int) -> bool:
        """Add the instruction that makes the result of the rewritten one."""
        self.instructions.append(Instruction(Operation(name, forward), tuple(args), params, out))
        self.program.views.discard(out)
        return True

    def constant(self, array: Array) -> Ref:
        """Add a constant."""
        self.specs[self.next] = Spec.of(array)
        self.program.constants[self.next] = array
        self.next += 1
        return Ref(self.next - 1)

    def viewed(self, name: str, forward: Any, args: Any, params: Any, spec: Spec) -> Ref:
        """Look at a value in another way, which may be a copy where it lies otherwise."""
        y = self.emit(name, forward, args, params, spec)
        self.program.views.add(y.index)
        return y

    def transposed(self, x: Ref, axes: tuple[int, ...]) -> Ref:
        """Exchange axes."""
        spec = self.specs[x.index]
        if axes == tuple(range(len(axes))):
            return x
        made = plain([spec.shape[a] for a in axes], spec.dtype)
        return self.viewed("transpose", np.transpose, (x,), {"axes": axes}, made)

    def reshaped(self, x: Ref, shape: tuple[int, ...]) -> Ref:
        """Give the same entries another shape."""
        spec = self.specs[x.index]
        if spec.shape == shape:
            return x
        made = plain(shape, spec.dtype)
        return self.viewed("reshape", _reshape.forward, (x,), {"shape": shape}, made)

    def end_view(self, axes: tuple[int, ...], arg: Any, out: int) -> bool:
        """Make the result of the rewritten instruction another one with its axes exchanged."""
        self.end("transpose", np.transpose, (arg,), {"axes": axes}, out)
        self.program.views.add(out)
        return True


def plain(shape: Any, dtype: Any) -> Spec:
    """Describe an array that lies in C order."""
    return Spec(tuple(shape), np.dtype(dtype), tuple(range(len(shape))))


# Adds what takes the place of an instruction; or tells that it does not, and adds nothing.
Rewrite = Callable[[Rewriter, Instruction], bool]


def rewritten(program: Program, rewrites: Mapping[Any, Rewrite]) -> Program:
    """Put simpler operations in the place of those that a table of rewrites knows."""
    rewriter = Rewriter(program)
    for instruction in program.instructions:
        rewrite = rewrites.get(instruction.op.forward)
        if rewrite is None or not rewrite(rewriter, instruction):
            rewriter.instructions.append(instruction)
    made = replace(rewriter.program, instructions=rewriter.instructions, specs=rewriter.specs)
    return made.merged()
