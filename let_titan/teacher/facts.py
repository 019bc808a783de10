"""Shapes of some teachers (the paper's, one larger), known without a hub: ``facts.json``."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

FFN_KEYS = {"opt": "ffn_dim", "gpt2": "n_inner"}
"""Where an architecture keeps the width of its feed-forward; elsewhere ``intermediate_size``."""


@dataclass(frozen=True)
class TeacherFacts:
    """A published model as its config.json describes it.

    Attributes:
        vocabulary: rows of the embedding, often padded.
        tokenizer_vocabulary: ids that its tokenizer gives, added tokens included: the student's.
        parameters: of the causal LM, tied weights once.
        parameters_without_embeddings: without token and position embeddings and the LM head.
        source: the config.json that was read: its own, or that of a model trained on from it.
        tokenizer_source: who counted the tokenizer's ids, where they are fewer than the rows.
    """

    name: str
    architecture: str
    width: int
    blocks: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    tokenizer_vocabulary: int
    context: int
    tied: bool
    parameters: int
    parameters_without_embeddings: int
    source: str
    tokenizer_source: str = ""

    def config(self) -> PretrainedConfig:
        """Returns a configuration of the same shape (rotary bases and the like are defaults)."""
        config = AutoConfig.for_model(self.architecture)
        values = {
            "hidden_size": self.width,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            FFN_KEYS.get(self.architecture, "intermediate_size"): self.ffn,
        }
        optional = {
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.width // self.heads,
            "word_embed_proj_dim": self.width,
        }
        values |= {key: value for key, value in optional.items() if hasattr(config, key)}
        for key, value in values.items():
            setattr(config, key, value)
        return config


@functools.cache
def all_facts() -> dict[str, TeacherFacts]:
    """Returns the shipped facts by hub id."""
    entries = json.loads((Path(__file__).with_name("facts.json")).read_text())
    return {name: TeacherFacts(name, **entry) for name, entry in entries.items()}


def facts_of(checkpoint: str) -> TeacherFacts | None:
    """Returns the facts of a hub id, however its letters are cased; None where none are shipped."""
    return {name.lower(): facts for name, facts in all_facts().items()}.get(checkpoint.lower())


def facts_of_folder(folder: str) -> TeacherFacts | None:
    """Returns the facts of the model that a tokenizer folder is named after, as downloads are.

    ``assets/hf/SmolLM-135M`` is HuggingFaceTB/SmolLM-135M's.
    """
    name = Path(folder).name.lower()
    found = (facts for facts in all_facts().values() if facts.name.lower().endswith(f"/{name}"))
    return next(found, None)
