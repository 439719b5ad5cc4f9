"""Fetch MNIST from one of its mirrors, with a bound on the time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .files import MNIST_FILES, DataError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)

# Seconds without an answer or a byte after which a mirror is given up, and for all of it.
STALL, TOTAL = 10.0, 300.0


class DownloadError(DataError):
    """No mirror could serve the files."""


def download_mnist(
    folder: Path,
    *,
    mirrors: Sequence[str] | None = None,
    stall: float | None = None,
    total: float | None = None,
) -> str:
    """Fetch the four MNIST files into a folder; return the mirror that served them.

    Each file is checked against its published MD5 and appears whole or not at all. A mirror that
    fails, stalls or serves other bytes is left for the next.

    Raises
    ------
    DownloadError
        If no mirror could; the message says why for each.
    ImportError
        If pooch is not installed.
    """
    try:
        import pooch
    except ImportError as error:
        raise ImportError('pooch is not installed; run pip install "tinygrad_hw[data]"') from error
    pooch.get_logger().setLevel("WARNING")
    deadline = time.monotonic() + (TOTAL if total is None else total)
    troubles = []
    for mirror in MIRRORS if mirrors is None else mirrors:
        try:
            for name, checksum in MNIST_FILES.items():
                fetch = _Fetch(STALL if stall is None else stall, deadline)
                pooch.retrieve(mirror + name, f"md5:{checksum}", name, folder, downloader=fetch)
            return mirror
        except (OSError, ValueError) as error:
            # requests' errors are OSErrors, a wrong checksum is a ValueError.
            troubles.append(f"{urlsplit(mirror).hostname} {_reason(error)}")
    raise DownloadError("no mirror served it: " + ", ".join(troubles))


class _Fetch:
    """A downloader for pooch that gives up when bytes stop coming, or come too slowly."""

    def __init__(self, stall: float, deadline: float) -> None:
        self.stall, self.deadline = stall, deadline

    def __call__(self, url: str, output: str, pooch: Any) -> None:
        import requests

        with requests.get(url, stream=True, timeout=self.stall) as response:
            response.raise_for_status()
            size = int(response.headers.get("content-length", 0))
            with open(output, "wb") as file, _bar(url.rpartition("/")[2], size) as bar:
                for chunk in response.iter_content(1 << 14):
                    if time.monotonic() > self.deadline:
                        raise TimeoutError("too slow")
                    file.write(chunk)
                    bar.update(len(chunk))


class _NoBar:
    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: int) -> None:
        """Show nothing."""


def _bar(name: str, size: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(desc=name, total=size or None, unit="B", unit_scale=True)


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong; connection errors carry whole stacks of causes."""
    kind = type(error).__name__
    if "Timeout" in kind or "timed out" in str(error):
        return "stalled"
    if kind in ("ConnectionError", "SSLError", "ProxyError"):
        return "cannot be reached"
    if kind == "HTTPError":
        return f"answered {str(error)[:3]}"
    if "hash" in str(error):
        return "served damaged bytes"
    return f"failed ({kind}: {str(error)[:80]})"
