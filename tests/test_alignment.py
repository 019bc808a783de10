"""The alignment loss and its way into the graph, against float64 autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from let_titan.alignment import Alignment, cosine_alignment, gradient_of, interpolate_width
from let_titan.alignment.gradient import differentiated


def reference(hidden, teacher, mask):
    """-sum of cosines in float64, interpolating with numpy at the cells' centres."""
    d_t, d_m = teacher.shape[-1], hidden.shape[-1]
    centres = (torch.arange(d_m, dtype=torch.float64) + 0.5) * d_t / d_m - 0.5
    rows = teacher.double().reshape(-1, d_t).numpy()
    mapped = np.stack([np.interp(centres.numpy(), np.arange(d_t), row) for row in rows])
    target = torch.from_numpy(mapped).view(*hidden.shape)
    hidden = hidden.double()
    cosines = (hidden * target).sum(-1) / (hidden.norm(dim=-1) * target.norm(dim=-1))
    return -(cosines * mask).sum()


def states(b=2, s=5, d_m=12, d_t=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(b, s, d_m, generator=generator)
    teacher = torch.randn(b, s, d_t, generator=generator)
    mask = torch.rand(b, s, generator=generator) < 0.7
    return hidden, teacher, mask


def test_interpolation_by_hand():
    found = interpolate_width(torch.tensor([[[0.0, 4.0]]]), 4)
    # cells of 2 samples seen at -0.25, 0.25, 0.75, 1.25, clamped to the ends
    assert found.tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    same = torch.randn(1, 2, 6)
    assert interpolate_width(same, 6) is same


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_interpolation_keeps_constants_and_bounds(d_t, d_m, seed):
    line = torch.randn(1, 1, d_t, generator=torch.Generator().manual_seed(seed))
    mapped = interpolate_width(line, d_m)
    assert mapped.shape == (1, 1, d_m)
    assert line.min() - 1e-5 <= mapped.min() and mapped.max() <= line.max() + 1e-5
    assert torch.allclose(interpolate_width(torch.full((1, 1, d_t), 2.5), d_m), torch.tensor(2.5))


def test_equal_states_give_minus_one_per_token():
    hidden, _, mask = states()
    loss, cosine = cosine_alignment(hidden, hidden, torch.ones_like(mask))
    assert loss.item() == pytest.approx(-mask.numel(), rel=1e-6)
    assert cosine == -loss


@pytest.mark.parametrize("widths", [(12, 7), (7, 12), (9, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_against_float64(widths, dtype):
    hidden, teacher, mask = states(d_m=widths[0], d_t=widths[1])
    hidden, teacher = hidden.to(dtype), teacher.to(dtype)
    gradient, (loss, _) = differentiated(cosine_alignment)(hidden, teacher, mask)
    twin = hidden.double().requires_grad_()
    wanted = reference(twin, teacher, mask)
    wanted.backward()
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert gradient.dtype == dtype
    assert torch.allclose(gradient.double(), twin.grad, rtol=tolerance, atol=tolerance * 0.1)
    assert gradient[~mask].abs().max() == 0


@settings(deadline=None)
@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_invariant_under_scaling_of_either_side(a, b):
    hidden, teacher, mask = states()
    loss, _ = cosine_alignment(hidden, teacher, mask)
    scaled, _ = cosine_alignment(a * hidden, b * teacher, mask)
    assert scaled.item() == pytest.approx(loss.item(), rel=1e-4)


def test_masked_tokens_may_hold_anything():
    hidden, teacher, mask = states()
    wanted, _ = gradient_of(cosine_alignment)(hidden, teacher, mask)
    teacher[~mask] = float("inf")
    loss, _ = cosine_alignment(hidden, teacher, mask)
    assert torch.isfinite(loss)
    assert torch.equal(gradient_of(cosine_alignment)(hidden, teacher, mask)[0][mask], wanted[mask])


class Sandwich(nn.Module):
    """Two linear "blocks" with an alignment at the output of the first."""

    def __init__(self, alignment: Alignment | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 1)
        self.alignment = alignment

    def forward(self, x, teacher=(), mask=None, coefficient=0.0):
        hidden = torch.tanh(self.first(x))
        if self.alignment is not None:
            hidden = self.alignment.inject(1, hidden, teacher, mask, coefficient)
        return self.second(hidden).sum(), hidden


@pytest.mark.parametrize("coefficient", [0.3, torch.tensor(0.3)])
def test_injected_gradient_is_that_of_the_sum_of_both_losses(coefficient):
    x, teacher, mask = states(d_t=7)
    model = Sandwich(Alignment([(1, 2.0)], cosine_alignment))
    loss, _ = model(x, [teacher], mask, coefficient)
    loss.backward()

    twin = Sandwich(None).double()
    plain, hidden = twin(x.double())
    (plain + 0.3 * 2.0 * reference(hidden, teacher, mask)).backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)  # forward is the identity
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad.double(), q.grad, rtol=1e-5, atol=1e-6), name


def test_meter_counts_in_backward_only_and_sums_microbatches():
    x, teacher, mask = states()
    alignment = Alignment([(1, 2.0)], cosine_alignment)
    model = Sandwich(alignment)
    model(x, [teacher], mask, 0.1)  # a forward more, as recomputation and shape inference do
    assert alignment.meter.sums(x.device).tolist() == [0.0, 0.0]
    for _ in range(2):
        loss, hidden = model(x, [teacher], mask, 0.1)
        loss.backward()
    wanted = reference(hidden.detach(), teacher, mask).item()
    assert alignment.meter.sums(x.device).tolist() == pytest.approx(
        [4 * wanted, -2 * wanted], rel=1e-5
    )
    alignment.meter.reset()
    assert alignment.meter.sums(x.device).tolist() == [0.0, 0.0]


def saved_bytes(model: nn.Module, *args) -> int:
    """Bytes of all storages that autograd keeps for backward, parameters apart."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(*args)[0]
    return sum(kept.values())


def test_no_copy_of_the_students_states_is_saved():
    x, teacher, mask = states(b=4, s=64)
    x, teacher = x.bfloat16(), teacher.bfloat16()
    plain = saved_bytes(Sandwich(None).bfloat16(), x)
    aligned = Sandwich(Alignment([(1, 1.0)], cosine_alignment)).bfloat16()
    extra = saved_bytes(aligned, x, [teacher], mask, 0.1) - plain
    # The teacher's states in their own dtype and the mask: both exist anyway.
    assert extra == teacher.nbytes + mask.nbytes


def test_every_pair_needs_its_states():
    alignment = Alignment([(1, 1.0), (2, 1.0)], cosine_alignment)
    x, teacher, mask = states()
    with pytest.raises(ValueError, match="zip"):
        alignment.inject(1, x, [teacher], mask, 0.1)
