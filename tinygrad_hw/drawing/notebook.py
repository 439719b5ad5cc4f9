"""What a notebook shows of graphs, tensors and modules; each also has its plain text."""

from __future__ import annotations

from html import escape
from typing import Any

from .facts import length
from .graph import Graph
from .render import RendererError

# Of the picture under a tensor's values; a larger graph is folded.
MOST_BOXES = 40


def of_graph(graph: Graph) -> dict[str, str]:
    """Show a graph as SVG, or as text where nothing can draw it."""
    try:
        return {"image/svg+xml": graph.svg(), "text/plain": graph.text()}
    except RendererError:
        return {"text/plain": graph.text()}


def of_tensor(tensor: Any) -> dict[str, str]:
    """Show a tensor's values, and under them what it was computed from, folded to be small."""
    from . import draw

    text = repr(tensor)
    if tensor.is_leaf:
        return {"text/plain": text}
    try:
        picture = draw(tensor, depth=0, max_nodes=MOST_BOXES).svg()
    except RendererError:
        return {"text/plain": text}
    drawing = picture[picture.index("<svg") :]
    html = f'<pre>{escape(text)}</pre><div style="overflow-x: auto">{drawing}</div>'
    return {"text/plain": text, "text/html": html}


def of_module(module: Any) -> dict[str, str]:
    """Show a module as a table of its submodules and their parameters."""
    rows = [_row("module", "parameters", "shapes", "gradient", cell="th")]
    for path, below in module.named_modules():
        own = [(name, t) for name, t in vars(below).items() if getattr(t, "requires_grad", False)]
        kind = type(below).__name__
        indent = "\N{EM SPACE}" * (path.count(".") + 1 if path else 0)
        rows.append(
            _row(
                f"{indent}{path}: {kind}" if path else kind,
                f"{sum(t.size for t in below.parameters()):,}",
                ", ".join(f"{name} {t.shape}" for name, t in own),
                ", ".join(_gradient(t) for _, t in own),
            )
        )
    return {"text/plain": repr(module), "text/html": f"<table>{''.join(rows)}</table>"}


def _gradient(parameter: Any) -> str:
    return "none" if parameter.grad is None else f"{length(parameter.grad):.3g}"


def _row(*texts: str, cell: str = "td") -> str:
    style = ' style="text-align: left"'
    return f"<tr>{''.join(f'<{cell}{style}>{escape(t)}</{cell}>' for t in texts)}</tr>"
