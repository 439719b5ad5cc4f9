"""Break rules the way that people do; count what is found, how small it shrinks, and the blame.

    python -m benchmarks.rule_mutants [--seeds 5] [--only NAME ...] [--json FILE]

For each mutant and seed Hypothesis looks for a program whose gradient is wrong, among programs of
the broken op and of some right ones, and shrinks it. Counted are the mutants that were found, the
ops of the smallest programs, and whether :func:`tinygrad_hw.testing.check_gradients` blames the
broken op, and no other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.testing import check_gradients
from tinygrad_hw.testing.strategies import programs

Rule = Callable[..., Any]

COMPANIONS = ("add", "multiply", "tanh", "exp", "sum", "matmul", "transpose", "reshape", "relu")
EXAMPLES = 2000


class Mutant(NamedTuple):
    """A way to break the rule of an op."""

    kind: str
    op: str
    broken: Callable[[Rule], Rule]

    @property
    def name(self) -> str:
        return f"{self.op}: {self.kind}"


MUTANTS: list[Mutant] = []


def mutant(kind: str, *ops: str) -> Callable[[Callable[[Rule], Rule]], Callable[[Rule], Rule]]:
    """Declare a mutant of some ops: a function from the right rule to a wrong one."""

    def declare(broken: Callable[[Rule], Rule]) -> Callable[[Rule], Rule]:
        MUTANTS.extend(Mutant(kind, op, broken) for op in ops)
        return broken

    return declare


def changed(change: Callable[..., Any], position: int = 0) -> Callable[[Rule], Rule]:
    """Break a rule by a change of one of its cotangents, from it and the upstream one."""

    def broken(rule: Rule) -> Rule:
        def wrong(g: Any, *args: Any, **params: Any) -> Any:
            cotangents = list(rule(g, *args, **params))
            if cotangents[position] is not None:
                cotangents[position] = change(cotangents[position], g)
            return tuple(cotangents)

        return wrong

    return broken


# --- What people get wrong ---------------------------------------------------------------------

mutant("sign", "cos", "reciprocal", "cumsum")(changed(lambda c, g: -c))
mutant("sign", "subtract", "divide")(changed(lambda c, g: -c, 1))
mutant("factor", "square", "mean", "sqrt")(changed(lambda c, g: c * 2))
mutant("factor", "conv")(changed(lambda c, g: c / 2, 1))


@mutant("dropped sum over a broadcast axis", "expand")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, x: Any, *, shape: Any) -> Any:
        return (_first_along_broadcast(g, x.shape),)

    return wrong


@mutant("dropped sum over a broadcast axis", "add", "subtract")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, a: Any, b: Any) -> Any:
        left, right = rule(g, y, a, b)
        return left, _first_along_broadcast(right, np.shape(b) if np.isscalar(b) else b.shape)

    return wrong


def _first_along_broadcast(g: Any, shape: tuple[int, ...]) -> Any:
    lead = len(g.shape) - len(shape)
    g = g[(0,) * lead]
    return g[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]


@mutant("transposed", "matmul", "inv")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, *args: Any, **params: Any) -> Any:
        *others, last = rule(g, *args, **params)
        square = last is not None and len(last.shape) >= 2 and last.shape[-1] == last.shape[-2]
        return (*others, tg.swapaxes(last, -1, -2) if square else last)

    return wrong


@mutant("swapped arguments", "multiply", "hypot", "arctan2", "logaddexp")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, a: Any, b: Any) -> Any:
        same = getattr(a, "shape", ()) == getattr(b, "shape", ())
        return rule(g, y, a, b)[::-1] if same else rule(g, y, a, b)

    return wrong


@mutant("= for +=", "getitem", "sum_windows")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, *args: Any, **params: Any) -> Any:
        # As if of all that is sent to a place only one arrived; for equal ones it is the same.
        (right,) = rule(g, *args, **params)
        (count,) = rule(np.ones_like(getattr(g, "_data", g)), *args, **params)
        return (right / np.maximum(count, 1),)

    return wrong


@mutant("wrong axis", "softmax", "log_softmax")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, x: Any, *, axis: Any) -> Any:
        return rule(g, y, x, axis=_other(axis, x.shape))

    return wrong


@mutant("wrong axis", "sum", "cumsum", "shift")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, x: Any, *, axis: Any, **params: Any) -> Any:
        return rule(g, y, x, axis=_other(axis, x.shape), **params)

    return wrong


def _other(axis: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(axis, int) or len(shape) < 2:
        return axis
    return -1 if axis % len(shape) == 0 else 0


@mutant("wrong axis", "transpose")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, x: Any, *, axes: Any) -> Any:
        return (tg.transpose(g) if axes is None else tg.transpose(g, *axes),)

    return wrong


@mutant("wrong padding", "conv", "conv_dx")
def _(rule: Rule) -> Rule:
    def wrong(*args: Any, padding: Any, **params: Any) -> Any:
        if not isinstance(padding, str):
            padding = tuple(side[::-1] for side in padding)
        return rule(*args, padding=padding, **params)

    return wrong


@mutant("all ties", "max", "min")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, x: Any, *, axis: Any, keepdims: bool) -> Any:
        (right,) = rule(g, y, x, axis=axis, keepdims=keepdims)
        (share,) = rule(np.ones_like(getattr(g, "_data", g)), y, x, axis=axis, keepdims=keepdims)
        return (right / np.where(share == 0, 1, share),)

    return wrong


@mutant("all ties", "maximum")
def _(rule: Rule) -> Rule:
    def wrong(g: Any, y: Any, a: Any, b: Any) -> Any:
        left, right = rule(g, y, a, b)
        double = 1 + np.equal(getattr(a, "_data", a), getattr(b, "_data", b))
        return left * double, right * double

    return wrong


@mutant("stale output", "exp", "tanh", "sigmoid", "softmax")
def _(rule: Rule) -> Rule:
    first: dict[Any, Any] = {}

    def wrong(g: Any, y: Any, *args: Any, **params: Any) -> Any:
        return rule(g, first.setdefault(y.shape, y), *args, **params)

    return wrong


# --- The hunt ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catch:
    """What one search came to; ``steps`` is 0 if it found nothing."""

    mutant: str
    seed: int
    steps: int
    blamed: tuple[str, ...]
    program: str
    seconds: float


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Have the op with the wrong rule, in a ``with``."""
    primitive = tg.ops.primitives()[mutant.op]
    right = primitive.gradient
    primitive.gradient = mutant.broken(right)
    try:
        yield
    finally:
        primitive.gradient = right


