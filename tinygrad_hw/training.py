"""Train the handout's networks with the engine, so that a killed run can go on bit for bit.

All randomness of an epoch comes from the seed and the epoch's number. So a checkpoint at the end of
an epoch holds the weights, the optimiser's memory and the losses, and no state of a generator.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import models, ops, optim
from .compile import compile_function
from .data import Digits, augment, mini_batches
from .graph import no_grad
from .serialize import load, save
from .tensor import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Settings:
    """All that the result of a run depends on, besides the data.

    The defaults of :data:`SETTINGS` were chosen on 2,000 of the course's 12,000 training images.
    """

    model: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    max_shift: float
    max_rotation: float
    max_zoom: float
    seed: int = 0

    def checked(self) -> Settings:
        """Raise a ValueError for a setting out of range."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; want at least {least}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr}; want a positive number")
        return self


# Steps from which on native code gains more than it takes to compile.
_LONG = 5_000
_WARM_UP, _MEASURED = 5, 41
SETTINGS = {
    "mlp": Settings("mlp", 40, 32, 0.1, 5e-4, 0.5, 8.0, 0.05),
    # Its 1,510 weights do not overfit: moved images cost it a third of a point.
    "cnn": Settings("cnn", 40, 32, 0.05, 1e-4, 0.0, 0.0, 0.0),
}
MODELS: dict[str, type[models.MLP] | type[models.CNN]] = {"mlp": models.MLP, "cnn": models.CNN}


class Run:
    """One training: the model, the optimiser, and how far it has come.

    Parameters
    ----------
    settings : Settings
    digits : Digits
    backend : str
        "numpy" or "numba" to compile the training step for it, "off" to run it as it is.

    Attributes
    ----------
    losses : list of float
        Of each iteration.
    rows : list of dict
        The metrics of each epoch.
    """

    def __init__(self, settings: Settings, digits: Digits, backend: str = "off") -> None:
        self.settings, self.backend = settings.checked(), backend
        self.images, self.labels = _floats(digits.image_train), digits.label_train.ravel()
        self.test = _floats(digits.image_test), digits.label_test.ravel()
        self.batches = -(-len(self.images) // settings.batch_size)
        self.model = MODELS[settings.model](rng=np.random.default_rng([settings.seed, 0]))
        self.optimizer = optim.SGD(
            self.model.parameters(),
            lr=settings.lr,
            momentum=0.9,
            weight_decay=settings.weight_decay,
        )
        # What is left at the end of an epoch is too seldom to be compiled.
        self.learn_rest = step_of(self.model, self.optimizer)
        self.learn = self.learn_rest
        if backend != "off":
            self.learn = compile_function(self.learn_rest, backend=backend)
        self.schedule = optim.OneCycle(
            self.optimizer, total=settings.epochs * self.batches, rise=0.2
        )
        self.losses: list[float] = []
        self.rows: list[dict[str, float]] = []

    @property
    def done(self) -> bool:
        """Whether all epochs are trained."""
        return len(self.rows) == self.settings.epochs

    def train_epoch(self, progress: Callable[[float], None]) -> None:
        """Train one more epoch, calling ``progress(loss)`` after each iteration.

        Raises
        ------
        ValueError
            If the loss or a weight is no longer finite.
        """
        settings = self.settings
        epoch = len(self.rows) + 1
        rng = np.random.default_rng([settings.seed, epoch])
        images = augment(
            self.images,
            rng,
            max_shift=settings.max_shift,
            max_rotation=settings.max_rotation,
            max_zoom=settings.max_zoom,
        )
        lr = self.optimizer.lr
        losses, right = [], 0
        for x, labels in mini_batches(images, self.labels, settings.batch_size, rng=rng):
            learn = self.learn if len(x) == settings.batch_size else self.learn_rest
            # A loss that overflows is an error of its own, which says what to do.
            with np.errstate(over="ignore", invalid="ignore"):
                loss, logits = learn(x, labels)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss of epoch {epoch} is {losses[-1]}; use an lr below {settings.lr:g}"
                )
            self.schedule.step()
            right += int(np.sum(logits.numpy().argmax(axis=1) == labels))
            progress(losses[-1])
        # No loss has told of the last step yet.
        if not all(np.isfinite(p.data).all() for p in self.model.parameters()):
            raise ValueError(
                f"weights after epoch {epoch} are not finite; use an lr below {settings.lr:g}"
            )
        self.losses += losses
        self.rows.append(
            {
                "epoch": epoch,
                "loss": float(np.mean(losses)),
                "train_accuracy": right / len(images),
                "test_accuracy": float(np.mean(self.predictions() == self.test[1])),
                "lr": lr,
            }
        )

    def predictions(self) -> Array:
        """Classes of the test images."""
        with no_grad():
            classes: Array = self.model(Tensor(self.test[0])).numpy().argmax(axis=1)
        return classes

    # --- Checkpoints --------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write all that the run needs to go on."""
        parts = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        state: dict[str, Any] = {
            f"{part}/{name}": value
            for part, values in parts.items()
            for name, value in values.items()
        }
        state["losses"] = np.array(self.losses)
        state["rows"] = _text({"rows": self.rows})
        state["settings"] = _text(self._identity())
        save(path, state)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        ValueError
            If the file is damaged, or is of a run with other settings or data.
        """
        try:
            state = load(path)
        except ValueError as error:
            raise ValueError(
                f"{path}: is damaged, or no checkpoint; start anew without --resume"
            ) from error
        try:
            identity = json.loads(state.pop("settings").tobytes())
            differing = [
                f"{name} {identity.get(name)} there and {value} here"
                for name, value in self._identity().items()
                if identity.get(name) != value
            ]
            if not differing:
                self._restore(state)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Its parts are whatever somebody wrote there.
            raise ValueError(
                f"{path}: is no checkpoint of a training ({error}); start anew without --resume"
            ) from error
        if differing:
            raise ValueError(
                f"{path}: is of a run with other settings: {', '.join(differing)}; "
                "use the same ones, or start anew without --resume"
            )

    def _restore(self, state: dict[str, Array]) -> None:
        self.rows = json.loads(state.pop("rows").tobytes())["rows"]
        self.losses = state.pop("losses").reshape(len(self.rows) * self.batches).tolist()
        parts: dict[str, dict[str, Any]] = {"model": {}, "optimizer": {}, "schedule": {}}
        for key, value in state.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])

    def _identity(self) -> dict[str, Any]:
        return {**asdict(self.settings), "compile": self.backend, "data": self._data}

    @cached_property
    def _data(self) -> str:
        """A number of the training data by which it is known again."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


