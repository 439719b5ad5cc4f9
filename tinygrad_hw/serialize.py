"""Save and load named arrays: ``.npz``, or ``.safetensors`` with the extra; never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .graph import value_of
from .kernels import hw5

__all__ = ["load", "save"]

_SUFFIXES = (".npz", ".safetensors")


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write named arrays to a file, whole or not at all.

    The same state gives the same bytes.

    Parameters
    ----------
    path : str or Path
        Ends in ``.npz`` or ``.safetensors``; without an ending the format is that of ``.npz``.
    state : mapping of str to array, Tensor or number
        Such as ``module.state_dict()``.

    Raises
    ------
    TypeError
        If ``state`` is no mapping.
    ValueError
        If the suffix is another, a value is no array of numbers, or two names are the same text.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, tinygrad_hw as tg
    >>> path = f"{tempfile.mkdtemp()}/weights.npz"
    >>> tg.save(path, {"w": tg.Tensor([1.0, 2.0])})
    >>> tg.load(path)
    {'w': array([1., 2.])}
    """
    if isinstance(path, Mapping):
        raise TypeError("save: got a dict for the path; want save(path, state)")
    path, kind = _with_kind(path)
    arrays = _by_text(state)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: {path.parent} is no folder; make it first")
    with hw5.replacing(path) as temporary:
        if kind == ".npz":
            _write_npz(temporary, arrays)
        else:
            _safetensors().save_file(arrays, str(temporary))


def load(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read what :func:`save` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, holds Python objects, or has another suffix.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.load("weights.pickle")
    Traceback (most recent call last):
    ...
    ValueError: weights.pickle: has the suffix '.pickle'; want .npz or .safetensors
    """
    path, kind = _with_kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"load: {path}: no such file")
    try:
        if kind == ".npz":
            # Opened here, since np.load leaves a damaged file open.
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                # By the member's name: for "w.npy" NumPy would give the array "w", if there is one.
                return {name: file[f"{name}.npy"] for name in file.files}
        loaded: dict[str, np.ndarray[Any, Any]] = _safetensors().load_file(str(path))
        return loaded
    except ImportError:
        raise
    except Exception as error:
        # The readers raise whatever a damaged header leads them to. NumPy takes all that is no
        # archive for a pickle, and says how to load one: no advice for a damaged file.
        reason = "no archive" if "pickled" in str(error) else error
        raise ValueError(
            f"load: {path}: damaged, or no {kind} file of plain arrays ({reason}); "
            "save it again with tinygrad_hw.save"
        ) from error


def _with_kind(path: str | Path) -> tuple[Path, str]:
    path = Path(path)
    kind = path.suffix.lower() or ".npz"
    if kind not in _SUFFIXES:
        raise ValueError(f"{path}: has the suffix {path.suffix!r}; want .npz or .safetensors")
    return path, kind


def _by_text(state: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    if not isinstance(state, Mapping):
        raise TypeError(
            f"save: got a {type(state).__name__}; want a dict of arrays, such as model.state_dict()"
        )
    for name, value in state.items():
        if str(name) in arrays:
            raise ValueError(f"save: two names are {str(name)!r} as text; want strings, each once")
        if isinstance(value, Mapping):
            raise ValueError(
                f"save: {name!r} is a {type(value).__name__}; want one dict of arrays, with names "
                f"such as '{name}.weight', or a file for each"
            )
        arrays[str(name)] = _numeric(name, value)
    return arrays


def _numeric(name: str, value: Any) -> np.ndarray[Any, Any]:
    array = np.ascontiguousarray(value_of(value))
    if array.dtype.kind not in "fiubc":
        raise ValueError(f"save: {name!r} has dtype {array.dtype}; want numbers")
    return array.reshape(np.shape(value))


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    import zipfile  # Not at the top: it would be a third of the time to import the package.

    # np.savez would pickle, and takes no array of the name "file".
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _safetensors() -> Any:
    try:
        from safetensors import numpy as module
    except ImportError as error:
        raise ImportError(
            'safetensors is not installed; run pip install "tinygrad_hw[safetensors]"'
        ) from error
    return module
