"""Compares what a function did with what the handout asks, call by call."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import batches, reference
from .cases import Case
from .compare import LOSS_TOLERANCE, TOLERANCE, close, counted, show, summary
from .driver import Outcome, Session
from .handout import HANDOUT
from .likely import OTHER_SHAPE, Evidence, explain
from .reference import Array, Order
from .report import Failure, FunctionReport

OLDER = "takes the output as well, as in an older handout"
OLDER_NUMPY = "needs an older NumPy: "
ONE_SIZE = (
    "it is right for some sizes and not for others: take all sizes from the arguments' shapes, "
    "which are not always those of the homework's networks"
)
SQUARE = "it is right for square images only: somewhere height and width change places"
KEEPS = (
    "its result depends on the calls before: it keeps something from call to call, in a global "
    "variable or a default argument"
)
LEANS = (
    "it is right only once {} was called with the same arguments: it leans on what that has left "
    "in a global variable or an object, and has arguments of its own to work on"
)
COLUMN_MAJOR = "down the image's columns, where the course goes along its rows"
Calls = Sequence[tuple[Case, Outcome]]
_FLATTENS = ("flattening", "flattening_backward", "infer_cnn")


class Fault(NamedTuple):
    """What is wrong with one call; with evidence where a result has wrong numbers."""

    verdict: str
    expected: str
    got: str
    likely: str = ""
    evidence: Evidence | None = None


def judge(name: str, calls: Calls, session: Session, order: Order = "C") -> FunctionReport:
    """The verdict on a function by its calls.

    Parameters
    ----------
    name : str
    calls : sequence of (Case, Outcome)
    session : Session
        Which made them.
    order : "C" or "F"
        In which the file flattens an image.
    """
    notes = [OLDER] if any(outcome.older for _, outcome in calls) else []
    notes += [OLDER_NUMPY + use for _, outcome in calls for use in outcome.older_numpy]
    faults = []
    for case, outcome in calls:
        fault = _fault(case, outcome, session, order)
        if fault is None:
            continue
        if case.remark:
            notes.append(case.remark)
        else:
            faults.append((case, fault))
    seconds = sum(outcome.seconds for _, outcome in calls)
    if not faults:
        notes += [COLUMN_MAJOR] if order == "F" and name in _FLATTENS else []
        return FunctionReport(name, "ok", seconds, notes=tuple(dict.fromkeys(notes)))
    case, first = faults[0]
    likely = _likely(name, calls, faults, session, order)
    before = _before(case, calls) if likely == KEEPS else None
    text = example(case, session.path, output_too=OLDER in notes, before=before)
    failure = Failure(text, first.expected, first.got, likely)
    remarks = {case.remark for case, _ in calls}
    kept = tuple(dict.fromkeys(note for note in notes if note not in remarks))
    return FunctionReport(name, first.verdict, seconds, failure, kept)


def _likely(
    name: str,
    calls: Calls,
    faults: Sequence[tuple[Case, Fault]],
    session: Session,
    order: Order,
) -> str:
    """The mistake behind all faults: by how it is called, its numbers, other calls or sizes."""
    case, first = faults[0]
    failed = [case for case, _ in faults]
    likely = KEEPS if case.again else first.likely
    if _swaps_parameters(name, session):
        likely = _other_parameters(name, session)
    if not likely and first.evidence is not None:
        evidence = [f.evidence for c, f in faults if f.evidence is not None and not c.again]
        likely = explain(name, evidence, _passed(calls, failed, first.evidence.result, order))
    unknown = first.verdict == "raised" or likely in ("", OTHER_SHAPE)
    # Images that were kept for a shape look like changed ones.
    if unknown or (name == "get_mini_batch" and case is not calls[0][0]):
        # Other numbers in the right shape have another reason than sizes.
        sizes = first.verdict == "raised" or likely == OTHER_SHAPE
        one_size = ONE_SIZE if sizes and _only_later(calls, failed) else ""
        square = SQUARE if _only_square(calls, failed) else ""
        likely = _depends_on(case, session, order) or square or one_size or likely
    return likely


def _passed(calls: Calls, failed: Sequence[Case], result: str, order: Order) -> Iterator[Evidence]:
    """The right results of a function whose other calls went wrong."""
    for case, outcome in calls:
        if case in failed or case.remark or result in case.unjudged:
            continue
        place = HANDOUT[case.function].results.index(result)
        wanted, values = _wanted(case, order)[place], unpack(case.function, outcome.returned)
        got = np.asarray(values[place]).reshape(wanted.shape)
        yield Evidence(case.named(), result, wanted, got)


def _depends_on(case: Case, session: Session, order: Order) -> str:
    """What a function depends on beside its arguments, as another process shows; or nothing."""
    forward = case.function.removesuffix("_backward")
    tries = [case] if forward == case.function else [case, case._replace(forward_first=True)]
    outcomes = session.call({case.function: tries})[case.function]
    right = [
        _fault(tried, outcome, session, order) is None
        for tried, outcome in zip(tries, outcomes, strict=False)
    ]
    if right[0]:
        return KEEPS
    return LEANS.format(forward) if right[1:] == [True] else ""


def _only_later(calls: Calls, failed: Sequence[Case]) -> bool:
    """Whether the first call failed, and those of the largest size, the homework's, did not."""
    asked = [case for case, outcome in calls if not case.remark and not outcome.ended]
    right = [case for case in asked if case not in failed]
    if asked[:1] != failed[:1] or max(asked, key=_size) not in right:
        return False
    return {_shapes(case) for case in failed}.isdisjoint(map(_shapes, right))


