"""Renderers: Graphviz's ``dot`` on the PATH, else the one that pygraphviz carries."""

from __future__ import annotations

import re
import shutil
from typing import Any

ADVICE = (
    "no renderer: neither Graphviz's dot is on the PATH nor pygraphviz installed; run "
    'pip install "tinygrad_hw[draw]", or install Graphviz (apt install graphviz, brew install '
    "graphviz); the text and DOT forms need neither"
)


# Of PNG: sharp at 1.5 times the size of the SVG's points, or on a fine screen.
DPI = 144


class RendererError(RuntimeError):
    """No renderer is installed, or it failed."""


def render(source: str, format: str) -> bytes:
    """Draw DOT source as svg, png or pdf."""
    if format == "png":
        source = source.replace("{", f"{{\n\tgraph [dpi={DPI}]", 1)
    drawn = _drawn(source, format)
    if format == "pdf":
        # The same graph gives the same bytes; a date of this length leaves the places in them.
        drawn = re.sub(rb"(?<=/CreationDate \(D:)\d{14}", b"19700101000000", drawn)
    return drawn


def _drawn(source: str, format: str) -> bytes:
    if shutil.which("dot"):
        return _by_dot(source, format)
    try:
        import pygraphviz
    except ImportError as error:
        raise RendererError(ADVICE) from error
    return _by_pygraphviz(pygraphviz, source, format)


def svg(source: str) -> str:
    """Draw DOT source as SVG whose tooltips are what the source says, and not Graphviz's ids."""
    text = render(source, "svg").decode()
    text = re.sub(r'<title>[^<]*</title>\n(<g id="[^"]*"><a xlink:title="([^"]*)">)', _titled, text)
    return re.sub(r"<title>(%\d+|[^<]*&#45;&gt;[^<]*)</title>\n", "", text)


def _titled(match: re.Match[str]) -> str:
    return f"<title>{match[2]}</title>\n{match[1]}"


def renderer() -> str | None:
    """Name the renderer that would be used, if any."""
    if shutil.which("dot"):
        return "dot"
    try:
        import pygraphviz
    except ImportError:
        return None
    return f"pygraphviz {pygraphviz.__version__}"


def package() -> Any:
    """Give the package ``graphviz``, which calls ``dot``."""
    try:
        import graphviz
    except ImportError as error:
        raise RendererError(
            'the package graphviz is not installed; run pip install "tinygrad_hw[draw]"; the text '
            "and DOT forms do without it"
        ) from error
    return graphviz


def _by_dot(source: str, format: str) -> bytes:
    graphviz = package()
    try:
        # Sent as a whole: a dot that ends before it has read all lines would be a broken pipe.
        drawn: bytes = graphviz.pipe("dot", format, source.encode(), quiet=True)
    except (graphviz.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        raise RendererError(
            f"dot failed: {said}; repair Graphviz (`dot -c` registers its plugins), or take dot "
            'off the PATH and run pip install "tinygrad_hw[draw]"'
        ) from error
    return drawn


def _by_pygraphviz(pygraphviz: Any, source: str, format: str) -> bytes:
    graph = pygraphviz.AGraph(string=source)
    try:
        drawn: bytes = graph.draw(format=format, prog="dot")
    except (OSError, ValueError) as error:
        raise RendererError(f"pygraphviz failed: {error}") from error
    finally:
        graph.close()
    return drawn
