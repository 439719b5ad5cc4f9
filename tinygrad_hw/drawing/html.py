"""The HTML form: one file that needs no network, with the drawings of all folding depths inside."""

from __future__ import annotations

import json
import re
from html import escape
from importlib import resources
from typing import Any

from .graph import Graph
from .render import render
from .text import visible


def html(graph: Graph) -> str:
    """Draw a graph as a page: pan, zoom, search, facts of a node, folding, playing the backward."""
    views = _views(graph)
    parts = {
        "TITLE": escape(visible(graph.caption.partition("\n")[0])),
        "DRAWINGS": "\n".join(_drawing(view, k) for k, view in enumerate(views)),
        "DATA": _for_script([_data(view) for view in views]),
    }
    page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    # In one pass: a name in a part may look like the place of another part.
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], page)


def _views(graph: Graph) -> list[Graph]:
    """Give the graph folded at each depth, the whole one last."""
    depths = {"": 0}
    for group in graph.groups:
        depths[group.id] = depths[group.parent] + 1
    return [graph.fold(depth=depth) for depth in range(max(depths.values()))] + [graph]


def _drawing(graph: Graph, number: int) -> str:
    """Take the drawing out of an SVG file, make its ids those of this view, and mark its edges."""
    svg = render(graph.dot(), "svg").decode()
    svg = re.sub(r"<title>%\d+</title>", "", svg[svg.index("<svg") :])
    svg = re.sub(
        r'<g id="edge\d+" class="edge">\n<title>(\w+)&#45;&gt;(\w+)</title>',
        r'<g class="edge" data-tail="\1" data-head="\2">',
        svg,
    )
    svg = re.sub(
        r'<g id="(\w+)" class="(node|cluster)">\n<title>\w+</title>',
        rf'<g id="v{number}-\1" class="\2">',
        svg,
    )
    svg = re.sub(r'<g id="a_\w+"><a xlink:title="([^"]*)">', r"<g><title>\1</title><a>", svg)
    return f'<div class="view" data-view="{number}">{svg}</div>'


def _data(graph: Graph) -> dict[str, Any]:
    """Give what the page says of the boxes, and the order in which the backward reaches them."""
    nodes = {
        v.id: {
            "title": visible(v.title),
            "kind": v.phase if v.kind == "op" else v.kind,
            "facts": [(name, visible(text)) for name, text in (("kind", v.kind), *v.facts)],
            "marks": [visible(mark) for mark in v.marks],
            "change": v.change,
            "histogram": v.histogram and v.histogram._asdict(),
            "group": v.group,
        }
        for v in graph.nodes
    }
    groups = {g.id: {"title": visible(g.title), "parent": g.parent} for g in graph.groups}
    ops = [v for v in graph.nodes if v.kind in ("op", "fold")]
    recorded = [v.id for v in ops if v.phase == "backward"]
    walked = [v.id for v in reversed(graph.nodes) if "grad" in dict(v.facts)]
    return {"nodes": nodes, "groups": groups, "steps": recorded or walked}


def _for_script(data: object) -> str:
    """Give JSON that can stand in a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
