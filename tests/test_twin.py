"""A whole short run, step by step, against a trainer of plain PyTorch and transformers' models.

From text to exported weights, the twin shares no code with let_titan or torchtitan. Its student is
transformers' Llama. Only the initial weights are handed over, by ``let_titan.export.from_hf``.
"""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from let_titan.export.__main__ import main as to_hf
from let_titan.export.from_hf import main as from_hf
from let_titan.train import LetTrainer
from tests.conftest import VOCAB
from tests.support import SEQ_LEN, relative_error

STEPS, STOP, WARMUP, ROWS, MICRO, VALID = 8, 5, 3, 2, 3, 6
LR, BETAS, DECAY, CLIP, FLOOR = 1e-2, (0.8, 0.99), 0.05, 0.7, 0.1
TOKENS = ROWS * MICRO * SEQ_LEN  # a step
PAIRS = [("last", 2, 1.0), ("middle", 3, 0.5)]
LAMBDA_0, WEIGHT, TEMPERATURE = 0.7, 0.3, 2.0

LET = {"lambda_0": LAMBDA_0, "s_stop": STOP, "pairs": [f"{t}:{k}:{w}" for t, k, w in PAIRS]}
SALT = {"method": "salt", "n_kd": STOP, "weight": WEIGHT, "temperature": TEMPERATURE}
BATCH = {"local_batch_size": ROWS, "global_batch_size": ROWS * MICRO}
HELD_OUT = {"enable": True, "dataset": "pile", "local_batch_size": VALID, "seq_len": SEQ_LEN}
SETTINGS = {
    "training": {"steps": STEPS, "max_norm": CLIP, **BATCH},
    "optimizer": {"lr": LR, "beta1": BETAS[0], "beta2": BETAS[1], "weight_decay": DECAY},
    "lr_scheduler": {"warmup_steps": WARMUP, "decay_type": "cosine", "min_lr_factor": FLOOR},
    "checkpoint": {"enable": True},
    "validation": {**HELD_OUT, "steps": 1, "freq": STEPS},
    "teacher": {"dtype": "float32"},
}


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    """A random Llama in the student's shape, as a Hugging Face folder and as a checkpoint."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        rms_norm_eps=1e-5,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp("initial")
    LlamaForCausalLM(config).save_pretrained(folder / "hf")
    assert from_hf([str(folder / "hf"), str(folder / "dcp")]) == 0
    return folder


def packed(assets, name, rows):
    """BOS, text, EOS of each document, end to end, cut into ``rows`` sequences of SEQ_LEN + 1."""
    tokenizer = Tokenizer.from_file(str(assets / "tokenizer" / "tokenizer.json"))
    special, ids = [tokenizer.token_to_id(name) for name in ("<s>", "</s>")], []
    for line in (assets / name).read_text().splitlines():
        text = tokenizer.encode(json.loads(line)["text"], add_special_tokens=False).ids
        ids += [special[0], *text, special[1]]
    sequences = torch.tensor(ids[: rows * (SEQ_LEN + 1)]).view(rows, SEQ_LEN + 1)
    labels = sequences[:, 1:].flatten().tolist()  # a byte-level BPE spells a byte as a character
    return sequences, sum(len(tokenizer.id_to_token(i)) for i in labels if i not in special)


def blocks(model):
    return model.gpt_neox.layers if hasattr(model, "gpt_neox") else model.model.layers


def run(model, tokens):
    """The model's logits and {block, from 1: its output; "last": after the final norm}."""
    states = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, n=n: states.update({n: out}))
        for n, block in enumerate(blocks(model), start=1)
    ]
    out = model(tokens, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    states = {n: x if isinstance(x, torch.Tensor) else x[0] for n, x in states.items()}
    middle = states[round(len(states) / 2)]
    return out.logits, {**states, "last": out.hidden_states[-1], "middle": middle}


def nll(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def alignment(ours, theirs):
    """The weighted negative cosine of PAIRS, summed over tokens."""
    total = 0.0
    for layer, k, weight in PAIRS:
        target = F.interpolate(theirs[layer], ours[k].shape[-1], mode="linear")
        total -= weight * F.cosine_similarity(ours[k], target, dim=-1).sum()
    return total


def divergence(logits, wanted):
    """T^2 KL(teacher || student) at temperature T, summed over tokens."""
    ours, theirs = ((x / TEMPERATURE).log_softmax(-1) for x in (logits, wanted))
    return TEMPERATURE**2 * (theirs.exp() * (theirs - ours)).sum()


def rate(s):
    """Linear warm-up, then a cosine that would end a step after the last."""
    if s <= WARMUP:
        return LR * min(1.0, (s + 1) / WARMUP)
    progress = (s - WARMUP) / (STEPS - WARMUP)
    return LR * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


def matrices(model):
    """Weights of the blocks' matrices, and the blocks' width times their number."""
    weights = sum(p.numel() for p in blocks(model).parameters() if p.ndim == 2)
    return weights, model.config.hidden_size * len(blocks(model))


def twin(assets, initial, teacher, let):
    """Trains without let_titan; returns metrics.jsonl's lines and the weights."""
    student = LlamaForCausalLM.from_pretrained(initial / "hf")
    teacher = AutoModelForCausalLM.from_pretrained(teacher).eval()
    optimizer = torch.optim.AdamW(student.parameters(), LR, BETAS, 1e-8, DECAY)
    batches = packed(assets, "train.jsonl", STEPS * ROWS * MICRO)[0].split(ROWS)
    held_out, n_bytes = packed(assets, "validation.jsonl", VALID)
    n_student = sum(p.numel() for p in student.parameters()) - VOCAB * student.config.hidden_size
    student_flops = 6 * n_student + 12 * SEQ_LEN * matrices(student)[1]
    weights, width = matrices(teacher)
    head = 0 if let else VOCAB * teacher.config.hidden_size
    teacher_flops = 2 * (weights + head) + 4 * SEQ_LEN * width
    lines = []

    def validate(step):
        with torch.no_grad():
            loss = nll(student(held_out[:, :-1]).logits, held_out[:, 1:]).item()
        bits = loss / math.log(2) / n_bytes
        lines.append({"step": step, "val_loss": loss / VALID / SEQ_LEN, "val_bits_per_byte": bits})

    validate(0)
    for s in range(STEPS):
        on = s < STOP
        weight = LAMBDA_0 * max(0.0, (STOP - s) / STOP) if let else WEIGHT * on
        sums = torch.zeros(2)
        for batch in batches[s * MICRO : (s + 1) * MICRO]:
            tokens, labels = batch[:, :-1], batch[:, 1:]
            logits, ours = run(student, tokens)
            loss, taught = nll(logits, labels), torch.zeros(())
            if on:
                with torch.no_grad():
                    wanted, theirs = run(teacher, tokens)
                taught = alignment(ours, theirs) if let else divergence(logits, wanted)
            sums += torch.stack((loss, taught)).detach() / TOKENS
            (((1.0 if let else 1.0 - weight) * loss + weight * taught) / TOKENS).backward()
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.param_groups[0]["lr"] = rate(s)
        optimizer.step()
        optimizer.zero_grad()
        line = {"step": s + 1, "loss": sums[0].item(), "lambda": weight, "grad_norm": norm.item()}
        line |= {"lr": rate(s), "tokens": (s + 1) * TOKENS, "teacher_active": on}
        line |= {"student_flops": (s + 1) * TOKENS * student_flops}
        line |= {"teacher_flops": min(s + 1, STOP) * TOKENS * teacher_flops}
        lines.append({**line, "align_loss" if let else "kd_loss": sums[1].item() if on else None})
        if s + 1 in (STOP, STEPS):
            validate(s + 1)
    return lines, student.state_dict()


@pytest.mark.parametrize("method", ["let", "salt"])
def test_a_run_is_what_plain_pytorch_trains(lab, teachers, initial, method):
    let, teacher = method == "let", teachers / "gpt_neox"
    changes = {f"{a}__{key}": x for a, keys in SETTINGS.items() for key, x in keys.items()}
    changes |= {} if let else {f"distill__{key}": x for key, x in SALT.items()}
    changes["teacher__checkpoint"] = str(teacher)
    changes["checkpoint__initial_load_path"] = str(initial / "dcp")
    changes["validation__dataset_path"] = str(lab.assets / "validation.jsonl")
    trainer = LetTrainer(lab.config(LET if let else None, **changes))
    try:
        trainer.train()
        trainer.run_folder.end("completed")
    finally:
        trainer.close()
    found = (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()
    lines, weights = twin(lab.assets, initial, teacher, let)
    for line, wanted in zip(map(json.loads, found), lines, strict=True):
        for key, value in wanted.items():
            value = value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)
            assert line.get(key) == value, (line["step"], key)
    assert lines[1]["grad_norm"] > CLIP
    assert to_hf([str(lab.folder / "run"), str(lab.folder / "hf")]) == 0
    exported = LlamaForCausalLM.from_pretrained(lab.folder / "hf").state_dict()
    assert exported.keys() == weights.keys()
    for name, value in weights.items():
        assert relative_error(exported[name], value) < 1e-4, name
