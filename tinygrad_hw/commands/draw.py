"""``tinygrad-hw draw``: picture a model of the handout, or what a function of a file returns."""

from __future__ import annotations

import argparse
import inspect
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygrad_hw import models
from tinygrad_hw.commands import output_folder
from tinygrad_hw.debugging import lines
from tinygrad_hw.drawing import RendererError, draw
from tinygrad_hw.drawing.build import ORDERS, SHOWABLE
from tinygrad_hw.errors import Failed, GraphError
from tinygrad_hw.graph import Handle


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "what",
        help="mlp, cnn, or path.py:function, a function without arguments that returns a tensor",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write, ending in svg, png, pdf, dot, html, json or txt; without it the graph "
        "is printed",
    )
    parser.add_argument(
        "--show",
        default="shape",
        help=f"what the labels say, by default shape; comma-separated: {', '.join(SHOWABLE)}",
    )
    parser.add_argument(
        "--order", choices=ORDERS, default="forward", help="which pass, by default forward"
    )
    parser.add_argument(
        "--direction",
        choices=("LR", "TB", "RL", "BT"),
        default="LR",
        help="left to right (the default), top to bottom, or against these",
    )
    parser.add_argument("--depth", type=int, help="fold modules that lie this deep; 0 folds all")
    parser.add_argument(
        "--max-nodes", type=int, default=200, help="fold graphs of more boxes, by default 200"
    )


def run(options: argparse.Namespace) -> int:
    """Write the picture, or print it as text."""
    try:
        return _draw(options)
    except (GraphError, RendererError) as error:
        raise ValueError(str(error)) from error


def _draw(options: argparse.Namespace) -> int:
    outputs, names = _outputs(options.what)
    graph = draw(
        *outputs,
        names=names,
        show=[name.strip() for name in options.show.split(",") if name.strip()],
        order=options.order,
        direction=options.direction,
        depth=options.depth,
        max_nodes=options.max_nodes,
    )
    if options.out is None:
        print(graph.text())
        return 0
    output_folder(options.out.parent)
    print(f"wrote {graph.save(options.out)}")
    return 0


def _outputs(what: str) -> tuple[tuple[Any, ...], Any]:
    if what in ("mlp", "cnn"):
        model = models.MLP(rng=0) if what == "mlp" else models.CNN(rng=0)
        with lines():
            loss, names = models.example_loss(model)
        return (loss,), names
    path, _, function = what.rpartition(":")
    if not path.endswith(".py") or not function:
        raise ValueError(f"got {what!r}; want mlp, cnn or path.py:function")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    # As for `python path.py`: the file may import what lies beside it.
    sys.path.insert(0, str(Path(path).resolve().parent))
    with _line_of(path):
        found = runpy.run_path(path).get(function)
    if not callable(found):
        raise ValueError(f"{path} has no function {function!r}")
    with _line_of(path):
        result, names = _with_variables(found)
    outputs = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    if not outputs or not all(isinstance(output, Handle) for output in outputs):
        raise ValueError(f"{what} returned {type(result).__name__}; want a Tensor, or several")
    return outputs, names


@contextmanager
def _line_of(path: str) -> Iterator[None]:
    """Name the file and the line of an error of a user's file, in place of a traceback."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = [frame.lineno for frame in frames if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else at[-1] if at else None
        where = f"{path}, line {line}" if line else path
        picture = f"\n{error.graph.text()}" if isinstance(error, Failed) else ""
        raise ValueError(f"{where}: {type(error).__name__}: {error}{picture}") from error


def _with_variables(function: Any) -> tuple[Any, dict[str, Any]]:
    """Call a function; give its result and its variables, which name what the picture shows."""
    variables: dict[str, Any] = {}
    code = getattr(inspect.unwrap(function), "__code__", None)

    def watch(frame: Any, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code is code:
            variables.update(frame.f_locals)

    # A model that only the function knows is gone when it returns, with the names it gives.
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        with lines():
            result = function()
    finally:
        sys.setprofile(before)
    return result, variables
