"""From the nodes that the engine recorded to the plain data of a picture; nothing recurses."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph import FREED, Constant, Handle, Leaf, Node, constant_of, tick, wrap
from ..nn.module import Module, path_of, recent_calls
from ..walk import pull
from .facts import UPSTREAM, Facts, caption, flops
from .fold import limit
from .graph import Edge, Graph, Group, Vertex

SHOWABLE = (
    "shape", "dtype", "value", "grad", "stats", "saved", "bytes", "time", "flops", "source",
)  # fmt: skip
ORDERS = ("forward", "backward", "both")

# Above so many nodes, values are looked at for what is wrong, but not described.
MOST_DESCRIBED = 2000
# The work of a backward pass that a picture does unasked: about a second.
FREE_FLOPS = 10**9


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
        gradients = _backward(outputs, roots)
        for leaf, g in gradients.items():
            scene.values[g._node] = scene.gradients[g._node] = g._data
            scene.titles[g._node] = f"gradient of {scene.title(leaf) or 'parameter'}"
        ends = [g._node for g in gradients.values()]
        roots = ends if order == "backward" else [*roots, *ends]
    nodes = collect(roots, border if order == "backward" else None)
    if order == "forward":
        scene.add_gradients(outputs, nodes, asked="grad" in show, few=len(nodes) <= detail)
        nodes += scene.unused(nodes)
    graph = _draw(scene, nodes, set(roots), border, show, direction, detail)
    return as_saved(graph) if order == "backward" else graph


def failed(op: str, parents: tuple[Any, ...], message: str) -> Graph:
    """Make the graph up to a call that raised, with that call marked."""
    direct = [parent for parent in parents if isinstance(parent, Node)]
    nodes = collect(direct)
    graph = _draw(_Scene((), None), nodes, set(), None, ("shape",), "LR", detail=MOST_DESCRIBED)
    ids = {node: v.id for node, v in zip(nodes, graph.nodes, strict=True)}
    bad = Vertex("failed", "op", op, marks=(message.removeprefix(f"{op}: "),), output=True)
    edges = tuple(
        Edge(ids[parent], bad.id, position, str(parent.shape))
        for position, parent in enumerate(parents)
        if isinstance(parent, Node)
    )
    whole = replace(graph, nodes=(*graph.nodes, bad), edges=graph.edges + edges)
    return limit(whole, 200)


def tensors_of(error: BaseException) -> tuple[Node, ...]:
    """Give the nodes of the tensors that the function which raised was working on."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        values: list[Any] = []
        for value in frame.f_locals.values():
            values += value if isinstance(value, (list, tuple)) else [value]
        nodes = [value._node for value in values if isinstance(value, Handle) and value._node]
        if nodes:
            return tuple(dict.fromkeys(nodes))
    return ()


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
            advice = ", as model.graph(x) draws" if isinstance(output, Module) else ""
            raise TypeError(f"draw: got a {type(output).__name__}; want a Tensor{advice}")
    unknown = [name for name in show if name not in SHOWABLE]
    if unknown:
        raise ValueError(f"draw: show has {unknown}; want names out of {', '.join(SHOWABLE)}")
    if direction not in ("LR", "TB", "RL", "BT"):
        raise ValueError(f'draw: direction is {direction!r}; want "LR", "TB", "RL" or "BT"')
    if order not in ORDERS:
        raise ValueError(f'draw: order is {order!r}; want "forward", "backward" or "both"')


def _backward(outputs: tuple[Any, ...], roots: list[Node]) -> dict[Node, Any]:
    """Record the backward pass: the gradient of every variable, as tensors with a graph."""
    seeds = []
    for output, root in zip(outputs, roots, strict=True):
        if output._node is None:
            raise GraphError("draw: the output requires no gradient and has no backward pass")
        one = np.ones(root.shape, root.dtype)
        seeds.append((root, wrap(one, Leaf(one, UPSTREAM))))
    found, _ = pull(seeds, create_graph=True, watched=False)
    return {leaf: g for leaf, g in found.items() if g._node is not None}


