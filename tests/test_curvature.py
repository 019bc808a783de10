"""Hessian-vector products, Lanczos and Hutchinson against exact Hessians and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from theory.curvature import Hessian, top_eigenvalues, trace
from theory.students import angle, curvature, load_student, nll, windows_of
from theory.transformer_text import verdicts, write_results

from let_titan.alignment import interpolate_width
from let_titan.export.source import find_source
from let_titan.teacher import load_teacher
from let_titan.train import LetTrainer


@pytest.fixture
def small():
    """(loss of weights, weights) of a small network, float64."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"w": (4, 5), "b": (4,), "v": (3, 4)}
    weights = [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_()
        for s in shapes.values()
    ]
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (7,), generator=generator)

    def loss(w, b, v):
        return F.cross_entropy(torch.tanh(x @ w.T + b) @ v.T, labels)

    return loss, weights


def exact(loss, weights):
    sizes = [w.numel() for w in weights]

    def of_flat(flat):
        parts = flat.split(sizes)
        return loss(*(p.view_as(w) for p, w in zip(parts, weights, strict=True)))

    return torch.func.hessian(of_flat)(torch.cat([w.detach().flatten() for w in weights]))


def test_products_eigenvalues_and_trace_are_those_of_the_exact_hessian(small):
    loss, weights = small
    whole = exact(loss, weights)
    hessian = Hessian(loss(*weights), weights)
    n = len(whole)
    found = torch.stack([hessian.product(e) for e in torch.eye(n, dtype=torch.float64)])
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-12)
    assert hessian.n_products == n
    wanted = torch.linalg.eigvalsh(whole).flip(0)[:3].tolist()
    assert top_eigenvalues(hessian, 3, seed=0) == pytest.approx(wanted, rel=1e-2)
    mean, error = trace(hessian, 2000, seed=0)
    assert abs(mean - whole.trace().item()) < 4 * error
    # Hutchinson's variance with signs is 2 (|H|_F^2 - |diag H|^2)
    variance = 2 * (whole.square().sum() - whole.diagonal().square().sum()).item()
    assert error == pytest.approx((variance / 2000) ** 0.5, rel=0.1)


def test_a_product_is_the_gradients_finite_difference(small):
    loss, weights = small
    vector = torch.randn(sum(w.numel() for w in weights), dtype=torch.float64)
    product = Hessian(loss(*weights), weights).product(vector)
    parts = vector.split([w.numel() for w in weights])

    def gradient(step):
        moved = [
            (w.detach() + step * p.view_as(w)).requires_grad_()
            for w, p in zip(weights, parts, strict=True)
        ]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(*moved), moved)])

    found = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    torch.testing.assert_close(product, found, rtol=1e-6, atol=1e-8)


@pytest.fixture
def trained(lab):
    """The run's folder and a trainer that holds the weights of its checkpoint."""
    config = lab.config(
        None,
        training__steps=2,
        checkpoint__enable=True,
        checkpoint__interval=2,
        validation__enable=True,
        validation__dataset="pile",
        validation__dataset_path=str(lab.assets / "validation.jsonl"),
        validation__seq_len=32,
        validation__local_batch_size=2,
        validation__steps=1,
    )
    trainer = LetTrainer(config)
    trainer.train()
    trainer.run_folder.end("completed")
    yield lab.folder / "run", trainer
    trainer.close()


def test_a_checkpoint_is_loaded_and_its_loss_curves_as_lanczos_says(trained):
    folder, trainer = trained
    model = load_student(folder / "checkpoint" / "step-2")
    for name, weight in trainer.model_parts[0].named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], weight, rtol=0, atol=0)
    ids = windows_of(find_source(folder), 2)
    assert ids.shape == (2, 33)
    model = model.double()
    figures = curvature(model, ids, probes=4, seed=0)
    weights = list(model.layers.parameters())
    hessian = Hessian(nll(model, ids), weights)
    assert figures["n"] == sum(weight.numel() for weight in weights)
    assert figures["eigenvalues"] == sorted(figures["eigenvalues"], reverse=True)
    vector = torch.cat([gradient.detach().flatten() for gradient in hessian.gradients])
    vector /= vector.norm()
    along = (vector @ hessian.product(vector)).item()
    assert along <= figures["eigenvalues"][0] * (1 + 1e-6)  # Rayleigh's quotient

    def loss_at(step):
        with torch.no_grad():
            parts = vector.split([weight.numel() for weight in weights])
            for weight, part in zip(weights, parts, strict=True):
                weight.add_(part.view_as(weight), alpha=step)
            found = nll(model, ids).item()
            for weight, part in zip(weights, parts, strict=True):
                weight.sub_(part.view_as(weight), alpha=step)
        return found

    step = 3e-4  # RoPE is computed in float32
    second = (loss_at(step) - 2 * loss_at(0.0) + loss_at(-step)) / step**2
    assert along == pytest.approx(second, rel=1e-2)


