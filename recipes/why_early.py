"""Why an early layer, why early steps? Deep linear networks, exact Hessians, float64.

    python recipes/why_early.py [--out FOLDER]
    python recipes/why_early.py --tiny --out FOLDER    # seconds: the path alone

The questions and what theory predicts stand in theory/minima.py, theory/descent.py and
theory/along.py; docs/why-early.md says what came out. Writes recipes/results/theory/; minutes on
one core.
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from theory.along import courses
from theory.descent import ARMS, LEARNING_RATES, Setting, outcome, spread_target
from theory.figures import draw_along, draw_kappa, draw_minima, draw_steps
from theory.minima import at_minimum
from theory.text import as_markdown
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results" / "theory"
DEPTHS = range(3, 11)
SETTINGS = (
    *(Setting(depth, spread) for spread in (10.0, 100.0) for depth in (3, 6, 10)),
    Setting(3, 10.0, start="xavier"),
)
TINY = (Setting(3, 10.0, seeds=2, steps=200),)
WATCHED = (*TINY, *(setting for setting in SETTINGS if setting.depth == 6))
"""Settings whose course is shown step by step."""


def run(settings: tuple[Setting, ...], depths: range) -> dict[str, Any]:
    """Answers both questions; returns what results.json holds."""
    spread = settings[0].spread
    target = spread_target(settings[0].width, spread)
    minima = [at_minimum(k, depth, target, seed=0) for depth in depths for k in range(1, depth + 1)]
    arms = [(setting, arm) for setting in settings for arm in ARMS]
    descent = [outcome(arm, setting) for setting, arm in tqdm(arms, desc="arms")]
    return {
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "settings": [asdict(setting) for setting in settings],
        "learning_rates": list(LEARNING_RATES),
        "spread": spread,
        "minima": minima,
        "descent": descent,
        "along": courses([setting for setting in settings if setting in WATCHED], descent),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help=f"folder of the results ({RESULTS})")
    parser.add_argument("--tiny", action="store_true", help="shows that the path works; with --out")
    options = parser.parse_args()
    if options.tiny and options.out is None:
        parser.error("--tiny would write over the theory's own results: name a folder by --out.")
    out = options.out or RESULTS
    results = run(TINY, range(3, 5)) if options.tiny else run(SETTINGS, DEPTHS)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_minima(results["minima"], results["spread"], out / "minima.png")
    draw_along(results["along"], out / "along.png")
    draw_kappa(results["descent"], out / "kappa.png")
    draw_steps(results["descent"], out / "steps.png")
    (out / "report.md").write_text(as_markdown(results))


if __name__ == "__main__":
    main()
