"""The transfer's report in Markdown."""

from typing import Any

from transfer.outcome import MEASURES
from transfer.pairs import LOSS, STEPS


def as_markdown(results: dict[str, Any]) -> str:
    """Returns report.md: what was asked, how the students stood, what came of each pair."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Fine-tuning: what an early alignment leaves for later",
        "",
        f"`python recipes/fine_tune.py` ({versions}; {results['hardware']['cpu']}, one thread).",
        "",
        f"Asked beforehand: {results['hypothesis']} Deciding: {results['metric']}",
        "",
        *verdicts(results),
        "",
        "![The domains' loss while it is learned](curves.png)",
        "",
        "## The students",
        "",
        *students(results),
        "",
    ]
    for equal in (STEPS, LOSS):
        lines += [f"## At {equal}", "", *table(results, equal), ""]
    lines += ["![Differences](differences.png)", "", *said(results)]
    return "\n".join(lines)


def verdicts(results: dict[str, Any]) -> list[str]:
    """Says which differences exclude zero, and that there are none where there are none."""
    rows = [row for row in results["comparisons"] if row["measure"] != "before"]
    apart = [row for row in rows if row["difference"] and decided(row["difference"])]
    lines = [
        f"**{len(apart)} of {len(rows)} deciding differences exclude zero** (95 %, "
        f"{len(results['seeds'])} paired seeds; of so many, one in twenty does by chance)"
        + (":" if apart else "."),
    ]
    return lines + [
        f"- {row['domain']}, at {row['equal']}: {MEASURES[row['measure']]}: "
        f"{interval(row['difference'])}; LET is {'better' if better(row) else 'worse'}."
        for row in apart
    ]


def better(row: dict[str, Any]) -> bool:
    """Of every measure less is better."""
    return row["difference"]["value"] < 0


def decided(difference: dict[str, Any]) -> bool:
    return difference["low"] is not None and not difference["low"] <= 0 <= difference["high"]


def interval(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "not reached by every run"
    if difference["low"] is None:
        return f"{difference['value']:+.3f} (one seed)"
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"


def students(results: dict[str, Any]) -> list[str]:
    """A row a seed: how both arms ended, LET's cosine, and the match at equal loss."""
    lines = [
        "| seed | baseline, last loss | LET, last loss | LET's cosine at block k, highest "
        "| at equal loss |",
        "|---|---|---|---|---|",
    ]
    for row in results["students"]:
        match = ", ".join(f"{x['arm']} at step {x['step']}: {x['loss']:.3f}" for x in row["match"])
        lines.append(
            f"| {row['seed']} | {row['baseline']:.3f} | {row['LET']:.3f} "
            f"| {row['cosine']:.2f} | {match} |"
        )
    return lines


def table(results: dict[str, Any], equal: str) -> list[str]:
    lines = [
        "| domain | | baseline, by seed | LET, by seed | LET - baseline |",
        "|---|---|---|---|---|",
    ]
    for row in results["comparisons"]:
        if row["equal"] == equal:
            cells = (" ".join(map(number, row[arm])) for arm in ("baseline", "LET"))
            lines.append(
                f"| {row['domain']} | {MEASURES[row['measure']]} | {' | '.join(cells)} "
                f"| {interval(row['difference'])} |"
            )
    return lines


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 20 else f"{value:.1f}"


def said(results: dict[str, Any]) -> list[str]:
    """How to read it, and what it cannot say."""
    return [
        f"The domains {' and '.join(results['held_out'])} were taken out of what the students "
        "learned first; the teacher's half of the corpus had them, other documents of them. "
        "Losses are nats per token on documents that nobody read; the loss on the domains "
        "seen first is of the same windows before and after. A matched checkpoint of the run that "
        "ended lower was saved at a higher learning rate than a last one. Small models, short "
        "runs, few seeds: a difference that is not decided is not refuted.",
        "",
    ]
