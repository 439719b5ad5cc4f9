"""Break every rule of the package, term by term, and count what the checker notices.

    python -m benchmarks.mutation_score [--only OP ...] [--draws 16] [--json FILE]

A *mutant* is a rule, or a function that rules call, with one term left out: a cotangent of the
tuple that it returns becomes None, a summand, a factor, a divisor or a sign is dropped. A mutant is
*killed* if :func:`tinygrad_hw.testing.check_gradients` finds one of the primitives that use it
wrong, on calls drawn from its domain. Terms for ties and zeros are invisible there, where several
gradients are right; such a mutant is killed by the tests of our conventions. One that lives is
printed with its line: either nothing tests it, or the term does nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import inspect
import io
import json
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.dispatch import Primitive
from tinygrad_hw.domains import RandomDraw
from tinygrad_hw.testing import check_gradients
from tinygrad_hw.testing.calls import Call

Function = types.FunctionType
CONVENTIONS = Path(__file__).parents[1] / "tests" / "test_conventions.py"


@dataclass(frozen=True)
class Mutant:
    """A function of the rule table with one term left out."""

    function: Any
    users: tuple[Primitive, ...]
    change: str
    code: types.CodeType

    @property
    def place(self) -> str:
        code = self.function.__code__
        return f"{Path(code.co_filename).name}:{code.co_firstlineno}"

    def __str__(self) -> str:
        return f"{', '.join(p.name for p in self.users)} ({self.place}): {self.change}"


# --- What a mutant leaves out ------------------------------------------------------------------


class _LeaveOut(ast.NodeTransformer):
    """Leave out the n-th term of a function; ``change`` says which, None if there are fewer."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.change: str | None = None

    def _take(self, node: ast.expr, what: str, replacement: ast.expr) -> ast.expr | None:
        self.n -= 1
        if self.n != -1:
            return None
        self.change = f"{what} of `{ast.unparse(node)}`"
        return replacement

    def visit_Return(self, node: ast.Return) -> Any:
        if isinstance(node.value, ast.Tuple):
            self._cotangents(node.value)
        return self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        if isinstance(node.body, ast.Tuple):
            self._cotangents(node.body)
        return self.generic_visit(node)

    def _cotangents(self, node: ast.Tuple) -> None:
        for i, element in enumerate(node.elts):
            if not _is_none(element):
                found = self._take(node, f"cotangent {i}", ast.Constant(None))
                node.elts[i] = element if found is None else found

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        left, right = node.left, node.right
        if _is_count(left) and _is_count(right):
            return node
        kept: list[tuple[str, ast.expr]] = []
        if isinstance(node.op, ast.Add):
            kept = [("left summand", right), ("right summand", left)]
        elif isinstance(node.op, ast.Sub):
            kept = [("minuend", ast.UnaryOp(ast.USub(), right)), ("subtrahend", left)]
        elif isinstance(node.op, ast.Mult):
            kept = [("left factor", right), ("right factor", left)]
        elif isinstance(node.op, ast.Div):
            kept = [("divisor", left)]
        for what, replacement in kept:
            found = self._take(node, what, replacement)
            if found is not None:
                return found
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        constant = isinstance(node.operand, ast.Constant) or "math." in ast.unparse(node)
        if isinstance(node.op, ast.USub) and not constant:
            found = self._take(node, "sign", node.operand)
            if found is not None:
                return found
        return self.generic_visit(node)

    # Conditions, indices and keywords are no terms.
    def visit_Compare(self, node: ast.Compare) -> Any:
        return node

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        return node

    def visit_keyword(self, node: ast.keyword) -> Any:
        return node

    def visit_Raise(self, node: ast.Raise) -> Any:
        return node

    def visit_arguments(self, node: ast.arguments) -> Any:
        return node


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_count(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "len"


def mutants_of(function: Any, users: tuple[Primitive, ...]) -> Iterator[Mutant]:
    """Give every mutant of a function that primitives use."""
    tree = _syntax(function)
    n = 0
    while True:
        visitor = _LeaveOut(n)
        new = visitor.visit(copy.deepcopy(tree))
        if visitor.change is None:
            return
        yield Mutant(function, users, visitor.change, _compiled(new, function))
        n += 1


def _syntax(function: Any) -> Any:
    """Find the syntax tree of a function in its file."""
    code = function.__code__
    module = ast.parse(Path(code.co_filename).read_text())
    names = list(inspect.signature(function).parameters)
    for node in ast.walk(module):
        if isinstance(node, (ast.Lambda, ast.FunctionDef)):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            if first == code.co_firstlineno and _parameters(node) == names:
                if isinstance(node, ast.FunctionDef):
                    node.decorator_list = []
                return node
    raise LookupError(f"no source of {function}")


def _parameters(node: Any) -> list[str]:
    a = node.args
    several = [a.vararg] if a.vararg else []
    named = [a.kwarg] if a.kwarg else []
    return [p.arg for p in [*a.posonlyargs, *a.args, *several, *a.kwonlyargs, *named]]


def _compiled(node: Any, function: Any) -> types.CodeType:
    """Compile a changed function, inside one that has its free variables."""
    free = function.__code__.co_freevars
    if isinstance(node, ast.Lambda):
        body: list[Any] = [ast.Return(node)]
    else:
        body = [node, ast.Return(ast.Name(node.name, ast.Load()))]
    arguments = ast.arguments([], [ast.arg(name) for name in free], None, [], [], None, [])
    outer = ast.FunctionDef("outer", arguments, body, [], type_params=[])
    tree = ast.fix_missing_locations(ast.Module([outer], []))
    namespace: dict[str, Any] = dict(function.__globals__)
    exec(compile(tree, function.__code__.co_filename, "exec"), namespace)
    return namespace["outer"](*([None] * len(free))).__code__  # type: ignore[no-any-return]


# --- The rule table ----------------------------------------------------------------------------


def rule_table() -> dict[Any, tuple[Primitive, ...]]:
    """Give the rules and the functions that only rules are made of, each with its users."""
    users: dict[Any, list[Primitive]] = {}
    for primitive in tg.ops.primitives().values():
        if primitive.gradient is None:
            continue
        for function in _with_helpers(primitive.gradient, forwards()):
            users.setdefault(function, []).append(primitive)
    return {function: tuple(found) for function, found in users.items()}


def forwards() -> set[Any]:
    """Give the functions that forwards call: a mutant of one would be another function."""
    found: set[Any] = set()
    for primitive in tg.ops.primitives().values():
        if isinstance(primitive.forward, Function):
            found |= set(_with_helpers(primitive.forward, set()))
    return found


def _with_helpers(function: Any, known: set[Any]) -> list[Any]:
    found, waiting = [], [function]
    while waiting:
        f = waiting.pop()
        if f in found or f in known:
            continue
        found.append(f)
        for name in f.__code__.co_names:
            helper = f.__globals__.get(name)
            if isinstance(helper, Function) and helper.__name__.startswith("_"):
                waiting.append(helper)
    return found


# --- Killing -----------------------------------------------------------------------------------


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Have the mutant in place of the function, in a ``with``."""
    function, code = mutant.function, mutant.function.__code__
    if len(code.co_freevars) == len(mutant.code.co_freevars):
        function.__code__ = mutant.code
    else:
        # Code cannot be exchanged for some with other free variables: replace the rule itself.
        for user in mutant.users:
            user.gradient = _with_fewer_variables(mutant)
    try:
        yield
    finally:
        function.__code__ = code
        for user in mutant.users:
            if len(code.co_freevars) != len(mutant.code.co_freevars):
                user.gradient = function


def _with_fewer_variables(mutant: Mutant) -> Any:
    function = mutant.function
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in mutant.code.co_freevars)
    changed = Function(mutant.code, function.__globals__, closure=closure)
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed


def killed(mutant: Mutant, draws: int) -> str:
    """Tell what notices the mutant: ``checker``, ``conventions``, or nothing, which is empty."""
    with applied(mutant), np.errstate(all="ignore"):
        if any(not passes(user, draws) for user in mutant.users):
            return "checker"
    with applied(mutant):
        return "" if conventions_hold() else "conventions"


def conventions_hold() -> bool:
    """Run the tests of what is right by convention, at ties, zeros and other kinks."""
    import pytest

    arguments = ["-q", "-x", "-p", "no:cacheprovider", str(CONVENTIONS)]
    with contextlib.redirect_stdout(io.StringIO()):
        return pytest.main(arguments) == pytest.ExitCode.OK


def passes(primitive: Primitive, draws: int) -> bool:
    """Check calls drawn from the domain of a primitive."""
    for seed in range(draws):
        args, params = primitive.domain.sample(RandomDraw(seed))
        if seed % 3 == 2:  # Rules may treat Python's numbers in another way.
            args = (args[0], *(float(a) if _is_number(a) else a for a in args[1:]))
        call = Call(primitive, *args, **params)
        if not call.wrt:
            continue
        options: dict[str, Any] = {"order": 1 + seed % 2, "rng": seed, "raises": False}
        try:
            report = check_gradients(call, *call.args, wrt=call.wrt, **options)
        except Exception:
            return False
        if report.verdict in ("wrong", "nondeterministic"):
            return False
    return True


def _is_number(x: Any) -> bool:
    return np.ndim(x) == 0 and np.asarray(x).dtype.kind == "f"


def score(
    only: list[str] | None = None, draws: int = 16, show: Callable[[str], None] = print
) -> dict[str, Any]:
    """Count the mutants and those that live.

    Parameters
    ----------
    only : list of str, optional
        Names of primitives; by default all.
    draws : int
        Calls per primitive that uses a mutant.
    show : callable
        Gets a line per mutant that lives.
    """
    killers: Counter[str] = Counter()
    survivors = []
    for function, users in rule_table().items():
        if only and not {p.name for p in users} & set(only):
            continue
        for mutant in mutants_of(function, users):
            killer = killed(mutant, draws)
            killers[killer] += 1
            if not killer:
                survivors.append(str(mutant))
                show(f"lives: {mutant}")
    total = killers.total()
    return {
        "mutants": total,
        "killed": {name: n for name, n in killers.items() if name},
        "score": 1 - len(survivors) / max(total, 1),
        "live": survivors,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", metavar="OP", help="names of primitives")
    parser.add_argument("--draws", type=int, default=16, help="calls per primitive")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    result = score(options.only, options.draws)
    seconds = time.perf_counter() - start
    killers = " and ".join(f"{n} by the {name}" for name, n in result["killed"].items())
    print(
        f"killed {killers}, of {result['mutants']} mutants: {result['score']:.1%}; {seconds:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["score"] >= 0.98 else 1


if __name__ == "__main__":
    sys.exit(main())
