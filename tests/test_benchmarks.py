"""The benchmarks: every contender computes the same, and the report says so."""

import contextlib
import json
import math
import os
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import operations
from benchmarks.peers import PEERS, load
from benchmarks.report import plot, table
from benchmarks.runner import Result, Worker, agree, measure, summary
from benchmarks.worker import prepared
from benchmarks.workloads import WORKLOADS, Workload, fingerprint

SMALL = Workload("small", "small", "cnn", 4)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "lenet"])
def test_ours_and_hand_written_numpy_agree(kind):
    workload = Workload(kind, kind, kind, 3)
    step, found = prepared(load("tg"), workload)
    for name in ("numpy", "tg-numpy"):
        assert agree(found, prepared(load(name), workload)[1])
    assert not agree(found, {**found, "loss": found["loss"] + 1})
    assert step() < found["loss"]


def test_chain_and_scalars_agree():
    for kind, names in (("chain", ("tg", "numpy", "tg-numpy")), ("scalars", ("tg",))):
        workload = Workload(kind, kind, kind, 100)
        found = [prepared(load(name), workload)[1] for name in names]
        assert all(agree(found[0], other) for other in found)
    with pytest.raises(NotImplementedError):
        prepared(load("tg-numpy"), WORKLOADS["W6"])


def test_every_peer_agrees_that_is_installed():
    reference, environment = prepared(load("numpy"), SMALL)[1], dict(os.environ)
    for name in ("torch", "jax", "autograd", "mygrad", "tinygrad"):
        try:
            peer = load(name)
        except ImportError:
            continue
        assert agree(prepared(peer, SMALL)[1], reference), name
    # A setting for one peer would reach all that runs later in this process.
    assert os.environ == environment


def test_measure_takes_turns_in_processes_of_their_own():
    results = measure(WORKLOADS["W1"], ["numpy", "tg"], rounds=2, threads=1, pythons={})
    assert [r.peer for r in results] == ["numpy", "tg"]
    assert all(len(r.samples) == 2 * WORKLOADS["W1"].steps and r.median > 0 for r in results)
    rows = summary(WORKLOADS["W1"], results)
    assert rows[0]["times numpy"] == 1.0
    assert all(row["agrees"] for row in rows)


def test_a_missing_peer_is_left_out_and_named():
    missing = Result("torch", missing="ModuleNotFoundError: No module named 'torch'")
    rows = summary(SMALL, [missing, Result("numpy", [2.0], {"loss": 1.0, "gradients": []})])
    text = table("small", rows)
    assert "took no part: ModuleNotFoundError" in text
    assert "2.0" in text
    assert math.isnan(missing.median)


def test_the_command_writes_a_table_and_json(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert command.main(["--only", "W1", "--peers", "", "--rounds", "1", "--json", str(path)]) == 0
    assert "tg-numpy" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert {row["peer"] for row in report["rows"]} >= {"numpy", "tg", "tg-numpy"}


def test_unknown_names_are_refused(capsys):
    assert command.main(["--only", "W99"]) == 2
    assert "no workload is called 'W99'" in capsys.readouterr().err
    assert command.main(["--peers", "caffe"]) == 2
    assert command.main(["--only", "W1", "--python", "torch"]) == 2


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [{"workload": "W1", "peer": name, "median": 1.0, "times numpy": 2.0} for name in PEERS]
    plot(rows, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000


@pytest.mark.parametrize("case", operations.CASES.values(), ids=operations.CASES)
def test_operations_agree(case):
    contenders = ["eager", "numpy"]
    with contextlib.suppress(ImportError):
        operations.step_of(case, "torch")
        contenders.append("torch")
    found = [
        fingerprint(total.item(), [np.asarray(g) for g in gradients])
        for total, *gradients in (operations.step_of(case, c)() for c in contenders)
    ]
    assert all(agree(found[0], other) for other in found[1:])


def test_the_command_prints_operations_and_leaves_out_who_is_missing(capfd, monkeypatch):
    monkeypatch.setenv("BENCHMARKS_PYTHON_TORCH", sys.executable)
    assert operations.main(["--only", "exp,x ** 3"]) == 0
    head, *rows = capfd.readouterr().out.splitlines()
    assert head.split()[1:5] == ["eager", "numpy", "numba", "torch"]
    assert [row[:6].rstrip() for row in rows] == ["exp", "x ** 3"]
    assert operations.main(["--only", "exp, x.T"]) == 0
    assert "torch: ModuleNotFoundError" in capfd.readouterr().err
    assert operations.main(["--only", ","]) == 2
    assert operations.main(["--only", "exp,nothing"]) == 2
    assert "no operation is called 'nothing'" in capfd.readouterr().err
    other = {"us": 1.0, "loss": 2.0, "gradients": []}
    assert "DIFFERS" in operations.row("exp", {"eager": other, "torch": {**other, "loss": 1.0}})


def test_a_worker_that_dies_is_missing_from_then_on():
    arguments = ["-m", "benchmarks.operations", "--serve", "eager"]
    worker = Worker(arguments, sys.executable, "tinygrad_hw", threads=1)
    assert worker.ask("exp")["us"] > 0
    worker.process.kill()
    for _ in range(2):
        assert worker.ask("tanh") == {"missing": "the process ended"}
    worker.close()


@pytest.mark.parametrize("main", [command.main, operations.main])
def test_an_interpreter_that_is_not_there_is_named(main, capsys, monkeypatch):
    monkeypatch.setenv("BENCHMARKS_PYTHON_TORCH", "/nothing/here")
    assert main([]) == 2
    assert "there is no interpreter '/nothing/here' for torch" in capsys.readouterr().err
