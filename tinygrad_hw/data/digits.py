"""Find the digits: a given folder, ``$TINYGRAD_HW_DATA``, ``./data``, the cache, a download."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .download import download_mnist
from .files import (
    COURSE_FILES,
    MNIST_FILES,
    DataError,
    check_course,
    derive_course,
    read_course,
    read_mnist,
    unlike_course,
    write_course,
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Digits:
    """Images of digits to train and to test with.

    Attributes
    ----------
    image_train, image_test : array of uint8, shape (N, 14, 14)
    label_train, label_test : array of uint8, shape (N, 1)
    label_classes : list of str
        Names of the ten classes.
    source : str
        In words, which data it is.
    """

    image_train: Array
    label_train: Array
    image_test: Array
    label_test: Array
    label_classes: list[str]
    source: str


def load_digits(path: str | Path | None = None, *, download: bool = True) -> Digits:
    """Load the course's digits, or the nearest thing to them that can be had.

    The first of these that is there: ``path``, the folder ``$TINYGRAD_HW_DATA``, ``./data``, the
    cache. Each may hold the course's two files or the four files of MNIST, from which the course's
    are derived. Then a download of MNIST into the cache; and last, without a network, the digits
    that scikit-learn carries, with a line on standard error that says so.

    Parameters
    ----------
    path : str or Path, optional
        A folder.
    download : bool
        Whether the network may be asked.

    Returns
    -------
    Digits

    Raises
    ------
    DataError
        If a folder that was named holds no data, or a file is damaged.
    ImportError
        If nothing else is left and scikit-learn is not installed.

    Examples
    --------
    >>> digits = load_digits(download=False)  # doctest: +SKIP
    >>> digits.image_train.shape, digits.source  # doctest: +SKIP
    ((12000, 14, 14), "the course's files in data")
    """
    named = path if path is not None else os.environ.get("TINYGRAD_HW_DATA") or None
    if named is not None:
        found = _in_folder(Path(named))
        if found is None:
            raise DataError(
                f"{named}: holds no data; want {' and '.join(COURSE_FILES)}, or the four files of "
                "MNIST"
            )
        return found
    found = _in_folder(Path("data")) or _in_cache()
    if found is not None:
        return found
    trouble = "downloads are off"
    if download:
        try:
            return _downloaded()
        except (DataError, ImportError, OSError) as error:
            trouble = str(error)
    digits = _from_sklearn()
    print(f"no MNIST here ({trouble}); using {digits.source}", file=sys.stderr)
    return digits


def load_mnist(
    path: str | Path | None = None, *, download: bool = True
) -> tuple[Array, Array, Array, Array]:
    """Load MNIST in full size.

    Parameters
    ----------
    path : str or Path, optional
        A folder with the four files; else ``$TINYGRAD_HW_MNIST``, ``./data``, the cache, and a
        download into the cache are tried.
    download : bool
        Whether the network may be asked.

    Returns
    -------
    image_train, label_train, image_test, label_test : arrays of uint8
        Of shape (60000, 28, 28), (60000,), (10000, 28, 28) and (10000,).

    Raises
    ------
    DataError
        If it cannot be had, or a file is damaged.

    Examples
    --------
    >>> load_mnist()[0].shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    named = path if path is not None else os.environ.get("TINYGRAD_HW_MNIST") or None
    if named is not None:
        return read_mnist(Path(named))
    if _holds_any(Path("data"), MNIST_FILES):
        return read_mnist(Path("data"))
    if not _holds_all(cache_folder(), MNIST_FILES):
        if not download:
            raise DataError("MNIST is not on this machine; name its folder, or allow the download")
        try:
            download_mnist(cache_folder())
        except (DataError, ImportError, OSError) as error:
            raise DataError(
                f"MNIST is not on this machine ({error}); put its four files into a folder and "
                "name that in TINYGRAD_HW_MNIST"
            ) from error
    return read_mnist(cache_folder())


def cache_folder() -> Path:
    """Where downloads are kept: ``$TINYGRAD_HW_CACHE``, or the user's cache of this system."""
    given = os.environ.get("TINYGRAD_HW_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tinygrad_hw"


def _in_folder(folder: Path) -> Digits | None:
    """Read the course's files, or derive them from MNIST's; None if neither are there."""
    # One file of a set is a damaged set, not a missing one: reading it tells which file lacks.
    if _holds_any(folder, COURSE_FILES):
        data = read_course(folder)
        # Anybody may put other digits into such files: what was used is not to be taken for these.
        other = unlike_course(data)
        source = "digits other than the course's" if other else "the course's files"
        return _digits(data, f"{source} in {folder}")
    if _holds_any(folder, MNIST_FILES):
        data = derive_course(read_mnist(folder))
        check_course(data)
        return _digits(data, f"the course's digits, derived from MNIST in {folder}")
    return None


def _in_cache() -> Digits | None:
    """Read the cache; None where a killed download left a part of a set, to be completed."""
    folder = cache_folder()
    whole = _holds_all(folder, COURSE_FILES) or (
        _holds_all(folder, MNIST_FILES) and not _holds_any(folder, COURSE_FILES)
    )
    return _in_folder(folder) if whole else None


def _holds_any(folder: Path, names: Iterable[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _holds_all(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _downloaded() -> Digits:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    mirror = download_mnist(folder)
    data = derive_course(read_mnist(folder))
    check_course(data)
    write_course(folder, data)
    host = urlsplit(mirror).hostname
    return _digits(data, f"the course's digits, derived from MNIST, downloaded from {host}")


def _from_sklearn() -> Digits:
    try:
        from sklearn.datasets import load_digits as load_small
    except ImportError as error:
        raise ImportError(
            'no data: neither MNIST nor scikit-learn is here; run pip install "tinygrad_hw[data]"'
        ) from error
    small = load_small()
    images, labels = _enlarged(small.images), small.target.astype(np.uint8)[:, np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1500], order[1500:]
    return _digits(
        (images[train], labels[train], images[test], labels[test]),
        f"scikit-learn's handwritten digits (UCI, {len(images)} images of 8x8, enlarged to 14x14)",
    )


def _enlarged(images: Array) -> Array:
    """Enlarge images (N, 8, 8) of values 0 to 16 to (N, 14, 14) of 0 to 255, bilinearly."""
    n, m = images.shape[-1], 14
    places = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    weights = np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(n)), 0)
    enlarged: Array = np.rint(weights @ images @ weights.T * (255 / 16)).astype(np.uint8)
    return enlarged


def _digits(data: tuple[Array, Array, Array, Array], source: str) -> Digits:
    return Digits(*data, label_classes=[str(i) for i in range(10)], source=source)
