"""What does a teacher's forward take when its rows are read end to end, and what when padded?

    python recipes/packed_teacher.py CORPUS TOKENIZER --teacher FOLDER [--blocks 6] [--rounds 6]

Each round takes another batch of a corpus, as training with teacher.tokenizer = "align" reads it,
and the teacher reads it both ways, side by side (padded to the longest row) and end to end: A B,
then B A, and so on, after one of each that does not count. Their states are compared. Times are of
the wall and of the process's CPU, in one thread on a CPU. Writes
recipes/results/cross_tokenizer/ (packing.json, packing.md). ``cross_tokenizer`` says where real
tokenizers are from.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pair.batches import BATCH, SEQ_LEN, batches_of, reading_of

from let_titan.batch import TeacherBatch, taken_out
from let_titan.data.files import file_digests
from let_titan.run.summary import surroundings, write_summary
from let_titan.teacher import Teacher, load_teacher
from let_titan.teacher.rows import end_to_end, positions_read, side_by_side

RESULTS = Path(__file__).parent / "results" / "cross_tokenizer"

Read = Callable[[Teacher, TeacherBatch], tuple[torch.Tensor, ...]]
WAYS: dict[str, Read] = {
    "side by side": lambda teacher, x: side_by_side(teacher, x.input, x.pieces, documents=False),
    "end to end": lambda teacher, x: end_to_end(teacher, x.input, x.pieces),
}


def timed(read: Read, teacher: Teacher, batch: TeacherBatch) -> tuple[dict[str, float], Any]:
    """Returns the seconds of a forward, and its states."""
    load = os.getloadavg()[0]
    begin, begin_cpu = time.perf_counter(), time.process_time()
    (states,) = read(teacher, batch)
    took = {"wall": time.perf_counter() - begin, "cpu": time.process_time() - begin_cpu}
    return took | {"load": load}, states


def one_round(teacher: Teacher, batch: TeacherBatch, order: list[str]) -> dict[str, Any]:
    """Lets the teacher read a batch in each way, in an order."""
    seconds, states = {}, {}
    for way in order:
        seconds[way], states[way] = timed(WAYS[way], teacher, batch)
    padded, packed = (states[way] for way in WAYS)
    rows = [sum(row) for row in batch.pieces]
    return {
        "rows": rows,
        "positions": {
            "side by side": positions_read(rows, packed=False),
            "end to end": positions_read(rows, packed=True),
        },
        "seconds": {way: seconds[way] for way in WAYS},
        "states_differ": float((packed - padded).norm() / padded.norm()),
    }


def ratios(rounds: list[dict[str, Any]], clock: str) -> list[float]:
    """Returns, of each round, end to end over side by side."""
    padded, packed = WAYS
    return [each["seconds"][packed][clock] / each["seconds"][padded][clock] for each in rounds]


def spread(values: list[float], form: str) -> str:
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({least:{form}} to {most:{form}})"


def row(way: str, rounds: list[dict[str, Any]]) -> str:
    positions = sum(each["positions"][way] for each in rounds)
    padding = 1 - sum(sum(each["rows"]) for each in rounds) / positions
    clocks = [[each["seconds"][way][clock] for each in rounds] for clock in ("wall", "cpu")]
    cells = [
        f"{positions / len(rounds):,.0f}",
        f"{padding:.2%}",
        *(spread(c, ".1f") for c in clocks),
    ]
    return f"| {way} | {' | '.join(cells)} |\n"


def report(found: dict[str, Any]) -> str:
    rounds = found["rounds"]
    loads = [each["seconds"][way]["load"] for each in rounds for way in WAYS]
    positions = [each["positions"] for each in rounds]
    fewer = [each["end to end"] / each["side by side"] for each in positions]
    return (
        "# A teacher's rows end to end, and padded to the longest\n\n"
        f"Forward of the first {found['blocks']} blocks of {found['teacher']} in fp32 on "
        f"{found['hardware']['cpu']}, one thread; {len(rounds)} batches of {BATCH} x {SEQ_LEN} "
        f"tokens of {found['student']}'s, each read in both ways, in turn first. Median (least to "
        f"most). The machine did other work: its load was {min(loads):.1f} to {max(loads):.1f}.\n\n"
        "| rows | positions a batch | padding | s, wall | s, CPU |\n|---|--:|--:|--:|--:|\n"
        f"{''.join(row(way, rounds) for way in WAYS)}\n"
        f"End to end over side by side, batch by batch: {spread(ratios(rounds, 'wall'), '.3f')} of "
        f"the wall's time, {spread(ratios(rounds, 'cpu'), '.3f')} of the CPU's, "
        f"{spread(fewer, '.3f')} of the positions. The states differ by at most "
        f"{max(each['states_differ'] for each in rounds):.1e} (relative norm).\n"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", help="pattern of files of text")
    parser.add_argument("student", help="its tokenizer, as model.hf_assets_path")
    parser.add_argument("--name", default="r50k", help="what the report calls it")
    parser.add_argument("--teacher", type=Path, required=True, help="folder: tokenizer and weights")
    parser.add_argument("--blocks", type=int, help="of the teacher's; without it all of them")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ours, text = reading_of(args.student, str(args.teacher))
    teacher = load_teacher(
        args.teacher,
        [args.blocks or "last"],
        dtype=torch.float32,
        device=torch.device("cpu"),
        seq_len=SEQ_LEN,
    )
    rounds = []
    for i, (inputs, _) in enumerate(islice(batches_of(ours, text, args.corpus), args.rounds + 1)):
        batch = taken_out(inputs)
        assert batch is not None
        rounds.append(one_round(teacher, batch, [*WAYS] if i % 2 else [*WAYS][::-1]))
        print(rounds[-1], flush=True)
    blocks = teacher.description.n_blocks
    found = {"teacher": args.teacher.name, "blocks": blocks, "student": args.name}
    found |= {"rounds": rounds[1:]}
    facts = {"corpus_sha256": file_digests(args.corpus), **surroundings()}
    write_summary(args.out / "packing.json", {**found, **facts})
    (args.out / "packing.md").write_text(report({**found, **facts}))


if __name__ == "__main__":
    main()
