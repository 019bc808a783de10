"""Preflight: FLOPs are those that torch counts, facts those that transformers builds."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchtitan.models.attention import ScaledDotProductAttentionWrapper
from transformers import AutoModelForCausalLM, Qwen3Config

from let_titan.preflight.cost import Cost, busy_share
from let_titan.preflight.findings import vocabulary_of
from let_titan.preflight.student import build_student
from let_titan.preflight.teacher import PricedTeacher
from let_titan.preflight.world import fake_world
from let_titan.teacher.description import describe, flops_per_token
from let_titan.teacher.facts import all_facts
from let_titan.teacher.load import build_without_weights, materialise
from tests.support import SEQ_LEN

pytestmark = pytest.mark.usefixtures("no_world")

READ_FROM_ITS_HEIRS = {"meta-llama/Llama-3.1-8B": "NbAiLab/nb-llama-3.1-8B"}


def counted_flops(run) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def test_student_flops_are_those_that_torch_counts(lab, monkeypatch):
    """Attention by plain products: the fused kernels' backward counts its recomputation, too."""
    monkeypatch.setattr(ScaledDotProductAttentionWrapper, "sdpa_backends", [SDPBackend.MATH])
    config = lab.config(None, model__flavor="demo")
    with fake_world(config, 1) as dims:
        student = build_student(config, vocabulary_of(config), dims)
    tokens = torch.zeros(2, SEQ_LEN, dtype=torch.int64, device="meta")
    found = counted_flops(lambda: student.model(tokens).sum().backward())
    assert student.flops_per_token * tokens.numel() == pytest.approx(found, rel=0.01)


WIDE_HEADS = Qwen3Config(
    vocab_size=50,
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,  # and not 64 / 4
)


@pytest.mark.parametrize(
    "config",
    [*(facts.config() for facts in all_facts().values()), WIDE_HEADS],
    ids=[*all_facts(), "wide heads"],
)
def test_teacher_flops_are_those_that_torch_counts(config):
    config.num_hidden_layers = 2
    model = build_without_weights(config, torch.float32, False)
    materialise(model, torch.device("cpu"))
    tokens = torch.zeros(1, SEQ_LEN, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        found = counted_flops(lambda: model(input_ids=tokens, use_cache=False))
    assert flops_per_token(model, SEQ_LEN) * SEQ_LEN == pytest.approx(found, rel=0.01)


def test_a_head_costs_a_product_for_each_token_that_is_read(lab):
    model = build_without_weights(WIDE_HEADS, torch.bfloat16, False)
    body = describe(model, "body", ["last"], torch.bfloat16, SEQ_LEN)
    d_t, config = body.width, lab.parsed(None, distill__select_of=2, teacher__dtype="bfloat16")
    found = PricedTeacher(body, "here", bytes_per_gpu=5).with_head(config, vocabulary=7)
    assert found.description.flops_per_token == 3 * (body.flops_per_token + 2 * 7 * d_t)
    assert found.description.bytes == body.bytes + 2 * 7 * d_t
    assert found.as_dict()["bytes_per_gpu"] == 5 + 2 * 7 * d_t


@pytest.mark.parametrize("facts", all_facts().values(), ids=lambda facts: facts.name)
def test_facts_are_those_of_the_architecture_that_transformers_builds(facts):
    config = facts.config()
    assert (config.hidden_size, config.num_hidden_layers) == (facts.width, facts.blocks)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embeddings = {
        id(weight)
        for module in (model.get_output_embeddings(), *model.modules())
        if isinstance(module, torch.nn.Embedding) or module is model.get_output_embeddings()
        for weight in module.parameters()
    }
    rest = [p.numel() for p in model.parameters() if id(p) not in embeddings]
    assert sum(p.numel() for p in model.parameters()) == facts.parameters
    assert sum(rest) == facts.parameters_without_embeddings
    read = READ_FROM_ITS_HEIRS.get(facts.name, facts.name)
    assert facts.source == f"https://huggingface.co/{read}/blob/main/config.json"
    assert facts.tokenizer_vocabulary <= facts.vocabulary
    fewer = facts.tokenizer_vocabulary < facts.vocabulary
    assert facts.tokenizer_source.startswith("https://github.com/") == fewer


def test_the_price_is_the_sum_over_the_steps():
    cost = Cost(
        student_flops=600,
        teacher_flops=30,
        tokens=1000,
        let_share=0.2,
        flops_per_s=50.0,
        n_gpus=4,
    )
    seconds = 200 / cost.tokens_per_s_in_let_phase + 800 / cost.tokens_per_s_after
    assert cost.gpu_hours == pytest.approx(4 * seconds / 3600)
    assert cost.overhead_in_let_phase == pytest.approx(0.05)
    slower = replace(cost, teacher_times=8, busy=0.5)
    assert slower.overhead_in_let_phase == pytest.approx(8 * 0.05 * 0.5)
    assert slower.tokens_per_s_after == pytest.approx(cost.tokens_per_s_after / 2)
    assert slower.flops == cost.flops == pytest.approx(200 * (600 + 30) + 800 * 600)
    assert busy_share(4, 1, 4) == 4 / 7 and busy_share(4, 2, 4) == 8 / 11
    baseline = replace(cost, teacher_flops=0)
    assert cost.gpu_hours / baseline.gpu_hours - 1 == pytest.approx(cost.overhead_over_run)
