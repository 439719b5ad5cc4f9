"""The text form: a tree from the outputs down; and how any text is made safe to show."""

from __future__ import annotations

import re

from .graph import WORDS, Graph, Vertex

_BREAKS = re.compile("\r\n|[\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029]")
# Scripts and emoji need them, though Python calls them unprintable.
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


def text(graph: Graph) -> str:
    """Draw a graph as a tree; a node's second and later occurrences refer to its first."""
    inputs: dict[str, list[str]] = {}
    used = set()
    for edge in sorted(graph.edges, key=lambda e: e.position):
        inputs.setdefault(edge.head, []).append(edge.tail)
        used.add(edge.tail)
    by_id = {v.id: v for v in graph.nodes}
    roots = [v.id for v in graph.nodes if v.output or v.id not in used]
    lines: list[str] = []
    seen: set[str] = set()
    stack = [(root, "", "") for root in reversed(roots)]
    while stack:
        node, branch, indent = stack.pop()
        again = node in seen
        lines.append(branch + _line(by_id[node], again))
        if again:
            continue
        seen.add(node)
        below = inputs.get(node, [])
        for k, child in reversed(list(enumerate(below))):
            last = k == len(below) - 1
            stack.append(
                (child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
            )
    return "\n".join([*lines, *map(visible, graph.caption.splitlines())])


def _line(vertex: Vertex, again: bool) -> str:
    head = visible(f"{vertex.title} {vertex.shape}".rstrip())
    if again:
        return f"{head}  above"
    word = WORDS.get(vertex.kind, "")
    words = [word if word != vertex.title else "", *vertex.lines, *notes(vertex)]
    return "  ".join([head, *(visible(word) for word in words if word)])


def notes(vertex: Vertex) -> list[str]:
    """Say what changed and what is wrong."""
    change = {"added": ["+ added"], "removed": ["- removed"]}.get(vertex.change, [])
    return [*change, *(f"! {mark}" for mark in vertex.marks)]


def visible(text: str) -> str:
    """Give text as one line without control characters."""
    line = _BREAKS.sub("\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", text)
    shown = (c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in line)
    return "".join(shown)
