"""Compares a few steps of a training with Algorithm 1, and says what else they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from . import reference
from .reference import Array, Gradients

Batch = tuple[Array, Array]

# What a step may look like that is not Algorithm 1's.
UPWARDS = "the weights move up the gradient: it is w - gamma / R * dl/dw"
OWN_BATCHES = "puts mini-batches of its own together, other than those that it is given"
OWN_ORDER = "takes the mini-batches in an order of its own"
BY_PASSES = "num_iters counts passes over all mini-batches in place of steps"
ONE_FEWER = "takes one step fewer than num_iters (range(1, n) has n - 1 numbers)"
ONE_MORE = "takes one step more than num_iters"
RATE_UNUSED = (
    "learning_rate changes nothing: the steps are to have the length that the caller asks for"
)
STEPS_UNUSED = "num_iters changes nothing: it is the number of steps that the caller asks for"
HOMEWORK_SIZE = 32
# The rounding of single precision in a weight, and what it makes of a step.
ROUNDING, STEP_TOLERANCE = 1e-6, 1e-3
LABELS = "the labels are those of another mini-batch: x and y go on together"
IN_LOOP = "the weights change after each image: add up over the mini-batch, then change them once"
ONE_IMAGE = "only the last image of a mini-batch counts"
CARRIED_OVER = "the sums of the gradients are not set to 0 before a mini-batch"


class Finding(NamedTuple):
    """What steps are: right, perhaps with a remark, or wrong from a step on in a weight."""

    right: bool
    text: str = ""
    step: int = 0
    weight: int = 0
    wanted: Array | None = None


def alike(before: Array, after: Array, wanted: Array) -> bool:
    """Whether a weight has moved as it should, on the scale of the step.

    Examples
    --------
    >>> alike(np.array([1.0]), np.array([1.01]), np.array([1.02]))
    False
    """
    tolerance = STEP_TOLERANCE * np.abs(wanted - before).max()
    tolerance += ROUNDING * (1 + np.abs(before).max())
    return bool(np.abs(after - wanted).max() <= tolerance)


def all_alike(before: Sequence[Array], after: Sequence[Array], wanted: Sequence[Array]) -> bool:
    """Whether all weights have."""
    return all(map(alike, before, after, wanted))


def _off(before: Sequence[Array], after: Sequence[Array], wanted: Sequence[Array]) -> list[int]:
    """The numbers of the weights that have not moved as they should."""
    weights = enumerate(zip(before, after, wanted, strict=True))
    return [n for n, weight in weights if not alike(*weight)]


def explain(
    names: Sequence[str],
    readings: Sequence[Gradients],
    mistaken: Mapping[str, Gradients],
    positions: Sequence[Sequence[Array]],
    batches: Sequence[Batch],
    rate: float,
) -> Finding:
    """Say what steps are that are not Algorithm 1's in the order of the mini-batches.

    Parameters
    ----------
    names : sequence of str
        Of the weights.
    readings : sequence of Gradients
        What may be right.
    mistaken : mapping of str to Gradients
        Wrong gradients by the sentence about them.
    positions : sequence of sequences of arrays
        The weights at the start and after each step.
    batches : sequence of (x, y)
    rate : float
    """
    start, first, *_ = positions
    counted = _counted(readings, positions, batches, rate)
    if counted is not None:
        return counted
    orders = [_order(reading, positions, batches, rate) for reading in readings]
    right, order = max(zip(readings, orders, strict=True), key=lambda pair: _right_steps(pair[1]))
    number = _right_steps(order)
    if number == len(order):
        return _judge_order([k for k in order if k is not None], len(batches))
    if number:
        return _later_step(names, right, positions, batches, rate, number)
    return _first_step(names, {"": right, **mistaken}, start, first, batches, rate)


def _counted(
    readings: Sequence[Gradients],
    positions: Sequence[Sequence[Array]],
    batches: Sequence[Batch],
    rate: float,
) -> Finding | None:
    """Judge steps of which there are more or fewer than were asked for."""
    start, first, second, *_ = positions
    one_late = _equal(start, first) and not _equal(start, second)
    for reading, k in product(readings, range(len(batches))):
        rotated = [*batches[k:], *batches[:k]]
        step, two, whole = (
            reference.train(reading, start, rotated, rate, steps) for steps in (1, 2, len(batches))
        )
        if all_alike(start, first, whole):
            return Finding(True, BY_PASSES)
        if all_alike(start, first, two):
            return Finding(True, ONE_MORE)
        if one_late and all_alike(start, second, step):
            return Finding(True, ONE_FEWER)
    wanted = reference.train(readings[0], start, batches, rate, 1)[0]
    if one_late:
        return Finding(False, RATE_UNUSED, 1, 0, wanted)
    if not _equal(start, first) and all(_equal(first, after) for after in positions[2:]):
        return Finding(False, STEPS_UNUSED, 1, 0, wanted)
    return None


def _equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return all(map(np.array_equal, a, b))


def _order(
    gradients: Gradients,
    positions: Sequence[Sequence[Array]],
    batches: Sequence[Batch],
    rate: float,
) -> list[int | None]:
    """The mini-batch of each step, None where a step is that of none."""
    order = []
    for before, after in pairwise(positions):
        wanted = (reference.train(gradients, before, [batch], rate, 1) for batch in batches)
        fitting = (k for k, w in enumerate(wanted) if all_alike(before, after, w))
        order.append(next(fitting, None))
    return order


def _right_steps(order: Sequence[int | None]) -> int:
    return order.index(None) if None in order else len(order)


def _judge_order(order: Sequence[int], count: int) -> Finding:
    """Judge in which order the mini-batches are taken, each by a right step."""
    # After so many steps those that come once only, at the start, are over.
    used = sorted(set(order[count:]))
    following = {pair for pair in pairwise(order)}
    # Which comes next depends on which came last: no random order, in which some may be due yet.
    fixed = len({k for k, _ in following}) == len(following)
    if fixed and set(order) == {0}:
        return Finding(False, "only the first mini-batch is used: go on to the next at each step")
    if fixed and len(used) < count:
        listed = " and ".join(str(k + 1) for k in used)
        which = (
            f"only {listed} are used"
            if len(used) > 1
            else f"number {listed} alone is used in the end"
        )
        return Finding(
            False,
            f"of {count} mini-batches {which}: go on to the next at each step, and after the last "
            "to the first",
        )
    in_turn = all((k + 1) % count == following for k, following in pairwise(order))
    return Finding(True, "" if in_turn else OWN_ORDER)


def _first_step(
    names: Sequence[str],
    gradients: Mapping[str, Gradients],
    before: Sequence[Array],
    after: Sequence[Array],
    batches: Sequence[Batch],
    rate: float,
) -> Finding:
    for k in range(len(batches)):
        rotated = [*batches[k:], *batches[:k]]
        wanted = reference.train(gradients[""], before, rotated, rate, 1)
        off = _off(before, after, wanted)
        sentence = _mistake(names, gradients, before, after, rotated, rate, off, wanted)
        if sentence:
            return Finding(False, sentence, 1, off[0], wanted[off[0]])
    if _own_batches(gradients[""], before, after, batches, rate):
        return Finding(True, OWN_BATCHES)
    wanted = reference.train(gradients[""], before, batches, rate, 1)
    off = _off(before, after, wanted)
    moved = " and ".join(names[n] for n in off)
    sentence = (
        f"the first step moves {moved} by other than -gamma / R * (sum of dl/dw over the images)"
    )
    return Finding(False, sentence, 1, off[0], wanted[off[0]])


def _mistake(
    names: Sequence[str],
    gradients: Mapping[str, Gradients],
    before: Sequence[Array],
    after: Sequence[Array],
    batches: Sequence[Batch],
    rate: float,
    off: Sequence[int],
    wanted: Sequence[Array],
) -> str:
    """The mistake that moves the weights that are off as they moved, empty if none does."""
    size = batches[0][0].shape[1]
    some = "" if len(off) == len(names) else f" (in {' and '.join(names[n] for n in off)})"
    factors = [factor_of(before[n], after[n], wanted[n]) for n in off]
    factor = factors[0]
    if factor is not None and all(f is not None and abs(f - factor) < 1e-2 for f in factors):
        moved = " and ".join(names[n] for n in off)
        return _factor_sentence(factor, moved, some, size)
    for sentence, mistaken in _mistaken(gradients, before, batches, rate):
        if all(alike(before[n], after[n], mistaken[n]) for n in off):
            return sentence + some
    return ""


def _mistaken(
    gradients: Mapping[str, Gradients],
    before: Sequence[Array],
    batches: Sequence[Batch],
    rate: float,
) -> Iterator[tuple[str, list[Array]]]:
    """The weights after a step with a mistake, for each mistake that is known."""
    right = gradients[""]
    for sentence, wrong in gradients.items():
        if sentence:
            yield sentence, reference.train(wrong, before, batches, rate, 1)
    for _, y in batches[1:]:
        yield LABELS, reference.train(right, before, [(batches[0][0], y)], rate, 1)
    last = {"last_image_only": True}
    yield (
        f"{ONE_IMAGE}: add up over all (+= where = stands)",
        reference.train(right, before, batches, rate, 1, **last),
    )
    yield (
        f"{ONE_IMAGE}, not divided by R: add up over all (+= where = stands)",
        reference.train(right, before, batches, rate, 1, averaged=False, **last),
    )
    x, y = batches[0]
    images = [(x[:, [n]], y[:, [n]]) for n in range(x.shape[1])]
    for share in (rate / len(images), rate):
        yield IN_LOOP, reference.train(right, before, images, share, len(images))


def factor_of(before: Array, after: Array, wanted: Array) -> float | None:
    """How many times as long as it should be a step is, None where it goes elsewhere."""
    taken, due = (after - before).ravel(), (wanted - before).ravel()
    length = float(due @ due)
    if not length:
        return None
    factor = float(taken @ due) / length
    return factor if alike(before, after, before + factor * (wanted - before)) else None


def _factor_sentence(factor: float, moved: str, some: str, size: int) -> str:
    if abs(factor) < 1e-2 * min(1, size / HOMEWORK_SIZE):
        return f"no step changes {moved}: update all four"
    if factor < 0:
        return UPWARDS + some
    if np.isclose(factor, size, rtol=1e-2):
        return f"the sum over the images is not divided by their number R{some}"
    if np.isclose(factor, size / HOMEWORK_SIZE, rtol=1e-2):
        return f"R is fixed at {HOMEWORK_SIZE}: it is the number of images in the mini-batch{some}"
    return f"the steps of {moved} are {factor:.3g} times those of Algorithm 1"


def _own_batches(
    gradients: Gradients,
    before: Sequence[Array],
    after: Sequence[Array],
    batches: Sequence[Batch],
    rate: float,
) -> bool:
    """Whether a step is Algorithm 1's for some of all images, however they are put together."""
    columns = [
        np.concatenate([g.ravel() for g in gradients(x[:, [n]], y[:, [n]], before)[1]])
        for x, y in batches
        for n in range(x.shape[1])
    ]
    taken = np.concatenate([(b - a).ravel() for b, a in zip(before, after, strict=True)])
    shares = np.linalg.lstsq(np.stack(columns, axis=1), taken / rate, rcond=None)[0]
    chosen = np.abs(shares) > 1e-2
    if not chosen.any():
        return False
    wanted = np.stack(columns, axis=1)[:, chosen].mean(axis=1) * rate
    return alike(np.zeros_like(taken), taken, wanted)


