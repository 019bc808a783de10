"""Students and the folders of their runs, as an export reads them; and what comes out of it."""

import json

import torch
import torch.distributed.checkpoint as dcp
from transformers import AutoModelForCausalLM

from let_titan.checkpoint.checksums import ChecksumWriter
from let_titan.export.weights import on_one_process
from let_titan.student import FLAVORS, LetTransformer
from let_titan.tokenizer.build import fingerprint, load_tokenizer
from tests.conftest import VOCAB


def student(flavor, vocab_size=VOCAB, seq_len=64, seed=0):
    args = FLAVORS[flavor]
    args.vocab_size, args.max_seq_len = vocab_size, seq_len
    torch.manual_seed(seed)
    model = LetTransformer(args)
    with torch.no_grad():
        model.init_weights()
    return model


def write_run(run, model, flavor, tokenizer, step=3, **more):
    """A run's folder as far as an export reads it, with one model-only checkpoint."""
    folder = run / "checkpoint" / f"step-{step}"
    writer = ChecksumWriter(str(folder))
    with on_one_process():
        dcp.save({**model.state_dict(), **more}, storage_writer=writer, no_dist=True)
    summary = {
        "config": {
            "model": {"name": "let_llama", "flavor": flavor, "hf_assets_path": str(tokenizer)},
            "training": {"seq_len": model.model_args.max_seq_len, "steps": 3, "dataset": "pile"},
            "optimizer": {"lr": 1e-3},
        },
        "hardware": {},
        "let_plan": None,
        "parameters": {"total": sum(p.numel() for p in model.parameters())},
        "versions": {},
        "tokenizer": {
            "path": str(tokenizer),
            "sha256": fingerprint(load_tokenizer(str(tokenizer))),
        },
    }
    (run / "summary.json").write_text(json.dumps(summary))
    return folder


def same_logits(model, folder, atol=1e-5):
    twin = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, twin.config.vocab_size, (2, model.model_args.max_seq_len))
    with torch.no_grad():
        found, wanted = twin(tokens).logits, model(tokens)
    assert wanted.std() > 0.1  # else anything would be close
    return torch.allclose(found, wanted, rtol=0, atol=atol)


def with_weights(weights):
    model = student("debug")
    model.load_state_dict(weights)
    return model
