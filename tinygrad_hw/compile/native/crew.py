"""Threads that run one native function together, each its share of every loop.

The function itself keeps them together: they meet at the end of each of its loops. The crew is as
large as the cores that the process may use, or ``OMP_NUM_THREADS``. Without Linux's calls to
choose cores it is the caller alone.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

# Of more threads each would wait longer than it works.
MOST = 8


def together(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call ``function(*arguments, number, size)`` in all threads of the crew."""
    crew = _crew
    if not crew.free.acquire(blocking=False):
        return function(*arguments, 0, 1)
    size = crew.size
    try:
        core = -1 if size == 1 else _core()
        for number, queue in enumerate(crew.queues(), 1):
            queue.put((function, arguments, number, size, core))
    finally:
        # Whatever happens, the others wait for the caller's share.
        try:
            held = function(*arguments, 0, size)
        finally:
            crew.free.release()
    return held


class _Crew:
    """The threads besides the caller's, started when they are first needed."""

    def __init__(self, size: int) -> None:
        self.free = threading.Lock()
        self.size = size
        self._queues: list[SimpleQueue[Any]] = []

    def queues(self) -> list[SimpleQueue[Any]]:
        """Give the queue of each thread."""
        while len(self._queues) < self.size - 1:
            queue: SimpleQueue[Any] = SimpleQueue()
            name = f"tinygrad_hw {len(self._queues) + 1}"
            threading.Thread(target=_work, args=(queue,), name=name, daemon=True).start()
            self._queues.append(queue)
        return self._queues


def _work(queue: SimpleQueue[Any]) -> None:
    callers = -1
    while True:
        function, arguments, number, size, core = queue.get()
        if core != callers or core == _core():
            _move(number, core)
            callers = core
        # The caller has the same arguments and meets the same error.
        with suppress(Exception):
            function(*arguments, number, size)
        # The arrays belong to the caller, who may look whether somebody else holds them.
        del function, arguments


def _move(number: int, callers: int) -> None:
    """Go to another core than the caller's; the system may move the thread on from there.

    Threads that wait for each other in turns look busy, so that the system leaves them for long on
    the core on which they woke.
    """
    cores = os.sched_getaffinity(0)
    others = sorted(cores - {callers})
    if others:
        os.sched_setaffinity(0, {others[(number - 1) % len(others)]})
        os.sched_setaffinity(0, cores)


def _size() -> int:
    """How many threads there may be."""
    if _core() < 0:
        return 1
    cores = len(os.sched_getaffinity(0))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(int(asked) if asked.isdecimal() else cores, cores, MOST))


def _reset() -> None:
    global _crew
    _crew = _Crew(_crew.size)


try:
    _core: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
except (AttributeError, OSError, TypeError):

    def _core() -> int:
        return -1


_crew = _Crew(_size())
if hasattr(os, "register_at_fork"):
    # A child process has none of the threads.
    os.register_at_fork(after_in_child=_reset)
