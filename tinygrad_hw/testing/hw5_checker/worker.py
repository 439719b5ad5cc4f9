"""The process in which a student's file runs: it makes the calls it is told and says what came.

It runs as a script by its path, with NumPy and the standard library alone, so that neither this
package nor its ``hw5`` stands in the way of the student's. What it says goes out as lines of JSON;
what the student's code prints goes nowhere.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import copy
import functools
import importlib.util
import inspect
import io
import itertools
import json
import os
import random
import signal
import sys
import time
import tokenize
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # On Windows there is only the clock of the process that waits for this one.
    resource = None  # type: ignore[assignment]

LARGEST, LONGEST = 1_000_000, 10_000
# What a file may call while only its settings are made.
SAFE_CALLS = set("abs bool dict float int len list max min range set str sum tuple".split())
SAFE_MODULES = set("functools itertools math np numpy".split())
Rewrite = Callable[[ast.Module], ast.Module]
# Modules of which a function can do without: calls to them do nothing.
INERT = {"matplotlib", "pylab", "seaborn"}


# --- Values on the wire -----------------------------------------------------------------------


def encode(value: Any) -> Any:
    """A value as JSON can hold it; what is no number, array or sequence becomes its repr."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple, Iterator)):
        return {"list": [encode(entry) for entry in itertools.islice(value, LONGEST)]}
    if not hasattr(value, "__array__"):
        return {"other": repr(value)[:200]}
    array = np.asarray(value)
    if array.size > LARGEST:
        return {"other": f"an array of shape {array.shape}"}
    if array.dtype.kind == "O" and array.ndim:
        return {"list": [encode(entry) for entry in array]}
    if array.dtype.kind not in "fiub":
        return {"other": f"an array of {array.dtype}, shape {array.shape}"}
    entries = array.astype(float) if array.dtype.kind == "f" else array
    return {"array": entries.ravel().tolist(), "shape": array.shape, "dtype": entries.dtype.name}


# --- Limits -----------------------------------------------------------------------------------


def limit_time(seconds: float) -> None:
    """End this process when it has computed for so long, or waited for three times as long."""
    if hasattr(signal, "setitimer"):
        # Left at their defaults, both signals end the process, whatever Python is busy with.
        for name, most in (("PROF", seconds), ("REAL", 3 * seconds)):
            signal.signal(signal.SIGPROF if name == "PROF" else signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(getattr(signal, f"ITIMER_{name}"), most)


def limit_memory(extra: int) -> None:
    """Let this process take so many more bytes; beyond them Python raises MemoryError."""
    if resource is not None:
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            soft = pages * resource.getpagesize() + extra
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def limit_files() -> None:
    """No core dumps, and no file larger than 64 MiB."""
    if resource is not None:
        for kind, soft in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 2**26)):
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


# --- Loading ----------------------------------------------------------------------------------


class Absent(types.ModuleType):
    """Stands for a module that is not there, and for every name in it.

    It may be called while the file loads, as decorators are; a function that needs it later raises,
    unless it only draws or counts.
    """

    loading = True

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        root, last = self.__name__.split(".")[0], self.__name__.split(".")[-1]
        if root == "tqdm" and args:
            return range(*args) if last == "trange" else args[0]
        if len(args) == 1 and inspect.isfunction(args[0]):
            return args[0]
        if Absent.loading or root in {*INERT, "tqdm"}:
            return self
        # A name that begins with a dot: what Python said when the file was loaded.
        relative = "attempted relative import with no known parent package"
        raise ImportError(f"{root} could not be imported" if root else relative)

    def __iter__(self) -> Iterator[Absent]:
        # As in `figure, axes = plt.subplots()`.
        return iter((self, self))


