"""From the nodes that the engine recorded to the plain data of a picture; nothing recurses."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph import FREED, Constant, Handle, Leaf, Node, constant_of, tick
from ..nn.module import Module, recent_calls
from ..walk import pull, wrap
from .facts import UPSTREAM, Facts, caption
from .fold import limit
from .graph import Edge, Graph, Group, Vertex

SHOWABLE = (
    "shape", "dtype", "value", "grad", "stats", "saved", "bytes", "time", "flops", "source",
)  # fmt: skip
ORDERS = ("forward", "backward", "both")


def build(
    outputs: tuple[Any, ...],
    *,
    show: tuple[str, ...],
    names: Any,
    direction: str,
    order: str,
    detail: int,
) -> Graph:
    """Make the graph of some tensors, unfolded; values are looked at up to ``detail`` nodes."""
    _check(outputs, show, direction, order)
    roots = [t._node or constant_of(t) for t in outputs]
    scene = _Scene(outputs, names)
    border = None
    if order != "forward":
        border = tick()
        gradients = _gradients(outputs, roots)
        scene.values.update((g._node, g._data) for g in gradients.values())
        scene.titles.update(
            (g._node, f"gradient of {scene.title(leaf)}") for leaf, g in gradients.items()
        )
        ends = [g._node for g in gradients.values()]
        roots = ends if order == "backward" else [*roots, *ends]
    nodes = collect(roots, border if order == "backward" else None)
    if "grad" in show:
        scene.add_gradients(outputs, nodes)
    graph = _draw(scene, nodes, set(roots), border, show, direction, detail)
    return as_saved(graph) if order == "backward" else graph


def failed(op: str, parents: tuple[Any, ...], message: str) -> Graph:
    """Make the graph up to a call that raised, with that call marked."""
    direct = [parent for parent in parents if isinstance(parent, Node)]
    nodes = collect(direct)
    graph = _draw(_Scene((), None), nodes, set(), None, ("shape",), "LR", detail=500)
    ids = {node: v.id for node, v in zip(nodes, graph.nodes, strict=True)}
    bad = Vertex("failed", "op", op, marks=(message,), output=True)
    edges = tuple(
        Edge(ids[parent], bad.id, position, str(parent.shape))
        for position, parent in enumerate(parents)
        if isinstance(parent, Node)
    )
    whole = replace(graph, nodes=(*graph.nodes, bad), edges=graph.edges + edges)
    return limit(whole, 200)


def collect(roots: Iterable[Node], border: int | None = None) -> list[Node]:
    """Give all nodes that the roots depend on, oldest first; none from before ``border``."""
    stack = list(roots)
    seen = set(stack)
    while stack:
        node = stack.pop()
        if border is not None and node.index < border:
            continue
        for parent in node.parents:
            if isinstance(parent, Node) and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda node: node.index)


def _check(outputs: tuple[Any, ...], show: Iterable[str], direction: str, order: str) -> None:
    if not outputs:
        raise TypeError("draw: got no tensor; want at least one")
    for output in outputs:
        if not isinstance(output, Handle):
            raise TypeError(f"draw: got a {type(output).__name__}; want a Tensor")
    unknown = [name for name in show if name not in SHOWABLE]
    if unknown:
        raise ValueError(f"draw: show has {unknown}; want names out of {', '.join(SHOWABLE)}")
    if direction not in ("LR", "TB", "RL", "BT"):
        raise ValueError(f'draw: direction is {direction!r}; want "LR", "TB", "RL" or "BT"')
    if order not in ORDERS:
        raise ValueError(f'draw: order is {order!r}; want "forward", "backward" or "both"')


def _gradients(outputs: tuple[Any, ...], roots: list[Node]) -> dict[Node, Any]:
    """Record the backward pass: the gradient of every variable, as tensors with a graph."""
    seeds = []
    for output, root in zip(outputs, roots, strict=True):
        if output._node is None:
            raise GraphError("draw: the output requires no gradient and has no backward pass")
        one = np.ones(root.shape, root.dtype)
        seeds.append((root, wrap(one, Leaf(one, UPSTREAM))))
    found, _ = pull(seeds, create_graph=True)
    return {leaf: g for leaf, g in found.items() if g._node is not None}


class _Scene:
    """What is known of nodes besides themselves: names, values, gradients, module calls."""

    def __init__(self, outputs: tuple[Any, ...], names: Any) -> None:
        self.titles: dict[Node, str] = {}
        self.values: dict[Node, Any] = {}
        self.gradients: dict[Node, Any] = {}
        self.arrays: dict[int, str] = {}
        for handle in outputs:
            self._know(handle, None)
        for name, value in _items(names):
            self._know_named(name, value)
        # The outermost modules first: their paths say most.
        for _, _, module in sorted(recent_calls(), key=lambda call: call[0]):
            self._know_named("", module)
        for name, value in _callers_variables().items():
            self._know_named(name, value)

    def _know_named(self, name: str, value: Any) -> None:
        if isinstance(value, Handle):
            self._know(value, name)
        elif isinstance(value, np.ndarray) and name:
            self.arrays.setdefault(id(value), name)
        elif isinstance(value, Module):
            for path, tensor in value._named_tensors():
                self._know(tensor, path)

    def _know(self, handle: Any, name: str | None) -> None:
        node = handle._node or handle._constant
        if node is not None:
            self.values.setdefault(node, handle._data)
            if name is not None:
                self.titles.setdefault(node, name)
        title = handle.name or name
        if title:
            self.arrays.setdefault(id(handle._data), title)

    def title(self, node: Node, value: Any = None) -> str:
        """Name a node, by its value's memory if nothing else does."""
        known = node.name or self.titles.get(node, "")
        if known or value is None or not isinstance(node, Constant):
            return known
        return self.arrays.get(id(value)) or self.arrays.get(id(value.base), "")

    def add_gradients(self, outputs: tuple[Any, ...], nodes: list[Node]) -> None:
        """Find the gradient of every node, without a change to any ``.grad``."""
        for node in nodes:
            if isinstance(node, Leaf) and node.grad is not None:
                self.gradients[node] = node.grad
            elif node.extras and node.extras.get("retained") is not None:
                self.gradients[node] = node.extras["retained"]
        if any(node.inputs is FREED for node in nodes):
            if not self.gradients:
                raise GraphError(
                    'draw: show="grad" after a backward that freed the graph; draw before it, or '
                    "call backward(retain_graph=True), or retain_grad() on the tensors to see"
                )
            return
        seeds = [(t._node, np.ones_like(t._data)) for t in outputs if t._node is not None]
        wanted = [node for node in nodes if not isinstance(node, Constant)]
        found, _ = pull(seeds, wanted)
        self.gradients = {**found, **self.gradients}


