"""One process or many: how work is spread is decided by Accelerate."""

from __future__ import annotations

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, parse_flag_from_env


def process_state() -> PartialState:
    """Which process this is, found as an accelerator would: on CPUs where ACCELERATE_USE_CPU says so."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def make_accelerator(
    mixed_precision: str = "no",
    gradient_accumulation_steps: int = 1,
    seed: int = 0,
    report_to: str | None = None,
    output_dir: str | None = None,
    find_unused_parameters: bool = False,
) -> Accelerator:
    """An accelerator that splits each batch over the processes, so that batch sizes count over all of them.

    Args:
        mixed_precision: `no`, `bf16` or `fp16`; an earlier accelerator of this process may have used another one.
        gradient_accumulation_steps: Batches per optimizer step.
        seed: Seed of the order of training images, the same for any number of processes.
        report_to: Name of a tracker; `None` for none.
        output_dir: Where trackers that write files put them.
        find_unused_parameters: Whether some trained parameters may go without a gradient.

    Raises:
        ValueError: If the tracker is unknown or not installed.
    """
    available = [tracker.value for tracker in get_available_trackers()]
    if report_to is not None and report_to not in available:
        raise ValueError(f"The tracker {report_to!r} is not installed; installed are {available}. Try pip install it.")
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        log_with=report_to,
        project_dir=output_dir,
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=gradient_accumulation_steps,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters)],
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=seed),
    )
    if report_to is not None:
        accelerator.init_trackers("attentive-probes")
    return accelerator