def test_the_angle_is_that_of_the_two_gradients_at_the_block(lab, trained):
    folder, _ = trained
    model = load_student(folder / "checkpoint" / "step-2")
    ids = windows_of(find_source(folder), 2)
    where = {"dtype": torch.float32, "device": ids.device, "seq_len": 32}
    teacher = load_teacher(lab.assets / "teacher", ["last"], **where)
    found = angle(model, teacher, 2, ids)
    assert model.alignment is None
    states = []
    hook = model.layers["1"].register_forward_hook(lambda *args: states.append(args[2]))
    loss = nll(model, ids)
    hook.remove()
    [hidden] = states
    target = interpolate_width(teacher(ids[:, :-1])[0], hidden.shape[-1])
    cosine = F.cosine_similarity(hidden, target, dim=-1).mean()
    [of_nll] = torch.autograd.grad(loss, hidden, retain_graph=True)
    [of_alignment] = torch.autograd.grad(-cosine, hidden)
    wanted = F.cosine_similarity(of_nll.flatten(), of_alignment.flatten(), dim=0)
    assert found["gradient_cosine"] == pytest.approx(wanted.item(), rel=1e-4)
    ratio = of_alignment.norm() / of_nll.norm()
    assert found["gradient_ratio"] == pytest.approx(ratio.item(), rel=1e-4)
    assert found["cosine"] == pytest.approx(cosine.item(), rel=1e-4)
    assert found["nll"] == pytest.approx(loss.item(), rel=1e-5)


def rows(arms):
    """Rows of two seeds and two steps: {arm: (top eigenvalue, gradients' cosine) by step}."""
    return [
        {
            **{"arm": arm, "seed": seed, "step": step, "n": 10, "trace": 5.0, "trace_error": 0.5},
            **{"eigenvalues": [top + seed], "gradient_cosine": cosine, "cosine": 0.1, "nll": 4.0},
            "products": 30,
        }
        for arm, steps in arms.items()
        for seed in (0, 1)
        for step, (top, cosine) in steps.items()
    ]


def test_what_is_said_of_the_predictions_follows_from_the_figures(tmp_path):
    baseline = {5: (4.0, 0.2), 10: (5.0, 0.1)}
    lower = rows({"baseline": baseline, "LET": {5: (3.0, 0.1), 10: (4.0, 0.3)}})
    (_, top), (_, uneven), (_, of_baseline), (_, of_let) = verdicts(lower, 5)
    assert top.startswith("yes") and uneven.startswith("yes")
    assert "agree at step 5 and less at step 10" in of_baseline
    assert "agree at step 5 and not less in every seed" in of_let
    mixed = rows({"baseline": baseline, "LET": {5: (3.0, -0.1), 10: (6.0, -0.2)}})
    (_, top), *_, (_, of_let) = verdicts(mixed, 5)
    assert top.startswith("not throughout (step 5: lower in 2 of 2; step 10: lower in 0 of 2)")
    assert "do not agree in every seed at step 5 and less" in of_let
    lower[0]["trace"] = 0.9  # 1.8 of its standard errors
    (_, top), (_, uneven), *_ = verdicts(lower, 5)
    assert "step 5: lower in 2 of 2" in top and "step 5: lower in 1 of 1; step 10" in uneven
    facts = {"versions": {"python": "3", "torch": "2"}, "hardware": {"cpu": "a CPU"}}
    write_results(lower, 5, facts, tmp_path)
    assert (
        "| largest eigenvalue | 5 | 4.5 | 3.5 | -1 (-1 to -1) |"
        in (tmp_path / "transformer.md").read_text()
    )
    assert (tmp_path / "transformer.png").stat().st_size > 1000
