"""``tinygrad-hw doctor``: what is here, and how to get the rest."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
from pathlib import Path

import tinygrad_hw
from tinygrad_hw.data.digits import cache_folder
from tinygrad_hw.drawing.render import ADVICE, renderer

# "all" is the others together; these are for work on the package itself.
_LEFT_OUT = frozenset({"all", "bench", "dev", "peers"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no options: it looks at everything."""


def run(options: argparse.Namespace) -> int:
    """Print what is here."""
    numpy = importlib.metadata.version("numpy")
    print(f"tinygrad_hw {tinygrad_hw.__version__}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {numpy}, {os.cpu_count()} cores")
    print("\nextras:")
    for extra, packages in _extras().items():
        found = {name: _version(name) for name in packages}
        missing = [name for name, version in found.items() if version is None]
        here = ", ".join(f"{name} {version}" for name, version in found.items() if version)
        advice = f'missing {", ".join(missing)}: pip install "tinygrad_hw[{extra}]"'
        print(f"  {extra:12}{'; '.join(filter(None, [here, advice if missing else '']))}")
    print("\ndrawing:")
    print(f"  {renderer() or ADVICE}")
    print("\ndata:")
    for name, place in _places().items():
        state = "not set" if place is None else f"{place} {_state(place)}"
        print(f"  {name:20}{state}")
    return 0


def _extras() -> dict[str, list[str]]:
    """Packages of each extra, as the installation declares them."""
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("tinygrad_hw") or ():
        extra = re.search(r"extra == ['\"](\w+)", requirement)
        if extra and extra[1] not in _LEFT_OUT:
            extras.setdefault(extra[1], []).append(re.split(r"[^\w.-]", requirement)[0])
    return extras


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _places() -> dict[str, Path | None]:
    given = {name: os.environ.get(name) for name in ("TINYGRAD_HW_DATA", "TINYGRAD_HW_MNIST")}
    places = {name: Path(value) if value else None for name, value in given.items()}
    return {**places, "./data": Path("data"), "cache": cache_folder()}


def _state(folder: Path) -> str:
    if not folder.is_dir():
        return "(no such folder)"
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".npz", ".gz"))
    return f"({', '.join(files) or 'no data files'})"
