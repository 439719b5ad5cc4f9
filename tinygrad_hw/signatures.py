"""What functions say of their parameters, read from their code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

Function = Callable[..., Any]


def arity_of(forward: Function) -> int | None:
    """Number of arguments, if there are only positional ones."""
    if isinstance(forward, np.ufunc):
        return forward.nin
    required, others, _ = parameters_of(forward)
    return None if others else len(required)


def parameters_of(function: Function) -> tuple[list[str], list[str], bool]:
    """Name the parameters that come by position and have no default, and the others.

    Stars are among the others; the last says whether there is one for positions.
    """
    if type(function) is FunctionType and not hasattr(function, "__wrapped__"):
        # A signature takes ten times as long, a seventh of the import of this package.
        code, flags = function.__code__, function.__code__.co_flags
        stars = bool(flags & inspect.CO_VARARGS) + bool(flags & inspect.CO_VARKEYWORDS)
        names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + stars])
        n = code.co_argcount - len(function.__defaults__ or ())
        return names[:n], names[n:], bool(flags & inspect.CO_VARARGS)
    parameters = inspect.signature(function).parameters.values()
    required = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    others = [p.name for p in parameters if p.name not in required]
    return required, others, any(p.kind is p.VAR_POSITIONAL for p in parameters)


def keywords_of(function: FunctionType) -> Sequence[str]:
    code = function.__code__
    return code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]


def with_defaults(rule: Function, forward: Function) -> Function:
    """Give a rule for which static parameters that a call leaves out are what the forward takes."""
    if not (type(rule) is type(forward) is FunctionType):
        return rule
    names, defaults = keywords_of(rule), rule.__kwdefaults__ or {}
    meant = {name: x for name, x in (forward.__kwdefaults__ or {}).items() if name in names}
    if all(name in defaults and defaults[name] is x for name, x in meant.items()):
        return rule
    # A copy, since a function may be the rule of several primitives.
    copy = FunctionType(
        rule.__code__, rule.__globals__, rule.__name__, rule.__defaults__, rule.__closure__
    )
    copy.__kwdefaults__ = {**defaults, **meant}
    return copy
