"""The formats of a picture: each says the same, whatever the names, and is written whole."""

from __future__ import annotations

import configparser
import html.parser
import json
import os
import re
import runpy
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinygrad_hw as tg
from tinygrad_hw import cli, drawing, nn
from tinygrad_hw.drawing.text import visible

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"

drawn = pytest.mark.skipif(drawing.renderer() is None, reason="needs Graphviz or pygraphviz")


def named(name="x"):
    x = tg.Tensor([1.0, 2.0], requires_grad=True, name=name)
    return tg.draw((x * x).sum())


def words(svg):
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture
def no_dot(monkeypatch, tmp_path):
    """A machine without Graphviz."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def no_renderer(no_dot, monkeypatch):
    """A machine without pygraphviz, too."""
    monkeypatch.setitem(sys.modules, "pygraphviz", None)


# --- Each format --------------------------------------------------------------------------------

STARTS = {
    "svg": b"<?xml", "png": b"\x89PNG\r\n", "pdf": b"%PDF-", "dot": b"digraph {",
    "html": b"<!DOCTYPE html>", "json": b"{", "txt": b"sum ()",
}  # fmt: skip


@drawn
@pytest.mark.parametrize("suffix", STARTS)
def test_a_picture_is_saved_in_the_format_of_its_name(suffix, tmp_path):
    path = named().save(tmp_path / f"graph.{suffix}")
    assert path.read_bytes().startswith(STARTS[suffix])
    assert named().save(str(tmp_path / f"again.{suffix.upper()}")).stat().st_size > 100


def test_another_ending_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"ends in 'gif'; want svg, png, pdf, dot, html, json"):
        named().save(tmp_path / "graph.gif")
    assert list(tmp_path.iterdir()) == []


@drawn
def test_a_pdf_is_the_same_whenever_it_is_drawn(tmp_path):
    pdf = named().save(tmp_path / "x.pdf").read_bytes()
    assert set(re.findall(rb"Date \(D:(\d{4})", pdf)) <= {b"1970"}


def test_a_file_is_written_whole_or_not_at_all(no_renderer, tmp_path):
    path = tmp_path / "graph.svg"
    path.write_text("before")
    with pytest.raises(drawing.RendererError):
        named().save(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_the_plain_data():
    graph = named()
    data = json.loads(graph.json())
    assert [node["title"] for node in data["nodes"]] == ["x", "multiply", "sum"]
    assert data["edges"][0] == {"tail": "n0", "head": "n1", "position": 0, "label": ""}
    assert data["nodes"][0]["histogram"]["counts"][0] == 1
    assert data["caption"] == graph.caption


def test_a_graph_is_frozen_and_compares():
    graph = named()
    with pytest.raises(AttributeError):
        graph.caption = ""
    with pytest.raises(AttributeError):
        graph.nodes[0].title = ""
    assert graph == named()
    assert hash(graph) == hash(named())


def test_the_digraph_is_the_ordinary_one():
    digraph = named().digraph()
    digraph.attr(bgcolor="transparent")
    digraph.node("mine")
    assert type(digraph).__module__.startswith("graphviz")
    assert named().dot().splitlines()[4] in digraph.source
    assert "mine" in digraph.source


def test_kinds_are_told_apart_without_colour():
    model = nn.Linear(2, 2, rng=0)
    dot = tg.draw(tg.relu(model(np.ones((1, 2)))).sum(), order="both", names=model).dot()
    black = re.sub(r'(fill|font)?color="[^"]*"', "", dot)
    styles = {
        re.search(r'shape=\w+ style="?[\w,]+"?( peripheries=2)?', line)[0]
        for line in black.splitlines()
        if "shape=" in line
    }
    assert len(styles) == 4
    assert all(word in black for word in ("parameter", "constant", "input", "backward"))


@drawn
def test_tooltips_tell_the_details():
    with tg.debug():
        y = tg.sin(tg.Tensor([1.0, 2.0], requires_grad=True, name="x"))
    titles = [e.text or "" for e in ElementTree.fromstring(tg.draw(y).svg()).iter(f"{SVG}title")]
    (sin,) = [title for title in titles if title.startswith("sin\n")]
    assert re.search(r"shape: \(2,\)\ndtype: float64\nvalue: \[0\.841, 0\.909\]", sin)
    assert re.search(r"source: .*test_drawing_formats\.py:\d+", sin)


# --- Any name -----------------------------------------------------------------------------------

NASTY = [
    'say "hi"', "two\nlines", "<b>bold</b>", "back\\slash", "a\\nb \\N \\G", "&amp; &lt;",
    "x" * 500, "参数 βήτα שלום", "\x00\x1b[31m\x7f", "]]>", "@DATA@", "</script><script>alert(1)",
    "<svg onload=alert(1)>", "'\"><img src=x onerror=alert(1)>", "\ud800", "\u202eabc", "{a|b}", "",
    "-->", "<!--", "\u2028",
]  # fmt: skip
ANY = st.text(st.characters(), max_size=60) | st.sampled_from(NASTY)


class Tags(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.handlers = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def examples(test):
    for name in NASTY:
        test = example(name)(test)
    return test


@examples
@given(ANY)
@settings(max_examples=60, deadline=None)
def test_any_name_is_right_in_text_dot_and_json(name):
    graph = named(name)
    assert json.loads(graph.json())["nodes"][0]["title"] == (name or "x")
    lines = graph.text().split("\n")
    assert len(lines) == 5
    assert all(unicodedata.category(c) != "Cc" for line in lines for c in line)
    if name != "parameter":
        assert lines[2] == f"   ├─ {visible(name or 'x')} (2,)  parameter"
    assert len(graph.dot().splitlines()) == len(named().dot().splitlines())
    assert graph.dot().replace('\\"', "").count('"') == named().dot().count('"')


@drawn
@examples
@given(ANY)
@settings(max_examples=25, deadline=None)
def test_any_name_is_right_in_svg_and_html(name):
    graph = named(name)
    shown = visible(name or "x")
    svg = graph.svg()
    seen = [word.replace("\N{NO-BREAK SPACE}", " ") for word in words(svg)]
    if len(shown) <= 40:
        assert shown.replace("\N{NO-BREAK SPACE}", " ").strip() in [word.strip() for word in seen]
    else:
        assert any("\N{HORIZONTAL ELLIPSIS}" in word for word in seen)
    tags = {e.tag.removeprefix(SVG) for e in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "g", "title", "a", "text", "polygon", "path", "ellipse", "polyline"}
    page = graph.html()
    parsed, plain = Tags(page), Tags(named().html())
    assert parsed.tags == plain.tags
    assert parsed.handlers == []
    page.encode()


@drawn
def test_nasty_names_are_safe_in_modules_and_every_file(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            self.parts = {name: nn.Linear(2, 2, rng=0) for name in NASTY[:12:2]}

        def forward(self, x):
            for part in self.parts.values():
                x = part(x)
            return x

    graph = Odd().graph(np.ones((1, 2)))
    for suffix in STARTS:
        assert graph.save(tmp_path / f"odd.{suffix}").stat().st_size
    tags = Tags((tmp_path / "odd.html").read_text()).tags
    assert (tags.count("script"), tags.count("img"), tags.count("b")) == (1, 0, 0)


# --- Renderers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "html"])
def test_pygraphviz_alone_is_enough(suffix, no_dot, tmp_path):
    pytest.importorskip("pygraphviz")
    assert drawing.renderer().startswith("pygraphviz ")
    assert named().save(tmp_path / f"x.{suffix}").read_bytes().startswith(STARTS[suffix])


def test_dot_on_the_path_comes_first(monkeypatch, tmp_path):
    program = tmp_path / "dot"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/source\n'
                       f"echo '<svg>from dot</svg>'\n")  # fmt: skip
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    graph = named()
    assert drawing.renderer() == "dot"
    assert graph.svg().strip() == "<svg>from dot</svg>"
    assert (tmp_path / "arguments").read_text().split()[-1] == "-Tsvg"
    assert (tmp_path / "source").read_text() == graph.dot()
    program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(drawing.RendererError, match=r"^dot failed: broken; repair Graphviz"):
        graph.svg()
    program.write_text("no program")
    with pytest.raises(drawing.RendererError, match="dot failed"):
        graph.svg()


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "html"])
def test_without_a_renderer_the_error_names_both(suffix, no_renderer, tmp_path):
    assert drawing.renderer() is None
    with pytest.raises(drawing.RendererError) as caught:
        named().save(tmp_path / f"x.{suffix}")
    assert 'pip install "tinygrad_hw[draw]"' in str(caught.value)
    assert "apt install graphviz" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_graphviz_is_named_with_what_installs_it(monkeypatch, tmp_path):
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "graphviz", None)
    for form in (named().svg, named().digraph):
        with pytest.raises(drawing.RendererError, match=r'pip install "tinygrad_hw\[draw\]"'):
            form()


def test_text_dot_and_json_need_no_renderer(no_renderer, tmp_path):
    for suffix in ("txt", "dot", "json"):
        assert named().save(tmp_path / f"x.{suffix}").stat().st_size
    assert set(named()._repr_mimebundle_()) == {"text/plain"}


# --- Notebooks ----------------------------------------------------------------------------------


@drawn
def test_a_notebook_shows_graphs_tensors_and_modules():
    x = tg.Tensor([1.0, 2.0], requires_grad=True, name="<x>")
    y = (x * x).sum()
    bundle = tg.draw(y)._repr_mimebundle_()
    assert "<svg" in bundle["image/svg+xml"]
    shown = y._repr_mimebundle_()
    assert shown["text/plain"] == repr(y)
    assert "Tensor(5." in shown["text/html"]
    assert "multiply" in shown["text/html"]
    assert "<x>" not in shown["text/html"]
    assert set(x._repr_mimebundle_()) == {"text/plain"}

    model = nn.Sequential(nn.Linear(2, 3, rng=0), tg.relu)
    model(np.ones((1, 2))).sum().backward()
    table = model._repr_mimebundle_()["text/html"]
    assert "layers.0: Linear" in table
    assert "weight (2, 3), bias (3,)" in table
    assert "2, 1.41" in table


def test_a_notebook_without_a_renderer_shows_text(no_renderer):
    y = tg.Tensor(1.0, requires_grad=True) * 2
    assert y._repr_mimebundle_() == {"text/plain": repr(y)}


@drawn
def test_a_tangle_is_drawn_in_seconds():
    rng, ops = np.random.default_rng(1), (tg.sin, tg.tanh, tg.exp, tg.abs)
    ts = [tg.Tensor(rng.standard_normal((2, 2)), requires_grad=True) for _ in range(5)]
    for i in range(150):
        a, b = ts[rng.integers(max(0, len(ts) - 10), len(ts))], ts[rng.integers(len(ts))]
        ts.append(tg.tanh(a * b) if i % 2 else ops[rng.integers(4)](a) + b)
    tangle = tg.draw(ts[-1].sum())
    assert len(tangle.edges) > len(tangle.nodes) + 100
    start = time.perf_counter()
    tangle.svg()
    assert time.perf_counter() - start < 10
    assert "nslimit" not in tg.draw(ts[20].sum()).dot()


# --- Commands -----------------------------------------------------------------------------------


@drawn
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_command_draws_the_handouts_networks(model, tmp_path, capsys):
    path = tmp_path / "deep" / f"{model}.svg"
    assert cli.main(["draw", model, "--out", str(path), "--order", "both"]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert {"softmax_cross_entropy", "out.weight", "backward"} <= set(words(path.read_text()))
    assert cli.main(["draw", model, "--depth", "0"]) == 0
    assert f"{model.upper()} (32, 10)  2 " not in capsys.readouterr().out


USERS = """
import numpy as np, tinygrad_hw as tg
def loss():
    model = tg.nn.Sequential(tg.nn.Linear(4, 8, rng=0), tg.relu)
    data = np.ones((5, 4))
    return model(data).sum()
