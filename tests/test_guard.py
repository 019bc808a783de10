"""A loss or gradient that is not finite never reaches the weights: stop, or leave the step out."""

import json
import math

import pytest
import torch
import torch.distributed as dist
from safetensors import torch as safetensors
from torchtitan.distributed import utils as dist_utils

from let_titan.errors import RunError
from let_titan.guard import ranges
from let_titan.train import LetTrainer, run
from tests.support import Lab, weights
from tests.world import run_world

SAVED = {"checkpoint__enable": True, "checkpoint__interval": 2}


def trainer_with_a_bad_step(config, step, where, rank=0):
    """Makes the loss on ``rank``, or one weight's gradient, infinite or NaN in ``step``."""
    trainer = LetTrainer(config)
    loss_fn, mine = trainer.loss_fn, dist.get_rank() == rank

    def factor(bad):
        return bad if mine and trainer.step == step else 1.0

    if where == "loss":
        trainer.loss_fn = lambda *args: loss_fn(*args) * factor(math.inf)
    else:
        weight = trainer.model_parts[0].norm.weight
        weight.register_hook(lambda gradient: gradient * factor(math.nan))
    return trainer


def metrics(lab):
    return [json.loads(s) for s in (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()]


def watched(trainer):
    """Runs the trainer; returns its weights before each step and at the end, and the error."""
    seen, train_step = [weights(trainer.model_parts[0])], trainer.train_step

    def noting(iterator):
        train_step(iterator)
        seen.append(weights(trainer.model_parts[0]))

    trainer.train_step = noting
    error = None
    try:
        trainer.train()
    except RunError as stop:
        error, last = str(stop), weights(trainer.model_parts[0])
        seen.append(last)
    finally:
        trainer.close()
    return seen, error


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("max_norm", [1.0, math.inf])
def test_a_run_stops_before_it_takes_harm(where, max_norm, lab):
    config = lab.config({"s_stop": 4}, **SAVED, training__max_norm=max_norm)
    seen, error = watched(trainer_with_a_bad_step(config, 4, where))
    assert error.startswith(f"Step 4: the {where} is not finite on rank 0; nothing of it was app")
    assert f"The last checkpoint is {lab.folder / 'run' / 'checkpoint' / 'step-2'}:" in error
    assert "--training.max_nonfinite_steps 1 leaves such steps out." in error
    assert len(seen) == 5 and equal(seen[4], seen[3])
    assert [line["step"] for line in metrics(lab)] == [1, 2, 3]


def test_the_ranks_are_asked_without_a_copy_from_the_host(lab, monkeypatch):
    """On a GPU such a copy waits for the whole backward pass (tests/test_gpu.py)."""
    trainer = LetTrainer(lab.config({}))
    trainer.guard.begin(1)
    trainer.guard.note_loss(torch.zeros(()))
    with trainer.guard.clipping():
        dist_utils.clip_grad_norm_(trainer.guard.parameters, math.inf)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("a tensor from the host"))
    flags = []
    for asked in (False, True):
        trainer.guard.asked_to_stop = lambda asked=asked: asked
        flags += trainer.guard._gathered(trainer.guard._flags()).tolist()
    monkeypatch.undo()
    trainer.close()
    assert flags == [[0, 0, 0], [0, 0, 1]]


def test_without_a_checkpoint_it_says_so(lab):
    _, error = watched(trainer_with_a_bad_step(lab.config({"s_stop": 4}), 2, "loss"))
    assert "There is no checkpoint yet" in error


def test_gradients_whose_norm_alone_is_not_finite(lab):
    trainer = LetTrainer(lab.config({"s_stop": 4}, training__max_norm=1.0))
    trainer.model_parts[0].norm.weight.register_hook(
        lambda gradient: torch.full_like(gradient, 3e38) if trainer.step == 2 else gradient
    )
    seen, error = watched(trainer)
    assert error.startswith("Step 2: the norm of all gradients is not finite, though each of them")
    assert equal(seen[2], seen[1])