def _items(names: Any) -> list[tuple[str, Any]]:
    if names is None:
        return []
    if isinstance(names, Module):
        return [("", names)]
    if isinstance(names, Mapping):
        return list(names.items())
    raise TypeError(f"draw: names is a {type(names).__name__}; want a dict of tensors, or a Module")


def _callers_variables() -> Mapping[str, Any]:
    """Give the variables where the picture was asked for: they name what nothing else names."""
    frame = sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        frame = frame.f_back
    return {k: v for k, v in frame.f_locals.items() if not k.startswith("_")}


# --- Boxes, arrows and clusters ---------------------------------------------------------------


def _draw(
    scene: _Scene,
    nodes: list[Node],
    roots: set[Node],
    border: int | None,
    show: tuple[str, ...],
    direction: str,
    detail: int,
) -> Graph:
    ids = {node: f"n{i}" for i, node in enumerate(nodes)}
    facts = Facts(nodes, scene.values, scene.gradients, show, look=len(nodes) <= detail)
    groups, group_of = _groups(nodes)
    vertices, edges = [], []
    for node in nodes:
        backward = border is not None and node.index > border
        kind = _kind(node, border)
        title, lines = _words(node, kind, scene.title(node, facts.values.get(node)), node in roots)
        shown = facts.lines(node)
        vertices.append(
            Vertex(
                id=ids[node],
                kind=kind,
                title=title,
                lines=(*lines, *shown),
                facts=facts.of(node),
                marks=facts.marks(node),
                group=group_of.get(node, ""),
                phase="backward" if backward else "forward",
                output=node in roots,
                histogram=facts.histogram(node),
            )
        )
        for position, parent in enumerate(node.parents):
            if parent in ids:
                label = str(parent.shape) if "shape" in show and parent.primitive else ""
                edges.append(Edge(ids[parent], ids[node], position, label))
    text = caption(nodes, facts)
    return Graph(tuple(vertices), tuple(edges), groups, text, direction)


