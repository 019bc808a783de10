"""Documents packed into a sequence, kept apart: as if each had been read alone.

Flex attention has no backward on a CPU. Its stand-in here is SDPA under the same mask, so that all
but the kernel is what runs on a GPU.
"""

import copy
from itertools import islice
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchtitan.models.llama3.model.model as titan_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention.flex_attention import create_mask
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.models.llama3 import Transformer
from transformers import AutoModel, AutoModelForCausalLM

from let_titan.checks import find_mistakes
from let_titan.data.corpus import Corpus
from let_titan.data.files import data_files
from let_titan.data.lanes import Lane
from let_titan.data.lines import read_lines
from let_titan.data.policy import Policy
from let_titan.document_mask import dense_mask
from let_titan.run.record import VALIDATION_KEY
from let_titan.student import FLAVORS
from let_titan.teacher import load_teacher
from let_titan.train import LetTrainer
from tests.conftest import VOCAB
from tests.numbered import encode, loader, write_corpus
from tests.support import Lab, gradients, logged, relative_error, weights, worst_gradient
from tests.teachers import CONFIGS, WINDOWED
from tests.test_alignment import reference
from tests.world import run_world

LET = {"k": 2, "lambda_0": 0.5, "s_stop": 4}
KEPT_APART = {"data__document_attention": True, "training__seq_len": 96}


class MaskedAttention(nn.Module):
    """SDPA under a BlockMask written out, in the place of torchtitan's compiled flex attention."""

    def forward(self, q, k, v, *, block_mask, enable_gqa=False):
        size = (q.shape[0], 1, q.shape[2], k.shape[2])
        seen = create_mask(block_mask.mask_mod, *size, device=q.device.type)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=enable_gqa)


@pytest.fixture(autouse=True)
def on_a_cpu():
    with stand_in():
        yield


def stand_in():
    return mock.patch.object(titan_llama, "FlexAttentionWrapper", MaskedAttention)


def spans(positions):
    """Yields (row, slice) of every document."""
    for row, line in enumerate(positions.tolist()):
        begins = [i for i, position in enumerate(line) if position == 0]
        for begin, end in zip(begins, [*begins[1:], len(line)], strict=True):
            assert line[begin:end] == list(range(end - begin))
            yield row, slice(begin, end)


def packed(lengths, seq_len):
    """Positions [1, seq_len] of documents of these lengths."""
    return torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])[None, :seq_len])


@given(st.lists(st.integers(1, 9), min_size=12, max_size=20), st.integers(2, 12))
@settings(max_examples=50, deadline=None)
def test_the_mask_is_causal_within_each_document(lengths, seq_len):
    positions = packed(lengths, seq_len)
    wanted = torch.zeros(seq_len, seq_len, dtype=torch.bool)
    for _, span in spans(positions):
        wanted[span, span] = torch.ones_like(wanted[span, span]).tril()
    assert dense_mask(positions)[0, 0].equal(wanted)


@pytest.mark.parametrize("length", [8, 33])
def test_positions_are_those_of_the_documents(length, tmp_path):
    """Documents longer than a sequence go on from 0 in the next; no BOS or EOS is read."""
    write_corpus(tmp_path / "c", n_files=2)
    corpus = Corpus(data_files(f"{tmp_path}/c/*.jsonl"), read_lines, encode, Policy())
    lane = Lane(corpus, 0, 1, length)
    for _ in range(100):
        ids, positions, _ = lane.next()
        wanted, last = [], None
        for i, number in enumerate(ids.tolist()):
            wanted.append(0 if number != last else wanted[i - 1] + 1)
            last = number
        assert positions.tolist() == wanted


