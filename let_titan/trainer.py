"""LetTrainer: torchtitan's Trainer with a teacher beside the student for the first s_stop steps."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torchtitan.train import Trainer

from let_titan.batch import Batch
from let_titan.checkpoint.manager import LetCheckpointManager
from let_titan.checks import exported_folder
from let_titan.config import LetJobConfig
from let_titan.data.loader import PileLoader
from let_titan.errors import ConfigError
from let_titan.guard import StepGuard
from let_titan.let.build import build_auto_stop
from let_titan.let.cache import RunCache
from let_titan.let.phase import LetPhase
from let_titan.let.salt_choice import selected_batches
from let_titan.plan import resolve_plan
from let_titan.rank_loss import RankLoss
from let_titan.run.description import describe_run
from let_titan.run.folder import RunFolder
from let_titan.spec import register
from let_titan.state_cache import uses_cache
from let_titan.stop import StopRequest
from let_titan.student.parallelize import is_ddp
from let_titan.student.pipeline import PipelineLoss
from let_titan.upstream import checkpoint_manager, metrics_from_rank_0


class LetTrainer(Trainer):
    """Aligns the student with a teacher while lambda(s) > 0, then trains on as torchtitan does.

    The teacher is loaded after the checkpoint, which says where the run stands, and only if a step
    still needs it.
    """

    job_config: LetJobConfig
    checkpointer: LetCheckpointManager

    def __init__(self, job_config: LetJobConfig) -> None:
        register()
        self.plan = resolve_plan(job_config)
        with checkpoint_manager(LetCheckpointManager), metrics_from_rank_0():
            super().__init__(job_config)
        dims, training = self.parallel_dims, job_config.training
        rows = training.local_batch_size * self.gradient_accumulation_steps
        self.metrics_processor.tokens_of_step = rows * training.seq_len
        self.sequences_per_step = rows * dims.dp_replicate * dims.dp_shard
        self.tokens_per_step = self.sequences_per_step * training.seq_len
        self.phase = self._build_phase()
        self.auto_stop = build_auto_stop(self.plan, job_config)
        self.rank_loss = RankLoss(dims) if dims.cp_enabled else None
        self.run_folder = RunFolder(
            Path(job_config.job.dump_folder),
            self.metrics_processor.file,
            {
                **describe_run(job_config, self.plan, self.tokenizer, self.model_parts),
                "tokens_per_step": self.tokens_per_step,
                "student_flops_per_token": self.metrics_processor.num_flops_per_token,
            },
        )
        self.stop_request = StopRequest()
        self.guard = self._build_guard()
        self._connect()
        self._begun = False

    def _build_phase(self) -> LetPhase:
        config, dims = self.job_config, self.parallel_dims
        cache = None
        if uses_cache(config):
            cache = RunCache(config, dims, self.dataloader, self.sequences_per_step)
        return LetPhase(
            self.plan, config, dims, self.model_parts, self.device, self.optimizers, cache
        )

    def _connect(self) -> None:
        """Gives torchtitan's parts the callbacks by which they ask and tell ours."""
        self.optimizers.register_step_pre_hook(self.guard)
        self.checkpointer.exports = exported_folder(self.job_config).parent
        self.checkpointer.note_saved = self.run_folder.note_saved
        self.metrics_processor.let_figures = self._figures
        self.metrics_processor.is_last = lambda: self.guard.stop
        if self.rank_loss is not None:
            self.metrics_processor.largest_loss = self.rank_loss.largest

    def _build_guard(self) -> StepGuard:
        return StepGuard(
            [p for part in self.model_parts for p in part.parameters()],
            self.device,
            self.job_config.training.max_nonfinite_steps,
            self.stop_request,
            self.checkpointer.last_good,
        )

    def train(self) -> None:
        """Trains as torchtitan does, to the last step or to the one in which a signal came.

        Signals count only while ``stop_request.listening()``, as in ``let_titan.train.run``.
        """
        super().train()
        if not self._begun and self.run_folder.is_unfinished():
            self._begin(self.step)  # killed after its last checkpoint, or lost its summary

    def should_continue_training(self) -> bool:
        if self.guard.stop:
            self.checkpointer.save_now(self.step)
            return False
        return super().should_continue_training()

    def train_step(self, data_iterator: Iterator[Batch]) -> None:
        """Takes an optimiser step; loads the teacher before the first, releases it after s_stop."""
        if not self._begun:
            self._begin(self.step - 1)
        self.phase.begin_step(self.step)
        self.guard.begin(self.step)
        if self.rank_loss is not None:
            self.rank_loss.begin()
        self._microbatch = 0
        with self.phase.maps.clipping(), self.guard.clipping():
            super().train_step(self.phase.watched(data_iterator, self.step))
        if self.guard.skipped is not None:
            self.run_folder.note_nonfinite(self.step, self.guard.skipped)
        diagnosis = self.phase.diagnosis()
        if diagnosis is not None:
            self.metrics_processor.log_diagnostics(self.step, diagnosis)
            self._ask_auto_stop(diagnosis)
        if self.plan.teacher_in(self.step):
            self.phase.end_step(left_out=self.guard.skipped is not None)
        if self.plan.teacher_in(self.step) and not self.plan.teacher_in(self.step + 1):
            self._release_teacher()

    def _ask_auto_stop(self, diagnosis: dict[str, Any]) -> None:
        """Makes this step the last with a teacher if auto stop, where it is on, says so."""
        reason = self.auto_stop.look(self.step, diagnosis) if self.auto_stop else None
        if reason is not None:
            self._stop_at(self.step)
            self.run_folder.note_auto_stop(self.step, reason)

    def _stop_at(self, step: int) -> None:
        """Makes ``step``, which is logged already, the run's s_stop wherever one is kept."""
        self.plan = self.phase.plan = self.plan.stopped_at(step)
        self.run_folder.facts["let_plan"] = asdict(self.plan)
        if self.job_config.validation.enable:
            self.validator.always.add(step)

    def _begin(self, start: int) -> None:
        """Prepares the first step after ``start``: the teacher, the run's folder, a validation."""
        self._begun = True
        if self.plan.teacher_in(start + 1):
            self.phase.load(start)
        else:
            self._no_teacher_from_here()
        validates = self.job_config.validation.enable and self.validator.should_validate(start)
        tokens = self.teacher_tokens(start)
        self.run_folder.begin(start, self.phase.facts(), tokens, validates)
        if validates:
            # Eager, since blocks that are compiled for validation's shape first would be compiled
            # for dynamic shapes when training's comes. Flex attention may not be: it would hold
            # scores of [B, H, S, S].
            flex = self.job_config.data.document_attention
            with torch.compiler.set_stance("default" if flex else "force_eager"):
                self.validator.validate(self.model_parts, start)
        # None of this belongs to the first window's throughput.
        self.metrics_processor.time_last_log = time.perf_counter()

    def teacher_tokens(self, step: int) -> int:
        """Returns how many tokens the teacher has read by the end of ``step``, the current one."""
        return self.phase.teacher_positions(self.tokens_per_step * min(step, self.plan.s_stop))

    def _figures(self) -> dict[str, Any]:
        """Returns what LET adds to a step's line in the log; every rank calls, since it reduces."""
        step, tokens = self.step, self.tokens_per_step * self.step
        figures = {
            "n_tokens_seen": tokens,  # torchtitan's own counts this rank's on, whatever the ranks
            "let/lambda": self.plan.lambda_in(step),
            "let/teacher_active": int(self.plan.teacher_in(step)),
            "let/student_flops": self.metrics_processor.num_flops_per_token * tokens,
            "let/teacher_flops": self.run_folder.cost.at(self.teacher_tokens(step)),
        }
        if self.plan.teacher_in(step):
            figures |= self.phase.figures(self.aligned_tokens)
        return figures

    def batch_generator(self, data_iterable: Iterable[Batch]) -> Iterator[Batch]:
        """As torchtitan's, over the batches that are trained on: SALT-DS leaves some out."""
        per_step = self.gradient_accumulation_steps
        return super().batch_generator(
            selected_batches(self.phase, data_iterable, per_step, lambda: self.step)
        )

    def forward_backward_step(
        self,
        *,
        input_dict: dict[str, torch.Tensor],
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor,
    ) -> torch.Tensor:
        """As torchtitan, with the step's alignment in backward; returns the NLL alone."""
        if self._microbatch == 0:
            self._count(global_valid_tokens)
        self._microbatch += 1
        if is_ddp(self.parallel_dims):
            last = self._microbatch == self.gradient_accumulation_steps
            self.model_parts[0].set_requires_gradient_sync(last)
        loss = super().forward_backward_step(
            input_dict=input_dict, labels=labels, global_valid_tokens=global_valid_tokens
        )
        if self.parallel_dims.pp_enabled and not self.pp_has_last_stage:
            loss = torch.zeros_like(loss)  # torchtitan's placeholder is -1
        self.guard.note_loss(loss)
        if self.rank_loss is not None:
            self.rank_loss.add(loss * self._valid_tokens, labels)
        return loss

    def _count(self, valid_tokens: float | torch.Tensor) -> None:
        """Sets what the step's sums are divided by, from its global number of valid tokens.

        Once a step: without data parallelism that is a tensor, and reading it makes the host wait.
        """
        if self.parallel_dims.pp_enabled or self.parallel_dims.fsdp_enabled:
            # A pipeline would cut a tensor into microbatches, FSDP2 would cast it to bfloat16.
            valid_tokens = float(valid_tokens)
        self._valid_tokens = valid_tokens
        self.aligned_tokens = self.phase.aligned_tokens(valid_tokens)
        aligned = self.aligned_tokens
        if isinstance(aligned, float):
            aligned = max(1.0, aligned)  # without valid tokens the NLL is NaN: the guard sees it
        self._coefficient = self.plan.lambda_in(self.step) / aligned
        if isinstance(self.loss_fn, PipelineLoss):
            self.loss_fn.tokens = valid_tokens

    def post_dataloading_process(
        self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor], dict[str, Any]]:
        """Adds the teacher's states, the mask and the coefficient to the model's kwargs."""
        states = self.phase.whole_states(input_dict, labels)
        inputs, labels, extra_inputs, extra_kwargs = super().post_dataloading_process(
            input_dict, labels
        )
        if states is not None:
            # Under context parallelism these kwargs say which positions this rank holds.
            extra_kwargs |= self.phase.student_kwargs(states, labels, extra_kwargs.get("positions"))
            extra_kwargs["align_coefficient"] = self._coefficient
        return inputs, labels, extra_inputs, extra_kwargs

    def state_dict(self) -> dict[str, Any]:
        """torchtitan's train state, with what the alignment and auto stop have seen."""
        seen = self.auto_stop.state_dict() if self.auto_stop else {}
        return {**super().state_dict(), **self.phase.state_dict(), **seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torchtitan.

        Raises:
            ConfigError: the initial checkpoint's step, which no check before it knows, leaves none
                to train: the run would end at once, as if it had been trained.
        """
        super().load_state_dict(state_dict)
        steps, own = self.job_config.training.steps, self.checkpointer.path.exists()
        if self.step > steps or (self.step == steps and not own):  # one's own end may be loaded
            raise ConfigError(
                f"The checkpoint that was loaded is of step {self.step}, and training.steps = "
                f"{steps} leaves nothing to train: set more, or take its weights alone "
                "(checkpoint.initial_load_model_only = true)."
            )
        self.phase.load_state_dict(state_dict)
        if self.auto_stop is not None:
            self.auto_stop.load_state_dict(state_dict)
            if self.auto_stop.seen.s_stop:
                self._stop_at(self.auto_stop.seen.s_stop)

    def close(self) -> None:
        """As torchtitan; then other runs may have the folder and the cache of states."""
        super().close()
        self.metrics_processor.folder_lock.release()
        self.phase.slot.close()

    def _release_teacher(self) -> None:
        """Releases the teacher and logs the memory that this freed."""
        self._no_teacher_from_here()
        before, after = self.phase.release()
        self.metrics_processor.device_memory_monitor.reset_peak_stats()
        self.run_folder.log_teacher_left(self.step, before, after)
        # The step is logged already; what the release took is not the next window's.
        self.metrics_processor.time_last_log = time.perf_counter()

    def _no_teacher_from_here(self) -> None:
        """Ends what only a teacher needs: its tokens in the loader, lines for auto stop's looks."""
        self.metrics_processor.looks_every = 0
        if isinstance(self.dataloader, PileLoader):
            self.dataloader.teacher_left()
