"""``tinygrad-hw check``: test a student's ``hw5.py`` against the handout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tinygrad_hw.testing.hw5_checker import HANDOUT, CouldNotRun, check_file


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "file", type=Path, help="the hw5.py to test; it runs in a process of its own"
    )
    parser.add_argument(
        "--function",
        action="append",
        choices=HANDOUT,
        metavar="NAME",
        help="judge only this function; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.epilog = "exit status: 0 all right, 1 something is wrong, 2 the file could not be run"


def run(options: argparse.Namespace) -> int:
    """Print the report; the result is the exit status."""
    try:
        report = check_file(options.file, options.function)
    except (CouldNotRun, OSError) as error:
        if not options.json:
            raise
        failure = {"file": str(options.file), "verdict": "could not run", "error": str(error)}
        print(json.dumps(failure, indent=2))
        return 2
    print(report.json() if options.json else report.text())
    return 0 if report.ok else 1