def _only_square(calls: Calls, failed: Sequence[Case]) -> bool:
    """Whether all images of another shape failed, and no square one."""
    images = [
        (np.shape(case.named().get("x", 0)), case in failed) for case, _ in calls if not case.remark
    ]
    return all(len(shape) == 3 and wrong == (shape[0] != shape[1]) for shape, wrong in images)


def _size(case: Case) -> int:
    return sum(np.size(value) for value in case.named().values())


def _shapes(case: Case) -> tuple[tuple[int, ...], ...]:
    return tuple(np.shape(value) for value in case.named().values())


def _before(case: Case, calls: Calls) -> Case | None:
    """The call that a result depends on most likely: one of its shapes, else the first of all."""
    earlier = list(itertools.takewhile(lambda other: other is not case, (c for c, _ in calls)))
    alike = (other for other in earlier if _shapes(other) == _shapes(case))
    return next(alike, earlier[0] if earlier else None)


def example(case: Case, path: Path, output_too: bool = False, before: Case | None = None) -> str:
    """A case as Python that can be pasted.

    It has the forward result where the function wants it, and the call ``before`` where that shows
    in this one.
    """
    name, entry = case.function, HANDOUT[case.function]
    arguments, needed, lines = list(entry.parameters), [name], list(case.lines)
    if output_too:
        forward = name.removesuffix("_backward")
        needed.insert(0, forward)
        lines.append(f"y = {forward}({', '.join(HANDOUT[forward].parameters)})")
        arguments.append("y")
    arguments += [f"{key}={value!r}" for key, value in case.keywords.items()]
    call = f"{', '.join(entry.results)} = {name}({', '.join(arguments)})"
    lines.append(call)
    if before is not None:
        same = before.lines == case.lines
        lines = [*before.lines, call, *([call] if same else lines)]
    if name == "get_mini_batch":
        lines.append("print([x.shape for x in mini_batch_x], [y.shape for y in mini_batch_y])")
    else:
        lines += [f"print({result})" for result in entry.results]
    return "\n".join(["import numpy as np", *_imports(path, needed), "", *lines])


def _imports(path: Path, names: Sequence[str]) -> list[str]:
    if path.stem.isidentifier():
        return [f"from {path.stem} import {', '.join(names)}"]
    loaded = [f"{name} = hw5['{name}']" for name in names]
    return ["import runpy", f"hw5 = runpy.run_path({path.name!r})", *loaded]


