"""How small an error in a gradient is noticed, by our checker and by the usual criteria.

    python -m benchmarks.sensitivity [--checks 200] [--seed 0] [--json FILE]

Each check draws a call of a primitive from its domain, scales its vjp by 1 + error, and compares
one directional derivative: by :func:`tinygrad_hw.testing.check_gradients`, and by the formulas and
defaults that the checkers of PyTorch, JAX and autograd document, on the same function in float64.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.domains import RandomDraw
from tinygrad_hw.testing import check_gradients
from tinygrad_hw.testing.calls import Call

ERRORS = (1e-2, 1e-4, 1e-6, 1e-8)
Array = np.ndarray[Any, Any]


def scaled(error: float) -> Any:
    """Make the identity whose vjp is off by a relative error."""

    @tg.primitive(name="scaled")
    def identity(x):  # type: ignore[no-untyped-def]
        return np.positive(x)

    identity.rule(lambda g, y, x: (g * (1 + error),))
    return identity


class Example:
    """A call of a primitive with a scalar result, and its gradient off by a relative error."""

    def __init__(self, seed: int, error: float) -> None:
        primitives = list(tg.ops.primitives().values())
        self.seed = seed
        while True:
            rng = np.random.default_rng(seed)
            primitive = primitives[int(rng.integers(len(primitives)))]
            args, params = primitive.domain.sample(RandomDraw(rng))
            self.call = Call(primitive, *args, **params)
            if self.call.wrt and _depends(self.call):
                break
            seed += 10_000
        self.rng = rng
        self.off = scaled(error)

    def __call__(self, *xs: Any) -> Any:
        return self.off(self.call(*xs))

    def along(self, direction: list[Array], weights: Array, t: float) -> float:
        args = list(self.call.args)
        for i, v in zip(self.call.wrt, direction, strict=True):
            args[i] = args[i] + t * v
        with np.errstate(all="ignore"):
            return float((np.asarray(self.call(*args)) * weights).sum())

    def engine(self, direction: list[Array], weights: Array) -> float:
        args = list(self.call.args)
        for i in self.call.wrt:
            args[i] = tg.Tensor(args[i], requires_grad=True)
        y = self(*args)
        y.backward(weights)
        grads = [args[i].grad for i in self.call.wrt]
        return float(sum((g * v).sum() for g, v in zip(grads, direction, strict=True)))


def _depends(call: Call) -> bool:
    """Whether the gradient is not zero, where every error is none."""
    args = [
        tg.Tensor(a, requires_grad=i in call.wrt) if i in call.wrt else a
        for i, a in enumerate(call.args)
    ]
    with np.errstate(all="ignore"):
        y = call(*args)
        y.backward(np.ones(y.shape))
    return any(np.abs(args[i].grad).max(initial=0) > 1e-6 for i in call.wrt)


# --- The criteria ------------------------------------------------------------------------------


def ours(example: Example) -> bool:
    """Tell whether our checker says ``wrong`` on one direction."""
    report = check_gradients(
        example,
        *example.call.args,
        wrt=example.call.wrt,
        directions=1,
        rng=example.rng,
        raises=False,
    )
    return report.verdict == "wrong"


def torch_style(example: Example) -> bool:
    """``torch.autograd.gradcheck``: eps 1e-6, atol 1e-5, rtol 1e-3, fast mode."""
    engine, numeric = _slopes(example, 1e-6, unit=True)
    return not abs(engine - numeric) <= 1e-5 + 1e-3 * abs(numeric)


def jax_style(example: Example) -> bool:
    """``jax.test_util.check_grads``: eps 1e-4, atol = rtol = 1e-5 in float64."""
    engine, numeric = _slopes(example, 1e-4)
    return not abs(engine - numeric) <= 1e-5 + 1e-5 * abs(numeric)


def autograd_style(example: Example) -> bool:
    """``autograd.test_util.check_grads``: eps 1e-6, 1e-6 absolute or relative."""
    engine, numeric = _slopes(example, 1e-6)
    close = abs(engine - numeric) < 1e-6
    return not (close or abs(engine - numeric) < 1e-6 * abs(engine + numeric))


def _slopes(example: Example, eps: float, unit: bool = False) -> tuple[float, float]:
    rng = np.random.default_rng(example.seed)
    direction = [rng.standard_normal(example.call.args[i].shape) for i in example.call.wrt]
    weights = rng.standard_normal(np.shape(example.call(*example.call.args)))
    if unit:
        length = np.sqrt(sum(float((v * v).sum()) for v in direction))
        direction = [v / length for v in direction]
        weights = weights / np.sqrt((weights * weights).sum())
    up, down = (example.along(direction, weights, t) for t in (eps, -eps))
    return example.engine(direction, weights), (up - down) / (2 * eps)


CRITERIA: dict[str, Callable[[Example], bool]] = {
    "tinygrad_hw": ours,
    "torch-style": torch_style,
    "JAX-style": jax_style,
    "autograd-style": autograd_style,
}


def caught(criterion: str, error: float, checks: int, seed: int = 0) -> float:
    """Give the share of wrong gradients that a criterion notices; with error 0, false alarms.

    Parameters
    ----------
    criterion : str
        A key of ``CRITERIA``.
    error : float
        Relative, of the vjp.
    checks : int
        Number of examples.
    """
    found = [CRITERIA[criterion](Example(seed + i, error)) for i in range(checks)]
    return sum(found) / checks


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--checks", type=int, default=200, help="examples per figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    errors = (*ERRORS, 0.0)
    print("wrong gradients noticed, by the relative error of the gradient; 0: false alarms")
    print(f"{'':16}" + "".join(f"{error:>9.0e}" for error in errors))
    figures: dict[str, dict[str, float]] = {}
    for name in CRITERIA:
        start = time.perf_counter()
        shares = [caught(name, error, options.checks, options.seed) for error in errors]
        figures[name] = {f"{error:g}": share for error, share in zip(errors, shares, strict=True)}
        seconds = (time.perf_counter() - start) / (options.checks * len(errors))
        line = "".join(f"{share:>9.1%}" for share in shares)
        print(f"{name:16}{line}   {1e3 * seconds:.1f} ms a check")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    mine = list(figures["tinygrad_hw"].values())
    return 0 if mine[:3] == [1, 1, 1] and mine[3] >= 0.9 and mine[4] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
