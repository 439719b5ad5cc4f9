"""The DOT form: shapes, words and colours of boxes, clusters for modules."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Edge, Graph, Group, Vertex

FONT = "Helvetica,Arial,sans-serif"
LONGEST = 40

# Told apart by shape and words too, not only by colour.
_STYLES = {
    "op": 'shape=box style="rounded,filled" color="#20639b" fillcolor="#eaf2fb"',
    "backward": 'shape=box style="rounded,filled" color="#6a4fa3" fillcolor="#f1ecfa"',
    "parameter": 'shape=box style=filled peripheries=2 color="#b5541c" fillcolor="#fdf1e7"',
    "input": 'shape=box style="filled,dashed" color="#555555" fillcolor="#fafafa"',
    "saved": 'shape=box style="filled,dotted" color="#555555" fillcolor="#f6f6f6"',
    "fold": 'shape=box3d style=filled color="#20639b" fillcolor="#dfeaf6"',
}
_MARKED = ' color="#c21807" fontcolor="#a01005" fillcolor="#fde8e6" penwidth=2.4'


def dot(graph: Graph) -> str:
    """Give a graph in the DOT language."""
    return "digraph {\n" + "".join(body(graph)) + "}\n"


def body(graph: Graph) -> list[str]:
    """Give the lines between the braces."""
    caption = _label(graph.caption, longest=300)
    lines = [
        f'\tgraph [rankdir={graph.direction} fontname="{FONT}" fontsize=11 fontcolor="#444444" '
        f"nodesep=0.22 ranksep=0.42 pad=0.15 labelloc=b labeljust=l label={caption}"
        ' bgcolor="white"]\n',
        f'\tnode [fontname="{FONT}" fontsize=11 margin="0.12,0.06" height=0.3]\n',
        f'\tedge [fontname="{FONT}" fontsize=9 fontcolor="#666666" color="#777777" '
        "arrowsize=0.6]\n",
    ]
    inside: dict[str, list[Vertex]] = {}
    for vertex in graph.nodes:
        inside.setdefault(vertex.group, []).append(vertex)
    below: dict[str, list[Group]] = {}
    for group in graph.groups:
        below.setdefault(group.parent, []).append(group)
    lines += [_vertex(vertex) for vertex in inside.get("", ())]
    for group in below.get("", ()):
        lines += _cluster(group, inside, below)
    lines += [_edge(edge) for edge in graph.edges]
    return lines


def _cluster(
    first: Group, inside: dict[str, list[Vertex]], below: dict[str, list[Group]]
) -> Iterator[str]:
    # With a stack: models are not deep, but a picture must not fail on one that is.
    stack: list[Group | None] = [first]
    while stack:
        group = stack.pop()
        if group is None:
            yield "\t}\n"
            continue
        yield f"\tsubgraph cluster_{group.id} {{\n"
        yield (
            f'\tgraph [label={_label(group.title)} style="rounded,filled" color="#b8c4d0" '
            'fillcolor="#f7f9fb" fontsize=10 labelloc=t labeljust=l]\n'
        )
        yield from map(_vertex, inside.get(group.id, ()))
        stack.append(None)
        stack.extend(reversed(below.get(group.id, ())))


def _vertex(vertex: Vertex) -> str:
    style = _STYLES[
        "backward" if vertex.kind == "op" and vertex.phase == "backward" else vertex.kind
    ]
    if vertex.output:
        style += " penwidth=2"
    if vertex.marks:
        style += _MARKED
    lines = [vertex.title, *vertex.lines, *(f"! {mark}" for mark in vertex.marks)]
    tooltip = [vertex.title, *(f"{name}: {value}" for name, value in vertex.facts), *vertex.marks]
    return (
        f"\t{vertex.id} [id={vertex.id} label={_label(*lines)} {style} "
        f"tooltip={_label(*tooltip, longest=400)}]\n"
    )


def _edge(edge: Edge) -> str:
    label = f" [label={_label(edge.label)}]" if edge.label else ""
    return f"\t{edge.tail} -> {edge.head}{label}\n"


def _label(*lines: str, longest: int = LONGEST) -> str:
    """Quote lines as plain text: nothing in them is markup or an escape of DOT."""
    parts = [part for line in lines for part in line.splitlines()]
    return '"' + "\\n".join(_plain(part, longest) for part in parts) + '"'


def _plain(text: str, longest: int) -> str:
    text = shorten(
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text), longest
    )
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a long text in the middle."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
