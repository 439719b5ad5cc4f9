"""The HTML form: one file that needs no network, with the drawings of all folding depths inside."""

from __future__ import annotations

import json
import re
from importlib import resources

from .graph import Graph
from .render import render


def html(graph: Graph) -> str:
    """Draw a graph as a page: pan, zoom, search, facts of a node, folding, playing the backward."""
    views = _views(graph)
    drawings = [_drawing(render(view.dot(), "svg").decode(), k) for k, view in enumerate(views)]
    data = [
        {
            v.id: {
                "title": v.title,
                "kind": v.kind,
                "phase": v.phase,
                "facts": v.facts,
                "marks": v.marks,
                "histogram": v.histogram,
                "inputs": [e.tail for e in view.edges if e.head == v.id],
            }
            for v in view.nodes
        }
        for view in views
    ]
    page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return (
        page.replace("@VIEWS@", "\n".join(drawings))
        .replace("@COUNT@", str(len(views) - 1))
        .replace("@DATA@", _for_script(data))
    )


def _views(graph: Graph) -> list[Graph]:
    """Give the graph folded at each depth, the whole one last."""
    parents = {g.id: g.parent for g in graph.groups}
    deepest = 0
    for group in parents:
        depth = 1
        while parents[group]:
            group, depth = parents[group], depth + 1
        deepest = max(deepest, depth)
    return [graph.fold(depth=depth) for depth in range(deepest)] + [graph]


def _drawing(svg: str, number: int) -> str:
    """Take the drawing out of an SVG file, and make its ids those of this view."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'(<g id=")(\w+)(" class="node")', rf"\g<1>v{number}-\g<2>\g<3>", body)
    return f'<div class="view" data-view="{number}">{body}</div>'


def _for_script(data: object) -> str:
    """Give JSON that can stand in a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
