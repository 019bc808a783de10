"""lambda(s): a pure function of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from let_titan.schedule import SHAPES, lambda_at

shapes = st.sampled_from(sorted(SHAPES))
weights = st.floats(0.0, 10.0)


def test_linear_is_the_papers_formula():
    assert [lambda_at(s, 0.1, 4) for s in range(6)] == pytest.approx(
        [0.1, 0.075, 0.05, 0.025, 0, 0]
    )


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("constant", [0.2, 0.2, 0.2, 0.2, 0.0]),
        ("step", [0.2, 0.2, 0.1, 0.1, 0.0]),
        ("cosine", [0.2, 0.1 * (1 + 2**-0.5), 0.1, 0.1 * (1 - 2**-0.5), 0.0]),
    ],
)
def test_other_shapes(shape, values):
    assert [lambda_at(s, 0.2, 4, shape) for s in range(5)] == pytest.approx(values)


@given(st.integers(0, 10_000), st.integers(1, 5_000), weights, shapes)
def test_starts_at_lambda_0_never_rises_ends_at_zero(s, s_stop, lambda_0, shape):
    assert lambda_at(0, lambda_0, s_stop, shape) == lambda_0
    assert lambda_at(s, lambda_0, s_stop, shape) >= lambda_at(s + 1, lambda_0, s_stop, shape) >= 0
    assert lambda_at(s_stop + s, lambda_0, s_stop, shape) == 0


def test_unknown_shape_is_named():
    with pytest.raises(ValueError, match="'wavy' is not one of linear"):
        lambda_at(0, 0.1, 4, "wavy")
