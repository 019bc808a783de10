"""RKD and SALT: gradients against float64 autograd on the mixture, in each layout that there is."""

import pytest
import torch
from distill_memory import ARMS, measure, report
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from let_titan.checks import check_config, find_mistakes
from let_titan.distill import Distillation
from let_titan.run.summary import surroundings
from let_titan.train import LetTrainer
from tests.context_parallel import checked, stand_in
from tests.layouts import CP, DDP, FSDP, MICRO_2, TP, WHOLE_LOGITS
from tests.support import Lab, one_step, relative_error, use_fixed_batches, worst_gradient
from tests.world import run_world

FULL_AC_COMPILE = {"activation_checkpoint__mode": "full", "compile__enable": True}


def naive(logits, states, head, mask, temperature, reverse):
    """T^2 KL summed over valid tokens, whole tensors at once."""
    ours = torch.log_softmax(logits / temperature, -1)
    theirs = torch.log_softmax(states @ head.T / temperature, -1)
    first, second = (ours, theirs) if reverse else (theirs, ours)
    kl = (first.exp() * (first - second)).sum(-1)
    return temperature**2 * kl[mask].sum()


VOCAB, WIDTH, TEACHER_WIDTH = 13, 7, 5


def drawn(seed, rows=2, length=11, padding=0):
    """Random states, head with rows of padding, teacher's states and head, labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, VOCAB, (rows, length), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = -100
    return (
        torch.randn(rows, length, WIDTH, generator=draw),
        torch.randn(VOCAB + padding, WIDTH, generator=draw),
        torch.randn(rows, length, TEACHER_WIDTH, generator=draw),
        torch.randn(VOCAB, TEACHER_WIDTH, generator=draw),
        labels,
    )


def distilled(hidden, weight, teacher, head, labels, **keys):
    """Returns loss, gradients of states and weight, and the sums of the log."""
    distillation = Distillation(**keys)
    distillation.head = head
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    loss = distillation.loss(hidden, weight, teacher=teacher, labels=labels)
    (loss / 3).backward()
    return loss, hidden.grad, weight.grad, distillation.meter.sums(hidden.device)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.integers(1, 30),
    st.sampled_from([0, 3]),
)
def test_chunks_equal_the_naive_form_in_float64(seed, reverse, temperature, chunk, padding):
    hidden, weight, teacher, head, labels = drawn(seed, padding=padding)
    loss, of_hidden, of_weight, (kl, agreement) = distilled(
        hidden,
        weight,
        teacher,
        head,
        labels,
        weight_of_kl=0.3,
        temperature=temperature,
        reverse=reverse,
        chunk=chunk,
    )
    states, matrix = (x.detach().double().requires_grad_() for x in (hidden, weight))
    logits, mask = states @ matrix[:VOCAB].T, labels != -100
    nll = torch.nn.functional.cross_entropy(logits[mask], labels[mask], reduction="sum")
    wanted = naive(logits, teacher.double(), head.double(), mask, temperature, reverse)
    ((0.7 * nll + 0.3 * wanted) / 3).backward()
    assert loss.item() == pytest.approx(nll.item(), rel=1e-5)
    assert kl.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
    firsts = (logits.argmax(-1) == (teacher @ head.T).argmax(-1))[mask]
    assert agreement == firsts.sum()
    assert relative_error(of_hidden, states.grad) < 1e-5
    assert relative_error(of_weight, matrix.grad) < 1e-5
    assert not of_weight[VOCAB:].any()


class Sizes(TorchDispatchMode):
    """Notes the size of all that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.seen += [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        return result


def test_no_tensor_is_as_large_as_the_logits_and_backward_multiplies_nothing():
    """Of all 8 x 32 tokens there are states and gradients; of logits, a chunk of 16 tokens'."""
    with Sizes() as sizes:
        distilled(*drawn(0, 8, 32), weight_of_kl=0.5, temperature=2.0, reverse=False, chunk=16)
    assert max(sizes.seen) == 8 * 32 * WIDTH > 16 * VOCAB
    assert 16 * VOCAB in sizes.seen and 8 * 32 * VOCAB not in sizes.seen


def test_the_benchmarks_arms_are_one_loss():
    """recipes/distill_memory.py compares memory of what has equal gradients."""
    (_, naive), (_, chunked) = (measure(arm, (24, 32, 6, 5)) for arm in ("naive", "chunked"))
    assert relative_error(chunked, naive) < 1e-6
    sizes = [
        {"tokens": n, "logits_bytes": 10**9, "peak_bytes": dict.fromkeys(ARMS, n * 10**9)}
        for n in (2, 3)
    ]
    found = {"vocabulary": 32, "width": 6, "teacher_width": 5, "machine": surroundings()}
    text = report({**found, "sizes": [{**size, "gradient_error": 0.5} for size in sizes]})
    assert "| chunked | 2.00 GB, 2.00 | 3.00 GB, 3.00 |" in text


def test_a_masked_row_may_hold_anything():
    hidden, weight, teacher, head, labels = drawn(3)
    keys = {"weight_of_kl": 0.5, "temperature": 1.0, "reverse": True}
    wanted = distilled(hidden.clone(), weight.clone(), teacher, head, labels, **keys)
    hidden[labels == -100] = torch.nan
    found = distilled(hidden, weight, teacher, head, labels, **keys)
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[3], wanted[3])


