"""Runs a student's file in processes of its own and collects what its functions do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import reference
from .cases import Case
from .handout import HANDOUT

GIBIBYTE = 2**30
_THREADS = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")


class CouldNotRun(ValueError):
    """The file cannot even be read as Python."""


@dataclass(frozen=True)
class Limits:
    """What a file may take.

    Attributes
    ----------
    load_seconds, seconds : float
        Of computing: for the import of the file (its definitions alone may take four times as
        long), and for all calls of one function. Three times as long on the clock.
    train_seconds : float
        After so long a training is stopped where it may be; less than ``seconds``.
    load_bytes, bytes : int
        Memory beyond what Python with NumPy takes, and beyond what the file takes once imported.
    """

    load_seconds: float = 5.0
    seconds: float = 8.0
    train_seconds: float = 3.0
    load_bytes: int = 8 * GIBIBYTE
    bytes: int = 2 * GIBIBYTE


@dataclass(frozen=True)
class Outcome:
    """What came of one call.

    Attributes
    ----------
    returned : object
        The value, with arrays for lists of numbers.
    raised, kind : str
        The error in one line, and its type's name; empty if there was none.
    line : int or None
        Where in the file.
    system : bool
        Whether the error is about files and the like.
    ended : str
        How the process ended during the call, empty if it did not.
    slow : bool
        Whether it ended because time was up.
    stopped : bool
        Whether a training was stopped.
    older : bool
        Whether the function wanted the output as well.
    older_numpy : tuple of str
        What of an older NumPy it needs.
    changed : tuple of str
        Arguments that are no longer what they were.
    seconds : float
        Of computing.
    first, last : tuple of float
        Losses at the two ends of a training.
    calls : int
        How many losses there were.
    steps : list of lists of arrays
        The weights before and after the first step of a training, as far as they were seen.
    """

    returned: Any = None
    raised: str = ""
    kind: str = ""
    line: int | None = None
    system: bool = False
    ended: str = ""
    slow: bool = False
    stopped: bool = False
    older: bool = False
    older_numpy: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    seconds: float = 0.0
    first: tuple[float, ...] = ()
    last: tuple[float, ...] = ()
    calls: int = 0
    steps: list[list[Any]] = field(default_factory=list)


@dataclass
class Session:
    """Calls of one file's functions, each time in a fresh process.

    Attributes
    ----------
    path : Path
    limits : Limits
    definitions_only : bool
        Whether an import of the whole file did not end.
    notes : list of str
        What was left out of the file to get at its functions.
    parameters : dict
        The parameters' names of each function found.
    names : list of str
        Of all functions of the file, and of those in its classes.
    """

    path: Path
    limits: Limits
    definitions_only: bool = False
    notes: list[str] = field(default_factory=list)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def call(self, wanted: Mapping[str, Sequence[Case]]) -> dict[str, list[Outcome]]:
        """Make the calls; the functions that the file lacks are not in the result.

        Raises
        ------
        CouldNotRun
            If the file is no Python, or not even its definitions can be run.
        """
        outcomes: dict[str, list[Outcome]] = {}
        left = dict(wanted)
        while left:
            messages, ended = run(self._job(left))
            if not messages:
                self._retry(ended)
                continue
            (kind, *details), *calls = messages
            if kind == "unreadable":
                text, line = details
                raise CouldNotRun(
                    f"{self.path}{f', line {line}' if line else ''}: cannot be read as Python 3 "
                    f"({text})"
                )
            notes, parameters, self.names = details
            self.notes = list(dict.fromkeys([*self.notes, *notes]))
            self.parameters |= parameters
            left = {name: left[name] for name in left if name in parameters}
            for name in left:
                outcomes.setdefault(name, [])
            current = ""
            for message in calls:
                if message[0] == "begin":
                    current = message[1]
                elif message[0] == "end":
                    outcomes[current].append(_outcome(message[1]))
            if not left or calls[-1:] == [["done"]]:
                break
            # The process ended within a call, or, rarely, before one.
            current = current or next(iter(left))
            outcomes[current].append(ended)
            names = list(left)
            left = {name: left[name] for name in names[names.index(current) + 1 :]}
        return outcomes

    def _retry(self, ended: Outcome) -> None:
        """Go on with the definitions alone after an import that did not end as it should."""
        if self.definitions_only:
            raise CouldNotRun(f"{self.path}: not even its definitions could be run: {ended.ended}")
        self.definitions_only = True
        self.notes.append(f"its import {ended.ended}; only its definitions were run")

    def _job(self, wanted: Mapping[str, Sequence[Case]]) -> dict[str, Any]:
        """The calls as the worker reads them."""
        patience = 4 if self.definitions_only else 1
        return {
            **vars(self.limits),
            "load_seconds": patience * self.limits.load_seconds,
            "path": str(self.path.resolve()),
            "definitions_only": self.definitions_only,
            "names": list(HANDOUT),
            "functions": {name: [_wire(case) for case in cases] for name, cases in wanted.items()},
        }


def run(job: dict[str, Any]) -> tuple[list[Any], Outcome]:
    """Do a job in a process; give what that said, and how it ended as an outcome."""
    with tempfile.TemporaryDirectory(prefix="hw5-") as folder:
        file = Path(folder, "job.json")
        file.write_text(json.dumps(job), encoding="utf-8")
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        worker = Path(__file__).with_name("worker.py")
        with Path(folder, "said").open("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", str(worker), str(file)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.DEVNULL,
                cwd=scratch,
                env=_environment(),
                start_new_session=True,
            )
            most = 3 * (job["load_seconds"] + len(job["functions"]) * job["seconds"]) + 10
            try:
                process.wait(most)
            except subprocess.TimeoutExpired:
                pass
            finally:
                status = _end(process)
            said.seek(0)
            messages = [json.loads(line) for line in said if line.endswith("\n")]
    return messages, _ending(status)


def _environment() -> dict[str, str]:
    """One thread, no windows, no traces in the file's folder, and the same on every run."""
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": "1" for name in _THREADS},
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
    }