def test_a_finite_step_costs_no_pass_over_the_gradients(lab, monkeypatch):
    """But clipping's own."""
    norms, total = [], torch.nn.utils.get_total_norm
    monkeypatch.setattr(
        torch.nn.utils, "get_total_norm", lambda *args: norms.append(1) or total(*args)
    )
    trainer = LetTrainer(lab.config({"s_stop": 4}))
    monkeypatch.setattr(trainer.guard, "_ranks_of_bad_gradients", pytest.fail)
    seen, error = watched(trainer)
    assert error is None and len(norms) == len(seen) - 1


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_is_left_out_and_noted(where, lab):
    config = lab.config({"s_stop": 4}, **SAVED, training__max_nonfinite_steps=1)
    trainer = trainer_with_a_bad_step(config, 3, where)
    moments = trainer.optimizers.optimizers[0].state
    seen, error = watched(trainer)
    assert error is None
    assert equal(seen[3], seen[2]) and not equal(seen[2], seen[1]) and not equal(seen[4], seen[3])
    assert all(state["step"] == 5 for state in moments.values())  # 6 steps, one of them without
    lines = metrics(lab)
    noted = [line for line in lines if "nonfinite" in line]
    ranks = {"loss_ranks": [0] if where == "loss" else [], "gradient_ranks": [0]}
    assert noted == [{"step": 3, "nonfinite": ranks}]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert (losses[3] is None) == (where == "loss")


def test_a_loss_may_be_bad_alone_and_in_one_microbatch(lab):
    changes = {"training__max_nonfinite_steps": 1, "training__global_batch_size": 8}
    trainer = LetTrainer(lab.config({"s_stop": 4}, **changes))
    loss_fn, calls = trainer.loss_fn, []

    def loss_of(*args):
        calls.append(trainer.step)
        return loss_fn(*args) + (math.inf if calls[-2:] == [2, 3] else 0.0)

    trainer.loss_fn = loss_of
    seen, error = watched(trainer)
    assert error is None and equal(seen[3], seen[2])
    (noted,) = [line for line in metrics(lab) if "nonfinite" in line]
    assert noted == {"step": 3, "nonfinite": {"loss_ranks": [0], "gradient_ranks": []}}


def test_one_more_than_allowed_stops(lab):
    config = lab.config({"s_stop": 4}, training__max_nonfinite_steps=2)
    trainer = trainer_with_a_bad_step(config, 3, "loss")
    loss_fn = trainer.loss_fn
    trainer.loss_fn = lambda *args: loss_fn(*args) * (math.nan if trainer.step > 3 else 1.0)
    seen, error = watched(trainer)
    assert error.startswith("Step 5: the loss") and "max_nonfinite_steps 3 leaves" in error
    assert equal(seen[-1], seen[2])


def test_the_summary_counts_the_steps_left_out(lab, monkeypatch):
    config = lab.config({"s_stop": 4}, training__max_nonfinite_steps=1)
    build = lambda config: trainer_with_a_bad_step(config, 2, "loss")  # noqa: E731
    monkeypatch.setattr("let_titan.train.LetTrainer", build)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    run(config)
    summary = json.loads((lab.folder / "run" / "summary.json").read_text())
    assert summary["nonfinite_steps"] == [2]
    assert summary["exit_state"] == "completed"


SUMS = {
    "cca": ({"loss": "cca", "cca_tokens": 0.1}, "width_maps"),
    "procrustes": ({"width_map": "procrustes", "procrustes_every": 2}, "width_maps"),
    "moments": ({"teacher_norm": "standardize"}, "teacher_moments"),
}