def _later_step(
    names: Sequence[str],
    gradients: Gradients,
    positions: Sequence[Sequence[Array]],
    batches: Sequence[Batch],
    rate: float,
    number: int,
) -> Finding:
    """Judge a step that is not Algorithm 1's though those before it are."""
    start, before, after = positions[0], positions[number], positions[number + 1]
    wanted = reference.train(gradients, before, [batches[number % len(batches)]], rate, 1)
    off = _off(before, after, wanted)
    carried = reference.train(gradients, start, batches, rate, number + 1, carried_over=True)
    if all(alike(start[n], after[n], carried[n]) for n in off):
        return Finding(False, CARRIED_OVER, number + 1, off[0], wanted[off[0]])
    if all(_equal(before, later) for later in positions[number + 1 :]):
        sentence = (
            f"no step after number {number} changes the weights, however many num_iters asks for"
        )
        return Finding(False, sentence, number + 1, off[0], wanted[off[0]])
    momentum = _momentum(positions[number - 1], before, after, wanted)
    if momentum is not None:
        return Finding(True, f"takes its steps with momentum {momentum:.2g}, unlike Algorithm 1")
    moved = " and ".join(names[n] for n in off)
    sentence = f"step {number + 1} moves {moved} by other than Algorithm 1, those before it do not"
    return Finding(False, sentence, number + 1, off[0], wanted[off[0]])


def _momentum(
    earlier: Sequence[Array],
    before: Sequence[Array],
    after: Sequence[Array],
    wanted: Sequence[Array],
) -> float | None:
    """The share of the step before in this one, None where that is not what is added."""
    added = [a - w for a, w in zip(after, wanted, strict=True)]
    last = [b - e for b, e in zip(before, earlier, strict=True)]
    length = sum(float((d * d).sum()) for d in last)
    share = sum(float((a * d).sum()) for a, d in zip(added, last, strict=True)) / length
    as_added = [w + share * d for w, d in zip(wanted, last, strict=True)]
    return share if 0 < share < 1 and all_alike(before, after, as_added) else None
