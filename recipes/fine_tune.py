"""What does LET do later? Its students and the baseline's learn domains that they never read.

    python recipes/fine_tune.py --corpus 'CORPUS/*.jsonl.zst'

The question stands in transfer/protocol.py, from before its first run. Pretraining and fine-tuning
are let_titan.train's; runs and checkpoints go to outputs/transfer (4 GB), where what is finished is
not trained again, and recipes/results/transfer keeps what came out. About 45 minutes of one core.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.corpus import sha256_of_text
from transfer.corpus import SEEN, deal
from transfer.figures import draw_curves, draw_differences
from transfer.outcome import Later, compare_pairs
from transfer.pairs import LOSS, STEPS, Pair, pairs_of
from transfer.protocol import HYPOTHESIS, METRIC
from transfer.runs import Place, Start, fine_tune, pretrain
from transfer.text import as_markdown

from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.evaluate import perplexity
from let_titan.runs import Run

ARMS = ("baseline", "LET")
Pretrained = dict[tuple[str, int], Run]


def pairs_in(place: Place, runs: Pretrained) -> list[Pair]:
    """Returns both pairs of every seed, of the checkpoints that are there."""
    found: list[Pair] = []
    for seed in place.protocol.seeds:
        curves = [runs[arm, seed].curve for arm in ARMS]
        steps = [whole_checkpoints(place.pretrained(arm, seed) / "checkpoint") for arm in ARMS]
        saved = steps[0].keys() & steps[1].keys() & dict(curves[0]).keys()
        found += pairs_of(seed, curves[0], curves[1], sorted(saved))
    return found


def starts_of(pairs: Sequence[Pair]) -> list[Start]:
    """Returns every student once, in the order of the pairs."""
    return list(dict.fromkeys(start for pair in pairs for start in (pair.baseline, pair.let)))


def seen_losses(place: Place, folders: Sequence[Path]) -> list[float]:
    """Returns the loss of each checkpoint or run's last one on the domains that were learned first.

    On the first windows of their validation set, the same for all.
    """
    out = place.folder / "seen"
    data = place.folder / "corpus" / SEEN / "validation.jsonl.zst"
    options = {
        "--data": data,
        "--out": out,
        "--windows": place.protocol.windows,
        "--batch-size": 16,
    }
    flags = [str(part) for pair in options.items() for part in pair]
    if perplexity.main([*map(str, folders), *flags]) != 0:
        sys.exit("fine_tune: the evaluation failed; its own sentence stands above.")
    models = json.loads((out / "perplexity.json").read_text())["models"]
    return [model["perplexity"][perplexity.OVERALL]["nll"] for model in models]


def learn_later(place: Place, starts: Sequence[Start]) -> dict[tuple[str, Start], Later]:
    """Fine-tunes every student on every domain, one domain after another."""
    todo = [(domain, start) for domain in place.protocol.held_out for start in starts]
    curves = [fine_tune(place, domain, start).curve for domain, start in todo]
    before = seen_losses(place, [place.checkpoint(start) for start in starts])
    after = seen_losses(place, [place.fine_tuned(domain, start) for domain, start in todo])
    of_start = dict(zip(starts, before, strict=True))
    return {
        (domain, start): Later(curve, of_start[start], seen)
        for (domain, start), curve, seen in zip(todo, curves, after, strict=True)
    }


def student_row(seed: int, runs: Pretrained, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Returns how a seed's pretraining ended, and its match at equal loss."""
    match = next(pair for pair in pairs if pair.equal == LOSS and pair.baseline.seed == seed)
    cosines = [line["align_cosine"] for line in runs["LET", seed].train if line["teacher_active"]]
    return {
        "seed": seed,
        **{arm: runs[arm, seed].curve[-1][1] for arm in ARMS},
        "cosine": max(cosines),
        "match": [
            {
                "arm": start.arm,
                "step": start.step,
                "loss": dict(runs[start.arm, seed].curve)[start.step],
            }
            for start in (match.baseline, match.let)
        ],
    }


def results_of(place: Place, runs: Pretrained, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Fine-tunes what is not yet; returns what results.json holds."""
    protocol, found = place.protocol, learn_later(place, starts_of(pairs))
    summary = runs["baseline", protocol.seeds[0]].summary
    files = sorted((place.folder / "corpus").glob("*/*.zst"))
    return {
        "hypothesis": HYPOTHESIS,
        "metric": METRIC,
        "held_out": list(protocol.held_out),
        "seeds": list(protocol.seeds),
        **{key: summary[key] for key in ("versions", "hardware")},
        "keys": {
            "pretraining": dict(protocol.pretraining),
            **{arm: dict(keys) for arm, keys in protocol.arms.items()},
            "fine-tuning": dict(protocol.fine_tuning),
        },
        "corpus_sha256": {f"{f.parent.name}/{f.name}": sha256_of_text(f) for f in files},
        "students": [student_row(seed, runs, pairs) for seed in protocol.seeds],
        "pretraining": [
            {"arm": arm, "seed": seed, "curve": run.curve} for (arm, seed), run in runs.items()
        ],
        "fine_tuning": [
            {
                **{"domain": domain, "arm": start.arm, "seed": start.seed, "step": start.step},
                "equal": [pair.equal for pair in pairs if start in (pair.baseline, pair.let)],
                **{"curve": later.curve, "seen": [later.seen_before, later.seen_after]},
            }
            for (domain, start), later in found.items()
        ],
        "comparisons": [
            row
            for domain in protocol.held_out
            for equal in (STEPS, LOSS)
            for row in compare_pairs(domain, [pair for pair in pairs if pair.equal == equal], found)
        ],
    }


def main(args: list[str] | None = None, place: Place | None = None) -> None:
    place = place or Place()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="glob of files in The Pile's format")
    options = parser.parse_args(args)
    corpus, seeds = place.folder / "corpus", place.protocol.seeds
    if (corpus / "complete").exists():
        print(f"{corpus} is dealt already: --corpus {options.corpus} is not read.")
    else:
        deal(options.corpus, corpus, place.protocol.held_out)
        (corpus / "complete").touch()
    runs = {(arm, seed): pretrain(place, arm, seed) for seed in seeds for arm in ARMS}
    results = results_of(place, runs, pairs_in(place, runs))
    place.results.mkdir(parents=True, exist_ok=True)
    (place.results / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_curves(results, place.results / "curves.png")
    draw_differences(results, place.results / "differences.png")
    (place.results / "report.md").write_text(as_markdown(results))


if __name__ == "__main__":
    main()
