"""Tests anybody's ``hw5.py`` against the handout, in processes with limits of their own.

``handout`` says what is asked, ``cases`` how it is asked for, ``reference`` what is right,
``mistakes`` what is wrong and why; ``driver`` and ``worker`` run the file; ``judging``,
``batches``, ``training`` and ``steps`` compare, and ``report`` tells.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable
from pathlib import Path

from .cases import Case, cases
from .driver import CouldNotRun, Limits, Session
from .handout import ASSIGNED, HANDOUT
from .judging import Calls, flattening_order, judge
from .reference import Order
from .report import Failure, FileReport, FunctionReport
from .training import judge_training

__all__ = [
    "ASSIGNED",
    "HANDOUT",
    "CouldNotRun",
    "Failure",
    "FileReport",
    "FunctionReport",
    "Limits",
    "check_file",
]


def check_file(
    path: str | Path, functions: Iterable[str] | None = None, limits: Limits | None = None
) -> FileReport:
    """Test the functions of a ``hw5.py`` against the handout.

    Parameters
    ----------
    path : str or Path
    functions : iterable of str, optional
        Judge only these, and what they use where it is wrong. By default, the ten functions of the
        handout, and those around them that the file has.
    limits : Limits, optional
        What the file may take.

    Returns
    -------
    FileReport

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CouldNotRun
        If it is no Python.
    ValueError
        If a name is none of the handout's.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "hw5.py")
    ...     _ = path.write_text("def fc(x, w, b):\\n    return w.T @ x + b\\n")
    ...     report = check_file(path, ["fc"])
    >>> report.failing
    ['fc']
    >>> report.functions[0].failure.likely
    'w is transposed: it is y = w x + b'
    """
    path, start = Path(path), time.perf_counter()
    asked = list(HANDOUT if functions is None else functions)
    unknown = [name for name in asked if name not in HANDOUT]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no function of the handout; want {', '.join(HANDOUT)}")
    if path.suffix == ".ipynb":
        raise CouldNotRun(f"{path}: is a notebook; export it as Python and check that")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; want a student's hw5.py")
    session = Session(path, limits or Limits())
    found = _judge_all(session, _with_uses(asked))
    due = ASSIGNED if functions is None else {*ASSIGNED, *asked}
    reports = [
        found.get(name) or FunctionReport(name, "missing", notes=_other_name(name, session))
        for name in _with_uses(asked)
        if name in found or name in due
    ]
    # Of those not asked for, what keeps others from being judged.
    kept = tuple(report for report in reports if report.name in asked or report.failing)
    return FileReport(path, kept, tuple(session.notes), time.perf_counter() - start)


def _other_name(name: str, session: Session) -> tuple[str, ...]:
    """A note on a function of the file that may be the missing one, under another name."""
    plain = {_plain(other): other for other in session.names if other not in HANDOUT}
    alike = difflib.get_close_matches(_plain(name), plain, 1, cutoff=0.7)
    return tuple(f"there is {plain[one]}: is it this one, by another name?" for one in alike)


def _plain(name: str) -> str:
    """A name without its class and without what is misspelt most easily."""
    return name.rpartition(".")[2].replace("_", "").lower()


def _judge_all(session: Session, names: list[str]) -> dict[str, FunctionReport]:
    """Judge functions, those first of which others are made."""
    simple = [name for name in names if not HANDOUT[name].uses]
    composed = [name for name in names if HANDOUT[name].uses]
    # Of the composed ones, this run only tells which are there.
    calls = _calls(session, {**{n: cases(n) for n in simple}, **{n: [] for n in composed}})
    order = flattening_order(calls.get("flattening", ()))
    found = {name: judge(name, calls[name], session, order) for name in simple if name in calls}
    for name in composed:
        if name in calls:
            found[name] = _judge_composed(name, session, found, order)
    return found


def _judge_composed(
    name: str, session: Session, found: dict[str, FunctionReport], order: Order
) -> FunctionReport:
    """Judge a function made of others, unless one of these is wrong."""
    uses = HANDOUT[name].uses
    absent = [used for used in uses if used not in found and used in ASSIGNED]
    blocked = absent + [used for used in uses if used in found and found[used].failing]
    if blocked:
        note = f"it uses {', '.join(blocked)}, which must be right first"
        return FunctionReport(name, "not judged", notes=(note,))
    if name.startswith("train"):
        return judge_training(name, session)
    return judge(name, _calls(session, {name: cases(name)})[name], session, order)


def _calls(session: Session, wanted: dict[str, list[Case]]) -> dict[str, Calls]:
    outcomes = session.call(wanted)
    return {name: list(zip(wanted[name], outcomes[name], strict=False)) for name in outcomes}


def _with_uses(names: Iterable[str]) -> list[str]:
    """The functions and those that they are made of, in the handout's order."""
    wanted = set(names) | {used for name in names for used in HANDOUT[name].uses}
    return [name for name in HANDOUT if name in wanted]
