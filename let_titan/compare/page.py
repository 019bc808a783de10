"""The comparison as one self-contained HTML page: no network, no script, light and dark."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader

from let_titan.compare.alternatives import ALTERNATIVES
from let_titan.compare.charts import drawn, svg
from let_titan.compare.drawing import COLORS, NARROW, WIDE
from let_titan.compare.markdown import (
    PHASE_HEADER,
    RUN_HEADER,
    command,
    every_run,
    heading,
    loss_rows,
    phase_rows,
    run_rows,
    shared_rows,
    twins_sentence,
)
from let_titan.compare.result import ArmResult, Comparison
from let_titan.compare.text import (
    METHOD,
    SCORE_HEADER,
    accuracy_sentence,
    cost_rows,
    digits,
    headline,
    hours_name,
    score_rows,
    show,
    speed_sentence,
)

DARK = ("#56b4e9", "#ff9a4d", "#3ddba6", "#e79cc9", "#f2c14e", "#8fd3ff", "#b3a4ff")
"""``drawing.COLORS`` on a dark ground."""

MANY = 2  # arms beyond which their figures stand in one table, not in cards

CAPTIONS = {
    "validation_loss": (
        "Validation loss by step",
        "Below: run minus baseline, negative is better; the band is the 95 % interval over seeds. "
        "The untrained loss at step 0 is left out.",
    ),
    "speedup": (
        "Speed-up at every level of loss",
        "Baseline / run: above 1 the run was there sooner. Training goes from left to right. A "
        "line ends where not every run got further; bands are 95 % intervals, cut where they leave "
        "the panel.",
    ),
    "accuracy": (
        "Task accuracy by step",
        "The average over the tasks, of the steps that were evaluated in all runs. Below: run "
        "minus baseline, positive is better; bands are 95 % intervals over seeds.",
    ),
    "costs": ("Throughput and memory by step", "A line for every run whose clock counts."),
    "alignment": ("Alignment and gradient norm by step", "A line for every run."),
}


@dataclass(frozen=True)
class Card:
    """One figure of the summary: its name, value, interval and whether it is good news."""

    name: str
    value: str
    interval: str
    tone: str


def cards(result: ArmResult) -> list[Card]:
    """Returns an arm's figures to be read at a glance."""
    by = result.rows[-1].difference
    tone = ("good" if by.value < 0 else "bad") if by.excludes(0) else ""
    d = digits(by)
    ends = "no interval" if by.low is None else f"{by.low:+.{d}f} to {by.high:+.{d}f}"
    found = [Card("loss against baseline, nats/token", f"{by.value:+.{d}f}", ends, tone)]
    names = {
        "steps": "speed-up in steps",
        "flops": "speed-up in FLOPs, teacher included",
        "seconds": "speed-up in wall time",
    }
    for name, title in names.items():
        found.append(speed_card(result, name, title))
    return found


def speed_card(result: ArmResult, name: str, title: str) -> Card:
    target = result.target
    if target is None:
        return Card(title, "not compared", "runs diverged", "")
    if target.reached < target.n:
        return Card(title, "not reached", f"{target.reached} of {target.n} runs reached it", "")
    if target.unseen:
        return Card(title, "not known", "there at a first evaluation", "")
    speed = target.costs[name].speed_up
    if speed is None:
        return Card(title, "not compared", "", "")
    sure = speed.excludes(1) and result.rows[-1].difference.excludes(0)
    tone = ("good" if speed.value > 1 else "bad") if sure else ""
    ends = "no interval" if speed.low is None else f"{speed.low:.3f}x to {speed.high:.3f}x"
    return Card(title, f"{speed.value:.3f}x", ends, tone)


def chart(comparison: Comparison, name: str) -> dict[str, str]:
    """Returns a chart in two widths, of which the page shows the one that fits."""
    title, caption = CAPTIONS[name]
    wide, narrow = (svg(comparison, name, width) for width in (WIDE, NARROW))
    return {
        "name": name,
        "title": title,
        "caption": caption,
        "alternative": ALTERNATIVES[name](comparison),
        "wide": wide,
        "narrow": narrow,
    }


def page(comparison: Comparison, note: str | None = None) -> str:
    """Returns report.html; ``note`` stands above all else."""
    environment = Environment(
        loader=PackageLoader("let_titan.compare", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = show
    hours = hours_name(comparison.baseline)
    arms = [
        {
            "name": result.name,
            "headline": headline(result),
            "speed": speed_sentence(result),
            "cards": cards(result),
            "losses": loss_rows(result),
            "target": result.target,
            "step": result.rows[-1].step,
            "costs": cost_rows(result.target, hours) if result.target else [],
            "scores": score_rows(result),
            "accuracy": accuracy_sentence(result),
            "accuracy_costs": cost_rows(result.accuracy, hours) if result.accuracy else [],
            "untimed": result.untimed,
        }
        for result in comparison.results
    ]
    return environment.get_template("page.html").render(
        note=note,
        heading=heading(comparison),
        arms=arms,
        charts={name: chart(comparison, name) for name in drawn(comparison)},
        colors=list(zip(COLORS, DARK, strict=True)),
        phases=phase_rows(comparison),
        overview=len(arms) > MANY,
        names=[comparison.baseline.name, *(arm.name for arm in comparison.arms)],
        settings=comparison.settings,
        twins=twins_sentence(comparison).replace("**", ""),
        score_header=SCORE_HEADER,
        phase_header=PHASE_HEADER,
        shared=shared_rows(comparison),
        run_header=RUN_HEADER,
        run_rows=run_rows(comparison),
        commands=list(dict.fromkeys(command(run) for run in every_run(comparison))),
        method=METHOD,
        allowed=comparison.allowed,
    )