def unpack(name: str, value: Any) -> list[Any] | str:
    """The results of a function, or what is wrong with their number."""
    results = HANDOUT[name].results
    if value is None:
        return "returns nothing: is a return missing?"
    if len(results) == 1:
        return [value]
    if isinstance(value, np.ndarray) and value.ndim:
        value = list(value)
    count = len(value) if isinstance(value, list) else 1
    if count != len(results):
        return f"returns {counted(count)} where {len(results)} are due"
    return list(value)


def as_array(value: Any) -> Array | None:
    """A result as an array, from nested lists too; None where it is none."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "fiub" else None


def stopped_by(case: Case, outcome: Outcome, session: Session) -> Fault:
    """The fault of a call that did not come back."""
    expected = f"{', '.join(HANDOUT[case.function].results)}"
    if outcome.slow:
        return Fault(
            "too slow",
            f"{expected} in well under a second",
            f"no result after {session.limits.seconds:g} s of computing",
            "an endless loop, or loops far longer than the arguments are",
        )
    if outcome.ended:
        return Fault("raised", expected, f"the function {outcome.ended}")
    where = f" in line {outcome.line}" if outcome.line else ""
    return Fault("raised", expected, f"{outcome.raised}{where}", _why(case, outcome, session))


def _fault(case: Case, outcome: Outcome, session: Session, order: Order) -> Fault | None:
    if outcome.ended or outcome.raised:
        return stopped_by(case, outcome, session)
    name, results = case.function, HANDOUT[case.function].results
    values = unpack(name, outcome.returned)
    if isinstance(values, str):
        return Fault("wrong", ", ".join(results), summary(outcome.returned), f"it {values}")
    if name == "get_mini_batch":
        problem = batches.problem(case.named(), *values)
        if problem is not None:
            return Fault("wrong", *problem)
    else:
        wanted = _wanted(case, order)
        for result, value, right in zip(results, values, wanted, strict=True):
            fault = None if result in case.unjudged else _compare(case, result, value, right)
            if fault is not None and _in_other_order(values, wanted):
                return fault._replace(likely=f"the results are {', '.join(results)}, in this order")
            if fault is not None:
                return fault
    if outcome.changed:
        changed = " and ".join(outcome.changed)
        return Fault(
            "wrong",
            f"{changed} as before the call",
            f"{changed} with other entries",
            f"it changes its own argument {changed}, which the caller still needs: copy it first",
        )
    return None


def flattening_order(calls: Calls) -> Order:
    """Whether a flattening goes down the columns of an image, judged by all its calls."""
    for case, outcome in calls:
        wanted, got = case.named()["x"].reshape((-1, 1), order="F"), as_array(outcome.returned)
        if got is None or not close(got, wanted):
            return "C"
    return "F" if calls else "C"


def _wanted(case: Case, order: Order) -> list[Array]:
    more = {"order": order} if case.function in _FLATTENS else {}
    value = getattr(reference, case.function)(**case.named(), **more)
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


def _compare(case: Case, result: str, value: Any, wanted: Array) -> Fault | None:
    got = as_array(value)
    if got is None:
        # Of an array far too large only the shape was told.
        large = summary(value).startswith("an array of shape")
        likely = OTHER_SHAPE if large else "it is no array of real numbers"
        return Fault("wrong", show(result, wanted), summary(value), likely)
    if wanted.ndim == 0 and got.size == 1:
        got = got.reshape(())
    tolerance = LOSS_TOLERANCE if result == "l" else TOLERANCE
    arguments = case.named()
    if close(got, wanted, tolerance):
        return None
    if case.function == "pool2x2_backward" and _breaks_ties(got, **arguments):
        return None
    evidence = Evidence(arguments, result, wanted, got)
    likely = ""
    if case.function.startswith("infer") and got.size > 1:
        likely = "it returns scores where the class is due: np.argmax of them"
    return Fault("wrong", show(result, wanted, got), show(result, got, wanted), likely, evidence)


def _in_other_order(values: Sequence[Any], wanted: Sequence[Array]) -> bool:
    """Whether these are the results, but some stand in the place of others."""
    got = [as_array(value) for value in values]
    return all(any(g is not None and close(g, w) for g in got) for w in wanted)


def _breaks_ties(dl_dx: Array, dl_dy: Array, x: Array) -> bool:
    """Whether each window's gradient goes to its maxima, however it is divided among equal ones."""
    if dl_dx.shape != x.shape or not np.isfinite(dl_dx).all():
        return False
    share, tiles = reference.windows(dl_dx), reference.windows(x)
    largest = tiles == tiles.max(axis=-1, keepdims=True)
    outside = np.abs(np.where(largest, 0, share)).max()
    against = (share * dl_dy[..., np.newaxis] < 0).any()
    return bool(outside == 0 and not against and close(share.sum(axis=-1), dl_dy))


