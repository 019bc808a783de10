"""LET's variants in a whole run: in each layout as in one process, and over a resume."""

import shutil

import pytest
import torch

from let_titan.checks import find_mistakes
from let_titan.train import LetTrainer
from tests.layouts import FSDP, MICRO_2, MICRO_8, PP, TP
from tests.support import (
    Lab,
    gradients,
    of_all_stages,
    run_world,
    use_fixed_batches,
    weights,
    worst_gradient,
)

MOMENTS = {"teacher_norm": "standardize", "width_map": "orthogonal", "loss": "smooth_l1"}
TWO_PAIRS = {"pairs": ["L2E", "M2L:0.5"], "teacher_norm": "center", "loss": "logsum"}
CKA = {"loss": "cka", "width_map": "truncate"}
CASES = {
    "moments, fsdp": (MOMENTS, FSDP),
    "moments, tp": (MOMENTS, {**TP, **MICRO_8}),
    "moments, pp": (MOMENTS, {**PP, **MICRO_8}),
    "two pairs, fsdp, accumulation": (TWO_PAIRS, {**FSDP, **MICRO_2}),
    "cka, fsdp": (CKA, FSDP),
}


def two_steps(lab, let, layout):
    """Trains two steps on the fixed batch; returns step 2's un-clipped gradients and moments."""
    batch = {"training__local_batch_size": 4, "training__global_batch_size": 8}
    trainer = LetTrainer(lab.config(let, **{**batch, **layout}))
    try:
        batches = use_fixed_batches(trainer)
        for step in (1, 2):
            trainer.step = step
            trainer.train_step(batches)
        return of_all_stages(gradients, trainer), trainer.state_dict().get("teacher_moments")
    finally:
        trainer.close()


def in_layouts(assets, folder):
    lab = Lab(assets, folder)
    return {name: two_steps(lab, let, layout) for name, (let, layout) in CASES.items()}


def test_equal_one_process(assets, tmp_path):
    found = run_world(2, in_layouts, tmp_path, assets, tmp_path)
    lab = Lab(assets, tmp_path)
    wanted = {id(let): two_steps(lab, let, {}) for let in (MOMENTS, TWO_PAIRS, CKA)}
    for name, (let, _) in CASES.items():
        # Step 2's weights have gone through Adam, which makes rounding larger than step 1 does.
        assert worst_gradient(found[name][0], wanted[id(let)][0]) < 1e-4, name
    plain = two_steps(lab, {**MOMENTS, "teacher_norm": "none"}, {})[0]
    assert worst_gradient(plain, wanted[id(MOMENTS)][0]) > 1e-2  # the moments mattered


def trained(lab):
    config = lab.config(
        MOMENTS | {"s_stop": 3},
        training__steps=4,
        checkpoint__enable=True,
        checkpoint__interval=1,
        checkpoint__keep_latest_k=0,
    )
    trainer = LetTrainer(config)
    try:
        trainer.train()
        trainer.run_folder.end("completed")
        return weights(trainer.model_parts[0]), trainer.state_dict()
    finally:
        trainer.close()


@pytest.mark.parametrize("step", [1, 3])
def test_moments_survive_a_resume(step, lab):
    wanted, state = trained(lab)
    assert state["teacher_moments"] != "[]"
    for later in range(step + 1, 5):
        shutil.rmtree(lab.folder / "run" / "checkpoint" / f"step-{later}")
    found, again = trained(lab)
    assert again == state
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    changed = lab.parsed({"teacher_norm": "center", "s_stop": 3}, checkpoint__enable=True)
    sentences = [str(mistake) for mistake in find_mistakes(changed)]
    assert any("checkpoints hold other moments" in sentence for sentence in sentences)


def test_what_cannot_be_is_said(lab):
    for let, changes, sentence in (
        ({"loss": "cka"}, {"parallelism__tensor_parallel_degree": 2}, "needs whole sequences"),
        ({"loss": "logsum", "alpha": 0.5}, {}, "let.alpha = 0.5"),
        ({}, {"training__seq_len": 3}, "training.seq_len = 3 is no multiple of"),
    ):
        mistakes = [str(m) for m in find_mistakes(lab.parsed(let, **changes), 2)]
        assert any(sentence in mistake for mistake in mistakes), mistakes
