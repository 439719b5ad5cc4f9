"""Graph: the plain data of a picture, and what can be asked of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..kernels import hw5


class Cost(NamedTuple):
    """What a box stands for, counted: ops, entries of parameters, bytes kept, FLOPs."""

    ops: int = 0
    parameters: int = 0
    bytes: int = 0
    flops: int = 0


class Histogram(NamedTuple):
    """Counts of a value's finite entries in equal bins from the least to the largest."""

    least: float
    largest: float
    counts: tuple[int, ...]


class Vertex(NamedTuple):
    """One box.

    Attributes
    ----------
    id : str
        Of this picture; ``n0``, ``n1`` and so on in the order of computation.
    kind : str
        ``op``; ``parameter``, ``constant`` or ``input``; ``saved`` (a value of the forward pass,
        in a picture of the backward one); or ``fold``.
    title : str
        The op, or the name of a value.
    shape : str
        Of the value.
    lines : tuple of str
        Further lines of the label: the scalar arguments, the user's name, what ``show`` asks for.
    facts : tuple of pairs of str
        All that is known, by name: for tooltips, JSON and HTML.
    marks : tuple of str
        What is wrong with it, in words.
    group : str
        Id of the innermost group; empty for none.
    phase : str
        ``forward`` or ``backward``.
    output : bool
        Whether it was asked for.
    change : str
        ``added`` or ``removed`` in the difference of two graphs.
    cost : Cost
    histogram : Histogram, optional
        Of the value.
    """

    id: str
    kind: str
    title: str
    shape: str = ""
    lines: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    marks: tuple[str, ...] = ()
    group: str = ""
    phase: str = "forward"
    output: bool = False
    change: str = ""
    cost: Cost = Cost()
    histogram: Histogram | None = None

    @property
    def word(self) -> str:
        """What kind of box it is and of which shape, in words; empty for an op like others."""
        shape = "" if self.kind == "fold" else self.shape
        if self.output:
            return f"output {shape}".strip()
        word = WORDS.get(self.kind, "")
        return f"{'' if word == self.title else word} {shape}".strip() if word else ""


WORDS = {
    "parameter": "parameter",
    "constant": "constant",
    "input": "input",
    "saved": "saved value",
}


class Edge(NamedTuple):
    """One use of a value: argument number ``position`` of ``head`` is ``tail``."""

    tail: str
    head: str
    position: int = 0
    label: str = ""