@pytest.mark.parametrize("name", [*CONFIGS, *WINDOWED])
def test_the_teacher_reads_each_document_alone(name, tmp_path):
    """Through windows that are shorter than a document where it has them."""
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config((CONFIGS | WINDOWED)[name]).save_pretrained(tmp_path)
    options = {"dtype": torch.float32, "device": torch.device("cpu"), "seq_len": 24}
    teacher = load_teacher(tmp_path, ["last", 2], **options)
    tokens = torch.randint(0, VOCAB, (2, 24))
    positions = torch.cat([packed([7, 1, 1, 15], 24), packed([24], 24)])
    found = teacher(tokens, positions)
    for row, span in spans(positions):
        for states, alone in zip(found, teacher(tokens[row : row + 1, span]), strict=True):
            assert relative_error(states[row : row + 1, span], alone) < 1e-5
    apart = relative_error(found[0], teacher(tokens)[0])
    assert apart > 1e-2  # and what stands before a document would have shown


def one_by_one(assets, initial, batches):
    """NLL + lambda_0 * L_proj, each document through torchtitan's and transformers' own models.

    Returns:
        un-clipped gradients, NLL and alignment loss per token.
    """
    args = FLAVORS["debug"]
    args.vocab_size, args.max_seq_len = VOCAB, 96
    model = Transformer(args)
    model.load_state_dict(initial, strict=False)
    teacher = AutoModel.from_pretrained(assets / "teacher").eval()
    n_valid = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in batches)
    nll = alignment = torch.zeros(())
    for inputs, labels in batches:
        for row, span in spans(inputs["positions"]):
            tokens, wanted = inputs["input"][row : row + 1, span], labels[row : row + 1, span]
            with torch.no_grad():
                target = teacher(tokens).last_hidden_state
            hidden = model.tok_embeddings(tokens)
            for name, block in model.layers.items():
                hidden = block(hidden, model.freqs_cis, None)
                if int(name) + 1 == LET["k"]:
                    aligned = reference(hidden, target, wanted != IGNORE_INDEX)
                    alignment = alignment + aligned / n_valid
            logits = model.output(model.norm(hidden)).flatten(0, 1)
            loss = F.cross_entropy(logits, wanted.flatten(), reduction="sum")
            nll = nll + loss / n_valid
    (nll + LET["lambda_0"] * alignment).backward()
    return gradients(model), nll.item(), alignment.item()


def global_batch(trainer, n):
    """The loader's first ``n`` batches, once to look at and once to train on."""
    batches = [copy.deepcopy(batch) for _, batch in zip(range(n), trainer.dataloader, strict=False)]
    return batches, trainer.batch_generator(copy.deepcopy(batches))


def step_of(config):
    """Step 1 of a run over its own loader: batches, weights before, gradients, figures."""
    trainer = LetTrainer(config)
    try:
        initial = weights(trainer.model_parts[0])
        batches, iterator = global_batch(trainer, trainer.gradient_accumulation_steps)
        losses = []
        step = trainer.forward_backward_step
        with mock.patch.object(
            trainer, "forward_backward_step", lambda **kw: losses.append(step(**kw)) or losses[-1]
        ):
            trainer.step = 1
            trainer.train_step(iterator)
        nll = torch.stack(losses).sum().item()
        return (
            batches,
            initial,
            gradients(trainer.model_parts[0]),
            nll,
            tuple(trainer.phase.figures(trainer.aligned_tokens).values()),
        )
    finally:
        trainer.close()


@pytest.mark.parametrize("ac", ["none", "full"])
def test_gradients_are_those_of_the_documents_one_by_one(ac, lab, assets):
    """LET and the NLL, accumulated over two microbatches, documents cut by rows among them."""
    config = lab.parsed(
        LET,
        **KEPT_APART,
        training__local_batch_size=2,
        training__global_batch_size=4,
        activation_checkpoint__mode=ac,
    )
    batches, initial, found, nll, (alignment, cosine) = step_of(config)
    assert sum(1 for inputs, _ in batches for _ in spans(inputs["positions"])) > 4 * 2
    wanted, wanted_nll, wanted_alignment = one_by_one(assets, initial, batches)
    assert worst_gradient(found, wanted) < 2e-5
    assert nll == pytest.approx(wanted_nll, rel=1e-5)
    assert alignment == pytest.approx(wanted_alignment, rel=1e-5)
    assert cosine == pytest.approx(-wanted_alignment, rel=1e-5)