def _end(process: subprocess.Popen[Any]) -> int | None:
    """End a process with all it started; give the status that it ended with by itself."""
    status = process.poll()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    return status


def _ending(status: int | None) -> Outcome:
    timed = {-getattr(signal, name, 0) for name in ("SIGPROF", "SIGALRM", "SIGXCPU")} - {0}
    if status is None or status in timed:
        return Outcome(ended="took too long", slow=True)
    if status < 0:
        return Outcome(ended=f"crashed ({signal.Signals(-status).name})")
    return Outcome(ended=f"ended the whole process (exit status {status})")


def _wire(case: Case) -> dict[str, Any]:
    """A case as the worker reads it."""
    wire: dict[str, Any] = {
        "lines": case.lines,
        "parameters": HANDOUT[case.function].parameters,
        "keywords": case.keywords,
    }
    forward = case.function.removesuffix("_backward")
    if forward != case.function:
        arguments = case.named()
        inputs = [arguments[name] for name in HANDOUT[forward].parameters]
        wire["forward"] = getattr(reference, forward)(*inputs).tolist()
        if case.forward_first:
            wire["first"] = {"name": forward, "parameters": HANDOUT[forward].parameters}
    if case.watch:
        wire |= {"watch": case.watch, "images": case.images}
        wire["weights"] = HANDOUT[case.function].results[:-1]
    return wire


def _outcome(wire: dict[str, Any]) -> Outcome:
    values: dict[str, Any] = dict(wire)
    for key in ("changed", "first", "last", "older_numpy"):
        values[key] = tuple(wire.get(key, ()))
    for key in {"returned", "steps"} & wire.keys():
        values[key] = _decode(wire[key])
    return Outcome(**values)


def _decode(wire: Any) -> Any:
    """Undo the worker's ``encode``; what it had no form for comes as a :class:`Foreign`."""
    if not isinstance(wire, dict):
        return wire
    if "array" in wire:
        return np.array(wire["array"], wire["dtype"]).reshape(wire["shape"])
    return [_decode(entry) for entry in wire["list"]] if "list" in wire else Foreign(wire["other"])


@dataclass(frozen=True)
class Foreign:
    """A value that is no number, array or sequence."""

    text: str
