"""Every parameter's un-clipped gradient with LET on, one process, against trusted twins."""

import pytest
import torch
import torch.nn.functional as F
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.distributed import ParallelDims
from torchtitan.train import Trainer
from transformers import AutoModel

from let_titan.student import FLAVORS, LetTransformer
from let_titan.train import LetTrainer
from tests.support import (
    FixedBatches,
    Lab,
    cosine,
    one_step,
    relative_error,
    use_fixed_batches,
    worst_gradient,
)
from tests.test_alignment import reference

LET = {"k": 2, "lambda_0": 0.5, "s_stop": 4}


@pytest.fixture(scope="module")
def eager(assets, tmp_path_factory):
    """Step 1 of a LET run in eager fp32, one microbatch of 8 sequences."""
    lab = Lab(assets, tmp_path_factory.mktemp("eager"))
    return one_step(lab.config(LET, training__local_batch_size=8))


def float64_twin(assets, initial, *, k, lambda_0, loss=reference, flavor="debug"):
    """NLL + lambda_0 * L_proj by plain autograd in float64, from the same weights."""
    args = FLAVORS[flavor]
    args.vocab_size, args.max_seq_len = 320, 64
    model = LetTransformer(args)
    model.load_state_dict(initial)
    model.double()
    teacher = AutoModel.from_pretrained(assets / "teacher").eval()
    batches = FixedBatches(320, rows=8, micro=8, rank=0, ranks=1)
    tokens, labels = batches.inputs[0], batches.labels[0]
    mask = labels != IGNORE_INDEX
    with torch.no_grad():
        target = teacher(tokens).last_hidden_state

    hidden = model.tok_embeddings(tokens)
    aligned = None
    for name, block in model.layers.items():
        hidden = block(hidden, model.freqs_cis, None)
        aligned = hidden if int(name) + 1 == k else aligned
    logits = model.output(model.norm(hidden))
    n_valid = mask.sum()
    nll = F.cross_entropy(logits[mask], labels[mask], reduction="sum") / n_valid
    alignment = loss(aligned, target, mask) / n_valid
    (nll + lambda_0 * alignment).backward()
    return model, nll.item(), alignment.item()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_equals_float64_autograd_on_the_sum_of_both_losses(k, assets, lab, eager):
    found = eager if k == 2 else one_step(lab.config({**LET, "k": k}, training__local_batch_size=8))
    model, nll, alignment = float64_twin(assets, found["weights"], k=k, lambda_0=0.5)
    wanted = {name: p.grad for name, p in model.named_parameters()}
    assert worst_gradient(found["gradients"], wanted) < 2e-5
    line = found["line"]
    assert line["loss_metrics/global_avg_loss"] == pytest.approx(nll, rel=1e-6)
    assert line["let/align_loss"] == pytest.approx(alignment, rel=1e-5)
    assert line["let/align_cosine"] == pytest.approx(-alignment, rel=1e-5)
    assert line["let/lambda"] == 0.5
    norm = torch.stack([g.norm() for g in wanted.values()]).norm().item()
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_alignment_reaches_only_what_lies_below_block_k(lab, eager):
    plain = one_step(lab.config(None, training__local_batch_size=8))["gradients"]
    below = ("tok_embeddings", "layers.0", "layers.1")
    for name, gradient in eager["gradients"].items():
        moved = relative_error(gradient, plain[name]) > 1e-3
        assert moved == name.startswith(below), name


def test_pairs_weigh_and_add_up(lab, eager):
    pairs = ["last:2:0.5", "last:2:0.5"]
    found = one_step(lab.config({**LET, "pairs": pairs}, training__local_batch_size=8))
    assert worst_gradient(found["gradients"], eager["gradients"]) < 1e-5
    assert found["line"]["let/align_loss"] == pytest.approx(eager["line"]["let/align_loss"])
    assert found["line"]["let/align_cosine"] == pytest.approx(eager["line"]["let/align_cosine"])


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulation_changes_nothing(micro, lab, eager):
    config = lab.config(LET, training__local_batch_size=micro, training__global_batch_size=8)
    found = one_step(config)
    assert worst_gradient(found["gradients"], eager["gradients"]) < 1e-5
    for key in ("loss_metrics/global_avg_loss", "let/align_loss", "let/align_cosine"):
        assert found["line"][key] == pytest.approx(eager["line"][key], rel=1e-5)


