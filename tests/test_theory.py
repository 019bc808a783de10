"""The theory of recipes/why_early.py against finite differences, exact Hessians and descent."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theory.along import along, looks
from theory.deep_linear import (
    alignment_loss,
    condition_number,
    hessian,
    minimum_with_map_in,
    predicted_spectrum,
    product,
    task_loss,
)
from theory.descent import (
    ARMS,
    Arm,
    Setting,
    lambda_of,
    normal,
    outcome,
    spread_target,
    steps_to,
    train,
)
from theory.minima import at_minimum
from theory.text import below_from

PROGRAM = Path(__file__).parents[1] / "recipes" / "why_early.py"
DEPTHS = st.integers(2, 5)


def test_product_is_of_the_last_block_by_the_first():
    blocks = normal((3, 4, 4), seed=1)
    torch.testing.assert_close(product(blocks), blocks[2] @ blocks[1] @ blocks[0])


def test_loss_is_the_mean_over_whitened_inputs():
    blocks, target = normal((2, 4, 4), seed=1), normal((4, 4), seed=2)
    inputs = 2.0 * torch.eye(4, dtype=torch.float64)  # 4 of them, sum of x x^T = 4 I
    errors = (product(blocks) - target) @ inputs
    assert task_loss(blocks, target).item() == pytest.approx(
        errors.square().sum(0).mean().item() / 2, rel=1e-12
    )


def test_gradients_and_hessian_by_finite_differences():
    blocks, target = normal((3, 3, 3), seed=1).requires_grad_(), normal((3, 3), seed=2)
    assert torch.autograd.gradcheck(lambda b: task_loss(b, target), blocks)
    assert torch.autograd.gradcheck(lambda b: alignment_loss(b, 2, target), blocks)
    step, around = 1e-5, torch.eye(27, dtype=torch.float64).view(27, 3, 3, 3)

    def gradient(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(task_loss(at, target), at)[0].flatten()

    found = torch.stack(
        [(gradient(blocks + step * e) - gradient(blocks - step * e)) / (2 * step) for e in around]
    )
    torch.testing.assert_close(hessian(blocks.detach(), target), found, rtol=1e-6, atol=1e-7)


def test_alignment_leaves_later_blocks_alone():
    blocks = normal((4, 3, 3), seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(alignment_loss(blocks, 2, normal((3, 3), seed=2)), blocks)
    assert gradient[:2].abs().min() > 0 and not gradient[2:].any()


@settings(max_examples=20, deadline=None)
@given(depth=DEPTHS, share=st.floats(0, 1), width=st.integers(2, 4), spread=st.floats(2, 50))
def test_spectrum_is_as_predicted(depth, share, width, spread):
    k = 1 + round(share * (depth - 1))
    target = spread_target(width, spread)
    blocks = minimum_with_map_in(k, depth, target)
    assert task_loss(blocks, target) < 1e-24
    found = torch.linalg.eigvalsh(hessian(blocks, target))
    n = width * width
    torch.testing.assert_close(
        found[-n:], predicted_spectrum(k, depth, target), rtol=1e-8, atol=1e-10
    )
    assert found[:-n].abs().max() < 1e-10  # neighbours undo each other: flat directions
    closed = depth / (
        (depth - k) * spread**-2 + k * spread ** (-2 * (k - 1) / k)
    )  # docs/why-early.md
    assert condition_number(blocks, target) == pytest.approx(closed, rel=1e-6)
    assert condition_number(minimum_with_map_in(1, depth, target), target) < depth


@pytest.mark.parametrize("k", [1, 3])
def test_descent_shrinks_the_loss_at_the_predicted_rate(k):
    row = at_minimum(k, 3, spread_target(4, 10.0), seed=0)
    assert row["rate_measured"] == pytest.approx(row["rate_predicted"], abs=2e-3)


def test_steps_to_a_level():
    losses = torch.tensor([[1.0, 2.0], [0.5, math.inf], [0.1, math.inf], [0.2, math.inf]])
    assert steps_to(0.5, losses).tolist() == [1.0, math.inf]
    assert steps_to(0.1, losses).tolist() == [2.0, math.inf]


def test_arms_anneal_by_the_schedule_of_training():
    setting = Setting(3, 10.0, s_stop=10, steps=50, lambda_0=2.0)
    assert [lambda_of(Arm("x", "early"), setting, s) for s in (0, 5, 10)] == [2.0, 1.0, 0.0]
    constant = Arm("x", "early", schedule="constant")
    assert [lambda_of(constant, setting, s) for s in (0, 50)] == [2.0, 2.0]
    assert lambda_of(Arm("x"), setting, 0) == 0.0


def test_an_early_block_ends_better_conditioned_than_a_late_one():
    setting = Setting(4, 10.0, seeds=2, steps=600, width=4)
    ends = {
        arm.name: outcome(arm, setting)["kappa"][0]
        for arm in ARMS
        if arm.name in ("task alone", "early", "early, constant", "late")
    }
    assert ends["early, constant"] < ends["early"] < ends["late"] < 1.1 * ends["task alone"]


def test_the_program_leaves_its_results(tmp_path):
    alone = subprocess.run([sys.executable, PROGRAM, "--tiny"], capture_output=True, text=True)
    assert alone.returncode == 2 and "name a folder by --out" in alone.stderr
    subprocess.run([sys.executable, PROGRAM, "--tiny", "--out", tmp_path], check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["descent"]) == len(ARMS)
    assert "early, random teacher" in (tmp_path / "report.md").read_text()
    for name in ("minima", "along", "kappa", "steps"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_the_last_rate_is_the_exact_hessians():
    setting = Setting(3, 10.0, seeds=2, steps=400, width=4)
    course = along(Arm("task alone"), setting, 0.2)
    assert course["rate_measured"] == pytest.approx(course["rate_predicted"], abs=1e-3)
    last = course["loss"][-1][0]
    assert course["loss"][0] == [0, 1.0] and course["kappa"][-1][0] == last
    blocks = train(Arm("task alone"), setting, [0.2])[1][0, 0]
    whole = torch.linalg.eigvalsh(hessian(blocks, setting.target()))
    assert sorted(course["spectrum"]) == pytest.approx(whole[-16:].tolist(), rel=1e-9)
    assert along(Arm("c", "early", schedule="constant"), setting, 0.1)["rate_predicted"] is None


def test_steps_looked_at_begin_and_end_with_the_run():
    assert looks(400)[0] == 0 and looks(400)[-1] == 400 and len(looks(400)) <= 16
    assert looks(3) == [0, 1, 2, 3]


def test_from_where_a_condition_number_stays_below():
    alone = {"kappa": [[0, 10.0], [4, 20.0], [9, 30.0]]}
    assert below_from({"kappa": [[0, 10.0], [4, 25.0], [5, 19.0], [50, 29.0]]}, alone) == "5"
    assert below_from({"kappa": [[0, 1.0], [50, 31.0]]}, alone) == "never"
    assert below_from({"kappa": [[0, 1.0], [9, 2.0]]}, alone) == "0"
