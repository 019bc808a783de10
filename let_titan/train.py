"""torchrun --nproc_per_node N -m let_titan.train --job.config_file FILE.toml

LetTrainer is torchtitan's Trainer with a teacher beside the student for the first s_stop steps.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools.logging import init_logger, logger
from torchtitan.train import Trainer

from let_titan.alignment import Alignment, cosine_alignment, rows_of_this_rank
from let_titan.checkpoint.manager import LetCheckpointManager
from let_titan.checks import check_config
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.data import PileLoader
from let_titan.data.loader import gathered
from let_titan.device import free_cached_memory, memory_gib
from let_titan.errors import ConfigError, RunError
from let_titan.guard import StepGuard
from let_titan.launch import complete_environment, meeting_place
from let_titan.plan import resolve_plan
from let_titan.run_folder import RunFolder, describe_run
from let_titan.spec import register
from let_titan.stop import StopRequest
from let_titan.student.parallelize import is_ddp
from let_titan.student.pipeline import PipelineLoss
from let_titan.teacher import Teacher, load_teacher, prepare_teacher
from let_titan.upstream import check_version, checkpoint_manager, metrics_from_rank_0


class LetTrainer(Trainer):
    """Aligns the student with a teacher while lambda(s) > 0, then trains on as torchtitan does.

    The teacher is loaded once the checkpoint has said where the run stands, and only if a step
    still needs it. It is no part of ``model_parts``: no optimizer, clipping or checkpoint meets it.
    """

    job_config: LetJobConfig
    checkpointer: LetCheckpointManager
    teacher: Teacher | None = None

    def __init__(self, job_config: LetJobConfig) -> None:
        register()
        self.plan = resolve_plan(job_config)
        with checkpoint_manager(LetCheckpointManager), metrics_from_rank_0():
            super().__init__(job_config)
        self.alignment = self._build_alignment()
        for part in self.model_parts:
            part.alignment = self.alignment
        self.metrics_processor.let_figures = self._let_figures
        batch_size = job_config.training.local_batch_size * self.gradient_accumulation_steps
        replicas = self.parallel_dims.dp_replicate * self.parallel_dims.dp_shard
        self.tokens_per_step = batch_size * replicas * job_config.training.seq_len
        self.run_folder = RunFolder(self.metrics_processor.file, describe_run(self))
        self.stop_request = StopRequest()
        self.guard = self._build_guard()
        self.optimizers.register_step_pre_hook(self.guard)
        self._begun = False

    def _build_alignment(self) -> Alignment | None:
        if not self.plan.pairs:
            return None
        compiled = self.job_config.compile
        return Alignment(
            [(pair.block, pair.weight) for pair in self.plan.pairs],
            cosine_alignment,
            compiled.backend if compiled.enable and "loss" in compiled.components else None,
        )

    def _build_guard(self) -> StepGuard:
        return StepGuard(
            [p for part in self.model_parts for p in part.parameters()],
            self.device,
            self.job_config.training.max_nonfinite_steps,
            self.stop_request,
            self.checkpointer.last_good,
        )

    def train(self) -> None:
        """As torchtitan, until the last step or the one in which a signal asked for an end."""
        with self.stop_request.listening():
            super().train()
            if not self._begun and self.run_folder.is_unfinished():
                self._begin(self.step)  # killed between its last checkpoint and its end

    def should_continue_training(self) -> bool:
        if self.guard.stop:
            self.checkpointer.save_now(self.step)
            return False
        return super().should_continue_training()

    def train_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> None:
        """One optimiser step; the teacher comes before the first and goes after its last."""
        if not self._begun:
            self._begin(self.step - 1)
        if self.alignment is not None:
            self.alignment.meter.reset()
        self.guard.begin(self.step)
        self._microbatch = 0
        super().train_step(data_iterator)
        if self.guard.skipped is not None:
            self.run_folder.note_nonfinite(self.step, self.guard.skipped)
        if self.plan.teacher_in(self.step) and not self.plan.teacher_in(self.step + 1):
            self._release_teacher()

    def _begin(self, start: int) -> None:
        """What must happen between the loading of step ``start`` and the first step after it."""
        self._begun = True
        if self.plan.teacher_in(start + 1):
            self.teacher = self._load_teacher()
        self.run_folder.begin(start, self._teacher_facts())
        if self.job_config.validation.enable and self.validator.should_validate(start):
            # Compiled first for validation's shape, the blocks would treat training's as dynamic.
            with torch.compiler.set_stance("force_eager"):
                self.validator.validate(self.model_parts, start)
        # None of this belongs to the first window's throughput.
        self.metrics_processor.time_last_log = time.perf_counter()

    def forward_backward_step(
        self,
        *,
        input_dict: dict[str, torch.Tensor],
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Notes lambda(s) / global_valid_tokens, then as torchtitan; returns the NLL alone."""
        tokens: float | torch.Tensor = global_valid_tokens
        if self.parallel_dims.pp_enabled:
            tokens = float(tokens)  # a pipeline would cut a tensor into microbatches
        self._global_valid_tokens = tokens
        self._coefficient = self.plan.lambda_in(self.step) / self._global_valid_tokens
        self._microbatch += 1
        if isinstance(self.loss_fn, PipelineLoss):
            self.loss_fn.tokens = self._global_valid_tokens
        if is_ddp(self.parallel_dims):
            last = self._microbatch == self.gradient_accumulation_steps
            self.model_parts[0].set_requires_gradient_sync(last)
        loss = super().forward_backward_step(
            input_dict=input_dict, labels=labels, global_valid_tokens=global_valid_tokens
        )
        if self.parallel_dims.pp_enabled and not self.pp_has_last_stage:
            loss = torch.zeros_like(loss)  # torchtitan's placeholder is -1
        self.guard.note_loss(loss)
        return loss

    def post_dataloading_process(
        self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor], dict[str, Any]]:
        """Adds the teacher's states, the mask and the coefficient to the model's kwargs."""
        mask = labels != IGNORE_INDEX
        teacher_hidden = () if self.teacher is None else self.teacher(input_dict["input"])
        inputs, labels, extra_inputs, extra_kwargs = super().post_dataloading_process(
            input_dict, labels
        )
        if self.teacher is not None:
            positions = extra_kwargs.get("positions")  # given under context parallelism
            mask, *hidden = (
                rows_of_this_rank(whole, self.parallel_dims, positions)
                for whole in (mask, *teacher_hidden)
            )
            extra_kwargs |= {
                "teacher_hidden": tuple(hidden),
                "align_mask": mask,
                "align_coefficient": self._coefficient,
            }
        return inputs, labels, extra_inputs, extra_kwargs

    def _let_figures(self) -> dict[str, Any]:
        """Returns this step's figures for the log; reduces, so every rank calls it."""
        tokens = self.tokens_per_step * self.step
        figures = {
            "n_tokens_seen": tokens,  # torchtitan's own counts this rank's on, whatever the ranks
            "let/lambda": self.plan.lambda_in(self.step),
            "let/teacher_active": int(self.plan.teacher_in(self.step)),
            "let/student_flops": self.metrics_processor.num_flops_per_token * tokens,
            "let/teacher_flops": self.run_folder.teacher_flops(
                min(tokens, self.tokens_per_step * self.plan.s_stop)
            ),
        }
        if self.plan.teacher_in(self.step):
            loss, cosine = self._reduced_alignment()
            figures |= {"let/align_loss": loss, "let/align_cosine": cosine}
        return figures

    def _reduced_alignment(self) -> tuple[float, float]:
        """Returns alignment loss and mean cosine per valid token.

        In every layout a token's state after a block lies on one rank, so all ranks' sums add up.
        """
        assert self.alignment is not None
        sums = self.alignment.meter.sums(self.device).clone()
        dist.all_reduce(sums)
        loss, cosine = (sums / self._global_valid_tokens).tolist()
        return loss, cosine / len(self.plan.pairs)

    def _load_teacher(self) -> Teacher | None:
        """Loads the teacher where a block is that it aligns: of a pipeline's ranks, on few."""
        config = self.job_config.teacher
        folder = prepare_teacher(config.checkpoint, config.trust_remote_code)
        names = {str(pair.block - 1) for pair in self.plan.pairs}
        if names.isdisjoint(name for part in self.model_parts for name in part.layers):
            return None
        return load_teacher(
            folder,
            [pair.layer for pair in self.plan.pairs],
            dtype=TORCH_DTYPE_MAP[config.dtype],
            device=self.device,
            seq_len=self.job_config.training.seq_len,
            mesh=self.parallel_dims.get_optional_mesh("fsdp"),
            placement=config.placement,
            trust_remote_code=config.trust_remote_code,
        )

    def _teacher_facts(self) -> dict[str, Any] | None:
        """Returns what is known of the teacher, on all ranks, wherever it is."""
        known = gathered(None if self.teacher is None else self.teacher.facts)
        return next((facts for facts in known if facts is not None), None)

    def _release_teacher(self) -> None:
        """Frees weights, buffers and all-gather storage; the run is plain from here on."""
        free_cached_memory()  # so that the difference is the teacher alone
        before = memory_gib()
        self.teacher = None
        free_cached_memory()
        self.metrics_processor.device_memory_monitor.reset_peak_stats()
        self.run_folder.teacher_left(self.step, before, memory_gib())


