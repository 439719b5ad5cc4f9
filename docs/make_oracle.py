"""Draw oracle.png of testing.md: how differences become a verdict; run it after a change there."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_hw.testing.oracle import Sample, Slope, slope

HERE = Path(__file__).parent
COARSE, FINE, GREY = "#20639b", "#b5541c", "#888888"


def central(f: Any, h: float) -> float:
    """The central difference of a function at 0."""
    return (f(h) - f(-h)) / (2 * h)


def ladder(f: Any, h: float) -> float:
    """Four central differences, extrapolated to the step 0."""
    column = [central(f, h / 2**i) for i in range(4)]
    for power in (4, 16, 64):
        column = [(power * b - a) / (power - 1) for a, b in itertools.pairwise(column)]
    return column[0]


def smooth(axes: Any) -> None:
    """Errors by the step, of a smooth function: both ladders lie where they are small."""

    def f(t: float) -> float:
        return math.sin(1 + t) * math.exp(1 + t)

    truth = math.e * (math.sin(1) + math.cos(1))
    steps = np.geomspace(1e-8, 1, 160)
    for method, colour, name in ((central, GREY, "central difference"), (ladder, "k", "ladder")):
        errors = [abs(method(f, h) - truth) / truth + 1e-17 for h in steps]
        axes.loglog(steps, errors, color=colour, lw=1, label=name)
    found = judged(f)
    for h, colour, name in (
        (1 / 64, COARSE, "coarse ladder"),
        (1 / 64 / 85.3, FINE, "fine ladder"),
    ):
        axes.axvspan(h / 8, h, color=colour, alpha=0.25, label=name)
    axes.axhline(found.error / truth, color="k", ls=":", lw=1, label="error bar")
    axes.set(
        title=f"sin(x) exp(x): {found.kind}",
        xlabel="step",
        ylabel="relative error",
        ylim=(1e-17, 10),
    )
    axes.legend(fontsize=7, loc="upper left")


def coarse(axes: Any) -> None:
    """What both ladders say of sin(500 t), by their longest step."""

    def f(t: float) -> float:
        return math.sin(500 * t + 1)

    steps = np.geomspace(1e-5, 0.5, 300)
    axes.semilogx(steps, [ladder(f, h) for h in steps], color=COARSE, lw=1, label="coarse ladder")
    fine = [ladder(f, h / 85.3) for h in steps]
    axes.semilogx(steps, fine, color=FINE, lw=1.5, label="fine ladder")
    found = judged(f, step=0.5)
    axes.set(title=f"sin(500 x), step 0.5: {found.kind}", xlabel="longest step", ylabel="slope")
    axes.set_ylim(-300, 600)
    axes.legend(fontsize=7, loc="lower left")


def kink(axes: Any) -> None:
    """A relu at 0, with the slopes on both sides."""

    def f(t: float) -> float:
        return max(t, 0.0)

    t = np.linspace(-1, 1, 101)
    axes.plot(t, np.maximum(t, 0), color="k", lw=1.5, label="relu")
    for share in np.linspace(0, 1, 6):
        axes.plot(t, share * t, color=COARSE, lw=0.7, alpha=0.6)
    axes.plot([], [], color=COARSE, lw=0.7, label="accepted slopes, 0 to 1")
    axes.plot(t, 1.5 * t, color=FINE, lw=1, ls="--", label="wrong: 1.5")
    found = slope(lambda s: Sample(f(s), abs(f(s)), (("relu", np.sign(s)),)))
    axes.set(title=f"relu at 0: {found.kind}", xlabel="x", ylim=(-1, 1))
    axes.legend(fontsize=7, loc="upper left")


def judged(f: Any, step: float | None = None) -> Slope:
    """What the oracle says of a function of one number."""
    return slope(lambda t: Sample(f(t), abs(f(t))), step=step)


def main() -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    for draw, ax in zip((smooth, coarse, kink), axes, strict=True):
        draw(ax)
    figure.savefig(HERE / "oracle.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