def hunt(mutant: Mutant, seed: int) -> Catch:
    """Search for the smallest program that shows a mutant."""
    pool = list(dict.fromkeys([mutant.op, *COMPANIONS]))
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    start = time.perf_counter()
    with applied(mutant):
        try:
            program = hypothesis.find(
                programs(pool), shows, settings=settings, random=random.Random(seed)
            )
        except hypothesis.errors.NoSuchExample:
            return Catch(mutant.name, seed, 0, (), "", time.perf_counter() - start)
        report = check_gradients(program, *program.args, raises=False)
    blamed = tuple(dict.fromkeys(culprit.op for culprit in report.culprits))
    seconds = time.perf_counter() - start
    return Catch(mutant.name, seed, program.steps, blamed, repr(program), seconds)


def shows(program: Any) -> bool:
    """Tell whether the gradient of a program is wrong."""
    return check_gradients(program, *program.args, raises=False).verdict == "wrong"


def summary(catches: list[Catch]) -> dict[str, float]:
    """Give the shares that are promised."""
    found = [catch for catch in catches if catch.steps]
    ops = {catch: catch.mutant.split(":")[0] for catch in found}
    return {
        "found": len(found) / len(catches),
        "of one op": sum(catch.steps == 1 for catch in found) / max(len(found), 1),
        "most ops": max((catch.steps for catch in found), default=0),
        "blamed": sum(ops[catch] in catch.blamed for catch in found) / max(len(found), 1),
        "right ops blamed": sum(bool({*catch.blamed} - {ops[catch]}) for catch in found),
    }


def kept(shares: dict[str, float]) -> bool:
    """Tell whether the figures are what is promised."""
    return (
        shares["found"] == 1
        and shares["of one op"] >= 0.9
        and shares["most ops"] <= 3
        and shares["blamed"] >= 0.95
        and shares["right ops blamed"] == 0
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5, help="searches per mutant")
    parser.add_argument("--only", nargs="+", metavar="OP", help="names of ops")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.only or m.op in options.only]
    catches = []
    for mutant in chosen:
        mine = [hunt(mutant, seed) for seed in range(options.seeds)]
        catches += mine
        smallest = min((c for c in mine if c.steps), key=lambda c: len(c.program), default=mine[0])
        print(
            f"{mutant.name:45} ops {[c.steps for c in mine]} blamed "
            f"{sum(mutant.op in c.blamed for c in mine)}/{len(mine)} "
            f"{sum(c.seconds for c in mine):.0f} s  {smallest.program}",
            flush=True,
        )
    shares = summary(catches)
    print(f"{len(chosen)} mutants, {options.seeds} seeds each:", end=" ")
    print(", ".join(f"{name} {value:.3g}" for name, value in shares.items()))
    if options.json:
        found = {"shares": shares, "catches": [asdict(catch) for catch in catches]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if kept(shares) else 1


if __name__ == "__main__":
    sys.exit(main())
