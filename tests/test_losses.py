"""The alignment losses beside the cosine, width maps and moments, against float64 and by law."""

from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from let_titan.alignment import (
    Alignment,
    Procrustes,
    RunningMoments,
    alignment_loss,
    cosine_alignment,
    gradient_of,
    interpolate_width,
)
from let_titan.alignment.maps import build_width_map, orthogonal_matrix, truncate_width

LOSSES = ("logsum", "smooth_l1", "mse", "cka")
SEEDS = st.integers(0, 10**6)


def states(seed=0, d_t=7, d_m=12, b=3, s=9):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(b, s, d_m, generator=generator)
    teacher = torch.randn(b, s, d_t, generator=generator)
    mask = torch.rand(b, s, generator=generator) < 0.7
    mask[0, :2] = True
    return hidden, teacher, mask


def of_token(name, h, t):
    """A token's loss, [d] each, as the paper that it is from has it."""
    if name == "logsum":
        return torch.log(((h / h.norm() - t / t.norm()).abs() ** 4).sum())
    if name == "mse":
        return ((h - t) ** 2).sum() / len(h)
    ours, theirs = ((x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() for x in (h, t))
    gap = (ours - theirs).abs()
    return torch.where(gap < 1, gap**2 / 2, gap - 0.5).sum() / len(h)


def of_sequence(h, t):
    """CKA by cross-covariances, as its paper has it; the code takes Gram matrices."""
    h, t = h - h.mean(0), t - t.mean(0)
    return (h.T @ t).square().sum() / ((h.T @ h).norm() * (t.T @ t).norm())


def reference(name, hidden, teacher, mask):
    rows = range(len(mask))
    if name == "cka":
        parts = [
            -mask[i].sum() * of_sequence(hidden[i][mask[i]], teacher[i][mask[i]]) for i in rows
        ]
    else:
        target = interpolate_width(teacher, hidden.shape[-1])
        pairs = zip(hidden[mask], target[mask], strict=True)
        parts = [of_token(name, h, t) for h, t in pairs]
    return torch.stack(parts).sum()


@pytest.mark.parametrize("widths", [(7, 12), (12, 7), (9, 9)])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_against_float64(name, widths):
    hidden, teacher, mask = states(d_t=widths[0], d_m=widths[1])
    gradient, (loss, _) = gradient_of(alignment_loss(name, 4.0))(hidden, teacher, mask)
    twin = hidden.double().requires_grad_()
    wanted = reference(name, twin, teacher.double(), mask)
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert_close(gradient.double(), twin.grad, rtol=1e-4, atol=1e-5)
    assert gradient[~mask].abs().max() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_masked_tokens_may_hold_anything_on_either_side(name):
    hidden, teacher, mask = states()
    of = gradient_of(alignment_loss(name, 4.0))
    wanted, (loss, cosine) = of(hidden, teacher, mask)
    hidden[~mask], teacher[~mask] = float("nan"), float("inf")
    found, sums = of(hidden, teacher, mask)
    assert torch.equal(found, wanted)
    assert sums == (loss, cosine)


@pytest.mark.parametrize("name", LOSSES)
def test_sequences_add_up(name):
    """Microbatches and data-parallel ranks give the sum of one batch."""
    hidden, teacher, mask = states()
    of = gradient_of(alignment_loss(name, 4.0))
    whole, (loss, _) = of(hidden, teacher, mask)
    parts = [of(hidden[i : i + 1], teacher[i : i + 1], mask[i : i + 1]) for i in range(3)]
    assert_close(torch.cat([gradient for gradient, _ in parts]), whole)
    assert_close(torch.stack([sums[0] for _, sums in parts]).sum(), loss)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_states_are_finite_and_a_sequence_without_labels_counts_nothing(name):
    hidden, _, mask = states()
    gradient, (loss, _) = gradient_of(alignment_loss(name, 4.0))(hidden, hidden.clone(), mask)
    assert loss.isfinite() and gradient.isfinite().all()
    none = torch.zeros_like(mask)
    gradient, (loss, cosine) = gradient_of(alignment_loss(name, 4.0))(hidden, hidden, none)
    assert (loss, cosine) == (0, 0) and gradient.abs().max() == 0


def value(name, hidden, teacher, mask):
    return alignment_loss(name, 4.0)(hidden, teacher, mask)[0].item()


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.1, 10), st.floats(0.1, 10))
def test_scales_do_not_matter_where_they_should_not(seed, a, b):
    hidden, teacher, mask = states(seed)
    for name in ("logsum", "smooth_l1", "cka"):
        found = value(name, a * hidden, b * teacher, mask)
        assert found == pytest.approx(value(name, hidden, teacher, mask), rel=2e-2), name
    scaled = value("mse", a * hidden, a * teacher, mask)
    assert scaled == pytest.approx(a * a * value("mse", hidden, teacher, mask), rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
@example(2237)  # a sequence with a single valid token
def test_cka_does_not_see_rotations_and_shifts(seed):
    hidden, teacher, mask = states(seed)
    rotated = hidden @ orthogonal_matrix(12, 12) + 3.0
    found = value("cka", rotated, teacher - 2.0, mask)
    assert found == pytest.approx(value("cka", hidden, teacher, mask), rel=1e-3, abs=1e-4)
    assert -mask.sum() <= found <= 1e-4
    turned = hidden @ orthogonal_matrix(12, 12)
    lengths = mask.sum(-1)
    whole = lengths[lengths > 1].sum().item()  # one token by itself has nothing in common
    assert value("cka", hidden, turned, mask) == pytest.approx(-whole, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.floats(-5, 5))
def test_a_constant_shift_of_features(seed, shift):
    hidden, teacher, mask = states(seed, d_t=12)
    for name, moved in (("smooth_l1", hidden), ("mse", hidden + shift)):
        found = value(name, moved, teacher + shift, mask)
        assert found == pytest.approx(value(name, hidden, teacher, mask), rel=1e-3), name


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30))
def test_an_orthogonal_map_is_an_isometry_up_and_a_projection_down(d_t, width):
    matrix = orthogonal_matrix(d_t, width).double()
    gram = matrix @ matrix.T if width >= d_t else matrix.T @ matrix
    assert_close(gram, torch.eye(min(d_t, width)).double(), rtol=0, atol=1e-6)
    assert torch.equal(orthogonal_matrix(d_t, width), orthogonal_matrix(d_t, width))