def fails():
    x = tg.Tensor([1.0, 2.0], requires_grad=True, name="x")
    return x.reshape(3)
def number():
    return 3
"""


def test_the_command_draws_what_a_function_returns(tmp_path, capsys):
    file = tmp_path / "users.py"
    file.write_text(USERS)
    assert cli.main(["draw", f"{file}:loss", "--show", "shape,source"]) == 0
    out = capsys.readouterr().out
    for said in ("layers.0.weight (4, 8)  parameter", "data (5, 4)  constant", "users.py:6"):
        assert said in out
    for what, says in {
        f"{file}:fails": r"reshape: .*\nreshape  ! .*\n└─ x \(2,\)  parameter",
        f"{file}:number": "returned int; want a Tensor",
        f"{file}:nothing": "has no function 'nothing'",
        f"{tmp_path}/no.py:f": "no such file",
        "transformer": "want mlp, cnn or path.py:function",
    }.items():
        assert cli.main(["draw", what]) == 2
        assert re.search(says, capsys.readouterr().err)


def test_the_command_finds_what_lies_beside_the_file(tmp_path):
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "users.py").write_text(
        "import tinygrad_hw as tg\n"
        "from beside import double\n"
        "def f():\n"
        "    return double(tg.Tensor(1.0, requires_grad=True))\n"
    )
    # The command itself stands elsewhere, as it does where it is installed.
    command = [sys.executable, "-m", "tinygrad_hw", "draw", f"{tmp_path}/users.py:f"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "multiply" in done.stdout, done.stderr


BROKEN = {
    "def f(:\n": "users.py, line 1: SyntaxError: invalid syntax",
    "x = 1\n1 / 0\n": "users.py, line 2: ZeroDivisionError: division by zero",
    "import sys\n\nsys.exit(3)\n": "users.py, line 3: SystemExit: 3",
    "def f(x):\n    return x\n": "TypeError: f() missing 1 required positional argument: 'x'",
    "def f():\n    return undefined\n": "users.py, line 2: NameError: name 'undefined'",
}


@pytest.mark.parametrize("source", BROKEN)
def test_the_command_names_the_line_of_an_error_in_a_users_file(source, tmp_path, capsys):
    file = tmp_path / "users.py"
    file.write_text(source)
    assert cli.main(["draw", f"{file}:f"]) == 2
    assert BROKEN[source] in capsys.readouterr().err


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_command_knows_the_lines_of_the_handouts_networks(model, capsys):
    assert cli.main(["draw", model, "--show", "source"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"relu.*models\.py:\d+", out)
    assert "lines are known" not in out


@pytest.mark.parametrize("module", ["tinygrad_hw", "tinygrad_hw.cli"])
def test_the_command_writes_to_what_knows_no_boxes(module):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", module, "draw", "mlp"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "relu" in done.stdout


def test_the_command_says_what_is_missing_without_a_traceback(no_renderer, tmp_path, capsys):
    assert cli.main(["draw", "mlp", "--out", str(tmp_path / "mlp.svg")]) == 2
    assert 'pip install "tinygrad_hw[draw]"' in capsys.readouterr().err
    file = tmp_path / "users.py"
    file.write_text("import tinygrad_hw as tg\ndef f():\n    return tg.Tensor(1.0)\n")
    assert cli.main(["draw", f"{file}:f", "--order", "backward"]) == 2
    assert "requires no gradient" in capsys.readouterr().err


def test_the_doctor_says_what_draws_and_how_to_get_the_rest(no_renderer, capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"draw +pygraphviz|draw +missing pygraphviz", out)
    assert 'pip install "tinygrad_hw[draw]", or install Graphviz' in out


def test_the_doctor_names_every_package_of_the_extras(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    for extra in ("data", "plot", "draw", "safetensors", "fast", "test"):
        line = re.search(rf"^  {extra} .*$", out, re.M)
        assert line is not None
        for package in re.findall(r"^[\w-]+", declared["options.extras_require"][extra], re.M):
            assert package in line[0]


# --- The pictures of the docs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery():
    return runpy.run_path(str(ROOT / "docs" / "make_gallery.py"))["pictures"]()


def test_the_gallery_shows_every_picture_that_its_script_makes(gallery):
    files = {path.stem for path in (ROOT / "docs" / "gallery").glob("*.png")}
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert set(gallery) == files == set(re.findall(r"gallery/(\w+)\.png", page))


def test_no_words_overlap_in_the_gallery(gallery):
    pytest.importorskip("pygraphviz")
    from layout import overlaps

    assert {name: found for name, graph in gallery.items() if (found := overlaps(graph))} == {}


def test_overlaps_would_be_found():
    pytest.importorskip("pygraphviz")
    from layout import overlaps

    class Crowded:
        def dot(self):
            return 'digraph { a -> b [label="a long word on an arrow"] a [pos="0,0"] ' \
                   "subgraph cluster_x { label=title_of_the_cluster b } }"  # fmt: skip

    assert overlaps(Crowded()) == ["arrow through title_of_the_cluster"]
