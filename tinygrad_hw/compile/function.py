"""A compiled function: how it is recorded, and run from the record."""

from __future__ import annotations

import inspect
import pickle
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import update_wrapper
from types import MethodType
from typing import Any
from weakref import ref

import numpy as np

from .. import graph, tree
from ..graph import Handle
from ..settings import check_whole
from .arguments import Arguments, share_memory
from .backends import Backend, backend_of
from .call import MISS
from .errors import CompileError
from .guards import Guards
from .program import Program
from .progress import position_of, same_position, state_of
from .pullback import Call, record_pullbacks
from .recording import Recorder
from .same import PLAIN
from .traced import Traced
from .variant import Variant

# A recording replaces arrays of all tensors that the function reaches: whatever else is recorded or
# run has to wait. One that waits holds no lock, or a recording could wait for it too.
_one_recording = threading.RLock()
_all: set[ref[Compiled]] = set()
UNKNOWN = object()


@contextmanager
def _alone() -> Iterator[bool]:
    """Keep other threads from recording and running; give whether that can be had."""
    wait = not _is_inside(threading.get_ident())
    with ExitStack() as taken:
        yield _take(_one_recording, taken, wait) and all(
            _take(compiled._lock, taken, wait) for compiled in _everyone()
        )


def _take(lock: Any, taken: ExitStack, wait: bool) -> bool:
    got: bool = lock.acquire(wait)
    if got:
        taken.callback(lock.release)
    return got


def _is_inside(thread: int) -> bool:
    """Tell whether a thread is inside a function, as one is where an op of the user's calls."""
    return any(compiled._owner == thread for compiled in _everyone())


_ADVICE = (
    "Pass numbers that change as np.asarray(number, np.float32) and arrays in one shape, and keep "
    "what is carried from call to call in a tensor: t.data = value"
)


def _everyone() -> list[Compiled]:
    # Copied at once, since another thread may make one meanwhile.
    return [compiled for there in _all.copy() if (compiled := there()) is not None]


class Compiled:
    """A function that is recorded when it is first called, and run from the record afterwards.

    Made by :func:`tinygrad_hw.compile`.
    """

    __name__: str

    def __init__(self, function: Callable[..., Any], backend: str, limit: int) -> None:
        if not callable(function) or inspect.isgeneratorfunction(function):
            kind = "generator" if callable(function) else type(function).__name__
            advice = "; put @tg.compile below it" if kind in ("classmethod", "property") else ""
            raise TypeError(f"compile: got a {kind}; want a function{advice}")
        check_whole("compile", "limit", limit, 1)
        self.function, self.limit = function, limit
        self.backend_name = backend
        self._backend = backend_of(backend)
        self._variants: list[Variant] = []
        self._reasons: list[str] = []
        self._given_up = False
        self._missed = 0
        self._lock = threading.RLock()
        # The thread that is inside, by its number.
        self._owner = 0
        _all.add(ref(self, _all.discard))
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
        if not self._lock.acquire(False) and not self._wait(me):
            return self.function(*args, **kwargs)
        self._owner = me
        try:
            result = self._run(args, kwargs, mode.recording)
        finally:
            self._owner = 0
            self._lock.release()
        if result is UNKNOWN:
            return self._recorded(args, kwargs)
        if result is MISS:
            self._missed += 1
            return self.function(*args, **kwargs)
        return result

    def _run(self, args: Any, kwargs: Any, recording: bool) -> Any:
        """Run the program that fits; give ``UNKNOWN`` if none does."""
        for variant in self._variants:
            if variant.recording is recording:
                leaves = variant.match(args, kwargs)
                if leaves is not None:
                    return variant.run(leaves)
        return UNKNOWN

    def _wait(self, thread: int) -> bool:
        """Take the lock when it is free, unless who has it may wait for this thread."""
        return not _is_inside(thread) and self._lock.acquire()

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name
        self._key = f"{owner.__module__}.{owner.__qualname__}.{name}, compiled"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if isinstance(instance, type):
            # A method of a class, by `classmethod`: the class is an argument.
            return MethodType(self, instance)
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
        with _alone() as alone:
            result = self._recorded_alone(args, kwargs) if alone else UNKNOWN
        given_up = result is UNKNOWN or result is MISS
        return self.function(*args, **kwargs) if given_up else result

    def _recorded_alone(self, args: Any, kwargs: Any) -> Any:
        self._owner = threading.get_ident()
        try:
            # Another thread may have recorded the same meanwhile.
            result = self._run(args, kwargs, graph.state.mode.recording)
            if result is UNKNOWN and not self._gives_up(args, kwargs):
                variant, result = record(self.function, args, kwargs, self._backend)
                self._variants.insert(0, variant)
        finally:
            self._owner = 0
        return result

    def _gives_up(self, args: Any, kwargs: Any) -> bool:
        if self._variants:
            self._reasons.append(self._reason(args, kwargs))
        self._given_up = len(self._variants) >= self.limit
        if self._given_up:
            warnings.warn(
                f"compile: {self.__name__} was recorded {self.limit} times and does not fit again "
                f"({self._reasons[-1]}); from now on it is called as it is. {_ADVICE}",
                RuntimeWarning,
                stacklevel=5,
            )
        return self._given_up

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
        if self._missed:
            parts.append(
                f"left to the function itself {self._missed} times, since a check below did not "
                "hold, or arguments, one of them written to, shared memory"
            )
        if self._variants:
            parts.append(self._variants[0].explain())
        return "\n\n".join(parts)

    def graph(self, number: int = 0) -> Any:
        """Draw a recorded program, the latest by default; needs the pictures of the package."""
        from .picture import picture_of

        if not self._variants:
            raise ValueError(f"compile: {self.__name__} is not recorded yet; call it first")
        there = len(self._variants)
        if not -there <= number < there:
            raise IndexError(
                f"compile: graph({number}) of {there} recorded; want 0, the latest, to {there - 1}"
            )
        return picture_of(self.programs[number])

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}, {len(self._variants)} recorded>"


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
        recorder.check_failures()
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
    variant = Variant(recorder, guards, arguments, rebuild, outputs, pullbacks, backend)
    if variant.writes_arguments and share_memory(arguments.leaves):
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