def test_width_maps_by_hand():
    line = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert truncate_width(line, 2).tolist() == [[[1.0, 2.0]]]
    assert truncate_width(line, 5).tolist() == [[[1.0, 2.0, 3.0, 0.0, 0.0]]]
    assert build_width_map("interpolate", 3, 5, line.device) is None
    state = torch.random.get_rng_state()
    mapped = build_width_map("orthogonal", 3, 5, line.device)(line.bfloat16())
    assert mapped.dtype == torch.bfloat16 and mapped.shape == (1, 1, 5)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("mode", ["center", "standardize"])
def test_moments_are_those_of_the_steps_before(mode):
    moments = RunningMoments(mode, 7, torch.device("cpu"))
    moments.end_step()  # of a step without a valid token nothing is known
    seen = []
    for step in range(3):
        _, teacher, mask = states(step)
        teacher = teacher * torch.arange(1, 8) / 4 + 100.0  # variances below and above one
        moments.observe(torch.where(mask.unsqueeze(-1), teacher, float("nan")), mask)
        found = moments(teacher)
        if seen:
            past = torch.cat(seen).double()
            wanted = teacher.double() - past.mean(0)
            if mode == "standardize":
                wanted = wanted / (past.var(0, unbiased=False) + 1e-6).sqrt()
            assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
        else:
            assert found is teacher
        moments.end_step()
        seen.append(teacher[mask])
    again = RunningMoments(mode, 7, torch.device("cpu"))
    again.load(moments.state())
    assert torch.equal(again(teacher), moments(teacher))


def test_alpha_is_the_exponent():
    hidden, teacher, mask = states(d_t=12)
    one = partial(torch.nn.functional.normalize, dim=-1)
    wanted = (one(hidden) - one(teacher)).abs().pow(2.5).sum(-1).log()[mask].sum()
    assert_close(alignment_loss("logsum", 2.5)(hidden, teacher, mask)[0], wanted)