def test_off_gives_the_model_what_it_always_got(lab):
    """No positions, no mask, and torchtitan's SDPA."""
    trainer = LetTrainer(lab.config(None))
    inputs, labels = next(iter(trainer.dataloader))
    assert inputs.keys() == {"input"}
    assert trainer.model_args.attn_type == "sdpa"
    assert trainer.post_dataloading_process(inputs, labels)[2:] == ({}, {})
    trainer.close()


def sharded_step(assets, folder):
    """Step 1 and its validation on however many ranks there are."""
    with stand_in():
        config = Lab(assets, folder).parsed(
            LET,
            **KEPT_APART,
            data__lanes=2,
            training__local_batch_size=2,
            training__global_batch_size=4,
            validation__enable=True,
            validation__dataset="pile",
            validation__dataset_path=str(assets / "validation.jsonl"),
            validation__seq_len=96,
            validation__local_batch_size=4,
            validation__steps=1,
        )
        return (*step_of(config)[1:], validation_loss(config))


def validation_loss(config):
    trainer = LetTrainer(config)
    with logged(trainer) as lines:
        trainer.validator.validate(trainer.model_parts, 0)
    trainer.close()
    return next(line[VALIDATION_KEY] for line in lines if VALIDATION_KEY in line)


def test_fsdp2_validation_and_accumulation_equal_one_process(assets, tmp_path):
    wanted = sharded_step(assets, tmp_path)
    found = run_world(2, sharded_step, tmp_path, assets, tmp_path)
    assert worst_gradient(found[1], wanted[1]) < 1e-5
    assert found[3] == pytest.approx(wanted[3], rel=1e-5)
    assert found[4] == pytest.approx(wanted[4], rel=1e-6)


def test_the_same_set_is_validated_in_batches_of_trainings_size(lab):
    """The blocks are compiled by the validation at step 0 first, and only once for one shape."""
    keys = {
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__seq_len": 96,
        "validation__local_batch_size": 4,
        "validation__steps": 1,
        "training__local_batch_size": 2,
    }
    found = {}
    for name, apart in {"apart": KEPT_APART, "plain": {"training__seq_len": 96}}.items():
        trainer = LetTrainer(lab.parsed(None, **keys, **apart))
        found[name] = [labels for _, labels in trainer.validator._batches]
        trainer.close()
    assert [len(labels) for labels in found["apart"]] == [2, 2]
    assert [len(labels) for labels in found["plain"]] == [4]
    assert torch.cat(found["apart"]).equal(torch.cat(found["plain"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_gives_the_same_positions(workers, tmp_path):
    write_corpus(tmp_path / "c")
    options = {"lanes": 2, "batch": 2, "positions": True}
    wanted = list(islice(loader(tmp_path / "c", 0, 1, **options), 9))
    first = loader(tmp_path / "c", 0, 1, workers=workers, **options)
    found = list(islice(first, 4))
    second = loader(tmp_path / "c", 0, 1, workers=workers, **options)
    second.load_state_dict(first.state_dict())
    found += islice(second, 5)
    for (got, _), (expected, _) in zip(found, wanted, strict=True):
        assert got["input"].equal(expected["input"])
        assert got["positions"].equal(expected["positions"])


def test_what_cannot_be_kept_apart_is_refused_by_name(lab):
    def told(let=None, **changes):
        return [
            str(e) for e in find_mistakes(lab.parsed(let, data__document_attention=True, **changes))
        ]

    assert "needs a GPU, since flex attention has no backward pass on a CPU" in told()[0]
    assert len(told()) == 1
    assert any("needs training.dataset = 'pile'" in e for e in told(training__dataset="c4_test"))
    validated = told(validation__enable=True, validation__dataset="c4_test")
    assert any("needs validation.dataset = 'pile'" in e for e in validated)
    for key in ("tensor", "pipeline", "context"):
        changes = {f"parallelism__{key}_parallel_degree": 2}
        assert any(f"parallelism.{key}_parallel_degree = 2: set" in e for e in told(**changes))
    remote = told(LET, teacher__trust_remote_code=True)
    assert any("cannot be used with teacher.trust_remote_code" in e for e in remote)