def step_of(model: Any, optimizer: optim.Optimizer) -> Callable[[Array, Array], Any]:
    """Give the function of a batch that changes the weights by one step.

    It returns the loss and the logits before the step.
    """

    def learn(images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        logits = model(images)
        loss = ops.softmax_cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return loss, logits

    return learn


def backend_for(choice: str, settings: Settings, images: int) -> str:
    """Give the back end for ``auto``: native code where it can be made and the training is long.

    It depends on nothing but that, so that a seed gives the same weights again.
    """
    if choice != "auto":
        return choice
    steps = settings.epochs * -(-images // settings.batch_size)
    here = all(importlib.util.find_spec(name) for name in ("llvmlite", "scipy"))
    return "numba" if steps >= _LONG and here else "numpy"


def seconds_a_step(settings: Settings, digits: Digits, backend: str) -> float:
    """Measure a training step, as the median of some of a run that is thrown away."""
    run = Run(settings, digits, backend)
    images, labels = (a[: settings.batch_size] for a in (run.images, run.labels))
    seconds = []
    for _ in range(_WARM_UP + _MEASURED):
        start = time.perf_counter()
        run.learn(images, labels)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_WARM_UP:])


def settings_for(model: str, **given: Any) -> Settings:
    """Give the default settings of a model, with those given and not None in their place.

    Examples
    --------
    >>> settings_for("mlp", epochs=3, lr=None).epochs
    3
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(SETTINGS[model], **chosen).checked()


def _floats(images: Array) -> Array:
    return images.astype(np.float32) / np.float32(255)


def _text(value: Any) -> Array:
    """Put JSON in an array of bytes, to be saved among arrays."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
