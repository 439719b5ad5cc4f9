"""One recorded program of a function, and when it may run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import graph
from ..graph import Handle
from .arguments import Arguments, share_memory
from .backends import Backend, backend_of
from .call import MISS, Effects, caller
from .guards import Guards, Test
from .program import Program, Ref
from .pullback import MadeLeaf, Pullback
from .reached import Reached
from .recording import Recorder
from .traced import Traced


class Variant:
    """One recorded program, the guards under which it may run, and how to run it."""

    def __init__(
        self,
        recorder: Recorder,
        guards: Guards,
        arguments: Arguments,
        rebuild: Any,
        outputs: list[Any],
        pullbacks: list[Pullback | MadeLeaf],
        backend: Backend,
    ) -> None:
        self.guards, self.arguments = guards, arguments
        self.recording = graph.is_recording()
        recorder.program.outputs += [Ref(i) for p in pullbacks for i in p.residuals]
        self.program = recorder.program.optimized()
        # What begins an optimiser's memory fits but once: native code would not pay.
        self._backend = backend_of("numpy") if _begins_memory(self.program) else backend
        self._effects = Effects(
            recorder.steps,
            pullbacks,
            [isinstance(y, Handle) for y in outputs],
            {k for k, y in enumerate(outputs) if isinstance(y, Traced) and y.scalar},
            rebuild,
        )
        tensors = [t for t in recorder.tensors if id(t) not in arguments.tensors]
        self._reached = Reached(tensors, [optimizer for optimizer, _ in recorder.steps])
        arguments.reached = {id(t) for t in (*guards.tensors, *tensors)}
        self.executable: Any = None
        self._call: Any = None
        self.writes_arguments = any(w.target.kind == "argument" for w in self.program.writes)
        # What the function sets, such as whether a model trains, is set at each call.
        self._written = guards.written()
        # What else it leaves behind, such as a tensor that it keeps, a run would not leave.
        self._left = guards.left()
        self._generators = _generators(self.program)
        self._fits, self._fits_flat = self._tests()

    # --- Whether it fits ----------------------------------------------------------------------

    def _tests(self) -> tuple[Callable[..., bool], Callable[..., bool]]:
        """Make the test of all but the arguments, and that of all of a call without containers."""
        test = Test()
        if self._left:
            test.term("False")
        self._reached.test(test)
        self.guards.test(test)
        fits = test.function(0)
        self.arguments.test(test)
        return fits, test.function(self.arguments.flat)

    def match(self, args: Any, kwargs: Any) -> Sequence[Any] | None:
        """Give the leaves of arguments that the program is for, else None."""
        leaves: Sequence[Any] | None = args
        try:
            if len(args) == self.arguments.flat and not kwargs and self._fits_flat(*args):
                return leaves
            leaves = self.arguments.match(args, kwargs)
            if leaves is None or self._fits():
                return leaves
        except (LookupError, ValueError, AttributeError):
            leaves = self.arguments.match(args, kwargs)
        if self._left:
            return None
        if self.guards.changed() or self._reached.changed():
            return None
        self._reached.accept_hooks()
        return leaves

    def difference(self, args: Any, kwargs: Any) -> str:
        """Say why a call does not fit."""
        if reason := self.arguments.difference(args, kwargs):
            return reason
        if self._left:
            return f"the function itself changes what it reaches: {self._left}"
        return self.guards.changed() or self._reached.changed()

    # --- Running it ---------------------------------------------------------------------------

    def run(self, leaves: Sequence[Any]) -> Any:
        """Run the program, or give ``MISS`` if what it takes for granted does not hold."""
        if self.writes_arguments and share_memory(leaves):
            return MISS
        if self._call is None:
            self.executable = self._backend(self.program)
            self._call = self._caller(self.executable)
        if not self._generators and not self._written:
            return self._call(leaves)
        states = [generator.bit_generator.state for generator in self._generators]
        result = self._call(leaves)
        if result is MISS:
            # The function itself draws now.
            for generator, state in zip(self._generators, states, strict=True):
                generator.bit_generator.state = state
        else:
            for place in self._written:
                place.put()
        return result

    def first(self, values: dict[int, Any], leaves: Sequence[Any]) -> Any:
        """Do the same with the values of the recording."""
        order = list(dict.fromkeys(self.program.results()))
        results = tuple(values[i] for i in order)
        return self._caller(_Ready(lambda *inputs: results, order))(leaves)

    def _caller(self, executable: Any) -> Callable[..., Any]:
        return caller(self.program, executable, self._effects)

    def explain(self) -> str:
        """Show the program and how it runs."""
        lines = [f"arguments {self.arguments}", str(self.program)]
        if self.executable is not None:
            lines.append(self.executable.explain())
        return "\n".join(lines)


def _begins_memory(program: Program) -> bool:
    """Tell whether a program makes an entry of an optimiser's memory that is not there."""
    targets = [write.target for write in program.writes]
    return any(t.kind == "entry" and t.key not in t.owner for t in targets)


def _generators(program: Program) -> list[np.random.Generator]:
    """Give the generators that a program draws from."""
    # Of a seed, and of none, a generator is made at each draw.
    rngs = [i.params["rng"] for i in program.instructions if not i.pure]
    return [np.random.default_rng(rng) for rng in {id(rng): rng for rng in rngs}.values()]


class _Ready(NamedTuple):
    """An executable whose results are there already."""

    run: Callable[..., Any]
    results: list[int]
    owned: frozenset[int] = frozenset()
    writes_in_place: bool = False
    commit: None = None
