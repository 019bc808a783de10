"""The CCA loss: its gradient is that of the canonical correlations, by float64 autograd; by law.

In layouts and over a resume: tests/test_variants.py.
"""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from let_titan.alignment import Alignment, Cca, alignment_loss, gradient_of
from let_titan.alignment.maps import orthogonal_matrix
from let_titan.checks import find_mistakes
from let_titan.config import Let

CPU, RIDGE = torch.device("cpu"), 0.05
WIDTHS = [(7, 12), (12, 7), (9, 9)]


def states(seed=0, d_t=7, d_m=12):
    """Tokens of which the two sides have something in common."""
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(4, 30, 3, generator=draw)
    hidden, teacher = (
        5.0
        + shared @ torch.randn(3, width, generator=draw)
        + torch.randn(4, 30, width, generator=draw)
        for width in (d_m, d_t)
    )
    return hidden, teacher, torch.rand(4, 30, generator=draw) < 0.7


def found_in(hidden, teacher, mask, ridge=RIDGE):
    found = Cca(hidden.shape[-1], teacher.shape[-1], ridge, 1.0, 1, 0.0, CPU)
    for rows in (slice(0, 1), slice(1, 4)):  # two microbatches
        found.observe(hidden[rows], teacher[rows], mask[rows])
    found.end_step()
    return found


def correlations(h, t, ridge=RIDGE):
    """By inverse square roots, as the definition has it; the code takes Cholesky factors."""
    h, t = h - h.mean(0), t - t.mean(0)

    def root(x):
        covariance = x.T @ x / len(x)
        # As the code has it: the ridge is a constant of the covariances that were seen
        padded = covariance + ridge * covariance.diagonal().mean().detach() * torch.eye(
            x.shape[1], dtype=x.dtype
        )
        values, vectors = torch.linalg.eigh(padded)
        return vectors @ values.rsqrt().diag() @ vectors.T

    return torch.linalg.svdvals(root(h) @ (h.T @ t / len(h)) @ root(t))


@pytest.mark.parametrize("widths", WIDTHS)
def test_value_and_gradient_are_those_of_the_correlations_in_float64(widths):
    hidden, teacher, mask = states(1, *widths)
    found = found_in(hidden, teacher, mask)
    loss = alignment_loss("cca", 4.0)
    gradient, (total, _) = gradient_of(loss)(hidden, teacher, mask, *found.directions)
    twin = hidden.double().requires_grad_()
    wanted = correlations(twin[mask], teacher[mask].double())
    wanted.mean().backward()
    assert_close(found.directions[2].double(), wanted.detach(), rtol=1e-4, atol=1e-6)
    assert total.item() == pytest.approx(-(mask.sum() * wanted.mean()).item(), rel=1e-4)
    assert twin.grad.norm() > 1e-3
    assert_close(gradient.double(), -mask.sum() * twin.grad, rtol=1e-3, atol=1e-4)
    assert gradient[~mask].abs().max() == 0


def test_the_variates_are_white_and_correlated_one_by_one():
    hidden, teacher, mask = states(2)
    u, v, rho, mean, _ = (x.double() for x in found_in(hidden, teacher, mask, 1e-9).directions)
    x, y = hidden[mask].double() - mean[:12], teacher[mask].double() - mean[12:]
    x, y = x @ u, y @ v
    n = len(x)
    assert_close(x.T @ x / n, torch.eye(7).double(), rtol=0, atol=1e-3)
    assert_close(y.T @ y / n, torch.eye(7).double(), rtol=0, atol=1e-3)
    assert_close(x.T @ y / n, rho.diag(), rtol=0, atol=1e-3)
    assert rho.min() > 0 and rho.max() < 1


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0.1, 10))
def test_rotations_shifts_and_scales_of_either_side_change_nothing(seed, a, b):
    hidden, teacher, mask = states(seed)
    moved = a * hidden @ orthogonal_matrix(12, 12) + 3.0, b * teacher @ orthogonal_matrix(7, 7) - a
    rho = [found_in(h, t, mask).directions[2] for h, t in ((hidden, teacher), moved)]
    assert_close(rho[0], rho[1], rtol=1e-3, atol=1e-4)
    loss = alignment_loss("cca", 4.0)
    value, moved_value = (
        loss(h, t, mask, *found_in(h, t, mask).directions)[0] for h, t in ((hidden, teacher), moved)
    )
    assert_close(value, moved_value, rtol=1e-3, atol=1e-3)
    assert -mask.sum() <= value <= 0


def test_masked_tokens_may_hold_anything_and_nothing_is_known_in_the_first_step():
    hidden, teacher, mask = states(3)
    wanted = found_in(hidden, teacher, mask).directions
    hidden[~mask], teacher[~mask] = float("nan"), float("inf")
    found = found_in(hidden, teacher, mask).directions
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))
    of = gradient_of(alignment_loss("cca", 4.0))
    gradient, (value, _) = of(hidden, teacher, mask, *found)
    assert gradient.isfinite().all() and value.isfinite() and value < 0
    empty = found_in(hidden, teacher, torch.zeros_like(mask))  # and a step may have no valid token
    gradient, (value, _) = of(hidden, teacher, mask, *empty.directions)
    assert value == 0 and gradient.abs().max() == 0


