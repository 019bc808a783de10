"""SALT-DS: scores against transformers, one choice in every layout, exact over a resume."""

import shutil
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from let_titan.checks import find_mistakes
from let_titan.distill import selected, sequence_scores
from let_titan.distill.select import best_of, medians
from let_titan.train import LetTrainer
from tests.layouts import TP
from tests.support import Lab, weights
from tests.test_distill import rkd
from tests.world import run_world

SALT = {"distill__method": "salt", "distill__n_kd": 2, "distill__select_of": 3}


def test_scores_against_the_whole_hugging_face_model(assets):
    model = AutoModelForCausalLM.from_pretrained(assets / "teacher")
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 320, (5, 33), generator=draw)
    labels = tokens[:, 1:].clone()
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = -100
    labels[4] = -100
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits.double()
        states = model.model(tokens[:, :-1]).last_hidden_state
        found = sequence_scores(states, labels, model.lm_head.weight, top_k=150, chunk=7)
    for row in range(4):
        losses = []
        for at in (labels[row] >= 0).nonzero().flatten():
            order = logits[row, at].argsort(descending=True)
            learnable = labels[row, at] in order[:150]
            losses.append(-logits[row, at].log_softmax(0)[labels[row, at]] if learnable else 0.0)
        wanted = sorted(float(x) for x in losses)[(len(losses) - 1) // 2]
        assert found[row].item() == pytest.approx(wanted, rel=1e-4)
    assert found[:4].max() > 0 and found[4] == -torch.inf


class Named(TorchDispatchMode):
    """Notes what is dispatched."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_medians_are_nanmedians_without_its_kernel(seed, s):
    """On a GPU that kernel is not deterministic, and an error under debug.deterministic."""
    draw = torch.Generator().manual_seed(seed)
    losses = torch.randint(0, 4, (6, s), generator=draw).float()
    losses[torch.rand(losses.shape, generator=draw) < 0.4] = torch.nan
    losses[5] = torch.nan
    wanted = losses.nanmedian(-1).values.nan_to_num(nan=-torch.inf)
    with Named() as called:
        assert torch.equal(medians(losses), wanted)
    assert not any("median" in name for name in called.names)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_ranks_and_microbatches_do_not_matter(seed, pool):
    """A step of 8 sequences: 1, 2 or 4 ranks, which hold every so-manyth, in microbatches."""
    score = torch.rand(8 * pool, generator=torch.Generator().manual_seed(seed))
    chosen = []
    for ranks, size in ((1, 8), (1, 2), (2, 4), (2, 1), (4, 2)):
        kept = set()
        for rank in range(ranks):
            mine = torch.arange(8 * pool)[rank::ranks].split(size)
            batches = [({"input": ids}, -ids) for ids in mine]
            best = best_of(batches, [score[ids] for ids in mine], pool)
            assert [len(labels) for _, labels in best] == [size] * (8 // ranks // size)
            assert all(torch.equal(inputs["input"], -labels) for inputs, labels in best)
            kept |= {int(i) for inputs, _ in best for i in inputs["input"]}
        chosen.append(kept)
    assert all(kept == chosen[0] for kept in chosen) and len(chosen[0]) == 8
    rivals = score.view(pool, 8)
    assert score[sorted(chosen[0])].sum() == pytest.approx(rivals.max(0).values.sum().item())


def test_it_chooses_while_it_shall_and_ends_with_the_data():
    batches = [({"input": torch.tensor([i, i + 1])}, torch.zeros(2)) for i in range(0, 26, 2)]
    steps = iter([True, True, False, False, True])
    found = selected(
        iter(batches), 2, 2, lambda: next(steps), lambda batch: batch[0]["input"].float()
    )
    kept = [x["input"].tolist() for x, _ in found]
    assert kept == [[4, 5], [6, 7], [12, 13], [14, 15], [16, 17], [18, 19], [20, 21], [22, 23]]


def trained(lab, **changes):
    keys = {"checkpoint__enable": True, "checkpoint__interval": 1, "checkpoint__keep_latest_k": 0}
    trainer = LetTrainer(rkd(lab, **{**SALT, "training__steps": 3, **keys, **changes}))
    try:
        trainer.train()
        trainer.run_folder.end("completed")
        seen = (trainer.dataloader.sequences, trainer.ntokens_seen)
        return weights(trainer.model_parts[0]), seen, trainer.run_folder.facts["teacher"]
    finally:
        trainer.close()


def test_a_resume_and_accumulation_train_on_the_same_and_it_matters(lab):
    wanted, seen, teacher = trained(lab)
    assert seen == (8 * (3 + 3 + 1), 8 * 64 * 3)  # drawn; trained on
    folder = lab.folder / "run" / "checkpoint"
    for step in (1, 2):
        for later in range(step + 1, 4):
            shutil.rmtree(folder / f"step-{later}")
        found, again, _ = trained(lab)
        assert again == seen and all(torch.equal(found[name], wanted[name]) for name in wanted)
    teacher_key = {"teacher__checkpoint": str(lab.assets / "teacher")}
    keys = {**SALT, **teacher_key, "distill__select_of": 1, "training__global_batch_size": 8}
    changed = lab.parsed(None, checkpoint__enable=True, **keys)
    assert any("steps drew 3 times their data" in str(m) for m in find_mistakes(changed))
    shutil.rmtree(lab.folder / "run")
    found, _, _ = trained(lab, training__local_batch_size=2)
    gaps = [float((found[name] - wanted[name]).abs().max()) for name in wanted]
    assert max(gaps) < 1e-3  # Adam's first steps make signs of rounding where gradients are tiny
    shutil.rmtree(lab.folder / "run")
    plain, _, cheap = trained(lab, distill__select_of=1)
    assert max(float((plain[name] - wanted[name]).abs().max()) for name in wanted) > 1e-2
    assert teacher["flops_per_token"] == 4 * cheap["flops_per_token"]


def read_in_training(lab, **layout):
    """Returns the ids of every batch that was trained on, and how many rows were scored at once."""
    trainer = LetTrainer(rkd(lab, **{**SALT, "distill__n_kd": 1, "training__steps": 2, **layout}))
    process, ids, rows = trainer.post_dataloading_process, [], set()

    def noting(inputs, labels):
        ids.append(inputs["input"].tolist())
        return process(inputs, labels)

    def scores(states, labels, *args):
        rows.add(len(labels))
        return sequence_scores(states, labels, *args)

    trainer.post_dataloading_process = noting
    try:
        with mock.patch("let_titan.let.salt_choice.sequence_scores", scores):
            trainer.train()
        return ids, rows
    finally:
        trainer.close()


BATCHES = {
    "divided": {},
    "not divided": {"training__local_batch_size": 1, "training__global_batch_size": 2},
}


def read_under_tp(assets, folder):
    """Returns what both ranks read, of each of ``BATCHES``."""
    lab = Lab(assets, folder)
    found = {name: read_in_training(lab, **TP, **sizes) for name, sizes in BATCHES.items()}
    ranks = [None, None]
    torch.distributed.all_gather_object(ranks, found)
    return ranks


def test_tensor_parallel_ranks_share_the_scoring_and_choose_as_one_process(assets, tmp_path):
    one, other = run_world(2, read_under_tp, tmp_path, assets, tmp_path)
    assert one == other
    lab = Lab(assets, tmp_path)
    for name, rows in (("divided", 4), ("not divided", 1)):
        assert one[name] == (read_in_training(lab, **BATCHES[name])[0], {rows}), name


def test_what_does_not_go_is_said(lab):
    for changes, sentence in (
        ({"distill__method": "rkd", "distill__select_of": 2}, "is of SALT's first stage"),
        ({**SALT, "distill__select_of": 0}, "distill.select_of = 0"),
        (
            {**SALT, "distill__select_top_k": 0},
            "distill.select_top_k = 0 is out of range",
        ),
    ):
        mistakes = [str(mistake) for mistake in find_mistakes(lab.parsed(None, **changes))]
        assert any(sentence in said for said in mistakes), mistakes
