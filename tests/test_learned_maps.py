"""Learned width maps: against float64 autograd, over a resume, in clipping, gone after s_stop.

In layouts: tests/test_variants.py.
"""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors import torch as safetensors
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from let_titan.alignment import Alignment, LearnedMap, alignment_loss, map_flops
from let_titan.checkpoint.checksums import read_metadata
from let_titan.checks import find_mistakes
from let_titan.export.folder import export
from let_titan.export.source import find_source
from let_titan.train import LetTrainer
from tests.support import gradients, logged, use_fixed_batches, weights
from tests.whole_runs import trained

CPU = torch.device("cpu")
NAMES = ("linear", "orthogonal_learned")


def states(d_t, d_m):
    draw = torch.Generator().manual_seed(d_t)
    hidden = torch.randn(4, 9, d_m, generator=draw)
    teacher = torch.randn(4, 9, d_t, generator=draw)
    mask = torch.rand(4, 9, generator=draw) < 0.7
    hidden[~mask] = float("nan")  # a masked token may hold anything
    return hidden, teacher, mask


@pytest.mark.parametrize("loss", ["cosine", "mse", "cka"])
@pytest.mark.parametrize("widths", [(7, 12), (12, 7), (9, 9)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_states_and_map_against_float64(name, widths, loss):
    hidden, teacher, mask = states(*widths)
    of_loss = alignment_loss(loss, 4.0)
    alignment = Alignment([(1, 2.0)], of_loss)
    learned = LearnedMap(name, widths[1], widths[0], CPU)
    with torch.no_grad():  # away from its start
        for parameter in learned.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    learned.begin_step()
    alignment.learned = [learned]
    leaf = hidden.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        for rows in (slice(0, 1), slice(1, 4)):  # two microbatches
            out = alignment.inject(1, leaf[rows], [teacher[rows]], mask[rows], 0.25)
            out.nansum().backward()
    learned.finish()
    if loss != "cka":  # which multiplies matrices of its own
        assert counter.get_total_flops() == mask.numel() * map_flops(widths[1], widths[0])

    twin = LearnedMap(name, widths[1], widths[0], CPU)
    twin.load_state_dict(learned.state_dict())
    twin.double()
    exact = torch.where(mask.unsqueeze(-1), hidden, 0.0).double().requires_grad_()
    if loss == "cosine":
        pairs = (exact @ twin.weight, teacher.double())
        value = -torch.nn.functional.cosine_similarity(*pairs, dim=-1)[mask].sum()
    elif loss == "mse":
        value = (exact @ twin.weight - teacher.double()).square().mean(-1)[mask].sum()
    else:
        value = sum(
            -mask[i].sum() * cka((exact[i] @ twin.weight)[mask[i]], teacher[i][mask[i]].double())
            for i in range(4)
        )
    (exact[mask].sum() + 0.5 * value).backward()
    assert_close(leaf.grad[mask].double(), exact.grad[mask], rtol=1e-4, atol=1e-5)
    # CKA does not see what an isometry of the student's states does
    blind = loss == "cka" and name != "linear" and widths[0] >= widths[1]
    for found, wanted in zip(learned.parameters(), twin.parameters(), strict=True):
        assert blind or wanted.grad.norm() > 1e-2
        assert_close(found.grad.double(), wanted.grad, rtol=1e-4, atol=1e-5)
    assert alignment.meter.sums(CPU)[0].item() == pytest.approx(2 * value.item(), rel=1e-4)
    own = alignment.gradient(0, hidden, teacher, mask)
    assert_close(leaf.grad[mask], 1 + 0.5 * own[mask], rtol=1e-4, atol=1e-5)


def cka(h, t):
    h, t = h - h.mean(0), t - t.mean(0)
    return (h.T @ t).square().sum() / ((h.T @ h).norm() * (t.T @ t).norm())


@pytest.mark.parametrize("widths", [(7, 12), (12, 7), (9, 9)])
@pytest.mark.parametrize("name", NAMES)
def test_ranks_add_up_what_nccl_takes_and_gpus_keep_their_random_state(name, widths, monkeypatch):
    """gloo adds up a transposed matrix, too; a CPU has no other generator that could be set."""
    sums, seeds = [], []
    monkeypatch.setattr(torch.distributed, "all_reduce", sums.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    learned = LearnedMap(name, widths[1], widths[0], CPU)
    learned.add(torch.ones_like(learned.matrix))
    learned.finish()
    assert [each.is_contiguous() for each in sums] == [True] and seeds == []


@pytest.mark.parametrize("widths", [(7, 12), (12, 7), (9, 9)])
def test_an_orthogonal_map_stays_one_under_adam(widths):
    state = torch.random.get_rng_state()
    learned = LearnedMap("orthogonal_learned", widths[1], widths[0], CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    before = learned.matrix.clone()
    assert_close(before, LearnedMap("linear", widths[1], widths[0], CPU).matrix)
    adam = torch.optim.AdamW(learned.parameters(), lr=0.1)
    for _ in range(5):
        learned.begin_step()
        learned.add(torch.ones_like(learned.matrix))
        learned.finish()
        adam.step()
        adam.zero_grad()
    learned.begin_step()
    narrow = learned.matrix.T if widths[1] >= widths[0] else learned.matrix
    assert_close(narrow @ narrow.T, torch.eye(min(widths)), rtol=0, atol=1e-5)
    assert (learned.matrix - before).norm() > 0.1


def of_run(lab, name):
    """Returns weights and trainer after four clipped steps, three of them with a teacher."""
    let = {"width_map": name, "s_stop": 3, "pairs": ["L2E", "M2L:0.5"]}
    trainer = trained(lab, let, training__max_norm=1.0)
    return weights(trainer.model_parts[0]), trainer


def maps_in(folder):
    """The learned maps of a checkpoint, as the train state has them."""
    state = {"train_state.learned_maps": b""}
    torch.distributed.checkpoint.load(state, checkpoint_id=folder)
    return safetensors.load(state["train_state.learned_maps"] or safetensors.save({}))


def teachers_flops(lab):
    """Returns the FLOPs a token of a run's teacher and maps."""
    summary = json.loads((lab.folder / "run" / "summary.json").read_text())
    return summary["teacher"]["flops_per_token"]


@pytest.mark.parametrize(("name", "steps"), [("linear", (1, 2, 3)), ("orthogonal_learned", (2,))])
def test_a_resume_is_exact_and_nothing_is_left_after_s_stop(name, steps, lab):
    wanted, trainer = of_run(lab, name)
    assert len(trainer.optimizers.optimizers) == 1 and not trainer.phase.maps.maps
    assert trainer.phase.alignment.learned == ()
    folder = lab.folder / "run" / "checkpoint"
    first, second = (maps_in(folder / f"step-{step}") for step in (1, 2))
    assert len(first) == 2 * (4 + (name != "linear"))  # W, three of Adam's, a base; two pairs
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert not maps_in(folder / "step-3") and not maps_in(folder / "step-4")

    export(find_source(folder / "step-2"), lab.folder / "exported")
    with safe_open(lab.folder / "exported" / "model.safetensors", "pt") as file:
        assert len(file.keys()) == len(wanted)  # the student's weights and nothing else
    for step in steps:
        for later in range(step + 1, 5):
            shutil.rmtree(folder / f"step-{later}")
        found, _ = of_run(lab, name)
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), step
    keys = set(read_metadata(folder / "step-2").state_dict_metadata)
    flops = teachers_flops(lab)
    shutil.rmtree(lab.folder / "run")
    plain, _ = of_run(lab, "interpolate")
    assert keys - set(read_metadata(folder / "step-2").state_dict_metadata) == {
        "train_state.learned_maps"
    }
    assert any(not torch.equal(plain[key], wanted[key]) for key in wanted)  # it mattered
    assert flops - teachers_flops(lab) == 2 * map_flops(64, 48)
    changed = lab.parsed({"width_map": name, "s_stop": 3}, checkpoint__enable=True)
    assert any("checkpoints hold no learned" in str(m) for m in find_mistakes(changed))


def test_clipping_counts_the_student_and_the_maps(lab):
    found = {}
    for max_norm in (float("inf"), 0.1):
        config = lab.config({"width_map": "linear"}, training__max_norm=max_norm)
        trainer = LetTrainer(config)
        try:
            with logged(trainer) as lines:
                trainer.step = 1
                trainer.train_step(use_fixed_batches(trainer))
            (learned,) = trainer.phase.maps.maps
            norm = next(line["grad_norm"] for line in lines if "grad_norm" in line)
            student = torch.stack([g.norm() for g in gradients(trainer.model_parts[0]).values()])
            found[max_norm] = (norm, student.norm().item(), learned.weight.grad.norm().item())
            (group,) = trainer.phase.maps._optimizer.param_groups
            assert group["lr"] == trainer.optimizers.optimizers[0].param_groups[0]["initial_lr"] / 2
        finally:
            trainer.close()
    norm, student, ours = found[float("inf")]
    assert ours > 1e-3 and norm == pytest.approx((student**2 + ours**2) ** 0.5, rel=1e-5)
    clipped = found[0.1]
    assert clipped[0] == pytest.approx(norm, rel=1e-5)
    assert (clipped[1] ** 2 + clipped[2] ** 2) ** 0.5 == pytest.approx(0.1, rel=1e-3)
    assert clipped[2] == pytest.approx(ours * 0.1 / norm, rel=1e-3)
