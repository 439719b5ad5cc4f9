"""A small version of the benchmarks of the checker: what it promises, it keeps."""

import pytest

from benchmarks import false_alarms, mutation_score, rule_mutants, sensitivity


@pytest.mark.parametrize("error", [1e-2, 1e-4, 1e-6])
def test_wrong_gradients_are_noticed(error):
    assert sensitivity.caught("tinygrad_hw", error, 15) == 1


def test_the_smallest_errors_are_mostly_noticed_and_none_is_invented():
    assert sensitivity.caught("tinygrad_hw", 1e-8, 30) >= 0.9
    assert sensitivity.caught("tinygrad_hw", 0, 30) == 0


def test_right_programs_are_not_called_wrong():
    counts, alarms = false_alarms.verdicts(100)
    assert alarms == []
    assert counts["ok"] >= 0.8 * counts.total()


@pytest.mark.parametrize("name", ["maximum: all ties", "tanh: stale output"])
def test_broken_rules_are_found_shrunk_and_blamed(name):
    (mutant,) = [m for m in rule_mutants.MUTANTS if m.name == name]
    catch = rule_mutants.hunt(mutant, seed=0)
    assert (catch.steps, catch.blamed) == (1, (mutant.op,))
    assert rule_mutants.kept(rule_mutants.summary([catch]))


def test_mutants_of_every_kind_are_declared():
    kinds = {mutant.kind for mutant in rule_mutants.MUTANTS}
    assert len(rule_mutants.MUTANTS) >= 25
    assert kinds == {
        "sign",
        "factor",
        "dropped sum over a broadcast axis",
        "transposed",
        "swapped arguments",
        "= for +=",
        "wrong axis",
        "wrong padding",
        "all ties",
        "stale output",
    }


def test_rules_with_a_term_left_out_are_killed():
    result = mutation_score.score(["softmax", "hypot"], show=lambda line: None)
    assert result["score"] == 1
    assert result["mutants"] >= 5


def test_the_commands_run(capsys):
    assert sensitivity.main(["--checks", "1"]) == 0
    assert false_alarms.main(["--programs", "10", "--order", "2"]) == 0
    assert rule_mutants.main(["--seeds", "1", "--only", "cos"]) == 0
    assert mutation_score.main(["--only", "cos"]) == 0
    out = capsys.readouterr().out
    for words in ("notic", "set aside", "blamed 1", "mutants: 100.0%"):
        assert words in out
