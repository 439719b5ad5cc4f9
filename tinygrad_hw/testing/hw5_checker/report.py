"""What the checker found in a file, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .handout import HANDOUT

FAILING = ("wrong", "missing", "raised", "too slow")


@dataclass(frozen=True)
class Failure:
    """One call that went wrong, the smallest that did.

    Attributes
    ----------
    example : str
        Python that makes the call.
    expected, got : str
    likely : str
        The likely mistake in one sentence, empty if the numbers look like no known one.
    """

    example: str
    expected: str
    got: str
    likely: str = ""


@dataclass(frozen=True)
class FunctionReport:
    """The verdict on one function.

    Attributes
    ----------
    name : str
    verdict : str
        ``"ok"``, ``"wrong"``, ``"missing"``, ``"raised"`` or ``"too slow"``; ``"not judged"`` where
        nothing can be said, as of a function that uses another one which is wrong.
    seconds : float
        What its calls took.
    failure : Failure or None
    notes : tuple of str
        What a reader should know and what is no mistake.
    """

    name: str
    verdict: str
    seconds: float = 0.0
    failure: Failure | None = None
    notes: tuple[str, ...] = ()

    @property
    def failing(self) -> bool:
        """Whether the function has to be corrected."""
        return self.verdict in FAILING

    @property
    def section(self) -> str:
        """What the handout says of the function."""
        return HANDOUT[self.name].section(self.name)

    def line(self) -> str:
        """Name, verdict and notes in one line."""
        return f"  {self.name:27}{self.verdict:12}{'; '.join(self.notes)}".rstrip()

    def details(self) -> str:
        """The failure as a paragraph, empty if there is none."""
        parts = [f"{self.name}: {self.verdict}"]
        if self.failure is not None:
            if self.failure.likely:
                parts.append(_wrapped(f"Likely: {self.failure.likely}"))
            parts += [
                f"  Run this beside the file:\n\n{_block(self.failure.example)}\n",
                f"  Expected:\n{_block(self.failure.expected)}",
                f"  Got:\n{_block(self.failure.got)}",
            ]
        parts.append(_wrapped(f"Handout: {self.section}"))
        return "\n".join(parts)


@dataclass(frozen=True)
class FileReport:
    """The verdicts on a file.

    Attributes
    ----------
    path : Path
    functions : tuple of FunctionReport
    notes : tuple of str
        What was left out of the file to get at its functions.
    seconds : float
    """

    path: Path
    functions: tuple[FunctionReport, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no function has to be corrected."""
        return not self.failing

    @property
    def failing(self) -> list[str]:
        """The names of the functions that have to be corrected."""
        return [function.name for function in self.functions if function.failing]

    def text(self) -> str:
        """One line per function, then what went wrong."""
        right = sum(function.verdict == "ok" for function in self.functions)
        head = f"{self.path}: {right} of {len(self.functions)} functions right"
        lines = [f"{head} ({self.seconds:.1f} s)", *(f"note: {note}" for note in self.notes), ""]
        lines += [function.line() for function in self.functions]
        for function in self.functions:
            if function.failing:
                lines += ["", function.details()]
        return "\n".join(lines)

    def json(self) -> str:
        """The same as JSON."""
        return json.dumps(
            {
                "file": str(self.path),
                "verdict": "ok" if self.ok else "wrong",
                "failing": self.failing,
                "seconds": round(self.seconds, 2),
                "notes": list(self.notes),
                "functions": [_plain(function) for function in self.functions],
            },
            indent=2,
        )


def _plain(function: FunctionReport) -> dict[str, Any]:
    plain = {**asdict(function), "seconds": round(function.seconds, 3)}
    if function.failing:
        plain["section"] = function.section
    return plain


def _block(text: str) -> str:
    return textwrap.indent(text, "      ")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="    ")
