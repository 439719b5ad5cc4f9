"""Start the contenders, let them take turns, and compare."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.workloads import Workload

_ROOT = Path(__file__).resolve().parent.parent
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_TOLERANCE = 2e-3
# So many seconds the idle threads of some libraries keep a core busy after their work.
_REST = 0.2
_SCALE = {"us": 1e6, "ns": 1e9, "s": 1.0, "MB": 1.0}


def _settings(package: str, threads: int) -> dict[str, str]:
    """What a package finds in its environment, unless the user says otherwise."""
    if package == "torch":
        # Its threads, if they may move, are at times many times slower.
        return {"OMP_PROC_BIND": "true"}
    if package == "jax" and threads == 1:
        return {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    return {}


@dataclass
class Result:
    """What came of a contender on a workload.

    Attributes
    ----------
    samples : list of float
        In the workload's unit, one a step (a process, for whole processes).
    found : dict
        Loss and gradients of the first step.
    missing : str
        Why it took no part; empty if it did.
    """

    peer: str
    samples: list[float] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def median(self) -> float:
        """Median of the samples, NaN without."""
        return statistics.median(self.samples) if self.samples else math.nan


class Worker:
    """A process of a contender, which answers lines of text with messages.

    Parameters
    ----------
    arguments : sequence of str
        Of the interpreter ``python``.
    package : str
        What the contender needs.
    threads : int
    """

    def __init__(self, arguments: Sequence[str], python: str, package: str, threads: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "ignore"}
        environment |= dict.fromkeys(_THREADS, str(threads))
        environment = _settings(package, threads) | environment
        # Installers have compiled the other packages; this one may run from its sources.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.process = subprocess.Popen(
            [python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=_ROOT,
        )

    def answer(self) -> dict[str, Any]:
        """Read the next message; a process that died gives the end of its complaint."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                message: dict[str, Any] = json.loads(line)
                return message
        assert self.process.stderr is not None
        complaint = self.process.stderr.read().strip().splitlines()
        return {"missing": complaint[-1] if complaint else "the process ended"}

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line; read the answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=60)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def _started(peer: str, workload: Workload, python: str, threads: int) -> Worker:
    """Have a contender begin with a workload; its first answer is what it found."""
    arguments = ["-m", "benchmarks.worker", peer, workload.name, str(threads)]
    return Worker(arguments, python, PEERS[peer][2], threads)


def measure(
    workload: Workload,
    peers: Sequence[str],
    *,
    rounds: int,
    threads: int,
    pythons: Mapping[str, str],
) -> list[Result]:
    """Measure contenders in interleaved rounds.

    Parameters
    ----------
    workload : Workload
    peers : names of contenders
    rounds : int
    threads : int
    pythons : dict
        Interpreter of each package that a peer needs; this one by default.
    """
    interpreters = {peer: pythons.get(PEERS[peer][2], sys.executable) for peer in peers}
    if workload.kind in ("process", "memory"):
        return _measure_processes(workload, interpreters, rounds, threads)
    results, workers = [], {}
    for peer, python in interpreters.items():
        worker = _started(peer, workload, python, threads)
        found = worker.answer()
        results.append(Result(peer, found=found, missing=found.get("missing", "")))
        if results[-1].missing:
            worker.close()
        else:
            workers[peer] = worker
    per = workload.batch if workload.kind == "scalars" else 1
    order = [result for result in results if result.peer in workers]
    for _ in range(rounds):
        random.shuffle(order)
        for result in order:
            if threads > 1:
                time.sleep(_REST)
            scale = _SCALE[workload.unit] / per
            answer = workers[result.peer].ask(f"time {workload.steps}")
            result.samples += [s * scale for s in answer.get("seconds", [])]
    for worker in workers.values():
        worker.close()
    return results


def _measure_processes(
    workload: Workload, interpreters: Mapping[str, str], rounds: int, threads: int
) -> list[Result]:
    results = {peer: Result(peer) for peer in interpreters}
    # The first round fills caches on disk and is not counted.
    for number in range(min(rounds, 5) + 1):
        for peer, python in interpreters.items():
            result = results[peer]
            if result.missing:
                continue
            start = time.perf_counter()
            worker = _started(peer, workload, python, threads)
            result.found = worker.answer()
            worker.close()
            seconds = time.perf_counter() - start
            result.missing = result.found.get("missing", "")
            if number and not result.missing:
                result.samples.append(result.found.get("megabytes", seconds))
    return list(results.values())


def agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Tell whether two contenders found the same loss and gradients."""
    one = [a["loss"], *a["gradients"]]
    two = [b["loss"], *b["gradients"]]
    return len(one) == len(two) and all(
        abs(x - y) <= _TOLERANCE * max(1.0, abs(x), abs(y)) for x, y in zip(one, two, strict=True)
    )


def summary(workload: Workload, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Give the rows of the table: the median, the ratios, whether the numbers agree."""
    by_name = {result.peer: result for result in results}
    reference = next((r for r in results if not r.missing), None)
    rows = []
    for result in results:
        row: dict[str, Any] = {"workload": workload.name, "peer": result.peer}
        if result.missing:
            rows.append({**row, "missing": result.missing})
            continue
        assert reference is not None
        row |= {"median": result.median, "unit": workload.unit, "samples": len(result.samples)}
        for base in ("torch", "numpy"):
            other = by_name.get(base)
            if other is not None and not other.missing:
                row[f"times {base}"] = result.median / other.median
        row["agrees"] = agree(result.found, reference.found)
        rows.append(row)
    return rows