def source_of(path: Path) -> str:
    """The text of a file, where Python would run it: ``ast.parse`` lets bytes in comments pass."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SyntaxError("it is UTF-16, as some editors and shells write; save the file as UTF-8")
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"the byte {data[error.start]:#x} is no {encoding}; save the file as UTF-8"
        raise SyntaxError(text, (str(path), line, None, None)) from None


def load(
    text: str, path: Path, names: dict[str, Any], job: dict[str, Any], rewrite: Rewrite
) -> list[str]:
    """Import the file, or if that fails its definitions; say what was left out."""
    tree, notes = ast.parse(text, str(path)), []
    if not job["definitions_only"]:
        # A tree of its own: what is a definition is asked of the file as it was written.
        whole = rewrite(ast.parse(text, str(path)))
        try:
            exec(compile(whole, str(path), "exec", dont_inherit=True), names)
            return []
        except BaseException as error:
            where = f"line {at}: " if (at := line_of(error, path)) else ""
            notes.append(
                f"its import failed ({where}{describe(error)}); only its definitions were run"
            )
    return notes + define(tree, path, names, set(job["names"]), rewrite)


def define(
    tree: ast.Module, path: Path, names: dict[str, Any], wanted: set[str], rewrite: Rewrite
) -> list[str]:
    """Run the imports, definitions and settings of a file, and leave out all else."""
    # Each statement is compiled alone, so the file's own flag has to be handed on.
    postponed = "annotations" in {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    }
    flags = annotations.compiler_flag if postponed else 0

    def run(node: ast.stmt) -> bool:
        alone = rewrite(ast.Module([node], []))
        code = compile(alone, str(path), "exec", flags, dont_inherit=True)
        try:
            exec(code, names)
        except BaseException:
            # A setting that cannot be made is left out; who needs it will say so.
            return False
        return True

    failed: list[ast.Import | ast.ImportFrom] = []
    for node in parts(tree.body, wanted):
        if not run(node) and isinstance(node, (ast.Import, ast.ImportFrom)):
            stand_in(node, names)
            failed.append(node)
    # Two files that import each other: by now the names are there.
    missing = [ast.unparse(node) for node in failed if not run(node)]
    return [f"`{line}` failed" for line in missing]


def parts(body: list[ast.stmt], wanted: set[str]) -> Iterator[ast.stmt]:
    """The statements that define something: with a choice among imports kept whole."""
    for node in body:
        if defines(node, wanted):
            yield node
        elif isinstance(node, ast.Try):
            yield from parts(node.body, wanted)


def defines(node: ast.stmt, wanted: set[str]) -> bool:
    """Whether a statement is an import, a definition or a setting, or chooses among such."""
    some = functools.partial(defines, wanted=wanted)
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Pass)):
        return True
    if isinstance(node, ast.Assign) and {ast.unparse(name) for name in node.targets} & wanted:
        return True
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return all(is_safe(call) for call in calls_in(node))
    if isinstance(node, ast.Try):
        handled = [line for handler in node.handlers for line in handler.body]
        return all(map(some, [*node.body, *handled, *node.orelse, *node.finalbody]))
    return isinstance(node, ast.If) and all(map(some, [*node.body, *node.orelse]))


def calls_in(node: ast.AST) -> Iterator[ast.expr]:
    """What is called when a statement runs: nothing inside a lambda is."""
    if isinstance(node, ast.Call):
        yield node.func
    if not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from calls_in(child)


def is_safe(called: ast.expr) -> bool:
    """Whether a call makes a setting, as ``np.zeros`` and ``float`` do."""
    name = ast.unparse(called)
    return name in SAFE_CALLS or name.split(".")[0] in SAFE_MODULES


def stand_in(node: ast.Import | ast.ImportFrom, names: dict[str, Any]) -> None:
    """Bind the names of a failed import."""
    prefix = ""
    if isinstance(node, ast.ImportFrom):
        prefix = "." * node.level + (f"{node.module}." if node.module else "")
    for alias in node.names:
        full = f"{prefix}{alias.name}"
        if not prefix and alias.asname is None:
            full = full.split(".")[0]
        names[alias.asname or full.split(".")[-1]] = Absent(full)


def describe(error: BaseException) -> str:
    """The kind and the first line of an error."""
    text = str(error).strip().split("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line_of(error: BaseException, path: Path) -> int | None:
    """The deepest line of the student's file in an error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None


# --- Calls ------------------------------------------------------------------------------------


class Enough(BaseException):
    """Training has gone on for long enough."""


