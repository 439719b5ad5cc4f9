"""The results as text and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def table(title: str, rows: Sequence[Row]) -> str:
    """Lay out the rows of one workload; ratios below 1 are faster.

    Examples
    --------
    >>> print(table("W1", [{"peer": "numpy", "median": 2.0, "unit": "us", "agrees": True}]))
    W1
      contender          median     of torch  of numpy
      numpy                 2.0 us         -         -
    """
    lines = [title, f"  {'contender':<14} {'median':>10} {'of torch':>12} {'of numpy':>9}"]
    for row in rows:
        if "missing" in row:
            lines.append(f"  {row['peer']:<14} took no part: {row['missing'][:70]}")
            continue
        ratios = [_ratio(row.get(f"times {base}")) for base in ("torch", "numpy")]
        line = (
            f"  {row['peer']:<14} {number(row['median']):>10} {row['unit']:<2} "
            f"{ratios[0]:>9} {ratios[1]:>9}"
        )
        lines.append(line + ("" if row["agrees"] else "  DIFFERS in loss or gradients"))
    return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the speed of each contender against PyTorch's, or NumPy's where that is missing.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('the plot needs matplotlib: pip install "tinygrad_hw[plot]"') from None
    measured = [row for row in rows if "median" in row]
    workloads = list(dict.fromkeys(row["workload"] for row in measured))
    peers = list(dict.fromkeys(row["peer"] for row in measured))
    figure = Figure(figsize=(1.5 + 1.6 * len(workloads), 4), layout="constrained")
    axes = figure.subplots()
    for k, peer in enumerate(peers):
        mine = {row["workload"]: row for row in measured if row["peer"] == peer}
        places = [i + 0.8 * k / len(peers) for i, name in enumerate(workloads) if name in mine]
        heights = [
            1 / mine[name].get("times torch", mine[name].get("times numpy", 1.0))
            for name in workloads
            if name in mine
        ]
        axes.bar(places, heights, width=0.8 / len(peers), label=peer)
    axes.set_yscale("log")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks([i + 0.4 for i in range(len(workloads))], workloads)
    axes.set_ylabel("times as fast as PyTorch eager")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path)
