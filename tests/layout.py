"""Where Graphviz puts what a picture shows, to look for words that overlap."""

from __future__ import annotations

import json
from itertools import combinations

import pygraphviz


def overlaps(graph):
    """List what overlaps: boxes, words on arrows, titles of clusters, and arrows through titles."""
    with_layout = pygraphviz.AGraph(string=graph.dot())
    plan = json.loads(with_layout.draw(format="json", prog="dot"))
    with_layout.close()
    boxes, titles, lines = {}, {}, {}
    for thing in plan["objects"]:
        if "lp" in thing:
            titles[thing["label"]] = _box(thing["lp"], thing["lwidth"], thing["lheight"])
        elif "pos" in thing:
            boxes[thing["name"]] = _box(thing["pos"], thing["width"], thing["height"])
    words = {}
    for i, edge in enumerate(plan.get("edges", ())):
        if "lp" in edge:
            label = edge["_ldraw_"][-1]
            words[f"{edge['label']} {i}"] = _words(edge["lp"], label)
        lines[i] = _points(edge["pos"])
    solid = [*boxes.items(), *words.items(), *titles.items()]
    found = [f"{a} on {b}" for (a, p), (b, q) in combinations(solid, 2) if _meet(p, q)]
    for title, box in titles.items():
        found += [f"arrow through {title}" for line in lines.values() if _crosses(line, box)]
    return found


def _box(center, width, height):
    x, y = map(float, center.split(","))
    w, h = 36 * float(width), 36 * float(height)
    return x - w, y - h, x + w, y + h


def _words(center, drawn):
    x, y = map(float, center.split(","))
    w, h = drawn["width"] / 2 - 5, 4
    return x - w, y - h, x + w, y + h


def _meet(p, q):
    slack = 0.5
    return (
        p[0] < q[2] - slack and q[0] < p[2] - slack and p[1] < q[3] - slack and q[1] < p[3] - slack
    )


def _points(pos):
    points = [tuple(map(float, p.split(",")[-2:])) for p in pos.split()]
    end, curve = (points[0], points[1:]) if pos.startswith("e,") else (None, points)
    out = []
    for k in range(0, len(curve) - 3, 3):
        a, b, c, d = curve[k : k + 4]
        for t in [i / 12 for i in range(13)]:
            u = 1 - t
            out.append(
                tuple(
                    u**3 * a[i] + 3 * u * u * t * b[i] + 3 * u * t * t * c[i] + t**3 * d[i]
                    for i in (0, 1)
                )
            )
    return out + ([end] if end else [])


def _crosses(line, box):
    return any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in line)
