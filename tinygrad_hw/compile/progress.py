"""How far random generators and iterators have come, to notice that a function took from one."""

from __future__ import annotations

import gc
import itertools
import operator
import pickle
import random
import types
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from .same import same_plain


def state_of(generator: Any) -> Any:
    """Give the state of a random generator, to compare; it may hold arrays, so as bytes."""
    if isinstance(generator, random.SystemRandom):
        return None  # It has none.
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    return pickle.dumps(generator.get_state(legacy=False))


def position_of(iterator: Iterator[Any]) -> list[Any]:
    """Give what tells where one of Python's iterators is: what it is made of, by identity.

    Of a generator these are its variables, which a step gives other values.
    """
    # A generator may know itself. Held too, lest another one gets the number of one that goes.
    seen: dict[int, Iterator[Any]] = {}
    position = []
    parts: deque[Any] = deque([iterator])
    while parts:
        part = parts.popleft()
        if isinstance(part, tuple):
            parts.extend(part)
        elif not isinstance(part, Iterator):
            position.append(part)
        elif id(part) not in seen:
            seen[id(part)] = part
            parts.extend(_made_of(part))
    return position


def _made_of(iterator: Iterator[Any]) -> tuple[Any, ...]:
    if isinstance(iterator, types.GeneratorType):
        frame = iterator.gi_frame
        parts = () if frame is None else (frame.f_lasti, *frame.f_locals.values())
        return (*parts, iterator.gi_yieldfrom)
    if isinstance(iterator, itertools.count):
        return (repr(iterator),)
    with warnings.catch_warnings():
        # Python 3.12 warns that from 3.14 on itertools' have no such method.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            if hasattr(iterator, "__length_hint__"):
                return (operator.length_hint(iterator),)
            return tuple(iterator.__reduce_ex__(2))
        except Exception:
            # It may take from others, which tell; if not, as a file, nobody can.
            return tuple(
                [part for part in gc.get_referents(iterator) if isinstance(part, Iterator)]
            )


def same_position(one: list[Any], other: list[Any]) -> bool:
    """Tell whether an iterator is where it was."""
    pairs = zip(one, other, strict=True)
    return len(one) == len(other) and all(a is b or same_plain(a, b) for a, b in pairs)
