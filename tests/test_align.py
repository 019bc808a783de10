"""Training under a teacher with a tokenizer of its own: gradients, what a run leaves, resumes."""

import shutil
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.models.llama3 import Transformer
from transformers import AutoModel

from let_titan.student import FLAVORS
from let_titan.train import LetTrainer
from tests.align_runs import LET, aligned, end_to_end, figures, run, some_unread, told
from tests.conftest import VOCAB
from tests.resumed import assert_resumes_exactly, uninterrupted_and_resumed
from tests.support import SEQ_LEN, gradients, worst_gradient
from tests.test_alignment import reference
from tests.test_run_folder import leave


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__local_batch_size": 2, "training__global_batch_size": 4},
        {"let__teacher_norm": "center", "let__width_map": "orthogonal"},
    ],
    ids=["plain", "accumulation", "moments"],
)
def test_equal_tokenizers_are_the_same_bit_for_bit(changes, lab, readers):
    let = {**LET, **{k[5:]: v for k, v in changes.items() if k.startswith("let__")}}
    rest = {k: v for k, v in changes.items() if not k.startswith("let__")}
    same = lab.config(let, teacher__checkpoint=str(readers / "equal"), **rest)
    _, _, wanted, lines = run(same, 5)
    _, _, found, own_lines = run(lab.config(let, **aligned(readers, "equal"), **rest), 5)
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert figures(own_lines) == figures(lines)
    shares = [line["let/align_target_share"] for line in own_lines if line.get("let/lambda")]
    assert shares == [1.0] * 4
    for key in ("let/teacher_flops", "let/student_flops"):
        assert [line[key] for line in own_lines if key in line] == [
            line[key] for line in lines if key in line
        ]


def by_hand(readers, name, initial, batches):
    """NLL + lambda_0 * L_proj in float64, one sequence and one state after the other."""
    args = FLAVORS["debug"]
    args.vocab_size, args.max_seq_len = VOCAB, SEQ_LEN
    model = Transformer(args)
    model.load_state_dict(initial, strict=False)
    model.double()
    teacher = AutoModel.from_pretrained(readers / name).eval()
    valid = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in batches)
    nll = alignment = torch.zeros(())
    count = 0
    for inputs, labels in batches:
        rows = zip(labels, end_to_end(inputs), strict=True)
        for i, (wanted, (read, targets)) in enumerate(rows):
            if len(read):
                with torch.no_grad():
                    states = teacher(read.unsqueeze(0)).last_hidden_state[0]
            hidden = model.tok_embeddings(inputs["input"][i : i + 1])
            for block, layer in model.layers.items():
                hidden = layer(hidden, model.freqs_cis, None)
                if int(block) + 1 != LET["k"]:
                    continue
                for token, target in enumerate(targets.tolist()):
                    if target >= 0 and wanted[token] != IGNORE_INDEX:
                        one = torch.ones(1, 1, dtype=torch.bool)
                        pair = hidden[:, token : token + 1], states[None, target : target + 1]
                        alignment = alignment + reference(*pair, one)
                        count += 1
            logits = model.output(model.norm(hidden)).flatten(0, 1)
            nll = nll + F.cross_entropy(logits, wanted, reduction="sum")
    nll, alignment = nll / valid, alignment / count
    (nll + LET["lambda_0"] * alignment).backward()
    return gradients(model), nll.item(), alignment.item(), count / valid


