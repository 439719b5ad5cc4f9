"""What a check found, as text, for a notebook, and as JSON."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Check", "Culprit", "Entry", "GradientError", "GradientReport"]

_MEANING = {
    "ok": "the gradient agrees with the differences",
    "wrong": "the gradient does not agree with the differences",
    "kink": "the point lies on a kink, where no gradient can be called wrong",
    "inconclusive": "the differences do not agree with each other, so they say nothing",
    "nondeterministic": "two runs on the same arguments differ",
    "nonfinite": "there is NaN or infinity, so there is nothing to compare",
}


class GradientError(AssertionError):
    """A gradient is wrong; its ``report`` says how.

    Attributes
    ----------
    report : GradientReport
    """

    def __init__(self, report: GradientReport) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class Check:
    """One directional derivative, by the engine and by differences."""

    order: int
    engine: float
    numeric: float
    error: float
    tolerance: float
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """The worst entry of the gradient of an argument."""

    argument: str
    index: tuple[int, ...]
    engine: float
    numeric: float
    error: float
    wrong: bool


@dataclass(frozen=True)
class Culprit:
    """An op whose gradient is wrong at its own inputs.

    Attributes
    ----------
    op : str
    number : int
        Which of the recorded calls it was, from 1.
    where : str
        File and line that called it, empty if unknown.
    shapes : tuple
        Of its arguments.
    cause : str
        What the numbers look like, empty if like nothing known.
    entries : tuple of Entry
    reproducer : str
        Python that checks the op alone.
    """

    op: str
    number: int
    where: str
    shapes: tuple[tuple[int, ...], ...]
    cause: str
    entries: tuple[Entry, ...]
    reproducer: str

    def __str__(self) -> str:
        shapes = ", ".join(map(str, self.shapes))
        place = f", called at {self.where}" if self.where else ""
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.op} (call {self.number}, arguments {shapes}{place}){cause}"


@dataclass(frozen=True)
class GradientReport:
    """The result of a check.

    Attributes
    ----------
    verdict : str
        ``ok``, ``wrong``, ``kink``, ``inconclusive``, ``nondeterministic`` or ``nonfinite``.
    function : str
        Name of what was checked.
    reason : str
        What led to the verdict, in a sentence.
    checks : tuple of Check
        The directional derivatives that were compared.
    entries : tuple of Entry
        Of a wrong gradient, the worst entry of each argument.
    broken : tuple of str
        Laws that do not hold.
    culprits : tuple of Culprit
        The ops that are to blame.
    cause : str
        What the wrong gradient looks like as a whole.
    second_opinion : float or None
        The first directional derivative by a complex step, where that could be taken.
    reproducer : str
        Python that runs the check again.
    """

    verdict: str
    function: str
    reason: str = ""
    checks: tuple[Check, ...] = ()
    entries: tuple[Entry, ...] = ()
    broken: tuple[str, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    cause: str = ""
    second_opinion: float | None = None
    reproducer: str = ""
    draw: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def conclusive(self) -> bool:
        """Whether the example counts, on a kink for the entries beside it, and is not set aside."""
        beside = self.verdict == "kink" and any(check.verdict == "ok" for check in self.checks)
        return beside or self.verdict in ("ok", "wrong", "nondeterministic")

    @property
    def graph(self) -> Any:
        """The picture of the function's graph, with the ops to blame marked; None if unknown."""
        return None if self.draw is None else self.draw()

    def __str__(self) -> str:
        lines = [f"{self.function}: {self.verdict}: {self.reason or _MEANING[self.verdict]}"]
        lines += [f"  broken law: {law}" for law in self.broken]
        for check in self.checks:
            lines.append(
                f"  order {check.order}: gradient {check.engine:.10g}, differences "
                f"{check.numeric:.10g} +- {check.error:.1g} ({check.verdict}"
                + (f", {check.note})" if check.note else ")")
            )
        if self.second_opinion is not None:
            lines.append(f"  complex step, for a second opinion: {self.second_opinion:.10g}")
        for entry in self.entries:
            place = f"{entry.argument}{list(entry.index) if entry.index else ''}"
            mark = "wrong" if entry.wrong else "right"
            lines.append(
                f"  {place}: gradient {entry.engine:.10g}, differences {entry.numeric:.10g} "
                f"+- {entry.error:.1g} ({mark})"
            )
        if self.cause:
            lines.append(f"  likely cause: {self.cause}")
        lines += [f"  to blame: {culprit}" for culprit in self.culprits]
        if self.verdict != "ok" and self.reproducer:
            lines += ["  run it again:", *(f"    {s}" for s in self.reproducer.splitlines())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = {"ok": "#2a7d2a", "wrong": "#b00020", "nondeterministic": "#b00020"}
        head = (
            f'<b style="color:{colour.get(self.verdict, "#8a6d00")}">{self.verdict}</b> '
            f"{html.escape(self.function)}: {html.escape(self.reason or _MEANING[self.verdict])}"
        )
        rows = "".join(
            f"<tr><td>{html.escape(e.argument)}{list(e.index) if e.index else ''}</td>"
            f"<td>{e.engine:.8g}</td><td>{e.numeric:.8g} &plusmn; {e.error:.1g}</td>"
            f"<td>{'wrong' if e.wrong else 'right'}</td></tr>"
            for e in self.entries
        )
        titles = "<tr><th>worst entry</th><th>gradient</th><th>differences</th><th></th></tr>"
        table = f"<table>{titles}{rows}</table>" if rows else ""
        notes = [f"broken law: {law}" for law in self.broken]
        notes += [f"likely cause: {self.cause}"] if self.cause else []
        notes += [f"to blame: {culprit}" for culprit in self.culprits]
        items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        rerun = self.reproducer if self.verdict != "ok" else ""
        return (
            f"<div>{head}{table}"
            + (f"<ul>{items}</ul>" if items else "")
            + (self._picture() if self.verdict == "wrong" else "")
            + (f"<pre>{html.escape(rerun)}</pre>" if rerun else "")
            + "</div>"
        )

    def _picture(self) -> str:
        """Draw the graph as SVG, if there is one and something to draw it with."""
        from ..drawing import RendererError

        try:
            svg = "" if self.graph is None else str(self.graph.svg())
        except RendererError:
            return ""
        return svg[svg.find("<svg") :]

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the picture as plain data."""
        shown = dataclasses.replace(self, draw=None)
        plain = dataclasses.asdict(shown)
        del plain["draw"]
        return plain

    def to_json(self, **options: Any) -> str:
        """Give everything but the picture as JSON; NaN and infinity as strings.

        Examples
        --------
        >>> GradientReport("ok", "f").to_json()[:34]
        '{"verdict": "ok", "function": "f",'
        """
        return json.dumps(_finite(self.to_dict()), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    return value
