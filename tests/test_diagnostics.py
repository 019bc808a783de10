"""The diagnostics of single steps, against autograd on the model taken apart.

In every layout: tests/test_variants.py.
"""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from let_titan.alignment import Alignment, Diagnostics, alignment_loss
from let_titan.checks import find_mistakes
from let_titan.student import FLAVORS, LetTransformer
from let_titan.train import LetTrainer

VOCABULARY, LAMBDA, BLOCKS = 40, 0.3, ((2, 0.5), (4, 2.0))


def build_student():
    args = FLAVORS["debug"]
    args.vocab_size, args.max_seq_len = VOCABULARY, 16
    torch.manual_seed(0)
    student = LetTransformer(args)
    with torch.no_grad():
        student.init_weights()
    return student


@pytest.mark.parametrize("name", ["cosine", "mse"])
def test_against_autograd(name):
    student, loss = build_student(), alignment_loss(name, 4.0)
    tokens = torch.randint(0, VOCABULARY, (3, 17))
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    mask = torch.rand(3, 16) < 0.8
    teachers = [torch.randn(3, 16, 48), torch.randn(3, 16, 48)]
    n = mask.sum()

    def nll(logits):
        return F.cross_entropy(logits[mask], labels[mask], reduction="sum") / n

    student.alignment = Alignment(BLOCKS, loss)
    seen = Diagnostics([block for block, _ in BLOCKS], 4, torch.device("cpu"))
    student.alignment.diagnostics = seen
    for part in (slice(0, 1), slice(1, 3)):  # two microbatches
        logits = student(
            inputs[part],
            teacher_hidden=[teacher[part] for teacher in teachers],
            align_mask=mask[part],
            align_coefficient=LAMBDA / n,
        )
        partial = F.cross_entropy(logits[mask[part]], labels[part][mask[part]], reduction="sum")
        (partial / n).backward()
    found = seen.result()

    hidden, states = student.tok_embeddings(inputs), []
    for block in student.layers.values():
        hidden = block(hidden, student.freqs_cis, attention_masks=None)
        states.append(hidden)
    total = nll(student.output(student.norm(hidden)))
    for pair in (1, 0):  # the later block first: its alignment reaches the earlier one
        block, weight = BLOCKS[pair]
        state = states[block - 1]
        aligned = weight * LAMBDA * loss(state, teachers[pair], mask)[0] / n
        above, own = (
            torch.autograd.grad(x, state, retain_graph=True)[0].flatten() for x in (total, aligned)
        )
        cosine = F.cosine_similarity(above, own, dim=0)
        assert found["grad_cosine"][pair] == pytest.approx(cosine.item(), rel=1e-3, abs=1e-6)
        assert found["grad_ratio"][pair] == pytest.approx((own.norm() / above.norm()).item(), 1e-4)
        total = total + aligned
        wanted = [
            F.cosine_similarity(x, F.interpolate(teachers[pair], 64, mode="linear"), dim=-1)[mask]
            for x in states
        ]
        assert_close(
            found["block_cosine"][pair], [x.mean().item() for x in wanted], rtol=1e-4, atol=1e-5
        )


def test_lines_are_written_at_the_interval_and_change_nothing(lab):
    runs = []
    for freq in (0, 2):
        trainer = LetTrainer(lab.config({"s_stop": 5, "diagnostics_freq": freq}))
        try:
            trainer.train()
            path = lab.folder / "run" / "metrics.jsonl"
            runs.append([json.loads(line) for line in path.read_text().splitlines()])
            path.unlink()
        finally:
            trainer.close()
    plain, watched = runs
    lines = [line for line in watched if "diagnostics" in line]
    assert [line["step"] for line in lines] == [1, 2, 4]  # the teacher leaves after 5
    trained = [line for line in watched if "diagnostics" not in line]
    for name in ("loss", "align_cosine", "grad_norm"):
        assert [line[name] for line in trained] == [line[name] for line in plain]
    for line, step in zip(lines, (1, 2, 4), strict=True):
        found = line["diagnostics"]
        assert found["block_cosine"][0][1] == pytest.approx(plain[step - 1]["align_cosine"])
        assert abs(found["grad_cosine"][0]) < 1 and found["grad_ratio"][0] > 0
        assert all(math.isfinite(x) for x in found["block_cosine"][0]) and len(found) == 3


def test_a_negative_interval_is_refused(lab):
    mistakes = [str(m) for m in find_mistakes(lab.parsed({"diagnostics_freq": -1}))]
    assert any("let.diagnostics_freq = -1" in mistake for mistake in mistakes)