@pytest.mark.parametrize("kind", SUMS)
def test_a_step_that_is_left_out_is_in_no_sum(kind, lab):
    """A NaN in the student's or the teacher's states would stay in the alignment's sums."""
    let, saved = SUMS[kind]
    config = lab.config({"s_stop": 6, **let}, training__max_nonfinite_steps=1)
    trainer = LetTrainer(config)
    spoilt = trainer.model_parts[0].tok_embeddings
    if kind == "moments":
        trainer._begin(0)
        spoilt = trainer.phase.slot.teacher.model.get_input_embeddings()
    spoilt.register_forward_hook(lambda _, __, x: x * math.nan if trainer.step == 3 else x)
    seen, error = watched(trainer)
    assert error is None and equal(seen[3], seen[2]) and not equal(seen[4], seen[3])
    state = trainer.phase.state_dict()[saved]
    sums = json.loads(state)[0] if kind == "moments" else safetensors.load(state)["0.sums"].tolist()
    assert torch.tensor(sums).isfinite().all() and torch.tensor(sums).any()


def test_a_learned_maps_gradient_is_judged_too(lab):
    """By the norm that clips it with the student's, which it makes NaN."""
    config = lab.config({"s_stop": 6, "width_map": "linear"}, training__max_nonfinite_steps=1)
    trainer = LetTrainer(config)
    trainer._begin(0)
    (learned,) = trainer.phase.maps.maps
    learned.weight.register_hook(lambda x: x * math.nan if trainer.step == 3 else x)
    seen, error = watched(trainer)
    assert error is None and equal(seen[3], seen[2]) and not equal(seen[4], seen[3])
    assert learned.weight.isfinite().all()


def test_every_part_of_a_model_is_looked_at(lab):
    """A pipeline's rank may have several stages."""
    trainer = LetTrainer(lab.config({}))
    trainer.model_parts = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    trainer.model_parts[1].weight.grad = torch.full((2, 2), math.nan)
    trainer.model_parts[1].bias.grad = torch.zeros(2)
    guard = trainer._build_guard()
    trainer.close()
    assert guard._ranks_of_bad_gradients() == [0]


def on_two_ranks(assets, folder):
    """Only rank 1's loss is bad: what each rank is told, and whether its weights stayed."""
    trainer = trainer_with_a_bad_step(Lab(assets, folder).config({"s_stop": 4}), 3, "loss", rank=1)
    seen, error = watched(trainer)
    told: list[tuple[str, bool] | None] = [None, None]
    dist.all_gather_object(told, (error, equal(seen[3], seen[2])))
    return told


def test_the_rank_it_began_on_is_named_on_all(assets, tmp_path):
    told = run_world(2, on_two_ranks, tmp_path, assets, tmp_path)
    assert told[0] == told[1]
    assert told[0][0].startswith("Step 3: the loss is not finite on rank 1;") and told[0][1]


def unlabelled(assets, folder):
    """A step without a valid token in the world, under FSDP2: told, or left out."""
    found = []
    for skips in (0, 1):
        lab = Lab(assets, folder)
        fsdp = {"parallelism__data_parallel_shard_degree": -1}
        trainer = LetTrainer(lab.config({"s_stop": 4}, training__max_nonfinite_steps=skips, **fsdp))
        generate = trainer.batch_generator

        def batches(iterable, generate=generate, trainer=trainer):
            for inputs, labels in generate(iterable):
                yield inputs, torch.full_like(labels, -100) if trainer.step == 3 else labels

        trainer.batch_generator = batches
        seen, error = watched(trainer)
        found.append((error, equal(seen[3], seen[2])))
    return found


def test_a_step_without_a_label_is_as_one_that_is_not_finite(assets, tmp_path):
    (error, kept), (none, left_out) = run_world(2, unlabelled, tmp_path, assets, tmp_path)
    assert "Step 3: the loss is not finite on rank 0-1; nothing of it was applied." in error
    assert kept and left_out and none is None


def test_ranges():
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 3, 7, 9, 10]) == "0-3, 7, 9-10"
