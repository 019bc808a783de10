"""What is trained while it is timed: a student, a teacher, and text, all made here.

Times do not depend on what a teacher knows or a text says, so the teacher is drawn at random in a
published model's shape and the text is random words: no hub, and the same files everywhere.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "train_configs"


@dataclass(frozen=True)
class Shape:
    """A teacher of Llama's architecture with tied embeddings."""

    width: int
    blocks: int
    heads: int
    kv_heads: int
    ffn: int


SMOLLM_135M = Shape(width=576, blocks=30, heads=9, kv_heads=3, ffn=1536)


@dataclass(frozen=True)
class Setting:
    """A student's config, its teacher's shape, and what a single device needs changed.

    Attributes:
        config: a LET config; arms switch LET off or put distillation in its place.
        keys: {"section.key": value} on top of it.
        vocabulary: ids of tokenizer, student and teacher.
        warmup: steps left out at the start of either half of a run.
    """

    config: Path
    teacher: Shape
    vocabulary: int
    keys: Mapping[str, str]
    warmup: int = 3


ONE_GPU = {
    "training.global_batch_size": "-1",  # local_batch_size sequences, no accumulation
    "lr_scheduler.warmup_steps": "2",
    "metrics.enable_tensorboard": "false",
    "metrics.enable_wandb": "false",
}

SETTINGS = {
    # The teacher's forward is to a step of its student as SmolLM-135M's is to the 1.4B student's.
    "cpu": Setting(HERE / "cpu.toml", Shape(192, 4, 3, 1, 512), 4096, {}),
    "1.4B": Setting(
        CONFIGS / "let_1_4b.toml",
        SMOLLM_135M,
        49_152,
        {**ONE_GPU, "training.local_batch_size": "8"},
    ),
    "1.4B_float8": Setting(
        CONFIGS / "let_1_4b_float8.toml",
        SMOLLM_135M,
        49_152,
        {**ONE_GPU, "training.local_batch_size": "8"},
    ),
    "350M": Setting(
        CONFIGS / "let_1_4b.toml",
        SMOLLM_135M,
        49_152,
        {**ONE_GPU, "training.local_batch_size": "16", "model.flavor": "350M"},
    ),
    "tiny": Setting(
        HERE / "cpu.toml",
        Shape(32, 2, 2, 1, 64),
        512,
        {"model.flavor": "debug", "training.seq_len": "64", "training.local_batch_size": "2"},
        warmup=1,
    ),
}


def make(setting: Setting, folder: Path) -> dict[str, str]:
    """Writes tokenizer, text and teacher to ``folder`` unless they are there.

    Returns:
        The config keys that name them.
    """
    tokenizer, text, teacher = folder / "tokenizer", folder / "text.jsonl", folder / "teacher"
    found = folder / "setting.json"
    wanted = json.dumps([asdict(setting.teacher), setting.vocabulary])
    if not found.exists() or found.read_text() != wanted:
        make_tokenizer(setting.vocabulary, tokenizer)
        make_text(setting.vocabulary, text)
        make_teacher(setting.teacher, setting.vocabulary, teacher)
        found.write_text(wanted)
    return {
        "model.hf_assets_path": str(tokenizer),
        "training.dataset_path": str(text),
        "teacher.checkpoint": str(teacher),
    }


def words(vocabulary: int) -> list[str]:
    """Returns one word for each id but the two special ones."""
    return [f"w{number}" for number in range(vocabulary - 2)]


def make_tokenizer(vocabulary: int, folder: Path) -> None:
    """Writes a tokenizer whose tokens are words between spaces."""
    ids = {word: number for number, word in enumerate(["<s>", "</s>", *words(vocabulary)])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names) + "\n")


def make_text(vocabulary: int, path: Path, documents: int = 500, length: int = 1000) -> None:
    """Writes ``documents`` of ``length`` random words each; runs read them again and again."""
    draw, choice = random.Random(0), words(vocabulary)
    with path.open("w") as file:
        for _ in range(documents):
            line = {"text": " ".join(draw.choices(choice, k=length)), "meta": {}}
            file.write(json.dumps(line) + "\n")


def make_teacher(shape: Shape, vocabulary: int, folder: Path) -> None:
    """Writes a Hugging Face folder with random weights in bfloat16."""
    config = LlamaConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
