"""The text form: a tree from the outputs down."""

from __future__ import annotations

from .graph import Graph, Vertex

_WORDS = {"parameter": "parameter", "input": "input", "saved": "saved", "fold": "folded"}


def text(graph: Graph) -> str:
    """Draw a graph as a tree; a node's second and later occurrences refer to its first."""
    inputs: dict[str, list[str]] = {}
    heads = set()
    for edge in sorted(graph.edges, key=lambda e: e.position):
        inputs.setdefault(edge.head, []).append(edge.tail)
        heads.add(edge.tail)
    by_id = {v.id: v for v in graph.nodes}
    roots = [v.id for v in graph.nodes if v.output or v.id not in heads]
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
    return "\n".join([*lines, *graph.caption.splitlines()])


def _line(vertex: Vertex, again: bool) -> str:
    shape = dict(vertex.facts).get("shape", "")
    words = [f"{vertex.title} {shape}".rstrip()]
    if again:
        return f"{words[0]}  above"
    if vertex.kind in _WORDS:
        words.append(_WORDS[vertex.kind])
    words += [line for line in vertex.lines if shape not in line or not shape]
    words += [f"! {mark}" for mark in vertex.marks]
    return "  ".join(words)
