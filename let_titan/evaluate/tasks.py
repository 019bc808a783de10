"""The paper's nine tasks, as lm-evaluation-harness knows them."""

TASKS: dict[str, str] = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "sciq": "sciq/sciq.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}
"""Each task's own YAML below the harness's folder of tasks (0.4.10 to 0.4.13)."""

SHOTS = 1
"""The paper's; lambada_openai has a test split alone, so its shot comes from there."""

SEED = 1234
"""Of Python, numpy, torch and the choice of the shot."""
