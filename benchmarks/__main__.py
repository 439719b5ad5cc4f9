"""Measure this package and others on the same work: ``python -m benchmarks --only W2``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.report import plot, table
from benchmarks.runner import measure, summary
from benchmarks.workloads import WORKLOADS

_OURS = ("numpy", "tg", "tg-numpy", "tg-numba")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line asks for."""
    options = _parser().parse_args(arguments)
    try:
        names = chosen(options.only, WORKLOADS, "workload")
        others = [] if options.peers == "" else chosen(options.peers, PEERS, "peer")
        pythons = interpreters(options.python)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    peers = list(dict.fromkeys([*_OURS, *others]))
    rows: list[dict[str, Any]] = []
    for name in names:
        workload = WORKLOADS[name]
        results = measure(
            workload, peers, rounds=options.rounds, threads=options.threads, pythons=pythons
        )
        rows += summary(workload, results)
        title = f"{name}: {workload.title}; {options.threads} thread(s)"
        print(table(title, [row for row in rows if row["workload"] == name]), flush=True)
    if options.json:
        machine = {"machine": platform.platform(), "processor": platform.processor()}
        report = {**machine, "cpus": os.cpu_count(), "threads": options.threads, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1))
    if options.plot:
        plot(rows, options.plot)
    return 0 if all(row.get("agrees", True) for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help=f"workloads, with commas: {', '.join(WORKLOADS)}")
    parser.add_argument("--peers", help=f"besides ours, with commas: {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=15, help="how often they take turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PACKAGE=PATH",
        help="interpreter that has a package; or $BENCHMARKS_PYTHON_TORCH and so on",
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    return parser


def chosen(given: str | None, known: Any, what: str) -> list[str]:
    """Give the names that a text names, with commas between; all of them without a text.

    Raises
    ------
    ValueError
        If there is none, or one is not known.
    """
    names = list(known) if given is None else [n for n in map(str.strip, given.split(",")) if n]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no {what} is called {unknown[0]!r}; want some of {', '.join(known)}")
    if not names:
        raise ValueError(f"no {what} is named; want some of {', '.join(known)}")
    return names


def interpreters(given: Sequence[str]) -> dict[str, str]:
    """Give the interpreter for each package that one is named for, also in the environment.

    Raises
    ------
    ValueError
        If a text of ``given`` is no pair PACKAGE=PATH, or there is no program at a path.
    """
    prefix = "BENCHMARKS_PYTHON_"
    pythons = {
        key.removeprefix(prefix).lower(): path
        for key, path in os.environ.items()
        if key.startswith(prefix)
    }
    for pair in given:
        package, equals, path = pair.partition("=")
        if not equals:
            raise ValueError(f"--python {pair!r}: want PACKAGE=PATH, such as torch=/opt/bin/python")
        pythons[package] = path
    for package, path in pythons.items():
        if shutil.which(path) is None:
            raise ValueError(f"there is no interpreter {path!r} for {package}")
    return pythons


if __name__ == "__main__":
    sys.exit(main())
