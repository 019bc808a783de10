"""Validation on the same tokens every time: NLL per token, perplexity, bits per byte."""

import itertools
import math
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.validate import Validator
from torchtitan.tools.utils import device_type

from let_titan.build_data import build_validation_dataloader
from let_titan.columns import local
from let_titan.config import LetJobConfig
from let_titan.data.validation import share
from let_titan.plan import resolve_plan
from let_titan.tokenizer.build import token_bytes


class LetValidator(Validator):
    """torchtitan's Validator with a fixed set of tokens and sums that are divided once.

    The set is that of one process (``data.validation``), so its loss is one number in every layout.
    Upstream's set grows with the ranks; its packing buffer stays filled between calls, so that each
    call reads other tokens; and it averages the means of its batches (components/validate.py,
    v0.2.2).
    """

    def __init__(self, job_config: LetJobConfig, **kwargs: Any) -> None:
        super().__init__(job_config=job_config, **kwargs)
        loader = build_validation_dataloader(kwargs["tokenizer"], job_config)
        # A pipeline's stages take batches of training's shape only; and what documents' attention
        # is compiled for before the first step should be that, or kernels for any shape would come.
        as_training = self.pp_schedule or job_config.data.document_attention
        section = job_config.training if as_training else job_config.validation
        self.always = {0, resolve_plan(job_config).s_stop, job_config.training.steps}
        # Read once, kept on the CPU: 16 bytes a token.
        self._batches = share(
            itertools.islice(loader, job_config.validation.steps),
            kwargs["dp_rank"],
            kwargs["dp_world_size"],
            section.local_batch_size,
        )
        self._token_bytes = token_bytes(self.tokenizer)

    def should_validate(self, step: int) -> bool:
        """At step 0, at s_stop, at the last step, and every validation.freq steps."""
        return step in self.always or step % self.job_config.validation.freq == 0

    @torch.no_grad()
    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """Evaluates the model and logs the result for ``step``."""
        processor = self.metrics_processor
        # The throughput that is logged is validation's own.
        processor.ntokens_since_last_log, processor.time_last_log = 0, time.perf_counter()
        for model in model_parts:
            model.eval()
        sums = torch.stack([self._sums(model_parts, *batch) for batch in self._batches]).sum(0)
        for name in ("loss", "pp"):
            mesh = self.parallel_dims.get_optional_mesh(name)
            if mesh is not None:
                dist.all_reduce(sums, group=mesh.get_group())
        nll, tokens, n_bytes = sums.tolist()
        processor.log_validation(
            loss=nll / tokens,
            step=step,
            extra_metrics={"validation_metrics/bits_per_byte": nll / math.log(2) / n_bytes},
        )
        for model in model_parts:
            model.train()
            # FSDP2 keeps the last weights gathered after forward, for a backward that won't come.
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()

    def _sums(
        self,
        model_parts: list[nn.Module],
        input_dict: dict[str, torch.Tensor],
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Returns [3] fp64: NLL in nats, valid tokens and their bytes of text in one batch.

        Tokens that several ranks hold are counted by one of them: by the first of a
        context-parallel group (where upstream counts them on each), by a pipeline's last stage.
        """
        valid = labels[labels != IGNORE_INDEX]
        n_bytes = self._token_bytes[valid].sum()
        self.metrics_processor.ntokens_since_last_log += valid.numel()
        device = torch.device(device_type)
        inputs, labels, extra_inputs, extra_kwargs = self.post_dataloading_process(
            {key: value.to(device) for key, value in input_dict.items()},
            labels.to(device),
            model_parts,
        )
        with self.validation_context(), self.maybe_enable_amp:
            nll = self._nll(model_parts, inputs, labels, extra_inputs, extra_kwargs)
        nll = nll.full_tensor() if isinstance(nll, DTensor) else nll
        counts = torch.tensor([valid.numel(), n_bytes], dtype=torch.float64)
        if not self._counts_tokens():
            counts.zero_()
        return torch.cat((nll.double().view(1), counts.to(nll.device)))

    def _counts_tokens(self) -> bool:
        context = self.parallel_dims.get_optional_mesh("cp")
        first = context is None or context.get_local_rank() == 0
        return first and self.pp_has_last_stage is not False

    def _nll(
        self,
        model_parts: list[nn.Module],
        inputs: torch.Tensor,
        labels: torch.Tensor,
        extra_inputs: dict[str, torch.Tensor],
        extra_kwargs: dict[str, Any],
    ) -> torch.Tensor:
        """Returns the batch's NLL in nats; zero on ranks without a pipeline's last stage."""
        if self.pp_schedule is None:
            return self.loss_fn(model_parts[0](inputs, **extra_inputs, **extra_kwargs), labels)
        first = (inputs,) if self.pp_has_first_stage else ()
        kwargs = {**extra_inputs, **extra_kwargs} if self.pp_has_first_stage else extra_kwargs
        losses: list[torch.Tensor] = []  # filled where the last stage is
        target = labels if self.pp_has_last_stage else None
        self.pp_schedule.eval(*first, **kwargs, target=target, losses=losses)
        if not losses:
            return torch.zeros((), device=inputs.device)
        return torch.stack([local(loss) for loss in losses]).sum().to(inputs.device)


def build_let_validator(**kwargs: Any) -> LetValidator:
    """Builds the validator for TrainSpec."""
    return LetValidator(**kwargs)
