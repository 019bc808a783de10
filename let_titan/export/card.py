"""README.md of an exported model: what it is, how it was trained, how good it was."""

from typing import Any

from let_titan.export.source import Source
from let_titan.runs import read_lines

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [let_titan, llama]
---
# {name}

A Llama language model pretrained with let_titan{how}. It is a base model: it continues text.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

{notes}

| | |
|---|---|
"""

SET_ASIDE = (
    "This checkpoint was set aside when its run started again from an earlier step "
    "(checkpoint.load_step): the settings below are those with which the run went on, and its "
    "validation of this step is of another model."
)


def model_card(source: Source, dtype: str) -> str:
    """Returns the card's text; what the run does not say is left out."""
    how = training_method(source.summary)
    rows = {**training_rows(source, dtype), **let_rows(source.summary), **metric_rows(source)}
    notes = [bos_sentence(source.summary), *([SET_ASIDE] if source.abandoned else [])]
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value is not None)
    return HEAD.format(name=source.run.name, how=how, notes="\n\n".join(notes)) + table


def training_method(summary: dict[str, Any]) -> str:
    """Says by what the model was trained, as the end of a sentence."""
    if summary["let_plan"] is None:
        return ", without a teacher"
    distilled = summary["config"].get("distill", {}).get("method", "none")
    if distilled != "none":
        return f" by distillation through logits ({distilled.upper()})"
    return " by Late-to-Early Training (arXiv 2602.05393)"


def bos_sentence(summary: dict[str, Any]) -> str:
    """Returns what stood around each document in training; evaluations depend on it."""
    special = summary.get("special_tokens", {})
    parts = [
        f"{name} (id {special.get(f'{name}_id'.lower())}) {place}"
        for name, place in (("BOS", "before"), ("EOS", "behind"))
        if special.get(f"add_{name}".lower())
    ]
    put = " and ".join(parts) if parts else "neither BOS nor EOS around"
    return f"In training there was {put} each document; the tokenizer adds only what its own does."


def training_rows(source: Source, dtype: str) -> dict[str, Any]:
    config, summary = source.config, source.summary
    tokens = summary.get("tokens_per_step")
    step = source.step
    seen = f"{tokens * step:,}" if tokens and step is not None else None
    steps = None if step is None else f"{step:,} of {config['training']['steps']:,}"
    return {
        "flavor": config["model"]["flavor"],
        "parameters": f"{summary['parameters']['total']:,}",
        "weights": dtype,
        "context": config["training"]["seq_len"],
        "optimiser steps": steps,
        "training tokens": seen,
        "data": config["training"].get("dataset"),
        "learning rate": None if source.abandoned else config["optimizer"]["lr"],
        "initialisation": config["model"].get("init_scheme"),
        "let_titan": summary["versions"].get("let-titan"),
        "torchtitan": summary["versions"].get("torchtitan"),
        "git commit": summary.get("git_commit"),
    }


def let_rows(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the alignment's settings and the teacher's name; nothing for a baseline."""
    plan = summary["let_plan"]
    if plan is None:
        return {}
    distill = summary["config"].get("distill", {})
    if distill.get("method", "none") != "none":
        return {
            "teacher": f"`{summary['config']['teacher']['checkpoint']}`",
            "KL": f"{distill['direction']}, weight {distill['weight']}, temperature "
            f"{distill['temperature']}, to step {plan['s_stop']:,}",
        }
    pairs = ", ".join(f"{p['layer']} -> {p['block']} ({p['weight']})" for p in plan["pairs"])
    return {
        "teacher": f"`{summary['config']['teacher']['checkpoint']}`",
        "teacher's layer -> block (weight)": pairs,
        "lambda": f"{plan['lambda_0']}, {plan['schedule']} to step {plan['s_stop']:,}",
    }


def metric_rows(source: Source) -> dict[str, Any]:
    """Returns the validation figures of the checkpoint's step, if it was validated."""
    if source.abandoned:
        return {}
    file = source.run / "metrics.jsonl"
    lines = read_lines(file) if file.is_file() else []
    at_step = [x for x in lines if x["step"] == source.step and x.get("val_loss") is not None]
    if not at_step:
        return {}
    names = {
        "val_loss": "validation loss (nats per token)",
        "val_ppl": "validation perplexity",
        "val_bits_per_byte": "validation bits per byte",
    }
    return {text: f"{at_step[-1][key]:.4f}" for key, text in names.items() if key in at_step[-1]}