def fitted_to(hidden, teacher, mask, every=1):
    found = Procrustes(teacher.shape[-1], hidden.shape[-1], every, torch.device("cpu"))
    found.observe(hidden, teacher, mask)
    found.end_step()
    return found


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_procrustes_finds_the_rotation_that_there_is(seed):
    hidden, teacher, mask = states(seed, d_t=7, d_m=12, b=4)
    rotation = orthogonal_matrix(7, 12)
    hidden = 3 * teacher @ rotation
    hidden[~mask] = float("nan")  # a masked token may hold anything
    found = fitted_to(hidden, teacher, mask)
    assert_close(found.matrix, rotation, rtol=0, atol=1e-4)
    assert_close(found(teacher)[mask] * 3, hidden[mask], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("widths", [(7, 12), (12, 7), (9, 9)])
def test_procrustes_is_orthogonal_and_no_other_map_is_closer(widths):
    hidden, teacher, mask = states(3, *widths)
    found = fitted_to(hidden, teacher, mask)
    narrow = found.matrix if widths[0] <= widths[1] else found.matrix.T
    assert_close(narrow @ narrow.T, torch.eye(min(widths)))
    ours, theirs = (torch.nn.functional.normalize(x[mask], dim=-1) for x in (hidden, teacher))

    def closeness(matrix):
        return (theirs @ matrix * ours).sum()

    best = closeness(found.matrix)
    assert best > closeness(orthogonal_matrix(*widths))
    generator = torch.Generator().manual_seed(5)
    for _ in range(50):
        skew = torch.randn(widths[1], widths[1], generator=generator) * 0.1
        assert closeness(found.matrix @ torch.linalg.matrix_exp(skew - skew.T)) < best


def test_procrustes_is_fitted_when_it_is_time_and_goes_on_from_its_state():
    hidden, teacher, mask = states()
    one, other = (Procrustes(7, 12, 3, torch.device("cpu")) for _ in range(2))
    start, changed = one.matrix.clone(), []
    for step in range(1, 8):
        before = one.matrix.clone()
        hidden = hidden.roll(1, 0)
        for found in (one, other):
            found.observe(hidden * step, teacher, mask)
            found.end_step()
        changed += [] if before.equal(one.matrix) else [step]
        state, other = other.state(), Procrustes(7, 12, 3, torch.device("cpu"))
        other.load(state)
        assert other.matrix.equal(one.matrix)
    assert changed == [1, 3, 6] and not start.equal(one.matrix)


def test_procrustes_rests_on_the_steps_since_it_was_fitted_last():
    found, twin = (Procrustes(7, 12, 2, torch.device("cpu")) for _ in range(2))
    for step in range(4):  # fitted after the first, second and fourth
        found.observe(*states(step))
        found.end_step()
    for step in (2, 3):
        twin.observe(*states(step))
    twin.end_step()
    assert torch.equal(found.matrix, twin.matrix)


def test_procrustes_takes_and_gives_bfloat16_and_reckons_in_fp32():
    hidden, teacher, mask = (x.bfloat16() if x.is_floating_point() else x for x in states())
    found = fitted_to(hidden, teacher, mask)
    twin = fitted_to(hidden.float(), teacher.float(), mask)
    assert torch.equal(found.matrix, twin.matrix)
    assert torch.equal(found(teacher), twin(teacher.float()).bfloat16())


def test_the_gradient_through_a_fitted_map_against_float64():
    hidden, teacher, mask = states()
    alignment = Alignment([(1, 2.0)], cosine_alignment)
    fitted = fitted_to(hidden, teacher, mask)
    alignment.fitted = [fitted]
    leaf = hidden.clone().requires_grad_()
    alignment.inject(1, leaf, [teacher], mask, 0.25).sum().backward()
    exact = hidden.double().requires_grad_()
    target = teacher.double() @ fitted.matrix.double()
    loss = -torch.nn.functional.cosine_similarity(exact, target, dim=-1)[mask].sum()
    (exact.sum() + 0.5 * loss).backward()
    assert_close(leaf.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)
