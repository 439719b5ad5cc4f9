"""Judges the functions that train: step by step where they can be steered, else by the loss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from . import reference
from .cases import Case, easy_training, exact_training
from .compare import LOSS_TOLERANCE, close, show, summary
from .driver import Outcome, Session
from .handout import HANDOUT
from .judging import as_array, example, stopped_by
from .reference import Array, Gradients, Order
from .report import Failure, FunctionReport
from .steps import ROUNDING, UPWARDS, Batch, all_alike, explain, factor_of

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "train_mlp": {"w1": (30, 196), "b1": (30, 1), "w2": (10, 30), "b2": (10, 1)},
    "train_cnn": {"w_conv": (3, 3, 1, 3), "b_conv": (3, 1), "w_fc": (10, 147), "b_fc": (10, 1)},
}
_ORDERS: tuple[Order, Order] = ("C", "F")
# What may be right: the handout does not say how a column becomes an image, and back.
READINGS: dict[str, list[Gradients]] = {
    "train_mlp": [reference.mlp_gradients],
    "train_cnn": [
        partial(reference.cnn_gradients, image_order=image, order=column)
        for image in _ORDERS
        for column in _ORDERS
    ],
}
MISTAKEN: dict[str, dict[str, Gradients]] = {
    name: {
        sentence: partial(gradients, mistake=mistake)
        for mistake, sentence in (
            ("relu_backward", "relu_backward is missing on the way back"),
            ("relu", "the ReLU is missing on the way forward"),
            ("swapped", "the arguments of relu_backward are swapped: relu_backward(dl_dy, x)"),
        )
    }
    for name, gradients in (
        ("train_mlp", reference.mlp_gradients),
        ("train_cnn", reference.cnn_gradients),
    )
}
# No weight moves at the first rate, which shows where a training starts. Its square is still a
# normal number, for files that let underflow raise.
STILL, RATE = 1e-30, 0.125
# After a decay by STILL nothing moves; after one by this factor steps are shorter by just it, so
# that several decays can be told apart, in single precision too.
SOME = 2.0**-3
# Short enough for the way of a few steps to be as long as the rate is.
GENTLE = RATE / 8
BATCHES, STEPS = 4, 5
EASY_STEPS = 300
FEW_CALLS = 2000
# What a training may be that is not seen step by step.
NOT_DOWN = "the weights do not move down the gradient: it is w - gamma / R * dl/dw"
OTHER_DECAY = "a decay at every 1000th step", "another one"
BY_LOSS = "not compared step by step, as {}: judged by its loss alone"


def judge_training(name: str, session: Session) -> FunctionReport:
    """The verdict on ``train_mlp`` or ``train_cnn``, whose own functions are right."""
    if not {"learning_rate", "num_iters"} <= set(session.parameters[name]):
        return _judge_loss(name, session)
    exact = _judge_steps(name, session)
    if isinstance(exact, FunctionReport):
        return exact
    report = _judge_loss(name, session)
    return replace(report, notes=(*report.notes, BY_LOSS.format(exact)))


# --- Step by step -----------------------------------------------------------------------------


def _judge_steps(name: str, session: Session) -> FunctionReport | str:
    """Compare a few steps with Algorithm 1; say why where they cannot be compared."""
    still = _exact(name, session, STILL, 1)
    short = _exact(name, session, RATE, STEPS)
    cases = [still, still, short]
    outcomes = session.call({name: cases})[name]
    if outcomes and outcomes[0].slow:
        return _failed(name, still, outcomes[0], session) or ""
    if len(outcomes) < len(cases) or any(o.ended or o.raised for o in outcomes):
        # Perhaps only because it counts on 32 images.
        return "a run on few images fails"
    for case, outcome in zip(cases, outcomes, strict=True):
        failed = _failed(name, case, outcome, session)
        if failed is not None:
            return failed
    start, again, end = (_weights(name, outcome) for outcome in outcomes)
    if not (start and again and end and _identical(start, again)):
        return "no two runs start from the same weights"
    equal = _equal_start(name, still, session, start)
    if equal is not None:
        return equal
    batches = _few_batches(short)
    right = (
        gradients
        for gradients in READINGS[name]
        if all_alike(start, end, reference.train(gradients, start, batches, RATE, STEPS))
    )
    gradients = next(right, None)
    if gradients is None:
        return _explained(name, session, start)
    means = _mean_losses(gradients, batches, start)
    wrong, notes = _judge_losses(name, short, outcomes[2], session, means)
    if wrong is not None:
        return wrong
    # The first step is slow, as everything is when it is used for the first time.
    step = min(outcomes[1].seconds, outcomes[2].seconds / STEPS)
    return _judge_decay(name, session, _ok(name, outcomes[2], *notes), step)


def _explained(name: str, session: Session, start: list[Array]) -> FunctionReport | str:
    """Look at each step by itself, for as long as every mini-batch is due twice."""
    cases = [_exact(name, session, RATE, steps) for steps in range(1, 2 * BATCHES + 1)]
    outcomes = session.call({name: cases})[name]
    ends = [_weights(name, outcome) for outcome in outcomes]
    positions = [start, *(end for end in ends if end)]
    if len(positions) <= len(cases):
        return "a run of a few steps fails"
    names, batches = list(SHAPES[name]), _few_batches(cases[0])
    found = explain(names, READINGS[name], MISTAKEN[name], positions, batches, RATE)
    if found.right:
        return _ok(name, outcomes[-1], found.text)
    case = cases[found.step - 1]
    if found.wanted is None:
        return _wrong(case, session, "the weights of Algorithm 1", "other weights", found.text)
    weight, got = names[found.weight], positions[found.step][found.weight]
    shown = show(weight, found.wanted, got), show(weight, got, found.wanted)
    return _wrong(case, session, *shown, found.text)


def _equal_start(
    name: str, case: Case, session: Session, start: Sequence[Array]
) -> FunctionReport | None:
    """The report on weights, but for biases, which start all alike and so stay alike."""
    equal = [w for w, a in zip(SHAPES[name], start, strict=True) if w[0] == "w" and not np.ptp(a)]
    if not equal:
        return None
    listed = " and ".join(equal)
    sentence = f"all entries of {listed} start at the same number: draw them from a Gaussian"
    return _wrong(case, session, "different numbers at the start", "equal ones", sentence)


def _judge_losses(
    name: str, case: Case, outcome: Outcome, session: Session, means: Array
) -> tuple[FunctionReport | None, list[str]]:
    """What is wrong with the losses of a training, and remarks where they are another choice."""
    value = outcome.returned
    if len(value) == len(SHAPES[name]):
        return None, []
    losses = as_array(value[-1])
    shape = (STEPS, 1)
    if losses is None or not losses.size or not np.isfinite(losses).all() or not losses.any():
        sentence = "losses is not filled in: it is the mean loss of each step's mini-batch"
        expected = f"losses of shape {shape}, finite and above 0"
        return _wrong(case, session, expected, _shown_losses(value[-1]), sentence), []
    if losses.size != STEPS:
        return None, [f"losses has {losses.size} of {STEPS} entries"]
    notes = [] if losses.shape == shape else [f"losses has shape {losses.shape}, not {shape}"]
    if not close(losses.ravel(), means, LOSS_TOLERANCE):
        notes.append("losses are other than the mean loss of each step's mini-batch")
    return None, notes


def _shown_losses(value: Any) -> str:
    """Losses that are of no use."""
    return show("losses", value) if as_array(value) is not None else f"losses = {value!r}"


def _mean_losses(gradients: Gradients, batches: Sequence[Batch], start: list[Array]) -> Array:
    weights, means = start, []
    for k in range(STEPS):
        x, y = batch = batches[k % len(batches)]
        images = range(x.shape[1])
        means.append(np.mean([gradients(x[:, [n]], y[:, [n]], weights)[0] for n in images]))
        weights = reference.train(gradients, weights, [batch], RATE, 1)
    return np.array(means)


def _few_batches(case: Case) -> list[Batch]:
    arguments = case.named()
    return list(zip(arguments["mini_batch_x"], arguments["mini_batch_y"], strict=True))


def _judge_decay(
    name: str, session: Session, ok: FunctionReport, step_seconds: float
) -> FunctionReport:
    """Whether the learning rate decays at every 1000th step, where there is time to see it."""
    if "decay_rate" not in session.parameters[name]:
        return ok
    if 5000 * step_seconds > session.limits.train_seconds:
        return replace(ok, notes=(*ok.notes, "too slow to see its learning rate decay"))
    long = 9000 * step_seconds <= session.limits.train_seconds
    still = [_exact(name, session, GENTLE, n, STILL) for n in (1, 984, 1000)]
    if not (ends := _ends(name, session, still)):
        return ok
    first, before, last = ends
    moves = _moved(first, before) > ROUNDING
    if moves and _moved(before, last) < ROUNDING:
        plain = _ends(name, session, [_exact(name, session, GENTLE, n) for n in (984, 1000)])
        if plain and _identical(*plain):
            return replace(ok, notes=(*ok.notes, "stops before it has taken num_iters steps"))
        sentence = "the learning rate decays before the 1000th step"
        return _wrong(still[-1], session, *OTHER_DECAY, sentence)
    # A decay at step 0 as well is no more than another learning rate.
    rate = GENTLE if moves else GENTLE / SOME
    steps = (984, 1000, 1016, 2000, 2016) if long else (984, 1000, 1016)
    runs = [_exact(name, session, rate, n, SOME) for n in steps]
    ways = [_moved(a, b) for a, b in pairwise(_ends(name, session, runs))]
    if not ways or (moves and ways[0] < 100 * ROUNDING):
        return ok  # Perhaps its weights have come to rest.
    sentence = _decay_mistake(ways[0], ways[1], ways[-1] if long else SOME * ways[1])
    if sentence:
        return _wrong(runs[-1], session, *OTHER_DECAY, sentence)
    late = () if long else ("too slow to see its learning rate decay twice",)
    return replace(ok, notes=(*ok.notes, *late))


def _decay_mistake(never: float, once: float, twice: float) -> str:
    """What is wrong with decays by ``SOME`` after the 1000th and 2000th step; empty if nothing.

    Given is how far the weights move in 16 steps before the first, between, and after the second.
    """
    if once > SOME**0.5 * never:
        return "the learning rate is not multiplied by decay_rate at every 1000th step"
    if twice > SOME**0.5 * once:
        return "the learning rate decays once only: it is due at every 1000th step"
    if once <= SOME**1.5 * never or twice <= SOME**1.5 * once:
        return "the learning rate decays at other steps than every 1000th"
    return ""


def _ends(name: str, session: Session, cases: Sequence[Case]) -> list[list[Array]]:
    """The weights that runs return, none if one does not return any."""
    ends = [_weights(name, outcome) for outcome in session.call({name: cases})[name]]
    found = [end for end in ends if end]
    return found if len(found) == len(cases) else []


def _moved(a: Sequence[Array], b: Sequence[Array]) -> float:
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(_difference(a, b)))


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
    start = outcome.steps[0] if outcome.steps else []
    watched = [w.shape for w in start] == list(SHAPES[name].values())
    equal = _equal_start(name, case, session, start) if watched else None
    if equal is not None:
        return equal
    mistake = _mistake_of_step(name, case, outcome.steps) if watched else ""
    if mistake:
        return _wrong(case, session, "a step along the gradient", "another one", mistake)
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


def _mistake_of_step(name: str, case: Case, steps: Sequence[Sequence[Array]]) -> str:
    """The mistake in the gradients whose multiples a first step is, empty if it is another one."""
    if len(steps) < 2:
        return ""
    before, after = steps
    batch = _few_batches(case)[0]
    possible = [*(("", gradients) for gradients in READINGS[name]), *MISTAKEN[name].items()]
    for sentence, gradients in possible:
        wanted = reference.train(gradients, before, [batch], 1.0, 1)
        factors = map(factor_of, before, after, wanted)
        if all(factor is not None for factor in factors):
            return sentence
    return ""


def _direction(name: str, case: Case, steps: Sequence[Sequence[Array]]) -> float:
    """Cosine of the angle between the first step and the way down; 0 where it was not seen."""
    if len(steps) < 2 or [w.shape for w in steps[0]] != list(SHAPES[name].values()):
        return 0.0
    before, after = steps
    arguments = case.named()
    batch = arguments["mini_batch_x"][0], arguments["mini_batch_y"][0]
    down = _difference(before, reference.train(READINGS[name][0], before, [batch], 1.0, 1))
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
    losses = [READINGS[name][0](x[:, [n]], y[:, [n]], weights)[0] for n in range(x.shape[1])]
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
        return _wrong(case, session, expected, summary(value), sentence)
    arrays = [as_array(v) for v in value[: len(shapes)]]
    off = [
        w
        for (w, shape), array in zip(shapes.items(), arrays, strict=True)
        if array is None or array.shape != shape
    ]
    if off:
        sentence = f"{' and '.join(off)} with another shape than the handout's"
        return _wrong(case, session, expected, summary(value), sentence)
    if outcome.changed:
        changed = " and ".join(outcome.changed)
        sentence = f"it changes its own argument {changed}"
        return _wrong(case, session, f"{changed} as before", "other entries", sentence)
    return None


def _ok(name: str, outcome: Outcome, *notes: str) -> FunctionReport:
    if isinstance(outcome.returned, list) and len(outcome.returned) == len(SHAPES[name]):
        notes = (*notes, "returns no losses")
    return FunctionReport(name, "ok", outcome.seconds, notes=tuple(filter(None, notes)))


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


def _identical(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
