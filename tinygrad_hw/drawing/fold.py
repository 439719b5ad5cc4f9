"""Folding: many boxes into one, and the comparison of two graphs."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..settings import check, check_whole
from .facts import count, size
from .graph import Cost, Edge, Graph, Group, Vertex, used_groups

# Repetitions of fewer parts than this are left as they are.
LEAST_REPEATS = 3
LONGEST_PERIOD = 256


def fold(graph: Graph, *, depth: int | None, patterns: str | Iterable[str], repeats: bool) -> Graph:
    """Fold groups by depth and by title, then repeated parts."""
    check("fold", "patterns", patterns, "a pattern, or several", iter)
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if depth is not None:
        check_whole("fold", "depth", depth, 0)
    if depth is not None or patterns:
        graph = _fold_groups(graph, depth, patterns)
    return _fold_repeats(graph) if repeats else graph


def limit(graph: Graph, most: int) -> Graph:
    """Fold until there are at most ``most`` boxes, and say so in the caption."""
    n = len(graph.nodes)
    if n <= most:
        return graph
    folded = fewer = _fold_repeats(graph, enough=most)
    depths = range(max(map(len, _paths(graph).values())) - 1, 0, -1)
    # The backward pass is one group without parts; a whole forward is worth more than its outline.
    ways = [
        *((d, ()) for d in depths),
        (None, ("backward",)),
        *((d, ("backward",)) for d in depths),
    ]
    for depth, patterns in [*ways, (0, ())]:
        if len(folded.nodes) <= most:
            break
        folded = _fold_groups(fewer, depth, patterns)
    if len(folded.nodes) > most:
        folded = _fold_stretches(folded, most)
    note = f"folded from {n:,} boxes to {len(folded.nodes)}; max_nodes={n} shows all"
    return replace(folded, caption=f"{graph.caption}\n{note}")


def contract(graph: Graph, parts: list[tuple[str, list[Vertex]]]) -> Graph:
    """Put each part, a title and its nodes, into one box."""
    box_of: dict[str, str] = {}
    box_at: dict[str, Vertex] = {}
    paths = _paths(graph)
    for title, nodes in _with_leaves(graph, parts):
        box = _box(title, nodes, paths)
        box_of |= {v.id: box.id for v in nodes}
        box_at[box.id] = box
    kept = tuple(box_at.get(v.id, v) for v in graph.nodes if box_of.get(v.id, v.id) == v.id)
    edges = _edges(graph, box_of)
    return replace(graph, nodes=kept, edges=edges, groups=used_groups(graph.groups, kept))


def _edges(graph: Graph, box_of: Mapping[str, str]) -> tuple[Edge, ...]:
    """The arrows between boxes: of those that differ in the op within a box alone, one."""
    edges: dict[tuple[str, str, int, str], Edge] = {}
    uses: Counter[tuple[str, str]] = Counter()
    for e in graph.edges:
        tail, head = box_of.get(e.tail, e.tail), box_of.get(e.head, e.head)
        if tail == head:
            continue
        position = 0 if e.head in box_of else e.position
        # A square of what leaves a box has two arrows; a hundred parts, each used once, have one.
        number = uses[e.tail, e.head] if e.tail in box_of and e.head not in box_of else position
        uses[e.tail, e.head] += 1
        edges.setdefault((tail, head, number, e.label), Edge(tail, head, position, e.label))
    return tuple(edges.values())


def _box(title: str, nodes: list[Vertex], paths: Mapping[str, list[Group]]) -> Vertex:
    ops = [v for v in nodes if v.kind in ("op", "fold")] or nodes
    cost = Cost(
        ops=sum(v.cost.ops for v in nodes),
        parameters=sum(v.cost.parameters for v in nodes),
        bytes=sum(v.cost.bytes for v in nodes),
        flops=sum(v.cost.flops for v in nodes),
    )
    known = dict(ops[-1].facts)
    facts = {
        "holds": _summary(nodes),
        "shape": ops[-1].shape,
        "grad": known.get("grad", ""),
        "bytes": size(cost.bytes) if cost.bytes else "",
        "flops": count(cost.flops, "FLOP") if cost.flops else "",
    }
    return Vertex(
        id=ops[0].id,
        kind="fold",
        title=title,
        shape=ops[-1].shape,
        lines=(
            count(cost.ops, "op") if cost.ops else count(len(nodes), "value"),
            *([count(cost.parameters, "parameter")] if cost.parameters else []),
        ),
        facts=tuple((name, text) for name, text in facts.items() if text),
        marks=_marks(nodes),
        group=_shared_group(paths, ops),
        phase=ops[0].phase,
        output=any(v.output for v in nodes),
        cost=cost,
        histogram=ops[-1].histogram,
    )


def _with_leaves(
    graph: Graph, parts: list[tuple[str, list[Vertex]]]
) -> list[tuple[str, list[Vertex]]]:
    """Add to each part what it alone uses: the tensors of modules, and nameless constants."""
    part_of = {v.id: i for i, (_, nodes) in enumerate(parts) for v in nodes}
    users: dict[str, list[str]] = {}
    for edge in graph.edges:
        users.setdefault(edge.tail, []).append(edge.head)
    whole = [(title, list(nodes)) for title, nodes in parts]
    for vertex in graph.nodes:
        used_in = {part_of.get(user, -1) for user in users.get(vertex.id, ())}
        if _belongs(vertex, users) and vertex.id not in part_of and len(used_in) == 1:
            (part,) = used_in
            if part >= 0:
                whole[part][1].append(vertex)
    return whole


def _belongs(vertex: Vertex, users: Mapping[str, list[str]]) -> bool:
    """Tell whether a box says nothing beside the one that uses it."""
    if vertex.kind == "constant":
        return vertex.title == "constant"
    # A parameter shared by several calls is worth seeing.
    return vertex.kind == "parameter" and bool(vertex.group) and len(users[vertex.id]) == 1


def _marks(nodes: list[Vertex]) -> tuple[str, ...]:
    """Say of the first few what is wrong with them, and of the others that there are some."""
    marks = list(dict.fromkeys(f"{v.title}: {mark}" for v in nodes for mark in v.marks))
    more = [f"{len(marks) - 2:,} more marks"] if len(marks) > 3 else []
    return (*(marks[:2] if more else marks), *more)


def _summary(nodes: list[Vertex]) -> str:
    counts = Counter(vertex.title for vertex in nodes)
    return ", ".join(f"{n} {title}" for title, n in counts.most_common(6))


# --- Groups -----------------------------------------------------------------------------------


def _paths(graph: Graph) -> dict[str, list[Group]]:
    """Give each group with those around it, outermost first; a group stands after its parent."""
    paths: dict[str, list[Group]] = {"": []}
    for group in graph.groups:
        paths[group.id] = [*paths[group.parent], group]
    return paths


def _shared_group(paths: Mapping[str, list[Group]], nodes: list[Vertex]) -> str:
    shared = ""
    for level in zip(*(paths[group] for group in {v.group for v in nodes}), strict=False):
        if len(set(level)) > 1:
            break
        shared = level[0].id
    return shared


def _fold_groups(graph: Graph, depth: int | None, patterns: tuple[str, ...]) -> Graph:
    titles = {g.id: g.title for g in graph.groups}
    folded_into: dict[str, str] = {}
    for group, path in _paths(graph).items():
        for level, around in enumerate(path):
            if (depth is not None and level >= depth) or _matches(around, patterns):
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
        v._replace(group=parents[v.group])
        if v.kind == "fold" and folded_into.get(v.group) == v.group
        else v
        for v in folded.nodes
    )
    return replace(folded, nodes=moved, groups=used_groups(graph.groups, moved))


def _matches(group: Group, patterns: tuple[str, ...]) -> bool:
    """Tell whether a pattern is of a group's title or of a part of it, its name or its class."""
    name = group.title.partition(": ")[0]
    words = {group.title, name, group.kind}
    return any(fnmatch.fnmatchcase(word, pattern) for word in words for pattern in patterns)