def _other_parameters(name: str, session: Session) -> str:
    taken, due = (", ".join(p) for p in (session.parameters[name], HANDOUT[name].parameters))
    return f"its parameters are ({taken}), and the handout calls it with ({due})"


def _swaps_parameters(name: str, session: Session) -> bool:
    """Whether its parameters are the handout's in another order."""
    taken, due = session.parameters[name], HANDOUT[name].parameters
    return tuple(taken) != due and sorted(taken) == sorted(due)


def _why(case: Case, outcome: Outcome, session: Session) -> str:
    """The likely mistake behind an error."""
    text = outcome.raised
    if outcome.kind == "TypeError" and "argument" in text and case.function in text:
        return _other_parameters(case.function, session)
    if outcome.kind == "TypeError" and "NoneType" in text:
        return "a function that it calls returns nothing: is a return missing?"
    if outcome.kind == "TypeError" and "as an integer" in text:
        return "a size or an index is a float: // divides integers, / gives floats"
    if "truth value" in text:
        return (
            "an if, max, and, or asks a whole array whether it is true: np.where and np.maximum "
            "compare entry by entry, and arguments may have any number of axes"
        )
    if outcome.kind == "ValueError" and any(
        word in text for word in ("shape", "broadcast", "matmul", "dimension", "mismatch")
    ):
        return "two shapes do not fit: print both in that line and compare them with the handout's"
    if outcome.kind == "MemoryError" or "allocate" in text:
        return (
            f"it asks for more memory than the {session.limits.bytes >> 30} GiB that it may take: "
            "a loop that never ends, or an array far too large"
        )
    if "relative import" in text:
        return (
            "an import that begins with a dot works only inside a package: name a file that lies "
            "beside this one without the dot"
        )
    if outcome.kind in ("ImportError", "ModuleNotFoundError"):
        return (
            "it needs a module that is not here: put it beside the file, or install it, and check "
            "again; or do without, NumPy is enough"
        )
    if outcome.kind == "IndexError" and case.function == "get_mini_batch" and _ONE_ROW in text:
        return "label_train has the shape (1, N): the label of image n is label_train[0, n]"
    if outcome.kind == "IndexError":
        return _PAST_THE_END.format(_END.get(case.function.removesuffix("_backward"), ""))
    return _BY_KIND.get(outcome.kind, "")


_ONE_ROW = "axis 0 with size 1"
_PAST_THE_END = (
    "an index runs past the end: {}a size fixed where the argument's shape should be asked"
)
_END = {
    "train_mlp": "of the mini-batches, which start again after the last, or by ",
    "train_cnn": "of the mini-batches, which start again after the last, or by ",
    "conv": "off by the padding, or ",
    "get_mini_batch": "of the last batch, which may be smaller, or by ",
}
_BY_KIND = {
    "NameError": "it uses a name that is not defined where it stands: is an import missing?",
    "UnboundLocalError": "a variable is used before it has a value",
    "NotImplementedError": "it is not written yet",
    "RecursionError": "it calls itself without end",
    "SystemExit": "it ends the whole program: exit() does not belong in a function",
    "EOFError": "it waits for input",
    "FileNotFoundError": "it opens a file: it has its arguments alone to work on, and is called in "
    "an empty folder here",
    "ZeroDivisionError": "it divides by 0",
}