def main(args: list[str] | None = None) -> None:
    """Parses, checks and runs; what goes wrong by the user's input is one sentence and exit code 2.

    What stops a sound run (a full disk, a loss that is not finite) is a sentence, too, and code 1.
    """
    init_logger()
    try:
        check_version()
        complete_environment()
        with open(os.devnull, "w") as devnull, ExitStack() as stack:
            if os.environ.get("RANK", "0") != "0":  # one rank tells what is wrong
                stack.enter_context(redirect_stderr(devnull))
                stack.enter_context(redirect_stdout(devnull))
            config = LetConfigManager().parse_args(args)
        check_config(config)
        run(config)
    except ConfigError as error:
        refuse(error, 2)
    except RunError as error:
        refuse(error, 1)


def run(config: LetJobConfig) -> None:
    """Trains, or writes a seed checkpoint, and leaves the run's folder complete."""
    trainer: LetTrainer | None = None
    exit_state = "failed"
    try:
        with meeting_place():
            trainer = LetTrainer(config)
        if config.checkpoint.create_seed_checkpoint:
            trainer.checkpointer.save(curr_step=0, last_step=True)
        else:
            trainer.train()
            if isinstance(trainer.dataloader, PileLoader):
                trainer.run_folder.facts["data"]["skipped"] = trainer.dataloader.skipped()
        exit_state = "completed"
        if trainer.step < config.training.steps and trainer.guard.stop:
            exit_state = f"stopped at step {trainer.step} by a signal"
            logger.info(f"Run {exit_state}: the same command goes on from there.")
    except BaseException as error:  # torch's CheckpointException is no Exception
        exit_state = f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        if trainer is not None:
            trainer.run_folder.end(exit_state)
            trainer.close()
    dist.destroy_process_group()


def refuse(error: Exception, code: int) -> NoReturn:
    """Prints the sentence once, on rank 0, and exits with ``code`` on every rank."""
    if os.environ.get("RANK", "0") == "0":
        print(f"let_titan: {error}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
