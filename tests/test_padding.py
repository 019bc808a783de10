"""A padded vocabulary changes nothing but the rows it adds: gradients, losses, resume, export."""

import zlib
from unittest import mock

import pytest
import torch
from torch.distributed.tensor import DTensor
from torchtitan.models.llama3 import Transformer
from transformers import AutoModelForCausalLM

from let_titan.checks import find_mistakes
from let_titan.export.folder import export
from let_titan.export.source import find_source
from let_titan.preflight.examination import examine
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.table import student_rows
from let_titan.student.model import LetTransformer
from let_titan.train import LetTrainer
from tests.conftest import VOCAB
from tests.layouts import FSDP, PP, TP, WHOLE_LOGITS
from tests.resumed import STEPS, train
from tests.support import Lab, one_step, relative_error, worst_gradient
from tests.test_distill import rkd
from tests.test_layouts import LOGGED, config_of
from tests.world import outside_the_world, run_world

VOCABULARY_SIZED = ("tok_embeddings.weight", "output.weight")


def known_weights(model, buffer_device):
    """The same weights at any padding, whose rows are so large that no leak could be small."""
    Transformer.init_weights(model, buffer_device=buffer_device)
    for name, weight in model.named_parameters():
        if isinstance(weight, DTensor):  # its whole twin comes here, too
            continue
        rows = weight.shape[0]
        if name in VOCABULARY_SIZED:
            rows = model.model_args.vocabulary or rows
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(rows, *weight.shape[1:], generator=generator)
        with torch.no_grad():
            weight.fill_(5.0)
            weight[:rows] = drawn * 0.05 + (weight.ndim == 1)


CASES = {
    "384 rows": {"model__pad_vocab_to_multiple_of": 128},
    # Under TP x2 the second rank's columns are padding alone.
    "1024 rows": {"model__pad_vocab_to_multiple_of": 1024},
}


def let_step(lab, **changes):
    return one_step(config_of(lab, {"k": 2}, {"training__local_batch_size": 8, **changes}))


def distilled_step(lab, **changes):
    return one_step(rkd(lab, **changes))


def padded_and_not(assets, folder, kind, layout):
    """Returns {case: its step} and the unpadded step, in the same layout."""
    lab, step = Lab(assets, folder), {"let": let_step, "rkd": distilled_step}[kind]
    with mock.patch.object(LetTransformer, "_init_by_scheme", known_weights):
        steps = {name: step(lab, **layout, **case) for name, case in CASES.items()}
        return {**steps, "unpadded": step(lab, **layout)}


def check_twins(steps):
    wanted = steps.pop("unpadded")
    for name, found in steps.items():
        rows = int(name.split()[0])
        for weight in VOCABULARY_SIZED:
            whole = found["gradients"][weight]
            assert whole.shape[0] == rows and not whole[VOCAB:].any(), (name, weight)
            found["gradients"][weight] = whole[:VOCAB]
        assert worst_gradient(found["gradients"], wanted["gradients"]) < 1e-6, name
        for key in {*LOGGED, "let/kd_loss", "let/kd_agreement"} & wanted["line"].keys():
            assert found["line"][key] == pytest.approx(wanted["line"][key], rel=1e-6), (name, key)
        assert found["validation"] == pytest.approx(wanted["validation"], rel=1e-6)


@pytest.mark.parametrize("kind", ["let", "rkd"])
def test_a_step_equals_the_unpadded_twins(kind, assets, tmp_path):
    check_twins(padded_and_not(assets, tmp_path, kind, {}))


LAYOUTS = [
    ("let", {**FSDP, "training__local_batch_size": 4}),
    ("rkd", {**FSDP, "training__local_batch_size": 4}),
    ("let", TP),
    ("let", {**TP, **WHOLE_LOGITS}),
    ("let", PP),
]


def in_layouts(assets, folder):
    return [padded_and_not(assets, folder, kind, layout) for kind, layout in LAYOUTS]


def test_layouts_equal_the_unpadded_twins(assets, tmp_path):
    for steps in run_world(2, in_layouts, tmp_path, assets, tmp_path):
        check_twins(steps)


def test_a_padded_run_resumes_and_exports_the_tokenizers_ids(assets, tmp_path):
    padded = CASES["384 rows"]
    whole, part = Lab(assets, tmp_path / "whole"), Lab(assets, tmp_path / "part")
    for lab in (whole, part):
        lab.folder.mkdir()
    wanted = train(whole, **padded)
    train(part, **padded, training__steps=4, lr_scheduler__total_steps=STEPS)
    found = train(part, **padded, lr_scheduler__total_steps=STEPS)
    for name, weight in wanted["weights"].items():
        assert torch.equal(found["weights"][name], weight), name
    export(find_source(whole.folder / "run"), tmp_path / "hf")
    twin = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    assert twin.config.vocab_size == twin.lm_head.weight.shape[0] == VOCAB
    tokens = torch.arange(64).reshape(1, 64) * 5
    trainer = LetTrainer(whole.config(None, **padded))
    try:
        model = trainer.model_parts[0]
        model.load_state_dict(wanted["weights"])
        with torch.no_grad():
            logits = model(tokens)
            assert relative_error(twin(tokens).logits, logits[..., :VOCAB]) < 1e-5
        assert logits.shape[-1] == 384 and (logits[..., VOCAB:] == -torch.inf).all()
    finally:
        trainer.close()
    config = part.config(None, **{**padded, "model__pad_vocab_to_multiple_of": 1})
    config.checkpoint.enable = True
    assert any("pad_vocab_to_multiple_of" in str(mistake) for mistake in find_mistakes(config))


def test_preflight_counts_the_padding(lab):
    def student(multiple):
        config = lab.config(None, model__pad_vocab_to_multiple_of=multiple)
        return examine(config, 4, GPUS["a100"]).price["student"]

    with outside_the_world():
        padded, plain = student(128), student(1)
    assert padded["parameters"] - plain["parameters"] == 2 * 64 * (384 - VOCAB)
    assert dict(student_rows(padded))["vocabulary"] == f"{VOCAB}, padded to 384 rows"
    assert dict(student_rows(plain))["vocabulary"] == str(VOCAB)


def test_what_knows_no_padding_is_refused(lab):
    saved = lab.parsed(None, model__pad_vocab_to_multiple_of=2, checkpoint__enable=True)
    assert find_mistakes(saved) == []
    for key in ("initial_load_in_hf", "last_save_in_hf"):
        changes = {"checkpoint__enable": True, f"checkpoint__{key}": True}
        config = lab.parsed(None, model__pad_vocab_to_multiple_of=2, **changes)
        told = [str(mistake) for mistake in find_mistakes(config)]
        assert any("pad_vocab_to_multiple_of = 2 " in text and key in text for text in told), told
    config = lab.parsed(None, model__pad_vocab_to_multiple_of=0)
    assert any("pad_vocab_to_multiple_of" in str(mistake) for mistake in find_mistakes(config))
