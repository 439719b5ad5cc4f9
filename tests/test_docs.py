"""The pages of docs: examples run, links lead somewhere, the generated page is current."""

from __future__ import annotations

import doctest
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_run(page):
    test = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, page.name, 0)
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    assert doctest.DocTestRunner(optionflags=options).run(test).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_of_primitives_is_current():
    made = runpy.run_path(str(ROOT / "docs" / "make_ops.py"))["page"]()
    written = (ROOT / "docs" / "ops.md").read_text()
    assert made == written, "run python docs/make_ops.py"
    assert written.count("| any |") > 90