class _Scene:
    """What is known of nodes besides themselves: names, values, gradients."""

    def __init__(self, outputs: tuple[Any, ...], names: Any) -> None:
        self.titles: dict[Node, str] = {}
        self.variables: dict[Node, str] = {}
        self.values: dict[Node, Any] = {}
        self.gradients: dict[Node, Any] = {}
        self.arrays: dict[int, str] = {}
        self.layers: dict[Any, str] = {}
        self.missing: set[Node] = set()
        for handle in outputs:
            self._know(handle, "", {})
        named = _items(names)
        self.explicit = [value for _, value in named if isinstance(value, Module)]
        for name, value in named:
            self._know_named(name, value, self.titles)
        for name, value in _callers_variables().items():
            self._know_named(name, value, self.variables)

    def _know_named(self, name: str, value: Any, titles: dict[Node, str]) -> None:
        if isinstance(value, Handle):
            self._know(value, name, titles)
        elif isinstance(value, np.ndarray) and name:
            self.arrays.setdefault(id(value), name)
        elif isinstance(value, Module):
            # Of a model, paths say enough; of a layer by itself, the variable's name does.
            prefix = "" if any(True for _ in value.children()) else name
            self.layers.setdefault(value._note_paths(), prefix)
            for path, tensor in value._named_tensors():
                self._know(tensor, f"{prefix}.{path}" if prefix else path, titles)

    def _know(self, handle: Any, name: str, titles: dict[Node, str]) -> None:
        node = handle._node or handle._constant
        if node is not None:
            self.values.setdefault(node, handle._data)
            if name:
                titles.setdefault(node, name)
        title = handle.name or name
        if title:
            self.arrays.setdefault(id(handle._data), title)

    def title(self, node: Node, value: Any = None) -> str:
        """Name a node, by its value's memory if nothing else does."""
        path = path_of(node) if isinstance(node, Leaf) else ""
        known = node.name or self.titles.get(node) or (path if "." in path else "")
        known = known or self.variables.get(node) or path
        if known or value is None or not isinstance(node, Constant):
            return known
        return self.arrays.get(id(value)) or self.arrays.get(id(value.base), "")

    def add_gradients(
        self, outputs: tuple[Any, ...], nodes: list[Node], *, asked: bool, few: bool
    ) -> None:
        """Find the gradient of every node, without a trace; unasked, only if it costs little."""
        for node in nodes:
            if isinstance(node, Leaf) and node.grad is not None:
                self.gradients[node] = node.grad
            elif node.extras and node.extras.get("retained") is not None:
                self.gradients[node] = node.extras["retained"]
        if any(node.inputs is FREED for node in nodes):
            if asked and all(node.primitive is None for node in self.gradients):
                raise GraphError(
                    'draw: show="grad" after a backward that freed the graph; draw before it, or '
                    "call backward(retain_graph=True), or retain_grad() on the tensors to see"
                )
            return
        if asked or (few and sum(map(flops, nodes)) <= FREE_FLOPS):
            self.gradients = {**_gradients(outputs, nodes, asked=asked), **self.gradients}

    def unused(self, nodes: Iterable[Node]) -> list[Node]:
        """Give the parameters of the named modules that are missing among some nodes."""
        here = set(nodes)
        for module in self.explicit:
            parameters = {t._node for t in module.parameters() if t._node is not None}
            if not here.isdisjoint(parameters):
                self.missing |= parameters - here
        return sorted(self.missing, key=lambda node: node.index)


def _gradients(outputs: tuple[Any, ...], nodes: list[Node], *, asked: bool) -> dict[Node, Any]:
    seeds = [(t._node, np.ones_like(t._data)) for t in outputs if t._node is not None]
    if asked and not seeds:
        raise GraphError('draw: show="grad" of an output that requires no gradient')
    try:
        found, _ = pull(seeds, [n for n in nodes if not isinstance(n, Constant)], watched=False)
    except Exception:
        # A picture of a graph without a backward is a picture still.
        if asked:
            raise
        return {}
    return found


def _items(names: Any) -> list[tuple[str, Any]]:
    if names is None:
        return []
    if isinstance(names, Module):
        return [("", names)]
    if isinstance(names, Mapping) and all(isinstance(name, str) for name in names):
        return list(names.items())
    raise TypeError(
        f"draw: names is {reprlib.repr(names)}; want a dict of strings to tensors, or a Module"
    )


def _callers_variables() -> Mapping[str, Any]:
    """Give the variables where the picture was asked for: they name what nothing else names."""
    frame = sys._getframe(1)
    package = _package(frame)
    while frame.f_back is not None and _package(frame) == package:
        frame = frame.f_back
    # A notebook shows a cell's result: the user's variables are those of the session.
    notebook = _package(frame) == "IPython"
    variables = vars(sys.modules["__main__"]) if notebook else frame.f_locals
    return {name: value for name, value in variables.items() if not name.startswith("_")}


