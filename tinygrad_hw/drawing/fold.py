"""Folding: many boxes into one, and the comparison of two graphs."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import replace

from .graph import Edge, Graph, Group, Vertex, used_groups

# Repetitions of fewer parts than this are left as they are.
LEAST_REPEATS = 3
LONGEST_PERIOD = 64


def fold(graph: Graph, *, depth: int | None, patterns: str | Iterable[str], repeats: bool) -> Graph:
    """Fold groups by depth and by title, then repeated parts."""
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if depth is not None and depth < 0:
        raise ValueError(f"fold: depth is {depth}; want at least 0")
    if depth is not None or patterns:
        graph = _fold_groups(graph, depth, patterns)
    return _fold_repeats(graph) if repeats else graph


def limit(graph: Graph, most: int) -> Graph:
    """Fold until there are at most ``most`` boxes, and say so in the caption."""
    if most < 2:
        raise ValueError(f"draw: max_nodes is {most}; want at least 2")
    n = len(graph.nodes)
    if n <= most:
        return graph
    folded = _fold_repeats(graph)
    depth = max((len(_ancestors(graph, v.group)) for v in graph.nodes), default=0)
    while len(folded.nodes) > most and depth > 0:
        depth -= 1
        folded = _fold_groups(folded, depth, ())
    if len(folded.nodes) > most:
        folded = _fold_stretches(folded, most)
    note = f"folded from {n:,} boxes to {len(folded.nodes)}; max_nodes={n} shows all"
    return replace(folded, caption=f"{graph.caption}\n{note}")


def contract(graph: Graph, parts: list[tuple[str, list[Vertex]]]) -> Graph:
    """Put each part, a title and its nodes, into one box."""
    box_of: dict[str, str] = {}
    box_at: dict[str, Vertex] = {}
    for title, nodes in _with_constants(graph, parts):
        ops = [v for v in nodes if v.kind in ("op", "fold")]
        box = Vertex(
            id=nodes[0].id,
            kind="fold",
            title=title,
            lines=(f"{len(ops)} ops",),
            facts=(("holds", _summary(nodes)), ("shape", _shape(ops[-1] if ops else nodes[-1]))),
            marks=tuple(dict.fromkeys(mark for v in nodes for mark in v.marks))[:3],
            group=_shared_group(graph, ops or nodes),
            phase=nodes[0].phase,
            output=any(v.output for v in nodes),
        )
        box_of |= {v.id: box.id for v in nodes}
        box_at[box.id] = box
    kept = tuple(box_at.get(v.id, v) for v in graph.nodes if box_of.get(v.id, v.id) == v.id)
    edges = dict.fromkeys(
        Edge(box_of.get(e.tail, e.tail), box_of.get(e.head, e.head), e.position, e.label)
        if e.head not in box_of
        else Edge(box_of.get(e.tail, e.tail), box_of[e.head], 0, e.label)
        for e in graph.edges
        if box_of.get(e.tail, e.tail) != box_of.get(e.head, e.head)
    )
    return replace(graph, nodes=kept, edges=tuple(edges), groups=used_groups(graph.groups, kept))


def _with_constants(
    graph: Graph, parts: list[tuple[str, list[Vertex]]]
) -> list[tuple[str, list[Vertex]]]:
    """Add to each part the constants without a name that nothing outside it uses."""
    part_of = {v.id: i for i, (_, nodes) in enumerate(parts) for v in nodes}
    users: dict[str, set[int]] = {}
    for edge in graph.edges:
        users.setdefault(edge.tail, set()).add(part_of.get(edge.head, -1))
    whole = [(title, list(nodes)) for title, nodes in parts]
    for vertex in graph.nodes:
        used_in = users.get(vertex.id, {-1})
        nameless = vertex.kind == "input" and vertex.title == "constant"
        if nameless and vertex.id not in part_of and len(used_in) == 1:
            (part,) = used_in
            if part >= 0:
                whole[part][1].append(vertex)
    return whole


def _summary(nodes: list[Vertex]) -> str:
    counts: dict[str, int] = {}
    for vertex in nodes:
        counts[vertex.title] = counts.get(vertex.title, 0) + 1
    return ", ".join(f"{n} {title}" for title, n in sorted(counts.items(), key=lambda c: -c[1])[:6])


def _shape(vertex: Vertex) -> str:
    return dict(vertex.facts).get("shape", "")


# --- Groups -----------------------------------------------------------------------------------


def _ancestors(graph: Graph, group: str) -> list[Group]:
    """Give a group and those around it, outermost first."""
    by_id = {g.id: g for g in graph.groups}
    path = []
    while group:
        path.append(by_id[group])
        group = by_id[group].parent
    return path[::-1]


def _shared_group(graph: Graph, nodes: list[Vertex]) -> str:
    paths = [[g.id for g in _ancestors(graph, group)] for group in {v.group for v in nodes}]
    shared = ""
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared = level[0]
    return shared


def _fold_groups(graph: Graph, depth: int | None, patterns: tuple[str, ...]) -> Graph:
    titles = {g.id: g.title for g in graph.groups}
    folded_into: dict[str, str] = {}
    for group in titles:
        for level, around in enumerate(_ancestors(graph, group)):
            if (depth is not None and level >= depth) or any(
                fnmatch.fnmatchcase(around.title, pattern) for pattern in patterns
            ):
                folded_into[group] = around.id
                break
    members: dict[str, list[Vertex]] = {}
    for vertex in graph.nodes:
        if vertex.group in folded_into:
            members.setdefault(folded_into[vertex.group], []).append(vertex)
    parts = [(titles[group], nodes) for group, nodes in members.items()]
    folded = contract(graph, parts)
    # A folded group's box lies in the group around it.
    parents = {g.id: g.parent for g in graph.groups}
    moved = tuple(
        replace(v, group=parents[v.group])
        if v.kind == "fold" and folded_into.get(v.group) == v.group
        else v
        for v in folded.nodes
    )
    return replace(folded, nodes=moved, groups=used_groups(graph.groups, moved))


# --- Repetitions ------------------------------------------------------------------------------


def _fold_repeats(graph: Graph) -> Graph:
    """Fold runs of equal stretches of ops into one box each, with their count."""
    ops = [v for v in graph.nodes if v.kind in ("op", "fold")]
    words = [_signature(v) for v in ops]
    parts = []
    start = 0
    while start < len(ops):
        period, times = _longest_run(words, start)
        if times < LEAST_REPEATS:
            start += 1
            continue
        run = ops[start : start + period * times]
        names = list(dict.fromkeys(v.title for v in run[:period]))
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        parts.append((f"{times} \N{MULTIPLICATION SIGN} ({some})", run))
        start += period * times
    return contract(graph, parts)


def _signature(vertex: Vertex) -> str:
    return f"{vertex.title}{_shape(vertex)}{vertex.phase}"


def _longest_run(words: list[str], start: int) -> tuple[int, int]:
    """Find the period whose repetitions from ``start`` on cover most."""
    best = (1, 1)
    for period in range(1, min(LONGEST_PERIOD, (len(words) - start) // LEAST_REPEATS) + 1):
        if words[start] != words[start + period]:
            continue
        end = start + period
        while end < len(words) and words[end] == words[end - period]:
            end += 1
        times = (end - start) // period
        if times >= LEAST_REPEATS and times * period > best[0] * best[1]:
            best = (period, times)
    return best


def _fold_stretches(graph: Graph, most: int) -> Graph:
    """Fold stretches of equal length in the order of computation; arrows only lead onwards."""
    nodes = list(graph.nodes)
    length = -(-len(nodes) // most)
    stretches = [nodes[i : i + length] for i in range(0, len(nodes), length)]
    parts = [(f"{len(part)} boxes", part) for part in stretches if len(part) > 1]
    return contract(graph, parts)


# --- Comparison -------------------------------------------------------------------------------


def diff(old: Graph, new: Graph) -> Graph:
    """Give both graphs in one: what is only in one of them is marked as added or removed."""
    before, after = ([(v.kind, v.title, v.lines) for v in g.nodes] for g in (old, new))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    same: dict[str, str] = {}
    added: set[str] = set()
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(old.nodes[i:j], new.nodes[k:m], strict=True)
            same |= {a.id: b.id for a, b in pairs}
        else:
            added |= {v.id for v in new.nodes[k:m]}
    nodes = [replace(v, marks=("added", *v.marks)) if v.id in added else v for v in new.nodes]
    renamed = {v.id: same.get(v.id, f"old_{v.id}") for v in old.nodes}
    nodes += [
        replace(v, id=renamed[v.id], marks=("removed", *v.marks), group="")
        for v in old.nodes
        if v.id not in same
    ]
    gone = {v.id for v in old.nodes if v.id not in same}
    edges = list(new.edges) + [
        replace(e, tail=renamed[e.tail], head=renamed[e.head])
        for e in old.edges
        if e.tail in gone or e.head in gone
    ]
    return replace(new, nodes=tuple(nodes), edges=tuple(edges))
