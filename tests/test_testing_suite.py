"""Property tests of functions and ops in one line; and every primitive of the package."""

import types

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st

import tinygrad_hw as tg
from tinygrad_hw import domains
from tinygrad_hw.testing import GradientError, gradients_match, load_profile, op_suite
from tinygrad_hw.testing import strategies as ts
from tinygrad_hw.testing.suite import PROFILES, check_primitive

PRIMITIVES = tg.ops.primitives()


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_of_the_package(name):
    check_primitive(PRIMITIVES[name], settings=settings(PROFILES["ci"], max_examples=5))


test_some_in_one_line = op_suite(["exp", "matmul"], order=1)


def test_the_suite_of_the_package_covers_the_registry():
    marks = op_suite([*tg.ops.FAMILIES]).pytestmark
    assert set(marks[0].args[1]) == set(PRIMITIVES.values())


def module_of(**primitives):
    module = types.ModuleType("mine")
    vars(module).update(primitives)
    return module


def declare(forward, rule, keeps="", **options):
    options = {"domain": domains.elementwise(domains.REAL), **options}
    primitive = tg.primitive(name="mine", **options)(forward)
    if rule:
        primitive.rule(rule, keeps=keeps)
    return primitive


def test_a_primitive_without_domain_or_rule_is_refused():
    for lacking, wanted in (
        (declare(np.sin, lambda g, y, x: (g,), domain=None), "a domain, .*domains.REAL"),
        (declare(np.sin, None), "a rule"),
    ):
        with pytest.raises(ValueError, match=f"op_suite: mine: declare {wanted}"):
            op_suite(module_of(mine=lacking))
    with pytest.raises(ValueError, match="found no primitives"):
        op_suite(module_of())


@pytest.mark.parametrize(
    ("primitive", "said"),
    [
        (declare(np.sin, lambda g, y, x: (-g * tg.cos(x),), "x"), "the wrong sign"),
        (declare(lambda x: x * np.float64(2), lambda g, y, x: (g * 2,)), "float32 gave float64"),
        (declare(lambda x: x, lambda g, y, x: (g,)), "shares memory with its argument"),
        (declare(lambda x: np.add(x, 1, out=x), lambda g, y, x: (g,)), "an argument was written"),
        (
            declare(
                lambda a, b: np.add(a, b),
                lambda g, y, a, b: (g, g if a.shape == b.shape else g * 2),
                domain=domains.elementwise(domains.REAL, domains.REAL),
            ),
            "off by a factor of 2",
        ),
    ],
)
def test_broken_ops_fail_and_say_why(primitive, said):
    with pytest.raises((AssertionError, GradientError), match=said):
        check_primitive(primitive, settings=settings(PROFILES["ci"], phases=[Phase.generate]))


def test_a_rule_that_is_wrong_in_float32_alone_is_found():
    def rule(g, y, x):
        return (g * tg.cos(x) * (1.01 if g.dtype == np.float32 else 1.0),)

    with pytest.raises(AssertionError, match="in float32 is"):
        check_primitive(
            declare(np.sin, rule, "x"),
            settings=settings(PROFILES["ci"], phases=[Phase.generate]),
        )


def test_the_examples_of_ci_differ_from_primitive_to_primitive():
    def drawn(name):
        calls = []

        def forward(x):
            calls.append(np.shape(x))
            return np.sin(x)

        domain = domains.elementwise(domains.REAL)
        primitive = tg.primitive(name=name, domain=domain)(forward)
        primitive.rule(lambda g, y, x: (g * tg.cos(x),), keeps="x")
        check_primitive(primitive, settings=PROFILES["ci"])
        return calls

    assert drawn("one") == drawn("one") != drawn("other")


def test_a_product_with_zeros_is_no_broken_broadcasting():
    column, row = np.ones((2, 1)), np.zeros((1, 2))
    product = declare(
        np.matmul,
        lambda g, y, a, b: (g @ b.T, a.T @ g),
        "a b",
        domain=domains.Domain("a column and zeros", lambda draw: ((column, row), {})),
    )
    check_primitive(product, order=1)


def test_masks_as_parameters_are_no_broken_broadcasting():
    # The index of an assignment has the shape of the array and not of both broadcast.
    profile = settings(PROFILES["ci"], max_examples=60)
    check_primitive(PRIMITIVES["setitem"], 1, profile)
    check_primitive(PRIMITIVES["clip"], 1, profile)


def test_a_drawn_call_is_on_no_line_of_the_users():
    wrong = declare(np.sin, lambda g, y, x: (-g * tg.cos(x),), "x")
    with pytest.raises(GradientError) as caught:
        check_primitive(wrong, settings=settings(PROFILES["ci"], phases=[Phase.generate]))
    (culprit,) = caught.value.report.culprits
    assert culprit.where == ""


def test_gradients_match_finds_and_shrinks():
    off = declare(lambda x: x * x, lambda g, y, x: (g * x,), "x")

    @gradients_match(x=ts.tensors(), w=ts.tensors(like="x"))
    @settings(max_examples=10, phases=[Phase.generate, Phase.shrink])
    def test_it(x, w):
        return off(x) * w

    with pytest.raises(GradientError, match="to blame: mine") as caught:
        test_it()
    assert "x=Tensor(1., requires_grad=True)" in "".join(caught.value.__notes__)
    assert test_it.__name__ == "test_it"


def test_what_gradients_match_says_to_run_runs():
    with pytest.raises(GradientError) as caught:
        halved()
    assert "from test_testing_suite import halved" in caught.value.report.reproducer
    with pytest.raises(GradientError, match=r"off by a factor of 0\.5"):
        exec(caught.value.report.reproducer)
    assert halved(2.0) == 4.0


@gradients_match(x=ts.tensors())
def halved(x):
    return x * tg.stop_gradient(x)


def test_gradients_match_counts_what_was_set_aside():
    @gradients_match(x=st.just(tg.Tensor([0.0, 0.0], requires_grad=True)))
    def test_kinks(x):
        return tg.relu(x)

    with pytest.raises(AssertionError, match=r"examples were set aside \(.* kink"):
        test_kinks()


def test_entries_beside_a_kink_count():
    @gradients_match(x=st.just(tg.Tensor([0.0, 2.0], requires_grad=True)))
    def test_relu(x):
        return tg.relu(x)

    test_relu()


def test_gradients_match_wants_a_strategy_for_every_argument():
    with pytest.raises(TypeError, match="takes x, w, but the strategies are for x"):

        @gradients_match(x=ts.tensors())
        def test_it(x, w):
            return x


def test_settings_and_profiles_count():
    drawn = []

    @gradients_match(x=ts.tensors(()).map(lambda x: drawn.append(x) or x))
    @settings(max_examples=3)
    def test_it(x):
        return tg.exp(x)

    test_it()
    assert len(drawn) == 3
    before = settings.get_current_profile_name()
    try:
        for name, most in (("quick", 8), ("ci", 25), ("thorough", 500)):
            load_profile(name)
            assert settings().max_examples == most
    finally:
        settings.load_profile(before)
    with pytest.raises(ValueError, match="no profile 'slow'; want quick, ci, thorough"):
        load_profile("slow")