def _package(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


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
    groups, group_of = _groups(nodes, scene.layers)
    if border is not None:
        groups += (Group("backward", "backward"),)
    vertices, edges = [], []
    for node in nodes:
        backward = border is not None and node.index > border
        kind = _kind(node, border)
        value = facts.values.get(node)
        title, lines = _words(node, kind, scene.title(node, value))
        if title == "constant" and value is not None and value.size == 1:
            lines = (f"= {value.item():.4g}",)
        unused = node in scene.missing
        vertices.append(
            Vertex(
                id=ids[node],
                kind=kind,
                title=title,
                shape=str(node.shape),
                lines=(*lines, *facts.lines(node)),
                facts=facts.of(node),
                marks=("unused: gets no gradient",) if unused else facts.marks(node),
                group="backward" if backward else group_of.get(node, ""),
                phase="backward" if backward else "forward",
                output=node in roots,
                cost=facts.cost(node),
                histogram=facts.histogram(node),
            )
        )
        for position, parent in enumerate(node.parents):
            if parent in ids:
                label = str(parent.shape) if "shape" in show and parent.primitive else ""
                edges.append(Edge(ids[parent], ids[node], position, label))
    text = caption(nodes, [v.cost for v in vertices], facts)
    return Graph(tuple(vertices), tuple(edges), groups, text, direction)


def _kind(node: Node, border: int | None) -> str:
    if node.primitive is not None:
        return "op"
    if isinstance(node, Constant):
        return "constant"
    return "input" if border is not None and node.index > border else "parameter"


def as_saved(graph: Graph) -> Graph:
    """Show what a backward pass takes from the forward one as values, not as ops."""
    titles = {group.id: (group.title,) for group in graph.groups}
    nodes = tuple(
        v._replace(kind="saved", output=False, lines=titles.get(v.group, ()) + v.lines)
        if v.kind == "op" and v.phase == "forward"
        else v
        for v in graph.nodes
    )
    saved = {v.id for v in nodes if v.kind == "saved"}
    edges = tuple(e for e in graph.edges if e.head not in saved)
    used = {v.id for v in nodes if v.output} | {e.tail for e in edges} | {e.head for e in edges}
    # Values of one module are used here and there: a frame around them would be all over.
    nodes = tuple(v._replace(group="") for v in nodes)
    return replace(graph, nodes=nodes, edges=edges, groups=()).part(used)


def _words(node: Node, kind: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Give the title of a box, and the lines that every picture shows."""
    if node.primitive is None:
        return name or kind, ()
    lines = []
    if any(not isinstance(parent, Node) for parent in node.parents) and len(node.parents) > 1:
        lines.append(
            "(" + ", ".join("·" if isinstance(p, Node) else str(p) for p in node.parents) + ")"
        )
    if name:
        lines.append(f"= {name}")
    return node.primitive.name, tuple(lines)


def _groups(
    nodes: list[Node], layers: Mapping[Any, str]
) -> tuple[tuple[Group, ...], dict[Node, str]]:
    """Find the module calls that nodes were recorded in: intervals of the creation counter."""
    ops = [node for node in nodes if node.primitive is not None]
    calls = sorted(recent_calls(), key=lambda call: (call[0], -call[1]))
    if not ops or not calls:
        return (), {}
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
            start, stop, record = call
            call = next(pending, None)
            if stop < node.index:
                continue
            while open_calls and open_calls[-1][0] < start:
                open_calls.pop()
            path = record.path or layers.get(record, "")
            title = f"{path}: {record.kind}" if path else record.kind
            counts[title] = counts.get(title, 0) + 1
            again = f" ({counts[title]})" if counts[title] > 1 else ""
            parent = open_calls[-1][1] if open_calls else ""
            groups.append(Group(f"g{len(groups)}", title + again, parent, record.kind))
            open_calls.append((stop, groups[-1].id))
        if open_calls:
            group_of[node] = open_calls[-1][1]
    return tuple(groups), {**group_of, **_homes(nodes, group_of, groups)}


def _homes(nodes: list[Node], group_of: Mapping[Node, str], groups: list[Group]) -> dict[Node, str]:
    """Put each tensor of a module into the innermost call that holds all its uses."""
    parents = {group.id: group.parent for group in groups}
    homes: dict[Node, str] = {}
    for node in nodes:
        here = group_of.get(node, "")
        for tensor in node.parents if here else ():
            if isinstance(tensor, Leaf) and path_of(tensor):
                homes[tensor] = _innermost(here, homes.get(tensor, here), parents)
    return homes


def _innermost(a: str, b: str, parents: Mapping[str, str]) -> str:
    """Give the innermost group around both of two groups."""
    around = {""}
    while a:
        around.add(a)
        a = parents[a]
    while b not in around:
        b = parents[b]
    return b