# --- Repetitions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """A group, or an op outside of all groups at its level: what may repeat."""

    word: str
    title: str
    ops: tuple[Vertex, ...]
    group: str = ""


def _fold_repeats(graph: Graph, enough: int = 0) -> Graph:
    """Fold runs of equal parts into one box each, with their count.

    The outermost groups come first; inner ones are left alone once there are few boxes enough.
    """
    inputs: dict[str, list[str]] = {}
    for edge in graph.edges:
        inputs.setdefault(edge.head, []).append(edge.tail)
    parts: list[tuple[str, list[Vertex]]] = []
    left = len(graph.nodes)
    levels = deque([""])
    while levels and left > enough:
        items = _items(graph, levels.popleft())
        longest = _longest_runs([item.word for item in items])
        start = 0
        while start < len(items):
            period, times = longest[0][start], longest[1][start]
            periods = [items[i : i + period] for i in range(start, start + period * times, period)]
            times = _equally_wired(periods, inputs)
            if times < LEAST_REPEATS:
                levels += [items[start].group] if items[start].group else []
                start += 1
                continue
            names = list(dict.fromkeys(item.title for item in periods[0]))
            some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            title = f"{times} \N{MULTIPLICATION SIGN} {some if len(names) == 1 else f'({some})'}"
            parts.append((title, [v for p in periods[:times] for item in p for v in item.ops]))
            left -= len(parts[-1][1])
            start += period * times
    return contract(graph, parts)