def _kind(node: Node, border: int | None) -> str:
    if node.primitive is not None:
        return "op"
    upstream = border is not None and node.index > border
    return "input" if isinstance(node, Constant) or upstream else "parameter"


def as_saved(graph: Graph) -> Graph:
    """Show what a backward pass takes from the forward one as values, not as ops."""
    nodes = tuple(
        replace(v, kind="saved", lines=("saved value", *v.lines), output=False)
        if v.kind == "op" and v.phase == "forward"
        else v
        for v in graph.nodes
    )
    saved = {v.id for v in nodes if v.kind == "saved"}
    edges = tuple(e for e in graph.edges if e.head not in saved)
    used = {v.id for v in nodes if v.output} | {e.tail for e in edges} | {e.head for e in edges}
    return replace(graph, nodes=nodes, edges=edges).part(used)


def _words(node: Node, kind: str, name: str, is_root: bool) -> tuple[str, tuple[str, ...]]:
    """Give the title of a box, and the lines that every picture shows."""
    name = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}".join(name.splitlines())
    if node.primitive is None:
        word = "parameter" if kind == "parameter" else "constant"
        return name or word, (f"{word} {node.shape}" if name else str(node.shape),)
    lines = []
    if any(not isinstance(parent, Node) for parent in node.parents) and len(node.parents) > 1:
        lines.append(
            "(" + ", ".join("·" if isinstance(p, Node) else str(p) for p in node.parents) + ")"
        )
    if name:
        lines.append(f"= {name}")
    if is_root:
        lines.append(f"output {node.shape}")
    return node.primitive.name, tuple(lines)


def _groups(nodes: list[Node]) -> tuple[tuple[Group, ...], dict[Node, str]]:
    """Find the module calls that nodes were recorded in: intervals of the creation counter."""
    ops = [node for node in nodes if node.primitive is not None]
    calls = sorted(recent_calls(), key=lambda call: (call[0], -call[1]))
    if not ops or not calls:
        return (), {}
    paths = _module_paths([module for _, _, module in calls])
    groups: list[Group] = []
    group_of: dict[Node, str] = {}
    open_calls: list[tuple[int, str]] = []
    counts: dict[str, int] = {}
    pending = iter(calls)
    call = next(pending, None)
    for node in ops:
        while open_calls and open_calls[-1][0] < node.index:
            open_calls.pop()
        while call is not None and call[0] < node.index:
            start, stop, module = call
            call = next(pending, None)
            if stop < node.index:
                continue
            while open_calls and open_calls[-1][0] < start:
                open_calls.pop()
            title = paths.get(id(module), type(module).__name__)
            counts[title] = counts.get(title, 0) + 1
            again = f" ({counts[title]})" if counts[title] > 1 else ""
            parent = open_calls[-1][1] if open_calls else ""
            groups.append(Group(f"g{len(groups)}", title + again, parent))
            open_calls.append((stop, groups[-1].id))
        if open_calls:
            group_of[node] = open_calls[-1][1]
    return tuple(groups), group_of


def _module_paths(modules: list[Module]) -> dict[int, str]:
    """Name modules by their path in the outermost one, and their class."""
    paths: dict[int, str] = {}
    for module in modules:
        for path, below in module.named_modules():
            if id(below) in paths and not path:
                continue
            kind = type(below).__name__
            title = f"{path}: {kind}" if path else kind
            if id(below) not in paths or len(path) > len(paths[id(below)].partition(":")[0]):
                paths[id(below)] = title
    return paths