@pytest.mark.parametrize("name", ["short", "uneven"])
def test_gradients_are_those_of_a_loop_in_float64(name, lab, readers):
    """Accumulated over two microbatches of other lengths and other shares of targets."""
    changes = {"training__local_batch_size": 8, "training__global_batch_size": 16}
    with some_unread() if name == "uneven" else nullcontext():
        config = lab.config(LET, data__lanes=2, **aligned(readers, name), **changes)
        initial, batches, found, lines = run(config)
    lengths = [sum(row) for inputs, _ in batches for row in inputs["teacher_pieces"]]
    assert set(lengths) == {48} if name == "short" else {0, 58} < set(lengths)
    wanted, nll, alignment, share = by_hand(readers, name, initial, batches)
    assert worst_gradient(found, wanted) < 2e-5
    (line,) = [line for line in lines if "grad_norm" in line]
    assert line["loss_metrics/global_avg_loss"] == pytest.approx(nll, rel=1e-6)
    assert line["let/align_loss"] == pytest.approx(alignment, rel=1e-5)
    assert line["let/align_target_share"] == pytest.approx(share)
    assert 0.2 < share < 0.9
    assert line["let/teacher_padding_share"] == 0


def test_a_step_without_any_target_is_a_step_of_the_nll(lab, readers):
    config = lab.config(LET, **aligned(readers, "other"))
    trainer = LetTrainer(config)
    inputs, labels = next(iter(trainer.dataloader))
    inputs["teacher_targets"].fill_(-1)
    trainer.step = 1
    trainer.train_step(trainer.batch_generator([(inputs, labels)]))
    found = gradients(trainer.model_parts[0])
    trainer.close()
    plain = run(lab.config(None))[2]
    assert worst_gradient(found, plain) < 1e-6


def test_a_run_leaves_its_shares_and_what_the_teacher_read(lab, readers):
    train, _, summary = leave(lab, LET, **aligned(readers, "short"), training__steps=6)
    shares = [(line.get("align_target_share"), line.get("teacher_padding_share")) for line in train]
    assert all(0 < target < 1 and padding == 0 for target, padding in shares[:4])
    assert shares[4:] == [(None, None)] * 2
    flops = [line["teacher_flops"] for line in train]
    assert flops[4:] == flops[3:4] * 2
    each = summary["teacher"]["flops_per_token"]
    assert all(count % each == 0 for count in flops)
    assert flops[3] // each == 4 * 4 * 48  # rows of the teacher's context, padding included


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_exactly(workers, assets, tmp_path, readers):
    changes = {"data__lanes": 2, "training__dataloader.num_workers": workers}
    results = uninterrupted_and_resumed(assets, tmp_path, **aligned(readers, "uneven"), **changes)
    lines = [line for line in results["whole"]["lines"] if "loss" in line]
    assert [("align_target_share" in line) for line in lines] == [True] * 3 + [False] * 3
    assert_resumes_exactly(results)


def test_what_the_teacher_read_since_the_last_line_survives_a_resume(lab, readers):
    keys = {"checkpoint__enable": True, "checkpoint__interval": 1, "training__steps": 4}
    keys |= {**aligned(readers, "uneven"), "metrics__log_freq": 100}
    found = []
    for _ in range(2):
        train, *_ = leave(lab, LET, **keys)
        found.append([(line["step"], line["teacher_flops"]) for line in train])
        shutil.rmtree(lab.folder / "run" / "checkpoint" / "step-4")
    assert found[0] == found[1] and [step for step, _ in found[0]] == [1, 4]


def test_padding_is_counted_where_the_teacher_reads_it(lab, readers, monkeypatch):
    monkeypatch.setattr("let_titan.let.targets.takes_pieces", lambda config: False)
    with some_unread():
        line = run(lab.config(LET, **aligned(readers, "uneven")))[3][0]
    assert 0 < line["let/teacher_padding_share"] < 1


def test_a_run_keeps_its_teachers_tokenizer(lab, readers):
    keys = {"checkpoint__enable": True, "checkpoint__interval": 2, "training__steps": 4}
    leave(lab, LET, **keys, teacher__checkpoint=str(readers / "equal"))
    shutil.rmtree(lab.folder / "run" / "checkpoint" / "step-4")
    (mistake,) = told(lab, **keys, **aligned(readers, "equal"))
    assert "teacher's tokenizer was" in mistake and 'set teacher.tokenizer = "same"' in mistake