def rkd_parsed(lab, *args, **changes):
    teacher = {"teacher__checkpoint": str(lab.assets / "teacher"), "teacher__dtype": "float32"}
    base = {"training__local_batch_size": 8, "training__global_batch_size": 8}
    distill = {"distill__method": "rkd", "distill__weight": 0.4, "distill__temperature": 2.0}
    return lab.parsed(None, *args, **{**base, **teacher, **distill, **changes})


def rkd(lab, *args, **changes):
    config = rkd_parsed(lab, *args, **changes)
    check_config(config)
    return config


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
        "ddp": {**DDP, "training__local_batch_size": 4},
        "tp": TP,
        "tp, accumulation, AC": {**TP, **MICRO_2, "activation_checkpoint__mode": "full"},
        "tp, whole logits": {**TP, **WHOLE_LOGITS},
        "tp, reverse": {**TP, "distill__direction": "reverse"},
        "tp, padded vocabulary": {**TP, "model__pad_vocab_to_multiple_of": 7},
        # The second rank's columns are padding alone.
        "tp, half of it padding": {**TP, "model__pad_vocab_to_multiple_of": 640},
    }
    found = {name: one_step(rkd(lab, **layout)) for name, layout in layouts.items()}
    with stand_in():
        for name, keys in {"cp": CP, "cp, accumulation": {**CP, **MICRO_2}}.items():
            found[name] = one_step(checked(rkd_parsed(lab, **keys)))
    return found


def test_layouts_equal_one_process(assets, tmp_path):
    found = run_world(2, in_layouts, tmp_path, assets, tmp_path)
    lab = Lab(assets, tmp_path)
    wanted = one_step(rkd(lab))
    found["accumulation"] = one_step(rkd(lab, **MICRO_2))
    forward, reverse = wanted, one_step(rkd(lab, distill__direction="reverse"))
    others = {
        "tp, reverse": reverse,
        "tp, padded vocabulary": one_step(rkd(lab, model__pad_vocab_to_multiple_of=7)),
        "tp, half of it padding": one_step(rkd(lab, model__pad_vocab_to_multiple_of=640)),
    }
    for name, result in found.items():
        wanted = others.get(name, forward)
        assert worst_gradient(result["gradients"], wanted["gradients"]) < 1e-5, name
        for key in ("let/kd_loss", "let/kd_agreement", "loss_metrics/global_avg_loss"):
            assert result["line"][key] == pytest.approx(wanted["line"][key], rel=1e-5), (name, key)


def test_salt_is_plain_after_its_first_stage(lab):
    trainer = LetTrainer(rkd(lab, distill__method="salt", distill__n_kd=2, training__steps=4))
    try:
        trainer.train()
        slot = trainer.phase.slot
        assert slot.teacher is slot.head is trainer.phase.distillation.head is None
    finally:
        trainer.close()


def test_what_does_not_go_is_said(lab):
    for let, changes, sentence in (
        ({}, {"distill__method": "rkd"}, "are both on"),
        (None, {"distill__method": "salt", "distill__n_kd": 9}, "distill.n_kd = 9"),
        (None, {"distill__method": "rkd"}, "needs teacher.checkpoint"),
        (None, {"distill__method": "rkd", "distill__weight": 0.0}, "distill.weight = 0.0"),
        (None, {"distill__method": "rkd", "distill__weight": 1.5}, "distill.weight = 1.5"),
        (None, {"distill__method": "rkd", "distill__temperature": -1.0}, "distill.temperature"),
        (
            None,
            {"distill__method": "rkd", "parallelism__pipeline_parallel_degree": 2},
            "a pipeline takes logits",
        ),
        (
            None,
            {"distill__method": "rkd", "model__converters": ["quantize.linear.float8"]},
            'Add "output" to quantize.linear.float8.filter_fqns',
        ),
    ):
        mistakes = [str(m) for m in find_mistakes(lab.parsed(let, **changes), 2)]
        assert any(sentence in mistake for mistake in mistakes), (sentence, mistakes)
    float8 = "quantize.linear.float8"
    apart = [f"--model.converters={float8}", f"--{float8}.filter_fqns=output"]
    assert find_mistakes(rkd_parsed(lab, *apart), elsewhere=True) == []
