"""What a run costs: arithmetic on FLOPs, tokens and an assumed utilisation, nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The price of a run.

    The teacher's FLOPs are taken at the student's utilisation. A narrow teacher reaches a lower
    one, and interpolation and norms are no FLOPs here: the overheads are floors.

    Attributes:
        student_flops: per token, forward and backward, without recomputation.
        teacher_flops: per token, forward; 0 without a teacher.
        tokens: of the whole run.
        let_share: the share of the steps that have a teacher.
        flops_per_s: what all GPUs together do in a second: GPUs * peak * utilisation.
        n_gpus: for GPU-hours.
        teacher_times: its time, as a multiple of what it would be if all GPUs shared its FLOPs. The
            pipeline's other stages wait for the one that has it, and tensor-parallel ranks each
            compute all of it where the local batch cannot be divided evenly among them.
        busy: the share of a step in which a rank of the pipeline has work.
        teacher_speed: the peak in the teacher's dtype, as a multiple of that in the student's.
    """

    student_flops: int
    teacher_flops: int
    tokens: int
    let_share: float
    flops_per_s: float
    n_gpus: int
    teacher_times: int = 1
    busy: float = 1.0
    teacher_speed: float = 1.0

    @property
    def overhead_in_let_phase(self) -> float:
        """The teacher's time as a fraction of the student's, while it is there."""
        alone = self.teacher_flops * self.teacher_times / self.teacher_speed
        return alone * self.busy / self.student_flops

    @property
    def overhead_over_run(self) -> float:
        return self.overhead_in_let_phase * self.let_share

    @property
    def tokens_per_s_in_let_phase(self) -> float:
        return self.tokens_per_s_after / (1 + self.overhead_in_let_phase)

    @property
    def tokens_per_s_after(self) -> float:
        return self.flops_per_s * self.busy / self.student_flops

    @property
    def flops(self) -> float:
        """Of the whole run, the teacher's included, each token's once."""
        return self.tokens * (self.student_flops + self.let_share * self.teacher_flops)

    @property
    def gpu_hours(self) -> float:
        """Of training alone: no start, compilation, validation or checkpoints."""
        seconds = self.tokens / self.tokens_per_s_after * (1 + self.overhead_over_run)
        return seconds * self.n_gpus / 3600


def busy_share(ranks: int, stages_per_rank: int, microbatches: int) -> float:
    """Returns the share of a step in which a rank of a pipeline has work.

    Source: Narayanan et al. 2021 (arXiv:2104.04473), for GPipe, 1F1B and their interleaved forms.
    """
    work = stages_per_rank * microbatches
    return work / (work + ranks - 1)
