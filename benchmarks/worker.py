"""One contender on one workload, in a process of its own: answers requests line by line.

``time N`` gives the seconds of each of N steps, ``check`` what all contenders must agree on.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers import load
from benchmarks.workloads import WORKLOADS, Workload, fingerprint, model_kind

_WARM_UP = 4
_PROCESS_STEPS = 200
_MEMORY_STEPS = 8


def prepared(peer: Any, workload: Workload) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Give the function of one step, and the fingerprint of the first."""
    if workload.kind in ("chain", "scalars"):
        method = getattr(peer, workload.kind, None)
        if method is None:
            raise NotImplementedError(f"takes no part in {workload.name}")
        step = method(workload.batch)
        value, gradient = step()
        return step, fingerprint(float(value), [gradient])
    step = peer.train(model_kind(workload), workload.batch)
    return step, fingerprint(step(), peer.gradients())


def serve(step: Callable[[], Any]) -> None:
    """Answer until the end of the input."""
    for line in sys.stdin:
        count = int(line.split()[1])
        seconds = []
        step()  # Not counted: others had the caches since the last turn.
        for _ in range(count):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        _answer({"seconds": seconds})


def main(arguments: list[str]) -> int:
    """Run a contender: its name, the workload's, and how many cores it may use."""
    name, workload = arguments[0], WORKLOADS[arguments[1]]
    if hasattr(os, "sched_setaffinity"):
        # Not every library asks the environment how many threads it may start.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-int(arguments[2]) :])
    try:
        peer = load(name)
        step, found = prepared(peer, workload)
        if workload.kind == "process":
            for _ in range(_PROCESS_STEPS - 1):
                step()
        elif workload.kind == "memory":
            for _ in range(_MEMORY_STEPS):
                step()
            found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        else:
            for _ in range(_WARM_UP):
                step()
    except (ImportError, NotImplementedError, MemoryError) as error:
        _answer({"missing": f"{type(error).__name__}: {error}"})
        return 0
    _answer(found)
    if workload.kind not in ("process", "memory"):
        serve(step)
    return 0


def _answer(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
