"""All of preflight for one config: findings first, then the price of what has no mistake."""

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

from torchtitan.distributed import ParallelDims

from let_titan.alignment import BEFORE_THE_STUDENT
from let_titan.checks.float8 import teacher_in_float8
from let_titan.config import LetJobConfig, distills
from let_titan.plan import LetPlan, resolve_plan
from let_titan.preflight.advice import (
    checkpointing_advice,
    disk_advice,
    memory_advice,
    offload_note,
    precision_advice,
    s_stop_advice,
    too_large,
    uneven_nodes,
)
from let_titan.preflight.cache import cache_advice, cache_facts
from let_titan.preflight.findings import Findings, look, uses_float8, vocabulary_of
from let_titan.preflight.gpus import GPUS, GPUS_PER_NODE, Gpu
from let_titan.preflight.memory import StepMemory, measure_step, offloaded
from let_titan.preflight.pipeline import measure_pipeline
from let_titan.preflight.price import (
    batch_facts,
    checkpoint_facts,
    cost_facts,
    cost_of,
    memory_facts,
    student_facts,
)
from let_titan.preflight.reading import NOT_MEASURED, TeacherReading, measure_reading
from let_titan.preflight.student import Student, build_student, whole_student
from let_titan.preflight.teacher import PricedTeacher, price_teacher
from let_titan.preflight.world import fake_world, is_replicated
from let_titan.student.flavors import FLAVORS


@dataclass(frozen=True)
class Report:
    """What preflight found.

    Attributes:
        run: its number of GPUs, their kind and the student's flavor.
        findings: sentences.
        price: what the run takes; None where there are mistakes, or where nothing can tell.
    """

    run: dict[str, Any]
    findings: Findings
    price: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        return {"run": self.run, **asdict(self.findings), "price": self.price}


def choose_gpu(config: LetJobConfig, name: str | None) -> Gpu:
    """Returns the GPU of that name; without one the paper's A100, or an H100 for float8."""
    wanted = uses_float8(config) or teacher_in_float8(config)
    return GPUS[name or ("h100" if wanted else "a100")]


def examine(
    config: LetJobConfig,
    world_size: int,
    gpu: Gpu,
    mfu: float | None = None,
    per_node: int = GPUS_PER_NODE,
) -> Report:
    """Checks and prices a config on one CPU; nothing is loaded but the tokenizer.

    Args:
        config: as parsed.
        world_size: the number of processes (GPUs) of the run.
        gpu: of which kind.
        mfu: the utilisation to reckon with; None: what the GPU's source measured.
        per_node: processes on each node.
    """
    run = {"world_size": world_size, "gpu": gpu.name, "flavor": config.model.flavor}
    findings = look(config, world_size, gpu)
    findings.mistakes += uneven_nodes(config, world_size, per_node)
    if findings.mistakes:
        return Report(run, findings, None)
    findings.warnings += precision_advice(config, world_size)
    plan = resolve_plan(config)
    reading = reading_of(config, plan, findings)
    student, teacher, steps = measure(config, world_size, plan, per_node)
    on_host = max(step.weights + step.gradients + step.adam for step in steps)
    if config.training.enable_cpu_offload:
        findings.warnings.append(offload_note(on_host))
        steps = [offloaded(step) for step in steps]
    memory = max(steps, key=lambda step: step.total)
    findings.mistakes += too_large(config, gpu, max(steps, key=lambda step: step.lasting))
    ranks = steps if config.parallelism.pipeline_parallel_degree > 1 else [memory]
    cost = cost_of(config, world_size, plan, gpu, student, teacher_flops(teacher, reading), mfu)
    cache = cache_facts(config, teacher, cost)
    advise(findings, config, plan, gpu, student, memory, cache)
    price = {
        "student": student_facts(config, student),
        "teacher": teacher.as_dict() if teacher else None,
        "teacher_cache": cache,
        "teacher_reading": asdict(reading) if reading else None,
        "let": asdict(plan) if plan.pairs else None,
        "distill": asdict(config.distill) if distills(config) else None,
        "batch": batch_facts(config, world_size),
        "memory_bytes_per_gpu": memory_facts(memory, gpu),
        "memory_bytes_by_pipeline_rank": [memory_facts(rank, gpu) for rank in ranks],
        "cost": cost_facts(cost, config, world_size, mfu, gpu),
        "checkpoints": checkpoint_facts(config, student),
    }
    return Report(run, findings, None if findings.mistakes else price)


def measure(
    config: LetJobConfig, world_size: int, plan: LetPlan, per_node: int
) -> tuple[Student, PricedTeacher | None, list[StepMemory]]:
    """Builds student and teacher in the run's layout.

    Returns:
        the student, the teacher, and one GPU's memory in a step: of each rank of the
        pipeline, or without one in each kind of step that the run has (SALT's are two).
    """
    vocabulary = vocabulary_of(config)
    teacher = None
    if plan.pairs:
        with fake_world(config, world_size, for_ddp=False) as dims:
            teacher = price_teacher(config, plan, dims, per_node)
        if distills(config):
            teacher = teacher.with_head(config, vocabulary)
    width = teacher.description.width if teacher else 0
    if not distills(config) and config.let.width_map in BEFORE_THE_STUDENT:
        width = FLAVORS[config.model.flavor].dim
    teacher_bytes = teacher.bytes_per_gpu if teacher else 0
    with fake_world(config, world_size) as dims:
        if not dims.pp_enabled:
            student = build_student(config, vocabulary, dims)
            step = measure_step(student.model, config, dims, plan, width)
            steps = [replace(step, teacher=teacher_bytes)]
            if config.distill.method == "salt" and plan.s_stop < config.training.steps:
                # Without the teacher, and with logits, all at once.
                steps.append(plain_step(config, vocabulary, dims))
            buckets = step.gradients if is_replicated(config, world_size) else 0
            return student, teacher, [replace(step, buckets=buckets) for step in steps]
    student = whole_student(config, vocabulary)
    ranks = measure_pipeline(student, config, world_size, plan, width, teacher_bytes)
    return student, teacher, ranks


def plain_step(config: LetJobConfig, vocabulary: int, dims: ParallelDims) -> StepMemory:
    """Measures a step of the run without its teacher."""
    config = deepcopy(config)
    config.distill.method = "none"
    model = build_student(config, vocabulary, dims).model
    return measure_step(model, config, dims, LetPlan())


def reading_of(config: LetJobConfig, plan: LetPlan, findings: Findings) -> TeacherReading | None:
    """Measures a teacher's own reading, where it has one; else says what was not measured."""
    if not plan.pairs or config.teacher.tokenizer == "same":
        return None
    reading = measure_reading(config)
    if reading is None:
        findings.unchecked.append(NOT_MEASURED)
    return reading


def teacher_flops(teacher: PricedTeacher | None, reading: TeacherReading | None) -> int:
    """Returns the teacher's FLOPs for a token of the student's."""
    each = teacher.description.flops_per_token if teacher else 0
    return round(each * reading.positions_per_token) if reading else each


def advise(
    findings: Findings,
    config: LetJobConfig,
    plan: LetPlan,
    gpu: Gpu,
    student: Student,
    memory: StepMemory,
    cache: dict[str, Any] | None,
) -> None:
    """Adds what follows from the sizes."""
    findings.warnings += [
        *s_stop_advice(config, plan),
        *checkpointing_advice(config),
        *memory_advice(config, gpu, memory),
        *disk_advice(config, student.parameters),
        *cache_advice(config, cache),
    ]
