"""One process or many: how work is spread is decided by Accelerate."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration


def make_accelerator(mixed_precision: str = "no", gradient_accumulation_steps: int = 1, seed: int = 0) -> Accelerator:
    """An accelerator that splits each batch over the processes, so that batch sizes count over all of them.

    Args:
        mixed_precision: `no`, `bf16` or `fp16`; an earlier accelerator of this process may have used another one.
        gradient_accumulation_steps: Batches per optimizer step.
        seed: Seed of the order of training images, the same for any number of processes.
    """
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=gradient_accumulation_steps,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=seed),
    )
