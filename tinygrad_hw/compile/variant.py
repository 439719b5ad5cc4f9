"""One recorded program of a function, and when it may run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from .. import graph, tree
from ..graph import Handle, Leaf, Node
from .backends import Backend, backend_of
from .call import MISS, Effects, caller
from .guards import Guards, Test
from .program import Program, Ref
from .pullback import MadeLeaf, Pullback
from .recording import Recorder
from .same import PLAIN, same_plain
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
        self.guards, self.arguments, self.pullbacks = guards, arguments, pullbacks
        self.recording = graph.is_recording()
        self._kept = [Ref(i) for p in pullbacks for i in p.residuals]
        recorder.program.outputs += self._kept
        self.program = recorder.program.optimized()
        # What begins an optimiser's memory fits but once: native code would not pay.
        self._backend = backend_of("numpy") if _begins_memory(self.program) else backend
        self._rebuild = rebuild
        self._kinds = [isinstance(y, Handle) for y in outputs]
        self._scalars = {k for k, y in enumerate(outputs) if isinstance(y, Traced) and y.scalar}
        self._steps = recorder.steps
        self._memories = [(o, o.memory, [len(m) for m in o.memory]) for o, _ in self._steps]
        # When a hook was registered or removed last, as far as it is known to change nothing here.
        self._hooks_at = [graph.clock.latest_hook]
        self._tensors = [t for t in recorder.tensors if id(t) not in arguments.tensors]
        self._facts = [_facts(t) for t in self._tensors]
        arguments.reached = {id(t) for t in (*guards.tensors, *self._tensors)}
        self.executable: Any = None
        self._call: Any = None
        self.writes_arguments = any(w.target.kind == "argument" for w in self.program.writes)
        # What the function sets, such as whether a model trains, is set at each call.
        self._written = guards.written()
        # What else it leaves behind, such as a tensor that it keeps, a run would not leave.
        self._left = guards.left()
        drawing = [i for i in self.program.instructions if not i.pure]
        # Of a seed, and of none, a generator is made at each draw.
        rngs = {id(i.params["rng"]): i.params["rng"] for i in drawing}.values()
        self._generators = [np.random.default_rng(rng) for rng in rngs]
        test = Test()
        if self._left:
            test.term("False")
        self._test_tensors(test)
        guards.test(test)
        self._fits = test.function(0)
        arguments.test(test)
        # Without containers among the arguments one test tells all.
        self._fits_flat = test.function(arguments.flat)

    # --- Whether it fits ----------------------------------------------------------------------

    def _test_tensors(self, test: Test) -> None:
        """Test the tensors and optimisers that the program meets."""
        test.term(f"{test.known(graph.clock)}.latest_hook == {test.known(self._hooks_at)}[0]")
        for tensor, (shape, dtype, node, has_grad, _) in zip(
            self._tensors, self._facts, strict=True
        ):
            t, s, d, n = map(test.known, (tensor, shape, dtype, node))
            test.term(f"type({t}._node) is {n}" if node is Leaf else f"{t}._node is {n}")
            test.term(f"{t}._data.shape == {s} and {t}._data.dtype == {d}")
            if node is Leaf:
                test.term(f"{t}._node.grad is {'not ' if has_grad else ''}None")
        for optimizer, memory, lengths in self._memories:
            p, m, n = map(test.known, (optimizer, memory, lengths))
            test.term(f"{p}.memory is {m}")
            test.term(f"[len(e) for e in {m}] == {n}" if any(lengths) else f"not any({m})")

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
        same = [_facts(t) for t in self._tensors] == self._facts and not self.guards.changed()
        same = same and all(
            o.memory is memory and [len(entries) for entries in memory] == lengths
            for o, memory, lengths in self._memories
        )
        if not same:
            return None
        self._hooks_at[0] = graph.clock.latest_hook
        return leaves

    def difference(self, args: Any, kwargs: Any) -> str:
        """Say why a call does not fit."""
        if reason := self.arguments.difference(args, kwargs):
            return reason
        if self._left:
            return f"the function itself changes what it reaches: {self._left}"
        if reason := self.guards.changed():
            return reason
        for tensor, facts in zip(self._tensors, self._facts, strict=True):
            name = getattr(tensor, "name", None) or f"a tensor {facts[0]}"
            for what, before, now in zip(_FACTS, facts, _facts(tensor), strict=True):
                if now != before:
                    return f"{name}: {what} was {_in_words(before)}, is {_in_words(now)}"
        return "an optimiser's memory has other entries"

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
        effects = Effects(self._steps, self.pullbacks, self._kinds, self._scalars, self._rebuild)
        return caller(self.program, executable, effects)

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


class _Ready(NamedTuple):
    """An executable whose results are there already."""

    run: Callable[..., Any]
    results: list[int]
    owned: frozenset[int] = frozenset()
    writes_in_place: bool = False
    commit: None = None


_FACTS = ("the shape", "the dtype", "the kind", "whether it has a gradient", "the hooks")


def _facts(tensor: Any) -> tuple[Any, ...]:
    node = tensor._node
    leaf = isinstance(node, Leaf)
    has_grad = leaf and node.grad is not None
    return tensor._data.shape, tensor._data.dtype, Leaf if leaf else node, has_grad, _hooks(node)


def _in_words(fact: Any) -> Any:
    """Say what a fact is, where it does not show itself."""
    if fact is None or isinstance(fact, Node):
        return "constant" if fact is None else "another computed one"
    return "leaf" if fact is Leaf else fact


def _hooks(node: Node | None) -> tuple[Any, ...]:
    return () if node is None or node.extras is None else tuple(node.extras.get("hooks", ()))


# --- Arguments --------------------------------------------------------------------------------


class Arguments:
    """What the leaves of a call's arguments must be for a program to fit."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.leaves, self.rebuild = tree.flatten((args, kwargs))
        self.structure = _structure((args, kwargs))
        self.kinds = [_kind(leaf) for leaf in self.leaves]
        self.pattern = _pattern(self.leaves)
        self.tensors = {id(leaf): leaf for leaf in self.leaves if isinstance(leaf, Handle)}
        # Tensors that the function has from elsewhere, too: an argument stays or stays not one.
        self.reached: set[int] = set()
        # For the common case, positional arrays and tensors, a test without containers.
        plain = not kwargs and all(
            leaf is arg for leaf, arg in zip(self.leaves, args, strict=False)
        )
        self.flat = len(args) if plain and len(args) == len(self.leaves) else -1

    def test(self, test: Test) -> None:
        """Test the arguments ``a0``, ``a1`` and so on."""
        if self.flat < 0:
            test.term("False")
            return
        for i, kind in enumerate(self.kinds):
            test.term(f"type(a{i}) is {test.known(kind[0])}")
            if kind[1] is None:
                test.term(f"a{i} is {test.known(kind[2])}")
                continue
            if kind[1] != "array" and id(self.leaves[i]) in self.reached:
                test.term(f"a{i} is {test.known(self.leaves[i])}")
            elif kind[1] != "array" and self.reached:
                test.term(f"id(a{i}) not in {test.known(self.reached)}")
            array = f"a{i}" if kind[1] == "array" else f"a{i}._data"
            test.term(f"{array}.shape == {test.known(kind[2])}")
            test.term(f"{array}.dtype == {test.known(kind[3])}")
            if kind[1] == "constant":
                test.term(f"a{i}._node is None")
            elif kind[1] != "array":
                test.term(f"{test.known(_kind)}(a{i}) == {test.known(kind)}")
        for i, first in enumerate(self.pattern):
            for k in range(i):
                test.term(f"a{k} is {'' if first == k else 'not '}a{i}")

    def match(self, args: Any, kwargs: Any) -> Sequence[Any] | None:
        """Give the leaves if they are as they must be."""
        if len(args) == self.flat and not kwargs:
            leaves: Sequence[Any] = args
        else:
            if _structure((args, kwargs)) != self.structure:
                return None
            leaves = tree.flatten((args, kwargs))[0]
        for leaf, kind in zip(leaves, self.kinds, strict=True):
            if type(leaf) is not kind[0]:
                return None
            if kind[1] is None:
                if not _same_leaf(leaf, kind[2]):
                    return None
                continue
            array = leaf if kind[1] == "array" else leaf._data
            if array.shape != kind[2] or array.dtype != kind[3]:
                return None
            if kind[1] != "array" and _kind(leaf) != kind:
                return None
        if not self._reaches_the_same(leaves):
            return None
        if len(leaves) > 1 and _pattern(leaves) != self.pattern:
            return None
        return leaves

    def _reaches_the_same(self, leaves: Sequence[Any]) -> bool:
        """Tell whether arguments that the function has from elsewhere too are the same."""
        return all(
            now is leaf or not ({id(now), id(leaf)} & self.reached)
            for now, leaf in zip(leaves, self.leaves, strict=True)
            if isinstance(leaf, Handle)
        )

    def difference(self, args: Any, kwargs: Any) -> str:
        """Say what is different in other arguments."""
        if _structure((args, kwargs)) != self.structure:
            return "the arguments have another structure"
        leaves = tree.flatten((args, kwargs))[0]
        for i, (leaf, kind) in enumerate(zip(leaves, self.kinds, strict=True)):
            now = _kind(leaf)
            same = _same_leaf(leaf, kind[2]) if now[1] is kind[1] is None else now == kind
            if not same:
                return f"argument {i} was {_described(kind)}, is {_described(now)}"
        if not self._reaches_the_same(leaves):
            return "an argument is, or was, a tensor that the function has from elsewhere too"
        if _pattern(leaves) != self.pattern:
            return "other arguments are the same tensor"
        return ""

    def __str__(self) -> str:
        return ", ".join(map(_described, self.kinds)) or "none"


