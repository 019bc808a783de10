"""RKD and SALT: gradients against float64 autograd on the mixture, in each layout that there is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, OPTConfig

from let_titan.checks import find_mistakes
from let_titan.distill import mixed_gradient
from let_titan.errors import ConfigError
from let_titan.teacher import read_head
from let_titan.train import LetTrainer
from tests.layouts import FSDP, MICRO_2, TP, WHOLE_LOGITS
from tests.support import (
    Lab,
    one_step,
    relative_error,
    run_world,
    use_fixed_batches,
    worst_gradient,
)

SHAPE = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
FULL_AC_COMPILE = {"activation_checkpoint__mode": "full", "compile__enable": True}


def naive(logits, states, head, mask, temperature, reverse):
    """T^2 KL summed over valid tokens, whole tensors at once."""
    ours = torch.log_softmax(logits / temperature, -1)
    theirs = torch.log_softmax(states @ head.T / temperature, -1)
    first, second = (ours, theirs) if reverse else (theirs, ours)
    kl = (first.exp() * (first - second)).sum(-1)
    return temperature**2 * kl[mask].sum()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 30))
def test_chunks_equal_the_naive_form_in_float64(seed, reverse, temperature, chunk):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 11, 13, generator=draw)
    states, above = torch.randn(2, 11, 5, generator=draw), torch.randn(2, 11, 13, generator=draw)
    head, mask = torch.randn(13, 5, generator=draw), torch.rand(2, 11, generator=draw) < 0.7
    found, (value, agreement) = mixed_gradient(
        above,
        torch.tensor(0.3),
        logits,
        states,
        mask,
        head=head,
        nll_share=0.7,
        temperature=temperature,
        reverse=reverse,
        chunk=chunk,
    )
    twin = logits.double().requires_grad_()
    wanted = naive(twin, states.double(), head.double(), mask, temperature, reverse)
    wanted.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
    assert relative_error(found, 0.7 * above.double() + 0.3 * twin.grad) < 1e-5
    assert 0 <= agreement <= mask.sum()


def rkd(lab, *args, **changes):
    teacher = {"teacher__checkpoint": str(lab.assets / "teacher"), "teacher__dtype": "float32"}
    base = {"training__local_batch_size": 8, "training__global_batch_size": 8}
    distill = {"distill__method": "rkd", "distill__weight": 0.4, "distill__temperature": 2.0}
    return lab.config(None, *args, **{**base, **teacher, **distill, **changes})


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_step_equals_autograd_on_the_mixture(direction, lab):
    """The twin is torchtitan's student in float64 with the whole Hugging Face model beside it."""
    found = one_step(rkd(lab, distill__direction=direction))
    config = lab.config(None, training__local_batch_size=8)
    trainer = LetTrainer(config)
    try:
        inputs, labels = next(use_fixed_batches(trainer))
        tokens, mask = inputs["input"], labels != -100
        student = trainer.model_parts[0].double()
        teacher = AutoModelForCausalLM.from_pretrained(lab.assets / "teacher").double()
        logits = student(tokens)
        with torch.no_grad():
            states = teacher.model(tokens).last_hidden_state
        head = teacher.lm_head.weight.detach()
        nll = torch.nn.functional.cross_entropy(logits[mask], labels[mask], reduction="sum")
        kl = naive(logits, states, head, mask, 2.0, direction == "reverse")
        ((0.6 * nll + 0.4 * kl) / mask.sum()).backward()
        wanted = {name: p.grad for name, p in student.named_parameters()}
    finally:
        trainer.close()
    assert worst_gradient(found["gradients"], wanted) < 2e-5
    line = found["line"]
    assert line["loss_metrics/global_avg_loss"] == pytest.approx(
        (nll / mask.sum()).item(), rel=1e-5
    )
    assert line["let/kd_loss"] == pytest.approx((kl / mask.sum()).item(), rel=1e-4)


def in_layouts(assets, folder):
    lab = Lab(assets, folder)
    fsdp = {**FSDP, "training__local_batch_size": 4}
    layouts = {
        "fsdp": {**fsdp, "teacher__placement": "shard"},
        "fsdp, accumulation": {**fsdp, **MICRO_2},
        "fsdp, AC, compile": {**fsdp, **FULL_AC_COMPILE},
        "tp": TP,
        "tp, accumulation, AC": {**TP, **MICRO_2, "activation_checkpoint__mode": "full"},
        "tp, whole logits": {**TP, **WHOLE_LOGITS},
        "tp, reverse": {**TP, "distill__direction": "reverse"},
        "tp, padded vocabulary": {**TP, "model__pad_vocab_to_multiple_of": 7},
    }
    return {name: one_step(rkd(lab, **layout)) for name, layout in layouts.items()}


def test_layouts_equal_one_process(assets, tmp_path):
    found = run_world(2, in_layouts, tmp_path, assets, tmp_path)
    lab = Lab(assets, tmp_path)
    wanted = one_step(rkd(lab))
    found["accumulation"] = one_step(rkd(lab, **MICRO_2))
    forward, reverse = wanted, one_step(rkd(lab, distill__direction="reverse"))
    padded = one_step(rkd(lab, model__pad_vocab_to_multiple_of=7))
    for name, result in found.items():
        wanted = {"tp, reverse": reverse, "tp, padded vocabulary": padded}.get(name, forward)
        assert worst_gradient(result["gradients"], wanted["gradients"]) < 1e-5, name
        for key in ("let/kd_loss", "let/kd_agreement", "loss_metrics/global_avg_loss"):
            assert result["line"][key] == pytest.approx(wanted["line"][key], rel=1e-5), (name, key)


def test_salt_is_plain_after_its_first_stage(lab):
    trainer = LetTrainer(rkd(lab, distill__method="salt", distill__n_kd=2, training__steps=4))
    try:
        trainer.train()
        assert trainer.phase.teacher is None and trainer.phase.alignment.head is None
    finally:
        trainer.close()


def test_what_does_not_go_is_said(lab):
    for let, changes, sentence in (
        ({}, {"distill__method": "rkd"}, "are both on"),
        (None, {"distill__method": "salt", "distill__n_kd": 9}, "distill.n_kd = 9"),
        (None, {"distill__method": "rkd"}, "needs teacher.checkpoint"),
        (None, {"distill__method": "rkd", "distill__weight": 0.0}, "distill.weight = 0.0"),
        (None, {"distill__method": "rkd", "distill__temperature": -1.0}, "distill.temperature"),
        (
            None,
            {"distill__method": "rkd", "parallelism__pipeline_parallel_degree": 2},
            "needs logits of whole sequences",
        ),
    ):
        mistakes = [str(m) for m in find_mistakes(lab.parsed(let, **changes), 2)]
        assert any(sentence in mistake for mistake in mistakes), (sentence, mistakes)


@pytest.mark.parametrize("family", ["opt", "gpt_neox", "gpt2"])
def test_heads_of_other_families_tied_or_not(family, tmp_path):
    config = {
        "opt": OPTConfig(hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, **SHAPE),
        "gpt_neox": GPTNeoXConfig(hidden_size=16, intermediate_size=32, **SHAPE),
        "gpt2": GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40),
    }[family]
    whole = AutoModelForCausalLM.from_config(config)
    whole.save_pretrained(tmp_path)
    found = read_head(tmp_path, AutoModel.from_config(config), 33, torch.float32)
    assert torch.equal(found, whole.get_output_embeddings().weight[:33])
    with pytest.raises(ConfigError, match="no LM head of 41 x 16"):
        read_head(tmp_path, AutoModel.from_config(config), 41, torch.float32)
