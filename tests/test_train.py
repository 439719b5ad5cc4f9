"""``tinygrad-hw train``: what it writes, and that a run killed at any moment ends the same."""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_digits import write_small_digits

import hw5
import tinygrad_hw.training
from tinygrad_hw.cli import COMMANDS, main
from tinygrad_hw.data import load_digits
from tinygrad_hw.training import Run, backend_for, settings_for

SHAPES = {
    "mlp": {"w1": (30, 196), "b1": (30, 1), "w2": (10, 30), "b2": (10, 1)},
    "cnn": {"w_conv": (3, 3, 1, 3), "b_conv": (3, 1), "w_fc": (10, 147), "b_fc": (10, 1)},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_small_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def one_epoch(data, tmp_path_factory) -> dict[str, np.ndarray]:
    """What a checkpoint after one epoch holds."""
    out = tmp_path_factory.mktemp("one_epoch")
    assert main(["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(out)]) == 0
    with np.load(out / "mlp.checkpoint.npz") as file:
        return dict(file)


def weights(out: Path, model: str) -> dict[str, np.ndarray]:
    with np.load(out / f"{model}.npz") as file:
        return {name: file[name] for name in file.files}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_it_writes_weights_metrics_and_figures(data, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert main(["train", "--data", str(data), "--epochs", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"data: digits other than the course's in {data}" in printed
    assert "MLP: accuracy " in printed
    assert "CNN: accuracy " in printed
    for model, shapes in SHAPES.items():
        found = weights(out, model)
        assert {name: array.shape for name, array in found.items()} == shapes
        assert all(array.dtype == np.float64 for array in found.values())
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["epoch"]) for row in rows] == [
        (model, str(epoch)) for model in ("mlp", "cnn") for epoch in (1, 2, 3)
    ]
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    if "no figures" not in printed:
        figures = {path.name for path in out.glob("*.png")}
        assert figures >= {f"{m}_{kind}.png" for m in SHAPES for kind in ("loss", "confusion")}
        assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in figures)


def test_without_matplotlib_there_are_no_figures_and_none_are_promised(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert 'MLP: no figures; for them, pip install "tinygrad_hw[plot]"' in printed
    assert printed.endswith(f"the results are in {tmp_path}\n")
    assert (tmp_path / "mlp.npz").exists()


def test_the_handouts_inference_gives_the_accuracy_it_printed(data, tmp_path, capsys):
    assert main(["train", "--data", str(data), "--epochs", "12", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    digits = load_digits(data)
    images, labels = digits.image_test / 255.0, digits.label_test.ravel()
    mlp, cnn = weights(tmp_path, "mlp"), weights(tmp_path, "cnn")
    predicted = {
        "MLP": [hw5.infer_mlp(image.reshape(196, 1), **mlp) for image in images],
        "CNN": [hw5.infer_cnn(image[..., np.newaxis], **cnn) for image in images],
    }
    for name, classes in predicted.items():
        accuracy = np.mean(np.array(classes) == labels)
        assert accuracy > 0.8
        assert f"{name}: accuracy {accuracy:.4f}" in printed


def test_a_seed_gives_the_same_bytes_and_another_seed_others(data, tmp_path):
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        arguments = ["train", "mlp", "--data", str(data), "--epochs", "2", "--seed", seed]
        assert main([*arguments, "--out", str(tmp_path / folder)]) == 0
    a, b, c = (tmp_path / folder / "mlp.npz" for folder in "abc")
    assert a.read_bytes() == b.read_bytes()
    assert not same(weights(a.parent, "mlp"), weights(c.parent, "mlp"))


# --- Resuming ---------------------------------------------------------------------------------


def command(data: Path, out: Path, *more: str) -> list[str]:
    arguments = ["train", "cnn", "--data", str(data), "--epochs", "24", "--out", str(out)]
    return [sys.executable, "-m", "tinygrad_hw", *arguments, *more]


def test_a_run_killed_again_and_again_ends_bit_identical(data, tmp_path):
    subprocess.run(command(data, tmp_path / "whole"), check=True, capture_output=True)
    moments, out, kills = random.Random(0), tmp_path / "killed", 0
    while kills < 4:
        seen = _written(out)
        process = subprocess.Popen(
            command(data, out, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and _written(out) == seen:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    assert kills > 0
    done = subprocess.run(
        command(data, out, "--resume"), check=True, capture_output=True, text=True
    )
    assert "CNN: resumed after epoch" in done.stdout
    assert same(weights(tmp_path / "whole", "cnn"), weights(out, "cnn"))
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (out / "metrics.csv").read_text()


def _written(out: Path) -> int:
    checkpoint = out / "cnn.checkpoint.npz"
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


@pytest.mark.parametrize("backend", ["off", "numpy", "numba"])
def test_going_on_from_a_checkpoint_changes_no_bit(data, tmp_path, monkeypatch, backend):
    if backend == "numba":
        pytest.importorskip("numba")
        pytest.importorskip("scipy")
        monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path / "native"))
    # Native code of another size takes seconds more, so all batches of that run are of one.
    size = 10_000 if backend == "numba" else 32
    digits, settings = load_digits(data), settings_for("mlp", epochs=3, batch_size=size)
    whole = Run(settings, digits, backend)
    while not whole.done:
        whole.train_epoch(lambda loss: None)
    first = Run(settings, digits, backend)
    first.train_epoch(lambda loss: None)
    first.save(tmp_path / "checkpoint.npz")
    second = Run(settings, digits, backend)
    second.resume(tmp_path / "checkpoint.npz")
    while not second.done:
        second.train_epoch(lambda loss: None)
    assert same(whole.model.weights(), second.model.weights())
    assert whole.losses == second.losses
    assert whole.rows == second.rows


@pytest.mark.skipif(os.name != "posix", reason="writes a shell script")
def test_a_broken_renderer_costs_the_picture_alone(data, tmp_path, monkeypatch, capsys):
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho no plugins >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    out = tmp_path / "out"
    assert main(["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(out)]) == 0
    assert "MLP: no picture of the graph: dot failed: no plugins" in capsys.readouterr().out
    assert {"mlp_loss.png", "mlp_confusion.png"} <= {path.name for path in out.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_stopped_keeps_what_it_has(data, tmp_path, number, status):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*command(data, out), "--epochs", "100000", "--compile", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores control-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (out / "metrics.csv").exists():
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert "interrupted in epoch" in error
    assert "go on with --resume" in error
    assert "Traceback" not in error
    assert {n: w.shape for n, w in weights(out, "cnn").items()} == SHAPES["cnn"]
    assert (out / "cnn.checkpoint.npz").exists()


def test_control_c_before_an_epoch_is_complete_leaves_older_weights_alone(
    data, tmp_path, monkeypatch, capsys
):
    arguments = ["train", "mlp", "--data", str(data), "--out", str(tmp_path), "--epochs"]
    assert main([*arguments, "1"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "train_epoch", interrupted)
    capsys.readouterr()
    assert main([*arguments, "2"]) == 130
    error = capsys.readouterr().err
    assert "interrupted in epoch 1; no epoch is complete, so nothing was written" in error
    assert "--resume" not in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_of_other_settings_is_refused(data, tmp_path, capsys):
    arguments = ["train", "mlp", "--data", str(data), "--out", str(tmp_path)]
    assert main([*arguments, "--epochs", "1"]) == 0
    assert main([*arguments, "--epochs", "2", "--resume"]) == 2
    assert "other settings: epochs 1 there and 2 here" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused(data, tmp_path, capsys):
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    checkpoint = tmp_path / "mlp.checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert main([*arguments, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "mlp.checkpoint.npz: is damaged, or no checkpoint; start anew without --resume" in error
    np.savez(checkpoint, w=np.zeros(3))
    assert main([*arguments, "--resume"]) == 2
    assert "is no checkpoint of a training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", np.frombuffer(b"[]", np.uint8)),
        ("rows", np.frombuffer(b"[]", np.uint8)),
        ("rows", np.frombuffer(b'{"rows": 1}', np.uint8)),
        ("rows", np.frombuffer(b'{"rows": [{}, {}]}', np.uint8)),
        ("losses", np.array(0.5)),
        ("model/hidden.bias", np.zeros(3)),
        ("optimizer/0.velocity", np.zeros(3)),
        ("other/part", np.zeros(3)),
    ],
)
def test_a_checkpoint_whose_parts_are_something_else_is_refused(
    data, one_epoch, tmp_path, capsys, name, value
):
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(tmp_path)]
    np.savez(tmp_path / "mlp.checkpoint.npz", **{**one_epoch, name: value})
    assert main([*arguments, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "mlp.checkpoint.npz: is no checkpoint of a training (" in error
    assert error.endswith("start anew without --resume\n")


def test_resume_without_a_checkpoint_starts_and_says_so(data, tmp_path, capsys):
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--resume"]) == 0
    assert f"MLP: no checkpoint in {tmp_path}, so it starts anew" in capsys.readouterr().out


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", "0", "epochs is 0; want at least 1"),
        ("--batch-size", "0", "batch_size is 0; want at least 1"),
        ("--lr", "-1", "lr is -1.0; want a positive number"),
        ("--lr", "nan", "lr is nan; want a positive number"),
        ("--lr", "1e30", "the loss of epoch 1 is nan; use an lr below 1e+30"),
        ("--seed", "-1", "seed is -1; want at least 0"),
        ("--data", "nowhere", "nowhere: holds no data"),
    ],
)
def test_bad_settings_end_with_status_2(data, tmp_path, capsys, option, value, message):
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "out"), option, value]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_a_last_step_that_overflows_leaves_no_weights(data, tmp_path, capsys):
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--batch-size", "5000"]
    assert main([*arguments, "--lr", "1e40", "--out", str(tmp_path)]) == 2
    assert "weights after epoch 1 are not finite; use an lr below 1e+40" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'"' + b"1" * 200_000])
def test_metrics_that_cannot_be_read_are_named(data, tmp_path, capsys, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert f"{tmp_path / 'metrics.csv'}: is no CSV file (" in capsys.readouterr().err
    assert (tmp_path / "metrics.csv").read_bytes() == content


def test_without_a_command_one_is_asked_for(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert all(f"  {name} " in shown.err for name in COMMANDS)
    assert not shown.out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"tinygrad_hw {tinygrad_hw.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_its_help(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"tinygrad_hw.commands.{command}").configure(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


def test_a_reader_that_has_enough_is_no_error():
    command = [sys.executable, "-m", "tinygrad_hw", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141


@pytest.mark.parametrize("arguments", [["train", "rnn"], ["train", "--epochs", "many"], ["tran"]])
def test_bad_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: tinygrad-hw" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written(data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot write there" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_output_folder(data, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["train", "--data", str(data), "--out", str(tmp_path)]) == 2
    assert "cannot write there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_data_is_the_whole_data(data, tmp_path):
    arguments = ["train", "mlp", "--data", str(data), "--epochs", "1", "--batch-size", "5000"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0


def test_compiled_trainings_agree_and_say_what_they_gained(data, tmp_path, capsys):
    found = {}
    for choice in ("off", "numpy", "auto"):
        out = tmp_path / choice
        arguments = ["train", "cnn", "--data", str(data), "--epochs", "2", "--compile", choice]
        assert main([*arguments, "--out", str(out)]) == 0
        found[choice] = weights(out, "cnn"), capsys.readouterr().out
    assert same(found["numpy"][0], found["auto"][0])
    for name, array in found["off"][0].items():
        np.testing.assert_allclose(array, found["numpy"][0][name], rtol=1e-3, atol=1e-5)
    assert "times faster" not in found["off"][1]
    assert "us compiled with numpy" in found["auto"][1]
    assert main([*arguments[:-1], "off", "--out", str(tmp_path / "numpy"), "--resume"]) == 2
    assert "compile numpy there and off here" in capsys.readouterr().err


def test_native_code_is_for_long_trainings_where_it_is_installed(monkeypatch):
    installed = {"llvmlite", "scipy"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    settings = settings_for("mlp")
    assert backend_for("auto", settings, 12_000) == "numba"
    assert backend_for("auto", settings, 1500) == "numpy"
    assert backend_for("off", settings, 12_000) == "off"
    installed.clear()
    assert backend_for("auto", settings, 12_000) == "numpy"


def test_the_defaults_are_those_of_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    for settings in tinygrad_hw.training.SETTINGS.values():
        for value in (settings.epochs, settings.batch_size, settings.lr):
            assert str(value) in shown