def _same_leaf(leaf: Any, recorded: Any) -> bool:
    return leaf is recorded or same_plain(leaf, recorded)


def _structure(container: Any) -> Any:
    if isinstance(container, Mapping):
        return (type(container), *((key, _structure(value)) for key, value in container.items()))
    if isinstance(container, (list, tuple)):
        return (type(container), *map(_structure, container))
    return None


def _kind(leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, Handle):
        node = leaf._node
        leaf_kind = "constant" if node is None else "leaf" if isinstance(node, Leaf) else "computed"
        has_grad = isinstance(node, Leaf) and node.grad is not None
        return type(leaf), leaf_kind, leaf._data.shape, leaf._data.dtype, has_grad, _hooks(node)
    if isinstance(leaf, np.ndarray):
        return type(leaf), "array", leaf.shape, leaf.dtype
    return type(leaf), None, leaf


def _described(kind: tuple[Any, ...]) -> str:
    if kind[1] is None:
        return repr(kind[2]) if isinstance(kind[2], PLAIN) else f"a {kind[0].__name__}"
    extra = "" if kind[1] == "array" else f", {kind[1]}" + (" with a gradient" if kind[4] else "")
    return f"{kind[0].__name__} {kind[2]} {kind[3]}{extra}"


def _pattern(leaves: Sequence[Any]) -> list[int]:
    """For each leaf the first tensor or array that it is the same as."""
    first: dict[int, int] = {}
    return [
        first.setdefault(id(leaf), i) if isinstance(leaf, (Handle, np.ndarray)) else i
        for i, leaf in enumerate(leaves)
    ]


def share_memory(leaves: Sequence[Any]) -> bool:
    """Tell whether different arrays among the leaves lie, in part, at the same place."""
    values = [leaf._data if isinstance(leaf, Handle) else leaf for leaf in leaves]
    arrays = list({id(v): v for v in values if isinstance(v, np.ndarray)}.values())
    return any(np.may_share_memory(a, b) for a, b in combinations(arrays, 2))
