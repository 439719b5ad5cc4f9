"""What the README says: its examples run, its links lead somewhere, its commands exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import tinygrad_hw as tg
from tinygrad_hw.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_examples_run():
    examples = doctest.DocTestParser().get_doctest(README, {}, "README.md", "README.md", 0)
    assert len(examples.examples) > 10
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert failed == 0


def test_the_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_exist():
    assert set(re.findall(r"`?tinygrad-hw ([a-z]+)", README)) <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\btg\.([A-Za-z_]\w*)", README))))
def test_the_names_are_public(name):
    assert hasattr(tg, name)
