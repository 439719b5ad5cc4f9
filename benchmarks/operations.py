"""One operation after the other with its gradient, each way of ours beside PyTorch.

``python -m benchmarks.operations`` finds what is slow: the workloads are made of few operations.
Each contender is a process of its own, which answers with its time for each case in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.__main__ import chosen, interpreters
from benchmarks.report import number
from benchmarks.runner import Worker
from benchmarks.workloads import fingerprint

_CONTENDERS = ("eager", "numpy", "numba", "torch")
_SECONDS, _MOST = 0.2, 300
_TOLERANCE = 2e-3


class Case(NamedTuple):
    """An operation on tensors of some shapes, in our words and, where they differ, in PyTorch's.

    Both take a namespace and the tensors; entries are normal numbers, or between 0.1 and 0.9 if
    ``positive``.
    """

    shapes: Sequence[tuple[int, ...]]
    ours: Callable[..., Any]
    theirs: Callable[..., Any] | None = None
    positive: bool = False


_X, _ROW, _COLUMN = (256, 512), (512,), (256, 1)
_IMAGES, _CUBE = (16, 32, 32, 16), (64, 64, 256)
_LABELS = np.random.default_rng(1).integers(0, 512, 256)
_PLACES = np.random.default_rng(2).integers(0, 256, 1000)
_MASK = np.random.default_rng(3).random(_X) < 0.5


def _last(name: str) -> Callable[..., Any]:
    """Along the last axis: what we call ``axis`` is ``dim`` there."""
    return lambda m, x: getattr(m, name)(x, -1)


def _unary(name: str, shape: tuple[int, ...] = _X, *, positive: bool = False) -> Case:
    return Case([shape], lambda m, x: getattr(m, name)(x), positive=positive)


def _activation(name: str, shape: tuple[int, ...] = _X) -> Case:
    return Case(
        [shape],
        lambda m, x: getattr(m, name)(x),
        lambda t, x: getattr(t.nn.functional, name)(x),
    )


def _images_first(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def _conv(t: Any, x: Any, w: Any, **options: Any) -> Any:
    return t.nn.functional.conv2d(_images_first(x), w.permute(3, 2, 0, 1), **options)


CASES: dict[str, Case] = {
    **{
        name: _unary(name)
        for name in "exp tanh sigmoid square abs expm1 relu sin cos tan arctan sinh erf".split()
    },
    **{
        name: _unary(name, positive=True)
        for name in "sqrt log log1p log2 reciprocal arcsin arctanh".split()
    },
    **{name: _activation(name) for name in "softplus gelu silu elu leaky_relu".split()},
    "exp of 4 MB": _unary("exp", _CUBE),
    "gelu of 4 MB": _activation("gelu", _CUBE),
    "x + y": Case([_X, _X], lambda m, x, y: x + y),
    "x * y": Case([_X, _X], lambda m, x, y: x * y),
    "x / y": Case([_X, _X], lambda m, x, y: x / y, positive=True),
    "x - row": Case([_X, _ROW], lambda m, x, y: x - y),
    "x * column": Case([_X, _COLUMN], lambda m, x, y: x * y),
    "x ** 2": Case([_X], lambda m, x: x**2),
    "x ** 3": Case([_X], lambda m, x: x**3),
    "x ** 0.5": Case([_X], lambda m, x: x**0.5, positive=True),
    "x ** y": Case([_X, _X], lambda m, x, y: x**y, positive=True),
    "maximum": Case([_X, _X], lambda m, x, y: m.maximum(x, y)),
    "where": Case(
        [_X, _X],
        lambda m, x, y: m.where(_MASK, x, y),
        lambda t, x, y: t.where(t.from_numpy(_MASK), x, y),
    ),
    "clip": Case([_X], lambda m, x: m.clip(x, -0.5, 0.5)),
    "sum by columns": Case([_X], lambda m, x: x.sum(0)),
    "sum by rows": Case([_X], lambda m, x: x.sum(1)),
    "mean": Case([_X], lambda m, x: x.mean()),
    "max by rows": Case([_X], lambda m, x: x.max(1), lambda t, x: x.amax(1)),
    "var by rows": Case([_X], lambda m, x: m.var(x, 1), lambda t, x: x.var(1, unbiased=False)),
    "norm": Case([_X], lambda m, x: m.norm(x), lambda t, x: x.norm()),
    "prod": Case([_X], _last("prod"), positive=True),
    "cumsum": Case([_X], _last("cumsum")),
    "cumprod": Case([_X], _last("cumprod"), positive=True),
    "logsumexp": Case([_X], _last("logsumexp")),
    "softmax": Case([_X], _last("softmax")),
    "log_softmax": Case([_X], _last("log_softmax")),
    "cross-entropy": Case(
        [_X],
        lambda m, x: m.softmax_cross_entropy(x, _LABELS),
        lambda t, x: t.nn.functional.cross_entropy(x, t.from_numpy(_LABELS)),
    ),
    "binary cross-entropy": Case(
        [_X],
        lambda m, x: m.binary_cross_entropy_with_logits(x, _MASK),
        lambda t, x: t.nn.functional.binary_cross_entropy_with_logits(
            x, t.from_numpy(_MASK).float()
        ),
    ),
    "squared error": Case(
        [_X, _X],
        lambda m, x, y: m.mse_loss(x, y),
        lambda t, x, y: t.nn.functional.mse_loss(x, y),
    ),
    "absolute error": Case(
        [_X, _X],
        lambda m, x, y: m.l1_loss(x, y),
        lambda t, x, y: t.nn.functional.l1_loss(x, y),
    ),
    "matmul": Case([_X, (512, 256)], lambda m, x, y: x @ y),
    "matmul of a batch": Case([(8, 64, 32), (8, 32, 64)], lambda m, x, y: x @ y),
    "matrix and vector": Case([_X, _ROW], lambda m, x, y: x @ y),
    "dot": Case([(100_000,), (100_000,)], lambda m, x, y: x @ y),
    "attention": Case(
        [(16, 4, 64, 32)] * 3,
        lambda m, q, k, v: m.softmax(q @ m.swapaxes(k, -1, -2) * 0.2, -1) @ v,
    ),
    "einsum": Case([(8, 64, 32)] * 2, lambda m, x, y: m.einsum("bij,bkj->bik", x, y)),
    "x.T": Case([_X], lambda m, x: x.T * 2),
    "concatenate": Case(
        [_X, _X], lambda m, x, y: m.concatenate([x, y], axis=1), lambda t, x, y: t.cat([x, y], 1)
    ),
    "stack": Case([_X, _X], lambda m, x, y: m.stack([x, y])),
    "slice": Case([_X], lambda m, x: x[10:200, ::2]),
    "rows by number": Case([_X], lambda m, x: x[_PLACES]),
    "entries by mask": Case([_X], lambda m, x: x[_MASK], lambda t, x: x[t.from_numpy(_MASK)]),
    "flip": Case([_X], lambda m, x: m.flip(x, 1), lambda t, x: x.flip(1)),
    "roll": Case([_X], lambda m, x: m.roll(x, 3, 1)),
    "pad": Case([_X], lambda m, x: m.pad(x, 1), lambda t, x: t.nn.functional.pad(x, (1,) * 4)),
    "sort": Case([_X], lambda m, x: m.sort(x, 1), lambda t, x: x.sort(1)[0]),
    "layer_norm": Case(
        [_X, _ROW, _ROW],
        lambda m, x, w, b: m.layer_norm(x, w, b),
        lambda t, x, w, b: t.nn.functional.layer_norm(x, _ROW, w, b),
    ),
    "batch_norm": Case(
        [_X, _ROW, _ROW],
        lambda m, x, w, b: m.batch_norm(x, w, b, training=True),
        lambda t, x, w, b: t.nn.functional.batch_norm(x, None, None, w, b, True),
    ),
    "conv 3x3": Case(
        [_IMAGES, (3, 3, 16, 32)],
        lambda m, x, w: m.conv2d(x, w, padding="same"),
        lambda t, x, w: _conv(t, x, w, padding=1),
    ),
    "conv 1x1": Case(
        [_IMAGES, (1, 1, 16, 32)],
        lambda m, x, w: m.conv2d(x, w),
        _conv,
    ),
    "conv by channel": Case(
        [_IMAGES, (3, 3, 1, 16)],
        lambda m, x, w: m.conv2d(x, w, padding="same", groups=16),
        lambda t, x, w: _conv(t, x, w, padding=1, groups=16),
    ),
    "max_pool": Case(
        [_IMAGES],
        lambda m, x: m.max_pool2d(x, 2),
        lambda t, x: t.nn.functional.max_pool2d(_images_first(x), 2),
    ),
    "avg_pool": Case(
        [_IMAGES],
        lambda m, x: m.avg_pool2d(x, 2),
        lambda t, x: t.nn.functional.avg_pool2d(_images_first(x), 2),
    ),
    "solve": Case(
        [(64, 64), (64, 8)],
        lambda m, a, b: m.solve(a @ a.T + 1, b),
        lambda t, a, b: t.linalg.solve(a @ a.T + 1, b),
    ),
}


def values(case: Case) -> list[np.ndarray[Any, Any]]:
    """The tensors of a case, as arrays of float32."""
    rng = np.random.default_rng(0)
    draw = (lambda s: rng.uniform(0.1, 0.9, s)) if case.positive else rng.standard_normal
    return [draw(shape).astype(np.float32) for shape in case.shapes]


def step_of(case: Case, contender: str) -> Callable[[], list[Any]]:
    """Give the function that computes the sum of an operation, and the gradients."""
    if contender == "torch":
        import torch

        torch.set_num_threads(1)
        leaves = [torch.tensor(value, requires_grad=True) for value in values(case)]
        module, function = torch, case.theirs or case.ours
    else:
        import tinygrad_hw as tg

        leaves = [tg.Tensor(value, requires_grad=True) for value in values(case)]
        module, function = tg, case.ours

    def backward(*leaves: Any) -> Any:
        for leaf in leaves:
            leaf.grad = None
        total = function(module, *leaves).sum()
        total.backward()
        return total

    run = backward
    if contender in ("numpy", "numba"):
        run = module.compile(backward, backend=contender)
    return lambda: [run(*leaves), *[leaf.grad for leaf in leaves]]


def measured(case: Case, contender: str) -> dict[str, Any]:
    """Time an operation, in microseconds, and say what all contenders must agree on."""
    step = step_of(case, contender)
    total, *gradients = step()
    found = fingerprint(total.item(), [np.asarray(g) for g in gradients])
    seconds: list[float] = []
    for _ in range(3):
        step()
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end and len(seconds) < _MOST:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"us": 1e6 * statistics.median(seconds), **found}


def serve(contender: str) -> None:
    """Measure the cases that are named on the input, line by line."""
    for line in sys.stdin:
        try:
            answer = measured(CASES[line.strip()], contender)
        except Exception as error:
            answer = {"missing": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of the operations that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operations", description=__doc__)
    parser.add_argument("--only", help=f"operations, with commas: {', '.join(CASES)}")
    parser.add_argument("--serve", choices=_CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    try:
        names, pythons = chosen(options.only, CASES, "operation"), interpreters([])
    except ValueError as error:
        print(f"operations: {error}", file=sys.stderr)
        return 2
    print(f"{'microseconds':<22}{''.join(f'{c:>9}' for c in _CONTENDERS)}{'of torch':>10}")
    workers = {}
    for contender in _CONTENDERS:
        command = ["-m", "benchmarks.operations", "--serve", contender]
        python = pythons.get(contender, sys.executable)
        workers[contender] = Worker(command, python, contender, threads=1)
    try:
        return _print_table(names, workers)
    except KeyboardInterrupt:
        return 130
    finally:
        for worker in workers.values():
            worker.close()


def _print_table(names: list[str], workers: dict[str, Worker]) -> int:
    agreed, said = True, set()
    for name in names:
        found = {contender: worker.ask(name) for contender, worker in workers.items()}
        agreed &= _agree(found.values())
        print(row(name, found), flush=True)
        for contender, answer in found.items():
            reason = f"{contender}: {answer.get('missing')}"
            if "missing" in answer and reason not in said:
                print(reason, file=sys.stderr)
                said.add(reason)
    return 0 if agreed else 1


def row(name: str, found: dict[str, Any]) -> str:
    """Lay out the times of an operation, and ours eager as a part of PyTorch's.

    Examples
    --------
    >>> same = {"loss": 1.0, "gradients": [2.0]}
    >>> print(row("exp", {"eager": {"us": 3.0, **same}, "torch": {"us": 6.0, **same}}))
    exp                         3.0        -        -      6.0      0.50
    """
    shown = [number(found[c]["us"]) if "us" in found.get(c, {}) else "-" for c in _CONTENDERS]
    line = f"{name:<22}" + "".join(f"{text:>9}" for text in shown)
    if "-" not in (shown[0], shown[-1]):
        line += f"{found['eager']['us'] / found['torch']['us']:>10.2f}"
    return line + ("" if _agree(found.values()) else "  DIFFERS in sum or gradients")


def _agree(found: Any) -> bool:
    numbers = [[f["loss"], *f["gradients"]] for f in found if "us" in f]
    return all(
        np.allclose(mine, numbers[0], rtol=_TOLERANCE, atol=_TOLERANCE) for mine in numbers[1:]
    )


if __name__ == "__main__":
    sys.exit(main())
