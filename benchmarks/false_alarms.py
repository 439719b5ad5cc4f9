"""Check random right programs: none may be called wrong, and few set aside.

    python -m benchmarks.false_alarms [--programs 2000] [--seed 0] [--order 1] [--json FILE]

The programs are those of :func:`tinygrad_hw.testing.strategies.programs`, over every primitive of
the package, kinks and ties included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis

from tinygrad_hw.testing import check_gradients
from tinygrad_hw.testing.strategies import programs


def verdicts(count: int, seed: int = 0, order: int = 1) -> tuple[Counter[str], list[Any]]:
    """Check random programs: count the verdicts, and give the reports that are false alarms.

    Parameters
    ----------
    count : int
        Number of programs.
    seed : int
    order : int
        Of the derivatives.
    """
    counts: Counter[str] = Counter()
    alarms: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(program=programs())
    def check(program: Any) -> None:
        report = check_gradients(program, *program.args, order=order, raises=False)
        counts[report.verdict] += 1
        if report.verdict in ("wrong", "nondeterministic"):
            alarms.append(report)

    check()
    return counts, alarms


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--order", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--json", type=Path, help="file for the counts")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    counts, alarms = verdicts(options.programs, options.seed, options.order)
    total = counts.total()
    aside = 1 - counts["ok"] / total
    for report in alarms:
        print(report)
    print(f"{total} right programs:", ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    print(f"{aside:.1%} set aside; {1e3 * (time.perf_counter() - start) / total:.0f} ms a program")
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")
    return 0 if not alarms and aside <= 0.2 else 1


if __name__ == "__main__":
    sys.exit(main())
