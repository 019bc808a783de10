"""What LET adds to a step's line in the log."""

from typing import Any

from let_titan.config import distills


def let_figures(trainer: Any) -> dict[str, Any]:
    """Returns the figures of the step that ``trainer`` (a LetTrainer) is in.

    It reduces, so every rank calls it.
    """
    plan, step = trainer.plan, trainer.step
    tokens = trainer.tokens_per_step * step
    figures = {
        "n_tokens_seen": tokens,  # torchtitan's own counts this rank's on, whatever the ranks
        "let/lambda": plan.lambda_in(step),
        "let/teacher_active": int(plan.teacher_in(step)),
        "let/student_flops": trainer.metrics_processor.num_flops_per_token * tokens,
        "let/teacher_flops": trainer.run_folder.cost.at(trainer.teacher_tokens(step)),
    }
    if plan.teacher_in(step):
        loss, cosine = trainer.phase.reduced_alignment(trainer.aligned_tokens)
        names = ("align_loss", "align_cosine")
        if distills(trainer.job_config):
            names = ("kd_loss", "kd_agreement")
        figures |= {f"let/{name}": value for name, value in zip(names, (loss, cosine), strict=True)}
        if trainer.phase.targets is not None:
            figures |= trainer.phase.targets.figures()
    return figures