CHECKPOINTING = {
    "none": {"mode": "none"},
    "selective op": {"mode": "selective", "selective_ac_option": "op"},
    "selective 2": {"mode": "selective", "selective_ac_option": "2"},
    "full": {"mode": "full"},
}


def with_checkpointing(lab, name, **changes):
    keys = {f"activation_checkpoint__{key}": value for key, value in CHECKPOINTING[name].items()}
    return lab.config(LET, training__local_batch_size=8, **keys, **changes)


@pytest.mark.parametrize("name", ["selective op", "selective 2", "full"])
def test_activation_checkpointing_changes_nothing(name, lab, eager):
    found = one_step(with_checkpointing(lab, name))
    assert worst_gradient(found["gradients"], eager["gradients"]) < 1e-5
    assert found["line"]["let/align_loss"] == pytest.approx(eager["line"]["let/align_loss"])


@pytest.mark.parametrize("name", ["none", "selective op", "full"])
def test_compile_changes_nothing(name, lab, eager):
    found = one_step(with_checkpointing(lab, name, compile__enable=True))
    assert worst_gradient(found["gradients"], eager["gradients"]) < 1e-5
    assert found["line"]["let/align_loss"] == pytest.approx(eager["line"]["let/align_loss"])


def test_bf16_stays_close(lab, eager):
    changes = {"training__local_batch_size": 8, "training__mixed_precision_param": "bfloat16"}
    found = one_step(lab.config(LET, **changes))
    assert cosine(found["gradients"], eager["gradients"]) > 0.999


def test_float8_keeps_the_alignments_direction(lab, eager):
    """Emulated float8 (tensorwise): the alignment's own gradient against fp32's."""
    args = ["--model.converters", "quantize.linear.float8", "--quantize.linear.float8.emulate"]
    found = alignment_only(lab, args)
    wanted = alignment_only(lab, [])
    assert cosine(found, wanted) >= 0.99
    assert worst_gradient(found, wanted) > 0  # float8 was on


def alignment_only(lab, args, **changes):
    """Step 1's gradients of the alignment alone: the NLL is multiplied by zero."""
    config = lab.config(LET, *args, training__local_batch_size=8, **changes)
    return one_step(config, loss_fn=lambda logits, labels: 0.0 * logits.sum())["gradients"]


def test_fsdp_is_given_the_coefficient_as_a_number(lab, monkeypatch):
    """It casts a forward's floating tensors to the parameters' dtype, lambda among them."""
    trainer = LetTrainer(lab.config(LET))
    monkeypatch.setattr(ParallelDims, "fsdp_enabled", True)
    monkeypatch.setattr(Trainer, "forward_backward_step", lambda *_, **__: torch.zeros(()))
    trainer.step, trainer._microbatch = 1, 0
    trainer.guard.begin(1)
    trainer.phase.begin_step(1)
    trainer.forward_backward_step(
        input_dict={}, labels=torch.zeros(1), global_valid_tokens=torch.tensor(7.0)
    )
    trainer.close()
    assert isinstance(trainer._coefficient, float) and trainer._coefficient == 0.5 / 7


def test_the_host_asks_for_the_tokens_once_a_step(lab, monkeypatch):
    """Without data parallelism their number is on the device: CP and PP alone are such layouts."""
    trainer = LetTrainer(lab.config(LET, training__local_batch_size=2))
    trainer.gradient_accumulation_steps = 4
    monkeypatch.setattr(ParallelDims, "fsdp_enabled", True)
    asked, ask = [], torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda x: asked.append(x) or ask(x))
    valid = []
    for step in (1, 2):
        trainer.step = step
        trainer.train_step(use_fixed_batches(trainer))
        valid.append(trainer.aligned_tokens)
    trainer.close()
    monkeypatch.undo()
    assert [float(x) for x in asked] == valid and valid[0] > 0
