"""The DOT form: shapes, words and colours of boxes, clusters for modules."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Edge, Graph, Group, Vertex
from .text import notes, visible

FONT = "Helvetica,Arial,sans-serif"
LONGEST = 40
# Of a model's picture, backward included, there are fewer edges more than boxes.
TANGLED = 100

# Told apart by shape and words too, not only by colour.
_STYLES = {
    "op": 'shape=box style="rounded,filled" color="#20639b" fillcolor="#eaf2fb"',
    "backward": 'shape=box style=filled color="#6a4fa3" fillcolor="#f1ecfa"',
    "parameter": 'shape=box style=filled peripheries=2 color="#b5541c" fillcolor="#fdf1e7"',
    "constant": 'shape=box style="filled,dashed" color="#555555" fillcolor="#fafafa"',
    "input": 'shape=box style="filled,dashed" color="#555555" fillcolor="#fafafa"',
    "saved": 'shape=box style="filled,dotted" color="#555555" fillcolor="#f6f6f6"',
    "fold": 'shape=folder style=filled color="#20639b" fillcolor="#dfeaf6"',
}
_MARKED = ' color="#c21807" fontcolor="#a01005" fillcolor="#fde8e6" penwidth=2.4'
_CHANGED = {
    "": "",
    "added": ' color="#1b7837" fontcolor="#145a29" fillcolor="#e3f4e6" penwidth=2.4',
    "removed": ' color="#8c510a" fontcolor="#8c510a" fillcolor="#fbf3e4" penwidth=1.2',
}


def dot(graph: Graph) -> str:
    """Give a graph in the DOT language."""
    return "digraph {\n" + "".join(body(graph)) + "}\n"


def body(graph: Graph) -> list[str]:
    """Give the lines between the braces."""
    caption = _label(*graph.caption.splitlines(), longest=300)
    lines = [
        f'\tgraph [rankdir={graph.direction} fontname="{FONT}" fontsize=11 fontcolor="#444444" '
        f"newrank=true nodesep=0.22 ranksep=0.42 pad=0.15 labelloc=b labeljust=l label={caption}"
        f' bgcolor="white"{_hurry(graph)}]\n',
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
    for group in graph.groups:
        # A frame around a single box would say in more ink what a line of its label says.
        alone = inside.get(group.id, []) if group.id not in below else []
        if len(alone) == 1:
            framed = alone[0]._replace(lines=(group.title, *alone[0].lines))
            inside.setdefault(group.parent, []).append(framed)
            inside[group.id] = []
    lines += [_vertex(vertex) for vertex in inside.get("", ())]
    homes = {v.group for v in graph.nodes if v.kind == "parameter"}
    for group in reversed(graph.groups):
        homes |= {group.parent} if group.id in homes else set()
    for group in below.get("", ()):
        lines += _cluster(group, inside, below, homes)
    computed = {vertex.id for vertex in graph.nodes if vertex.kind in ("op", "fold")}
    lines += [_edge(edge, edge.tail in computed) for edge in graph.edges]
    return lines


def _hurry(graph: Graph) -> str:
    """Settings by which Graphviz does not take minutes for a tangle, of less beautiful edges."""
    tangled = len(graph.edges) - len(graph.nodes) > TANGLED
    return " nslimit=1 splines=line" if tangled else ""


def _cluster(
    first: Group,
    inside: dict[str, list[Vertex]],
    below: dict[str, list[Group]],
    homes: set[str],
) -> Iterator[str]:
    # With a stack: models are not deep, but a picture must not fail on one that is.
    stack: list[Group | None] = [first]
    while stack:
        group = stack.pop()
        if group is None:
            yield "\t}\n"
            continue
        if not inside.get(group.id) and group.id not in below:
            continue
        yield f"\tsubgraph cluster_{group.id} {{\n"
        title = _label(group.title)
        # Beside parameters there is room for a title at the top; elsewhere arrows come in.
        place = "t" if group.id in homes else "b"
        yield (
            f'\tgraph [id={group.id} label={title} tooltip={title} style="rounded,filled" '
            f'color="#b8c4d0" fillcolor="#f7f9fb" fontsize=10 labelloc={place} labeljust=l]\n'
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
    style += _MARKED if vertex.marks else _CHANGED[vertex.change]
    first, second = (
        (vertex.lines, (vertex.word,)) if vertex.output else ((vertex.word,), vertex.lines)
    )
    lines = [vertex.title, *first, *second, *notes(vertex)]
    facts = [f"{name}: {value}" for name, value in vertex.facts]
    return (
        f"\t{vertex.id} [id={vertex.id} label={_label(*lines)} {style} "
        f"tooltip={_label(vertex.title, *facts, *notes(vertex), longest=400)}]\n"
    )


def _edge(edge: Edge, computed: bool) -> str:
    # Spaces keep the words off the line; weight keeps the chain of ops straight.
    settings = [f"label={_label(f' {edge.label} ')}"] if edge.label else []
    settings += ["weight=4"] if computed else []
    attributes = f" [{' '.join(settings)}]" if settings else ""
    return f"\t{edge.tail} -> {edge.head}{attributes}\n"


def _label(*lines: str, longest: int = LONGEST) -> str:
    """Quote lines as plain text: nothing in them is markup or an escape of DOT."""
    return '"' + "\\n".join(_plain(line, longest) for line in lines if line) + '"'


def _plain(text: str, longest: int) -> str:
    text = shorten(visible(text), longest)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a long text in the middle."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