def _items(graph: Graph, level: str) -> list[_Item]:
    """List the groups and ops directly in a group, in the order of computation."""
    groups = {group.id: group for group in graph.groups}
    paths = {group: [g.id for g in path] for group, path in _paths(graph).items()}
    below: dict[str, list[Vertex]] = {}
    child_of: dict[str, str | None] = {}
    for vertex in graph.nodes:
        if vertex.kind not in ("op", "fold"):
            continue
        if vertex.group not in child_of:
            path = paths[vertex.group]
            depth = path.index(level) + 1 if level in path else 0
            inside = not level or level in path
            child_of[vertex.group] = (path[depth] if depth < len(path) else "") if inside else None
        child = child_of[vertex.group]
        if child is not None:
            below.setdefault(child or vertex.id, []).append(vertex)
    items = []
    for key, ops in below.items():
        words = " ".join(f"{v.title}{v.shape}{v.phase}" for v in ops)
        kind = groups[key].kind or groups[key].title if key in groups else ""
        items.append(
            _Item(f"{kind} {words}", kind or ops[0].title, tuple(ops), key if kind else "")
        )
    return items


def _equally_wired(periods: list[list[_Item]], inputs: Mapping[str, list[str]]) -> int:
    """Count how many parts, from the first on, take their inputs from the same places.

    Places in a part and in the one before it count; the first part may start from elsewhere.
    """
    before: list[str] = []
    wirings: list[list[list[int | None]]] = []
    for period in periods:
        ops = [v.id for item in period for v in item.ops]
        place = {id: i - len(before) for i, id in enumerate(before + ops)}
        wirings.append([[place.get(tail) for tail in inputs.get(id, ())] for id in ops])
        before = ops
    inside = [
        [[i for i in places if i is not None and i >= 0] for places in wiring]
        for wiring in wirings[:2]
    ]
    for times, wiring in enumerate(wirings):
        if wiring != wirings[1] if times > 1 else inside[times] != inside[0]:
            return times
    return len(wirings)


def _longest_runs(words: list[str]) -> tuple[list[int], list[int]]:
    """Find, from each place on, the period whose repetitions cover most, and their number."""
    codes = np.unique(words, return_inverse=True)[1]
    periods, times = np.ones((2, len(words)), int)
    for period in range(1, min(LONGEST_PERIOD, len(words) // LEAST_REPEATS) + 1):
        n = len(words) - period
        places = np.arange(n)
        breaks = np.append(np.flatnonzero(codes[period:] != codes[:n]), n)
        repeats = (breaks[np.searchsorted(breaks, places)] - places) // period + 1
        better = (repeats >= LEAST_REPEATS) & (repeats * period > periods[:n] * times[:n])
        periods[:n][better], times[:n][better] = period, repeats[better]
    return periods.tolist(), times.tolist()


def _fold_stretches(graph: Graph, most: int) -> Graph:
    """Fold stretches of equal length in the order of computation; arrows only lead onwards."""
    nodes = list(graph.nodes)
    length = -(-len(nodes) // most)
    stretches = [nodes[i : i + length] for i in range(0, len(nodes), length)]
    parts = [(f"{len(part)} boxes", part) for part in stretches if len(part) > 1]
    return contract(graph, parts)


# --- Comparison -------------------------------------------------------------------------------


def diff(old: Graph, new: Graph) -> Graph:
    """Give both graphs in one: what is only in one of them is said to be added or removed."""
    if not isinstance(new, Graph):
        raise TypeError(f"diff: got {type(new).__name__}; want a Graph, as of tensor.graph()")
    before, after = ([(v.kind, v.title, v.shape, v.lines) for v in g.nodes] for g in (old, new))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    same: dict[str, str] = {}
    for i, k, n in matcher.get_matching_blocks():
        same |= {
            a.id: b.id for a, b in zip(old.nodes[i : i + n], new.nodes[k : k + n], strict=True)
        }
    kept = set(same.values())
    renamed = {v.id: same.get(v.id, f"old_{v.id}") for v in old.nodes}
    gone = tuple(
        v._replace(id=renamed[v.id], change="removed", group="")
        for v in old.nodes
        if v.id not in same
    )
    nodes = tuple(v if v.id in kept else v._replace(change="added") for v in new.nodes) + gone
    edges = new.edges + tuple(
        e._replace(tail=renamed[e.tail], head=renamed[e.head])
        for e in old.edges
        if e.tail not in same or e.head not in same
    )
    added = len(new.nodes) - len(kept)
    caption = f"{count(added, 'node')} added, {len(gone):,} removed"
    return replace(new, nodes=nodes, edges=edges, caption=caption)
