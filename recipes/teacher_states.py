"""How much of a teacher's states is one coordinate, or one direction that every token shares?

    python recipes/teacher_states.py [TEACHER] [--text GLOB] [--rows 128] [--seq-len 256]

By default the demo's SmolLM2-135M on the Jargon File. Where a share is large, so is the part of a
raw cosine that is had without knowing the token: by the best constant vector, and by the largest
coordinate alone. Writes recipes/results/teacher_states/: results.json, report.md.
"""

import argparse
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from lab.corpus import documents
from result_files import write
from tokenizers import Tokenizer

from let_titan.run.summary import surroundings
from let_titan.teacher import load_teacher

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "recipes" / "results" / "teacher_states"
TEACHER = ROOT / "assets" / "teachers" / "smollm2-135m"
TEXT = "assets/jargon/train.jsonl.zst"


def read_rows(text: str, tokenizer: Path, rows: int, seq_len: int) -> torch.Tensor:
    """Returns the first [rows, seq_len] ids of a corpus, its documents end to end."""
    encoder = Tokenizer.from_file(str(tokenizer))
    ids = (encoder.encode(str(document["text"])).ids for document in documents(text))
    first = list(islice(chain.from_iterable(ids), rows * seq_len))
    if len(first) < rows * seq_len:
        raise SystemExit(f"{text} has {len(first):,} tokens, fewer than {rows} x {seq_len}.")
    return torch.tensor(first).view(rows, seq_len)


def shares(states: torch.Tensor) -> dict[str, Any]:
    """Measures states [N, d] in float64."""
    states = states.double()
    energy = states.square().mean(0)
    mean = states.mean(0)
    units = torch.nn.functional.normalize(states, dim=-1)
    largest = int(energy.argmax())
    return {
        "tokens": len(states),
        "width": states.shape[1],
        "largest_coordinate": largest,
        "energy_of_largest_coordinate": float(energy[largest] / energy.sum()),
        "energy_of_mean": float(mean.square().sum() / energy.sum()),
        "cosine_of_largest_coordinate": float(units[:, largest].mean().abs()),
        "cosine_of_best_constant": float(units.mean(0).norm()),
    }


def report(results: dict[str, Any], where: dict[str, Any]) -> str:
    coordinate = f"number {results['largest_coordinate']} of {results['width']}"
    return f"""# What a teacher's states have in common

`{results["teacher"]}`, after its final norm, on {results["tokens"]:,} tokens of {results["text"]}:

| | |
|---|--:|
| energy of the largest coordinate ({coordinate}) | {results["energy_of_largest_coordinate"]:.1%} |
| energy of the mean over all tokens | {results["energy_of_mean"]:.1%} |
| mean cosine to that coordinate's axis | {results["cosine_of_largest_coordinate"]:.2f} |
| mean cosine to the best constant vector | {results["cosine_of_best_constant"]:.2f} |

A student that knows nothing of the token comes to the last two cosines.
`let.teacher_norm = "center"` or `"standardize"` takes them away. In fp32 with torch
{where["versions"]["torch"]}.
Made by `python recipes/teacher_states.py`.
"""


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("teacher", type=Path, nargs="?", default=TEACHER, help="Hugging Face folder")
    flags.add_argument("--text", default=str(ROOT / TEXT), help="*.jsonl.zst in The Pile's format")
    flags.add_argument("--rows", type=int, default=128)
    flags.add_argument("--seq-len", type=int, default=256)
    flags.add_argument("--out", type=Path, default=OUT)
    own = flags.parse_args(args)
    tokens = read_rows(own.text, own.teacher / "tokenizer.json", own.rows, own.seq_len)
    teacher = load_teacher(
        own.teacher,
        ["last"],
        dtype=torch.float32,
        device=torch.device("cpu"),
        seq_len=own.seq_len,
    )
    states = torch.cat([teacher(rows)[0].flatten(0, 1) for rows in tokens.split(8)])
    names = {"teacher": own.teacher.name, "text": Path(own.text).name}
    results, where = names | shares(states), surroundings()
    write(own.out, results, where, report(results, where))


if __name__ == "__main__":
    main()