class Group(NamedTuple):
    """One call of a module, of the class ``kind``: a cluster of boxes, in another one or not."""

    id: str
    title: str
    parent: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A picture as plain data; made by :func:`tinygrad_hw.draw`, never changed.

    Attributes
    ----------
    nodes : tuple of Vertex
        In the order of computation.
    edges : tuple of Edge
    groups : tuple of Group
    caption : str
    direction : str
        ``LR``, ``TB``, ``RL`` or ``BT``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor(3.0, requires_grad=True, name="x")
    >>> graph = tg.draw(x * x)
    >>> [(v.kind, v.title) for v in graph.nodes], len(graph.edges)
    ([('parameter', 'x'), ('op', 'multiply')], 2)
    >>> print(graph.text())
    multiply ()
    ├─ x ()  parameter
    └─ x ()  above
    1 op; 1 parameter in 1 tensor; 16 bytes kept for backward; 1 FLOP
    """

    nodes: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...] = ()
    caption: str = ""
    direction: str = "LR"

    # --- Formats ------------------------------------------------------------------------------

    def text(self) -> str:
        """Draw as a tree of text, from the outputs down to what they are made of."""
        from .text import text

        return text(self)

    def dot(self) -> str:
        """Give the picture in the DOT language; the same graph gives the same bytes."""
        from .dot import dot

        return dot(self)

    def digraph(self) -> Any:
        """Give the picture as a ``graphviz.Digraph``, to be changed further."""
        from .dot import body
        from .render import package

        return package().Digraph(body=body(self))

    def svg(self) -> str:
        """Draw as SVG.

        Raises
        ------
        RendererError
            If neither Graphviz nor pygraphviz is installed.
        """
        from .render import svg

        return svg(self.dot())

    def html(self) -> str:
        """Draw as a page that needs no network: pan, zoom, search, fold, and play the backward."""
        from .html import html

        return html(self)

    def json(self) -> str:
        """Give the plain data as JSON."""
        parts = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return json.dumps(parts, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the picture in the format of the name's ending, whole or not at all.

        Parameters
        ----------
        path : str or Path
            Ends in svg, png, pdf, dot, html, json or txt.

        Returns
        -------
        Path

        Raises
        ------
        ValueError
            For another ending.
        RendererError
            If svg, png, pdf or html is asked for and no renderer is installed.
        """
        from .render import render

        path = Path(path)
        suffix = path.suffix.lower().lstrip(".")
        texts: dict[str, Callable[[], str]] = {
            "dot": self.dot,
            "html": self.html,
            "json": self.json,
            "svg": self.svg,
            "txt": lambda: self.text() + "\n",
        }
        if suffix in texts:
            # A name may hold half a surrogate pair; in JSON, its escape means the same.
            content = texts[suffix]().encode(errors="backslashreplace")
        elif suffix in ("png", "pdf"):
            content = render(self.dot(), suffix)
        else:
            raise ValueError(
                f"save: {path.name} ends in {suffix!r}; want svg, png, pdf, dot, html, json or txt"
            )
        with hw5.replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def __str__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        from .notebook import of_graph

        return of_graph(self)

    # --- Parts --------------------------------------------------------------------------------

    def fold(
        self,
        depth: int | None = None,
        patterns: str | Iterable[str] = (),
        repeats: bool = False,
    ) -> Graph:
        """Put parts into one box each.

        Parameters
        ----------
        depth : int, optional
            Groups that lie this many groups deep, or deeper, are folded: 0 folds every module.
        patterns : str or several
            Modules whose name, class or title (both) match one of these, as in a shell:
            ``"Linear"``, ``"blocks.*"``.
        repeats : bool
            Equal parts that follow one another become one box with their count.
        """
        from .fold import fold

        return fold(self, depth=depth, patterns=patterns, repeats=repeats)

    def around(self, name: str, radius: int = 2) -> Graph:
        """Give the part within ``radius`` edges of the nodes of that title or id."""
        near = {v.id for v in self._named(name)}
        for _ in range(radius):
            near |= {e.tail for e in self.edges if e.head in near} | {
                e.head for e in self.edges if e.tail in near
            }
        return self._excerpt(near)

    def between(self, start: str, end: str) -> Graph:
        """Give the part on the ways from one node to another, by their titles or ids."""
        below = self._closure({v.id for v in self._named(start)}, forward=True)
        above = self._closure({v.id for v in self._named(end)}, forward=False)
        if below.isdisjoint(above):
            raise ValueError(
                f"between: nothing leads from {start!r} to {end!r}; want an earlier node, then one "
                "that is computed from it"
            )
        return self._excerpt(below & above)

    def diff(self, other: Graph) -> Graph:
        """Give ``other`` with what is added to this graph, and what is removed from it.

        Nodes are compared by kind, title, shape and lines, in the order of computation.

        Examples
        --------
        >>> import tinygrad_hw as tg
        >>> x = tg.Tensor([1.0, 2.0], requires_grad=True, name="x")
        >>> print(tg.draw(tg.sin(x)).diff(tg.draw(tg.cos(x))).text())
        cos (2,)  + added
        └─ x (2,)  parameter
        sin (2,)  - removed
        └─ x (2,)  above
        1 node added, 1 removed
        """
        from .fold import diff

        return diff(self, other)

    def part(self, ids: Iterable[str]) -> Graph:
        """Give the graph of some nodes alone."""
        ids = set(ids)
        nodes = tuple(v for v in self.nodes if v.id in ids)
        edges = tuple(e for e in self.edges if e.tail in ids and e.head in ids)
        return replace(self, nodes=nodes, edges=edges, groups=used_groups(self.groups, nodes))

    def _excerpt(self, ids: set[str]) -> Graph:
        caption = f"{len(ids)} of {len(self.nodes)} boxes; in all {self.caption}"
        return replace(self.part(ids), caption=caption)

    def _named(self, name: str) -> list[Vertex]:
        found = [v for v in self.nodes if name in (v.id, v.title)]
        if not found:
            titles = sorted({v.title for v in self.nodes})[:20]
            raise ValueError(f"graph: no node is called {name!r}; there are {', '.join(titles)}")
        return found

    def _closure(self, start: set[str], *, forward: bool) -> set[str]:
        nexts: dict[str, list[str]] = {}
        for e in self.edges:
            tail, head = (e.tail, e.head) if forward else (e.head, e.tail)
            nexts.setdefault(tail, []).append(head)
        seen, stack = set(start), list(start)
        while stack:
            for node in nexts.get(stack.pop(), ()):
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
        return seen


def _plain(value: Any) -> Any:
    """Give what JSON knows: a named tuple as an object, another tuple as a list."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def used_groups(groups: Iterable[Group], nodes: Iterable[Vertex]) -> tuple[Group, ...]:
    """Give the groups that some node lies in, directly or not."""
    by_id = {group.id: group for group in groups}
    used: set[str] = set()
    for node in nodes:
        group = node.group
        while group and group not in used:
            used.add(group)
            group = by_id[group].parent
    return tuple(group for group in groups if group.id in used)
