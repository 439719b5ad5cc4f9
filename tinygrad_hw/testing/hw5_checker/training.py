"""Judges the functions that train: step by step where they can be steered, else by the loss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import reference
from .cases import Case, easy_training, exact_training
from .compare import close
from .driver import Outcome, Session
from .handout import HANDOUT
from .judging import as_array, example, stopped_by
from .reference import Array
from .report import Failure, FunctionReport

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "train_mlp": {"w1": (30, 196), "b1": (30, 1), "w2": (10, 30), "b2": (10, 1)},
    "train_cnn": {"w_conv": (3, 3, 1, 3), "b_conv": (3, 1), "w_fc": (10, 147), "b_fc": (10, 1)},
}
GRADIENTS = {"train_mlp": reference.mlp_gradients, "train_cnn": reference.cnn_gradients}
# No weight moves at the first rate, which shows where a training starts.
STILL, RATE = 1e-300, 0.125
STEPS = 4
EASY_STEPS = 300
FEW_CALLS = 2000
# What a step may look like that is not Algorithm 1's.
NOT_DOWN = "the weights do not move down the gradient: it is w - gamma / R * dl/dw"
UPWARDS = "the weights move up the gradient: it is w - gamma / R * dl/dw"
MISTAKES: dict[str, tuple[float, dict[str, bool]]] = {
    UPWARDS: (-1.0, {}),
    "the sum over the images is not divided by their number R": (1.0, {"averaged": False}),
    "only the last image of a mini-batch counts: add up over all (+= where = stands)": (
        1.0,
        {"last_image_only": True},
    ),
    "only the last image of a mini-batch counts, not divided by R": (
        1.0,
        {"last_image_only": True, "averaged": False},
    ),
    "only the first mini-batch is used: go on to the next one at each step": (
        1.0,
        {"first_batch_only": True},
    ),
    "the sums of the gradients are not set to 0 before a mini-batch": (1.0, {"carried_over": True}),
}


def judge_training(name: str, session: Session) -> FunctionReport:
    """The verdict on ``train_mlp`` or ``train_cnn``, whose own functions are right."""
    if {"learning_rate", "num_iters"} <= set(session.parameters[name]):
        exact = _judge_steps(name, session)
        if exact is not None:
            return exact
    return _judge_loss(name, session)


# --- Step by step -----------------------------------------------------------------------------


def _judge_steps(name: str, session: Session) -> FunctionReport | None:
    """Compare a few steps with Algorithm 1; None where they are neither it nor a known mistake."""
    still = _exact(name, session, STILL, 1)
    short = _exact(name, session, RATE, STEPS)
    outcomes = session.call({name: [still, still, short]})[name]
    if any(outcome.ended or outcome.raised for outcome in outcomes):
        # Perhaps only because it counts on 32 images.
        return None
    for case, outcome in zip([still, still, short], outcomes, strict=True):
        failed = _failed(name, case, outcome, session)
        if failed is not None:
            return failed
    start, again, end = (_weights(name, outcome) for outcome in outcomes)
    if not (start and again and end and _same(start, again)):
        return None
    arguments = short.named()
    batches = list(zip(arguments["mini_batch_x"], arguments["mini_batch_y"], strict=True))

    def after(rate: float, **mistake: bool) -> list[Array]:
        return reference.train(GRADIENTS[name], start, batches, rate, STEPS, **mistake)

    if _same(end, after(RATE)):
        # The first step is slow, as everything is when it is used for the first time.
        step = min(outcomes[1].seconds, outcomes[2].seconds / STEPS)
        return _judge_decay(name, session, _ok(name, outcomes[2]), step)
    for sentence, (sign, mistake) in MISTAKES.items():
        if _same(end, after(sign * RATE, **mistake)):
            return _wrong(short, session, "the weights of Algorithm 1", "other weights", sentence)
    unmoved = [w for w, a, b in zip(SHAPES[name], start, end, strict=True) if np.array_equal(a, b)]
    if unmoved:
        sentence = f"no step changes {' and '.join(unmoved)}: update all four"
        return _wrong(short, session, "four arrays that change", "some that do not", sentence)
    return None


def _judge_decay(
    name: str, session: Session, ok: FunctionReport, step_seconds: float
) -> FunctionReport:
    """Whether the learning rate decays at every 1000th step, where there is time to see it."""
    if "decay_rate" not in session.parameters[name]:
        return ok
    if 3000 * step_seconds > session.limits.train_seconds:
        return replace(ok, notes=(*ok.notes, "too slow to see its learning rate decay"))
    # With this factor nothing moves after the first decay.
    runs = [_exact(name, session, RATE, steps, STILL) for steps in (1, 900, 1002, 1010)]
    outcomes = session.call({name: runs})[name]
    first, before, after, later = (
        [_weights(name, o) for o in outcomes] if len(outcomes) == len(runs) else [None] * 4
    )
    if not (first and before and after and later) or _identical(first, before):
        # A decay at step 0 as well is no more than another learning rate.
        return ok
    if not _identical(after, later):
        sentence = "the learning rate is not multiplied by decay_rate at every 1000th step"
    elif _identical(before, after):
        sentence = "the learning rate decays before the 1000th step"
    else:
        return ok
    return _wrong(runs[3], session, "a decay at every 1000th step", "another one", sentence)


def _exact(name: str, session: Session, rate: float, steps: int, decay: float = 1.0) -> Case:
    case = exact_training(name, rate, steps, decay)
    taken = session.parameters[name]
    return case._replace(keywords={k: v for k, v in case.keywords.items() if k in taken})


# --- By the loss ------------------------------------------------------------------------------


def _judge_loss(name: str, session: Session) -> FunctionReport:
    """Whether training lowers the loss on images that are easy to learn."""
    steps = {p: EASY_STEPS for p in session.parameters[name] if re.search("iter|epoch", p.lower())}
    case = easy_training(name, steps, session.limits.train_seconds)
    (outcome,) = session.call({name: [case]})[name]
    if outcome.slow:
        return _not_judged(name, outcome, f"trained for over {session.limits.seconds:g} s")
    if outcome.system:
        return _not_judged(name, outcome, f"reads or writes files ({outcome.raised})")
    failed = _failed(name, case, outcome, session)
    if failed is not None:
        return failed
    if _direction(name, case, outcome.steps) < -0.5:
        return _wrong(case, session, "a step down the gradient", "a step up", UPWARDS)
    if not outcome.first:
        learnt = _final_loss(name, case, _weights(name, outcome)) < np.log(10) - 0.1
        return _ok(name, outcome) if learnt else _not_judged(name, outcome, "its loss was not seen")
    first, last = np.mean(outcome.first), np.mean(outcome.last)
    seen = f"the loss went from {first:.3g} to {last:.3g}"
    stopped = f"stopped after {outcome.seconds:.0f} s, before it returned; {seen}"
    if last < first:
        return _ok(name, outcome, *([stopped] if outcome.stopped else []))
    if outcome.stopped and np.isfinite(last) and outcome.calls < FEW_CALLS:
        return _not_judged(name, outcome, stopped)
    return _wrong(case, session, "a loss that falls, on the same 32 images", seen, NOT_DOWN)


def _direction(name: str, case: Case, steps: Sequence[Sequence[Array]]) -> float:
    """Cosine of the angle between the first step and the way down; 0 where it was not seen."""
    if len(steps) < 2 or [w.shape for w in steps[0]] != list(SHAPES[name].values()):
        return 0.0
    before, after = steps
    arguments = case.named()
    batch = arguments["mini_batch_x"][0], arguments["mini_batch_y"][0]
    down = _difference(before, reference.train(GRADIENTS[name], before, [batch], 1.0, 1))
    taken = _difference(before, after)
    lengths = np.linalg.norm(taken) * np.linalg.norm(down)
    return float(taken @ down / lengths) if lengths else 0.0


def _difference(a: Sequence[Array], b: Sequence[Array]) -> Array:
    return np.concatenate([(x - y).ravel() for x, y in zip(a, b, strict=True)])


def _final_loss(name: str, case: Case, weights: list[Array] | None) -> float:
    arguments = case.named()
    x, y = arguments["mini_batch_x"][0], arguments["mini_batch_y"][0]
    if not weights or not all(np.isfinite(w).all() for w in weights):
        return np.inf
    losses = [GRADIENTS[name](x[:, [n]], y[:, [n]], weights)[0] for n in range(x.shape[1])]
    return float(np.mean(losses))


# --- Both -------------------------------------------------------------------------------------


def _failed(name: str, case: Case, outcome: Outcome, session: Session) -> FunctionReport | None:
    """The report on a call that did not return the four weights."""
    if outcome.ended or outcome.raised:
        fault = stopped_by(case, outcome, session)
        failure = Failure(example(case, session.path), fault.expected, fault.got, fault.likely)
        return FunctionReport(name, fault.verdict, outcome.seconds, failure)
    if outcome.stopped:
        return None
    shapes, value = SHAPES[name], outcome.returned
    expected = ", ".join(f"{w} {shape}" for w, shape in shapes.items()) + ", losses"
    if not isinstance(value, list) or not len(shapes) <= len(value) <= len(shapes) + 1:
        sentence = f"it does not return {', '.join(HANDOUT[name].results)}"
        return _wrong(case, session, expected, _kinds(value), sentence)
    arrays = [as_array(v) for v in value[: len(shapes)]]
    off = [
        w
        for (w, shape), array in zip(shapes.items(), arrays, strict=True)
        if array is None or array.shape != shape
    ]
    if off:
        sentence = f"{' and '.join(off)} with another shape than the handout's"
        return _wrong(case, session, expected, _kinds(value), sentence)
    if outcome.changed:
        changed = " and ".join(outcome.changed)
        sentence = f"it changes its own argument {changed}"
        return _wrong(case, session, f"{changed} as before", "other entries", sentence)
    return None


def _ok(name: str, outcome: Outcome, *notes: str) -> FunctionReport:
    if isinstance(outcome.returned, list) and len(outcome.returned) == len(SHAPES[name]):
        notes = (*notes, "returns no losses")
    return FunctionReport(name, "ok", outcome.seconds, notes=notes)


def _not_judged(name: str, outcome: Outcome, note: str) -> FunctionReport:
    return FunctionReport(name, "not judged", outcome.seconds, notes=(note,))


def _wrong(case: Case, session: Session, expected: str, got: str, likely: str) -> FunctionReport:
    failure = Failure(example(case, session.path), expected, got, likely)
    return FunctionReport(case.function, "wrong", failure=failure)


def _weights(name: str, outcome: Outcome) -> list[Array] | None:
    value = outcome.returned
    if not isinstance(value, list):
        return None
    return [np.asarray(w, float) for w in value[: len(SHAPES[name])]]


def _same(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return all(close(x, y) for x, y in zip(a, b, strict=True))


def _identical(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _kinds(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(np.shape(v)) if isinstance(v, np.ndarray) else repr(v) for v in value)
    return "nothing" if value is None else repr(value)
