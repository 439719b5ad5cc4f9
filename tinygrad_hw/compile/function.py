"""A compiled function: the programs recorded of it, and when each may run."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import random
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from .. import graph, tree
from ..graph import Handle, Leaf, Node
from .call import MISS, Effects, caller
from .errors import CompileError
from .guards import PLAIN, Guards, Test, position_of, same_plain, same_position, state_of
from .program import Program, Ref
from .pullback import Call, MadeLeaf, Pullback, record_pullbacks
from .recording import Recorder
from .traced import Traced

Backend = Callable[[Program], Any]
# A recording replaces arrays of the tensors that it meets: another of the same ones has to wait.
_one_recording = threading.RLock()


def backend_of(name: str) -> Backend:
    """Give the back end of a name."""
    if name == "numpy":
        from .straight import Straight

        return Straight
    if name == "numba":
        for package in ("numba", "scipy"):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f'compile: backend="numba" needs {package}: pip install "tinygrad_hw[fast]"'
                )
        from .native import Native

        return Native
    raise ValueError(f'compile: backend is {name!r}; want "numpy" or "numba"')


class Compiled:
    """A function that is recorded when it is first called, and run from the record afterwards.

    Made by :func:`tinygrad_hw.compile`.
    """

    __name__: str

    def __init__(self, function: Callable[..., Any], backend: str, limit: int) -> None:
        if not callable(function) or inspect.isgeneratorfunction(function):
            kind = "generator" if callable(function) else type(function).__name__
            raise TypeError(f"compile: got a {kind}; want a function")
        if limit < 1:
            raise ValueError(f"compile: limit is {limit}; want at least 1 recording")
        self.function, self.limit = function, limit
        self.backend_name = backend
        self._backend = backend_of(backend)
        self._variants: list[Variant] = []
        self._reasons: list[str] = []
        self._given_up = False
        self._lock = threading.RLock()
        # The thread that is inside, by its number.
        self._owner = 0
        self.__name__ = type(function).__name__
        update_wrapper(self, function, updated=())
        # Under what name the objects of a class have it, and where they keep what is theirs: where
        # no attribute is, since a subclass may have another method of the name.
        self._attribute = getattr(function, "__name__", "")
        self._key = f"{getattr(function, '__qualname__', '')}, compiled"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        me = threading.get_ident()
        if self._given_up or graph.state.recorder is not None or self._owner == me:
            return self.function(*args, **kwargs)
        mode = graph.state.mode
        if mode.observers:
            return self.function(*args, **kwargs)
        # The statement `with` takes twice as long.
        self._lock.acquire()
        self._owner = me
        try:
            for variant in self._variants:
                if variant.recording is not mode.recording:
                    continue
                leaves = variant.match(args, kwargs)
                if leaves is not None:
                    result = variant.run(leaves)
                    if result is not MISS:
                        return result
                    break
            else:
                return self._recorded(args, kwargs)
        finally:
            self._owner = 0
            self._lock.release()
        return self.function(*args, **kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name
        self._key = f"{owner.__module__}.{owner.__qualname__}.{name}, compiled"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        kept: dict[str, Any] | None = getattr(instance, "__dict__", None)
        if kept is None:
            raise TypeError(
                f"compile: {type(instance).__name__} has __slots__ and no place to keep what is "
                "recorded; add '__dict__' to them, or compile a function outside the class"
            )
        if self._attribute in kept:
            # Somebody has set it.
            return kept[self._attribute]
        there = kept.get(self._key)
        # A copied object comes with what belongs to the original.
        if there is None or there._instance() is not instance:
            # One for each object, made once: its programs are about that object.
            there = Compiled(self.function.__get__(instance), self.backend_name, self.limit)
            there._attribute = self._attribute
            kept[self._key] = there
        return there

    def _instance(self) -> Any:
        """The object whose method this is, if it is one."""
        return getattr(self.function, "__self__", None)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._attribute] = value

    def __reduce__(self) -> Any:
        """Copy and pickle without the records: they are about this function and its objects."""
        instance = self._instance()
        if isinstance(getattr(type(instance), self._attribute, None), Compiled):
            return getattr, (instance, self._attribute)
        return Compiled, (self.function, self.backend_name, self.limit)

    def _recorded(self, args: Any, kwargs: Any) -> Any:
        if self._variants:
            self._reasons.append(self._reason(args, kwargs))
        if len(self._variants) >= self.limit:
            self._given_up = True
            warnings.warn(
                f"compile: {self.__name__} was recorded {self.limit} times and does not fit again "
                f"({self._reasons[-1]}); from now on it is called as it is",
                RuntimeWarning,
                stacklevel=3,
            )
            self._owner = 0
            return self.function(*args, **kwargs)
        with _one_recording:
            variant, result = record(self.function, args, kwargs, self._backend)
        self._variants.insert(0, variant)
        return result

    def _reason(self, args: Any, kwargs: Any) -> str:
        recording = graph.state.mode.recording
        there = [v for v in self._variants if v.recording is recording]
        return there[0].difference(args, kwargs) if there else "no_grad() is on, or off again"

    @property
    def programs(self) -> list[Program]:
        """The recorded programs, the latest first."""
        return [variant.program for variant in self._variants]

    def explain(self) -> str:
        """Say what was recorded, why more than once, and how it runs."""
        parts = [
            f"{self.__name__}: {len(self._variants)} recorded, back end {self.backend_name}"
            + ("; given up, called as it is" if self._given_up else "")
        ]
        parts += [f"recorded again: {reason}" for reason in self._reasons]
        if self._variants:
            parts.append(self._variants[0].explain())
        return "\n\n".join(parts)

    def graph(self, number: int = 0) -> Any:
        """Draw a recorded program, the latest by default; needs the pictures of the package."""
        from .picture import picture_of

        if not self._variants:
            raise ValueError(f"compile: {self.__name__} is not recorded yet; call it first")
        return picture_of(self.programs[number])

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}, {len(self._variants)} recorded>"


class Variant:
    """One recorded program, the guards under which it may run, and how to run it."""

    def __init__(
        self,
        recorder: Recorder,
        guards: Guards,
        arguments: Arguments,
        rebuild: Any,
        kinds: list[bool],
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
        self._rebuild, self._kinds = rebuild, kinds
        numbers = [y.index if isinstance(y, Ref) else None for y in recorder.program.outputs]
        arrays = [k for k, tensor in enumerate(kinds) if not tensor]
        self._scalars = {k for k in arrays if numbers[k] in recorder.scalars}
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
        drawing = [i for i in self.program.instructions if not i.pure]
        # Of a seed, and of none, a generator is made at each draw.
        rngs = {id(i.params["rng"]): i.params["rng"] for i in drawing}.values()
        self._generators = [np.random.default_rng(rng) for rng in rngs]
        test = Test()
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
        same = [_facts(t) for t in self._tensors] == self._facts and self.guards.changed() is None
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
        reason = self.arguments.difference(args, kwargs) or self.guards.changed()
        if reason:
            return reason
        for tensor, facts in zip(self._tensors, self._facts, strict=True):
            name = getattr(tensor, "name", None) or f"a tensor {facts[0]}"
            for what, before, now in zip(_FACTS, facts, _facts(tensor), strict=True):
                if now != before:
                    return f"{name}: {what} was {before}, is {now}"
        return "an optimiser's memory has other entries"

    # --- Running it ---------------------------------------------------------------------------

    def run(self, leaves: Sequence[Any]) -> Any:
        """Run the program, or give ``MISS`` if what it takes for granted does not hold."""
        if self.writes_arguments and _share_memory(leaves):
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


_FACTS = ("the shape", "the dtype", "the graph", "whether it has a gradient", "the hooks")


def _facts(tensor: Any) -> tuple[Any, ...]:
    node = tensor._node
    leaf = isinstance(node, Leaf)
    has_grad = leaf and node.grad is not None
    return tensor._data.shape, tensor._data.dtype, Leaf if leaf else node, has_grad, _hooks(node)


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


def _share_memory(leaves: Sequence[Any]) -> bool:
    """Tell whether different arrays among the leaves lie, in part, at the same place."""
    values = [leaf._data if isinstance(leaf, Handle) else leaf for leaf in leaves]
    arrays = list({id(v): v for v in values if isinstance(v, np.ndarray)}.values())
    return any(np.may_share_memory(a, b) for a, b in combinations(arrays, 2))


# --- Recording --------------------------------------------------------------------------------


def record(
    function: Callable[..., Any], args: Any, kwargs: Any, backend: Backend
) -> tuple[Variant, Any]:
    """Call a function once; give what was recorded, and the result of the call."""
    arguments, recorder = Arguments(args, kwargs), Recorder()
    guards = Guards(function, arguments.leaves)
    before = _other_random()
    with recorder.active():
        leaves = [_enter(recorder, leaf, i) for i, leaf in enumerate(arguments.leaves)]
        for tensor in guards.tensors:
            if not isinstance(tensor._data, Traced):
                recorder.meet(tensor)
        for optimizer in guards.optimizers:
            recorder.enter_optimizer(optimizer)
        new_args, new_kwargs = arguments.rebuild(iter(leaves))
        result = function(*new_args, **new_kwargs)
        _check_containers((new_args, new_kwargs), leaves)
        outputs, rebuild = tree.flatten(result)
        _check_outputs(outputs, guards)
        recorder.program.outputs = [
            recorder._result(y._data if isinstance(y, Handle) else y) for y in outputs
        ]
        call = Call(function, arguments.rebuild, backend)
        pullbacks = record_pullbacks(recorder, outputs, arguments.leaves, call)
    _check_random(recorder, guards, before)
    _check_iterators(guards)
    kinds = [isinstance(y, Handle) for y in outputs]
    variant = Variant(recorder, guards, arguments, rebuild, kinds, pullbacks, backend)
    if variant.writes_arguments and _share_memory(arguments.leaves):
        raise CompileError(
            "compile: arguments share memory, and one is written to; pass a copy of the other"
        )
    if all(instruction.pure for instruction in recorder.program.instructions):
        # The back end computes this call too, so that no number depends on when it was recorded.
        result = variant.run(arguments.leaves)
        if result is not MISS:
            return variant, result
    return variant, variant.first(recorder.concrete, arguments.leaves)


def _enter(recorder: Recorder, leaf: Any, number: int) -> Any:
    if isinstance(leaf, Handle):
        if not isinstance(leaf._data, Traced):
            recorder.meet(leaf, number)
        return leaf
    if isinstance(leaf, (np.ma.MaskedArray, np.matrix)):
        raise CompileError(
            f"compile: argument {number} is a {type(leaf).__name__}, which computes otherwise than "
            "an array; pass an array"
        )
    if isinstance(leaf, np.ndarray):
        return recorder.argument(np.asarray(leaf), number)
    return leaf


def _check_containers(arguments: Any, leaves: list[Any]) -> None:
    """Raise if a container among the arguments was changed: it was only a copy."""
    now = tree.flatten(arguments)[0]
    if len(now) != len(leaves) or any(a is not b for a, b in zip(now, leaves, strict=True)):
        raise CompileError(
            "compile: the function changes a list or a dict among its arguments; change a copy, "
            "and return what is new"
        )


def _check_outputs(outputs: list[Any], guards: Guards) -> None:
    """Raise for an object that the function made: each call would give the same one."""
    for y in outputs:
        known = isinstance(y, (Handle, Traced, np.ndarray, type, *PLAIN)) or id(y) in guards.seen
        if not known:
            raise CompileError(
                f"compile: the function returns a {type(y).__name__} that it made; return tensors, "
                "arrays and numbers, or lists, tuples and dicts of them"
            )


def _other_random() -> Any:
    """The states of NumPy's and Python's global generators."""
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002 (to notice that it was used)
    return pickle.dumps(numpys), random.getstate()


def _check_random(recorder: Recorder, guards: Guards, before: Any) -> None:
    """Raise if random numbers were drawn that the program would not draw again."""
    drawn = {id(i.params.get("rng")) for i in recorder.program.instructions if not i.pure}
    stray = any(state_of(g) != state and id(g) not in drawn for g, state in guards.generators)
    if stray or _other_random() != before:
        raise CompileError(
            "compile: random numbers were drawn and would be the same at every call; "
            "draw them outside and pass them as an argument, or use tg.dropout"
        )


def _check_iterators(guards: Guards) -> None:
    """Raise if an iterator went on: the program would see the same entry at every call."""
    for iterator, position, name in guards.iterators:
        if not same_position(position, position_of(iterator)):
            raise CompileError(
                f"compile: the function takes from {name}, a {type(iterator).__name__}, and would "
                "see the same at every call; take it outside and pass it as an argument"
            )