class Watch:
    """Looks on while a function trains.

    It stands for the file's loss function. It notes what that returns, takes the trainer's weights
    before and after the first step, where they bear the handout's names, and ends the training when
    enough was seen or time is up.
    """

    def __init__(self, loss: Callable[..., Any], case: dict[str, Any]) -> None:
        self.loss, self.case = loss, case
        self.start = time.process_time()
        self.losses: list[float] = []
        self.steps: list[list[Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the file's loss function."""
        passed = time.process_time() - self.start
        if passed > self.case["watch"] or (passed > 1 and self._seen_enough()):
            raise Enough
        self._look(sys._getframe(1).f_locals)
        result = self.loss(*args, **kwargs)
        self.losses.append(float(np.sum(result[0])))
        return result

    def _look(self, there: Any) -> None:
        weights = [there.get(name) for name in self.case["weights"]]
        if len(self.steps) > 1 or not all(isinstance(w, np.ndarray) for w in weights):
            return
        if not self.steps or not all(map(np.array_equal, weights, self.steps[0])):
            self.steps.append([w.copy() for w in weights])

    def _seen_enough(self) -> bool:
        """Whether the loss has fallen, of a training that will go on for too long to return."""
        if self.case["keywords"] or len(self.losses) < 4 * self.case["images"]:
            return False
        first, last = self.ends()
        return bool(np.mean(last) < 0.7 * np.mean(first))

    def ends(self) -> tuple[list[float], list[float]]:
        """The losses of the first and of the last images."""
        part = min(self.case["images"], len(self.losses) // 2)
        return self.losses[:part], self.losses[len(self.losses) - part :]


def call(function: Callable[..., Any], case: dict[str, Any], path: Path) -> dict[str, Any]:
    """Make one call and tell what it returned or raised, and which arguments it changed."""
    names: dict[str, Any] = {"np": np}
    exec("\n".join(case["lines"]), names)
    arguments = [names[name] for name in case["parameters"]]
    originals = copy.deepcopy(arguments)
    if "forward" in case and required(function) == len(arguments) + 1:
        # An older handout gives the backward functions the output as well.
        names |= {"forward": np.array(case["forward"])}
        arguments.append(names["forward"])
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (students use the global generator)
    start = time.process_time()
    outcome: dict[str, Any] = {"older": len(arguments) > len(originals)}
    try:
        outcome["returned"] = encode(function(*arguments, **case["keywords"]))
    except Enough:
        outcome["stopped"] = True
    except BaseException as error:
        outcome |= {"raised": describe(error), "kind": type(error).__name__}
        outcome |= {"line": line_of(error, path), "system": isinstance(error, OSError)}
    outcome["seconds"] = time.process_time() - start
    outcome["changed"] = [
        name
        for name, now, before in zip(case["parameters"], arguments, originals, strict=False)
        if differ(now, before)
    ]
    return outcome


def differ(a: Any, b: Any) -> bool:
    """Whether an argument is no longer what it was."""
    if isinstance(b, list):
        return len(a) != len(b) or any(differ(*pair) for pair in zip(a, b, strict=True))
    return np.shape(a) != np.shape(b) or not np.array_equal(a, b)


def functions_in(there: dict[str, Any]) -> Iterator[str]:
    """The names of a file's functions, and of those in its classes."""
    for name, value in there.items():
        if inspect.isfunction(value):
            yield name
        elif inspect.isclass(value) and value.__module__ == there["__name__"]:
            methods = inspect.getmembers(value, inspect.isfunction)
            yield from (f"{name}.{method}" for method, _ in methods)


def required(function: Any) -> int | None:
    """How many arguments a function must be given."""
    found = signature(function)
    if found is None:
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in found.values())


def signature(function: Any) -> dict[str, inspect.Parameter] | None:
    """The parameters of a function, where it tells."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def train(
    function: Callable[..., Any], case: dict[str, Any], path: Path, names: dict[str, Any]
) -> dict[str, Any]:
    """Call a function that trains, under watch."""
    name = "loss_cross_entropy_softmax"
    original, watch = names[name], Watch(names[name], case)
    names[name] = watch
    outcome = call(function, case, path)
    names[name] = original
    first, last = watch.ends()
    seen = {"first": first, "last": last, "calls": len(watch.losses)}
    return {**outcome, **seen, "steps": encode(watch.steps)}


def fix_generators() -> None:
    """Let ``default_rng()`` start from the same state on every run."""
    unseeded = np.random.default_rng
    np.random.default_rng = lambda seed=None: unseeded(0 if seed is None else seed)


def sibling(name: str) -> Any:
    """A module of this folder, which the student's file does not see."""
    spec = importlib.util.spec_from_file_location(
        f"_hw5_checker_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(job_path: str) -> None:
    """Do the job in a file, and say each step on what was the standard output."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def say(*message: Any) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    path = Path(job["path"])
    sys.argv = [str(path)]
    sys.path.insert(0, str(path.parent))
    module = types.ModuleType("hw5")
    # Whatever the file is called, a helper module that asks for hw5 means this one.
    for name in ("hw5", path.stem):
        sys.modules.setdefault(name, module)
    limit_files()
    fix_generators()
    work(job, module, say)
    # Threads and exit handlers of the student's are none of ours.
    os._exit(0)


def work(job: dict[str, Any], module: types.ModuleType, say: Callable[..., None]) -> None:
    """Load the file into a module and make the calls, within limits."""
    path, there = Path(job["path"]), vars(module)
    module.__file__ = str(path)
    limit_time(job["load_seconds"])
    limit_memory(job["load_bytes"])
    compatible = sibling("older_numpy").OlderNumPy()
    try:
        rewrite = functools.partial(compatible.rewrite, names=there)
        notes = load(source_of(path), path, there, job, rewrite)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        text, line = describe(error), (getattr(error, "text", None) or "").lstrip()
        text = text.removesuffix(f" ({path.name}, line {getattr(error, 'lineno', None)})")
        if line.startswith(("%", "!")):
            text += ": a command of notebooks; delete the line"
        return say("unreadable", text, getattr(error, "lineno", None))
    Absent.loading = False
    found = {name: there[name] for name in job["functions"] if callable(there.get(name))}
    parameters = {name: list(signature(found[name]) or ()) for name in found}
    say("loaded", notes, parameters, sorted(functions_in(there)))
    for name, function in found.items():
        limit_time(job["seconds"])
        limit_memory(job["bytes"])
        for case in job["functions"][name]:
            say("begin", name)
            compatible.needed.clear()
            first = case.get("first")
            if first and callable(there.get(first["name"])):
                call(there[first["name"]], {**case, "parameters": first["parameters"]}, path)
            outcome = (
                train(function, case, path, there)
                if "watch" in case
                else call(function, case, path)
            )
            say("end", {**outcome, "older_numpy": compatible.needed})
    say("done")


if __name__ == "__main__":
    main(sys.argv[1])