def test_it_enters_the_graph_and_forgets_and_goes_on_from_its_state():
    one, other = (Cca(12, 7, RIDGE, 0.5, 3, 0.0, CPU) for _ in range(2))
    alignment = Alignment([(1, 2.0)], alignment_loss("cca", 4.0))
    alignment.fitted = [one]
    changed, past = [], []
    for step in range(1, 8):
        hidden, teacher, mask = states(step)
        before = one.directions[0]
        leaf = hidden.clone().requires_grad_()
        alignment.inject(1, leaf, [teacher], mask, 0.25).sum().backward()
        own = alignment.gradient(0, hidden, teacher, mask)
        assert_close(leaf.grad, 1 + 0.5 * own)
        one.end_step()
        other.observe(hidden, teacher, mask)
        other.end_step()
        changed += [] if torch.equal(before, one.directions[0]) else [step]
        past.append((hidden[mask], teacher[mask]))
        state, other = other.state(), Cca(12, 7, RIDGE, 0.5, 3, 0.0, CPU)
        other.load(state)
        assert all(
            torch.equal(*pair) for pair in zip(one.directions, other.directions, strict=True)
        )
    assert changed == [1, 3, 6]
    counts = torch.tensor([len(h) for h, _ in past]).double()
    assert one.state()["sums"][0, 0] == (counts * 0.5 ** torch.arange(6, -1, -1)).sum()


def strangers():
    """Steps of 70 tokens, of which the two sides, 20 and 30 wide, have nothing in common."""
    draw = torch.Generator().manual_seed(6)
    while True:
        yield *(torch.randn(1, 70, width, generator=draw) for width in (20, 30)), torch.ones(1, 70)


def losses_of(found, steps):
    """A token's loss in each of ``steps``, under the directions that the steps before gave."""
    loss = alignment_loss("cca", 4.0)
    for hidden, teacher, mask in itertools.islice(strangers(), steps):
        yield (loss(hidden, teacher, mask > 0, *found.directions)[0] / mask.sum()).item()
        found.observe(hidden, teacher, mask > 0)
        found.end_step()


def test_what_few_tokens_have_in_common_by_chance_is_no_target():
    """At once, the first fit's loss is far above that of no alignment at all on other tokens."""
    at_once = Cca(20, 30, 1e-3, 1.0, 1, 0.0, CPU)
    assert [x > 0.3 for x in losses_of(at_once, 2)] == [False, True]
    patient = Cca(20, 30, 1e-3, 1.0, 1, 10.0, CPU)
    losses = [*losses_of(patient, 9)]
    assert losses[:8] == [0.0] * 8  # of ten tokens for each of 50 features, 490 are too few
    assert abs(losses[8]) < 0.05
    a, b = 20 / 630, 30 / 630
    by_chance = (a * (1 - b)) ** 0.5 + (b * (1 - a)) ** 0.5
    assert patient.directions[2].max().item() == pytest.approx(by_chance, rel=0.15)


def test_a_memory_that_never_holds_so_many_tokens_is_taken_when_it_is_full():
    short = Cca(20, 30, 1e-3, 0.75, 3, 10.0, CPU)
    assert [x == 0 for x in losses_of(short, 5)] == [True] * 4 + [False]
    other = Cca(20, 30, 1e-3, 0.75, 3, 10.0, CPU)
    other.load(short.state())
    for found in (short, other):
        before = found.directions[0].clone()
        assert [*losses_of(found, 1)]
        assert not torch.equal(found.directions[0], before)  # step 6
    assert torch.equal(short.directions[0], other.directions[0])


def test_fitted_after_each_step_it_does_not_pull_back_a_student_that_grows():
    """Directions ten steps old, as they once were by default, take its growth for a fault."""
    hidden, teacher, mask = states(9)
    last = {}
    for every in (Let().cca_every, 10):
        found = Cca(12, 7, RIDGE, 0.99, every, 0.0, CPU)
        for step in range(20):
            now = 1.1**step * hidden
            last[every] = alignment_loss("cca", 4.0)(now, teacher, mask, *found.directions)[0]
            found.observe(now, teacher, mask)
            found.end_step()
    assert last[Let().cca_every] < 0 < last[10]


def test_what_cannot_be_is_said(lab):
    for let, sentence in (
        ({"loss": "cca", "width_map": "procrustes"}, "finds directions of its own"),
        ({"cca_ridge": 0.0}, "let.cca_ridge = 0.0"),
        ({"cca_decay": 1.5}, "let.cca_decay = 1.5"),
        ({"cca_every": 0}, "let.cca_every = 0"),
        ({"cca_tokens": -1.0}, "let.cca_tokens = -1.0"),
    ):
        mistakes = [str(mistake) for mistake in find_mistakes(lab.parsed(let))]
        assert any(sentence in said for said in mistakes), mistakes
