"""Running a study: every run once, what is done stays done, what fails is reported, the rest goes on."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from attentive_probes.evaluation.runs.run_files import RECIPE, RESULTS, ROWS
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.files.fingerprint import bytes_fingerprint
from attentive_probes.files.writing import write_whole
from attentive_probes.machine.installation import how_to_install
from attentive_probes.machine.processes import process_state
from attentive_probes.studies.records import add_rows, gather, read_rows, save_records
from attentive_probes.studies.study import Study, StudyRun
from attentive_probes.studies.study_costs import costs_of

logger = logging.getLogger(__name__)
FAILED = "failed.txt"


def run_study(study: Study) -> dict[str, str]:
    """Run what is not done yet, here or as jobs, and write the tables of all that is.

    Returns:
        Name of each run that failed -> the error.
    """
    cells, folder = study.cells(), Path(study.output_dir)
    waiting = [cell for cell in cells if not is_done(cell)]
    logger.info("%d runs, %d of them done before.", len(cells), len(cells) - len(waiting))
    if study.workers:
        _submit(waiting, study)
    else:
        for number, cell in enumerate(waiting, start=1):
            logger.info("Run %d of %d: %s", number, len(waiting), cell.name)
            run_cell(cell)
    if process_state().is_main_process:
        save_records(gather([Path(cell.recipe.train.output_dir) for cell in cells]), folder)
    return failures(cells)


def run_cell(cell: StudyRun) -> None:
    """Run one combination and write its rows; an error is written down and ends nothing else."""
    folder = Path(cell.recipe.train.output_dir)
    is_begun = (folder / RESULTS).exists() and identity(cell.recipe) == _noted(folder / "identity")
    process_state().wait_for_everyone()  # before the first of them writes
    recipe = replace(cell.recipe, train=replace(cell.recipe.train, resume=is_begun, overwrite=not is_begun))
    try:
        if process_state().is_main_process:
            write_whole(folder / "identity", identity(cell.recipe))
        with measured_energy() as energy:
            results = run_recipe(recipe)
        if process_state().is_main_process:
            command = f"attentive-probes train {folder / RECIPE}"
            rows = add_rows(results, cell.values, costs_of(results, folder), energy, command)
            write_whole(folder / ROWS, json.dumps({"identity": identity(cell.recipe), "rows": rows}) + "\n")
            (folder / FAILED).unlink(missing_ok=True)
    except Exception as error:
        logger.warning("%s failed: %s", cell.name, error)
        if process_state().is_main_process:
            write_whole(folder / FAILED, "".join(traceback.format_exception(error)))


def identity(recipe: Recipe) -> str:
    """What a run is known by: a hash of its recipe."""
    plain = replace(recipe, train=replace(recipe.train, resume=False, overwrite=False))
    return bytes_fingerprint(OmegaConf.to_yaml(OmegaConf.structured(plain)))


def is_done(cell: StudyRun) -> bool:
    """Whether the rows of this very run are there."""
    path = Path(cell.recipe.train.output_dir) / ROWS
    if not path.exists():
        return False
    try:
        return read_rows(path).get("identity") == identity(cell.recipe)
    except ValueError as error:
        logger.warning("%s The run is done again.", error)
        return False


def failures(cells: list[StudyRun]) -> dict[str, str]:
    """Name of each run that failed -> the last line of its error."""
    texts = {cell.name: _noted(Path(cell.recipe.train.output_dir) / FAILED) for cell in cells}
    return {name: text.strip().splitlines()[-1] for name, text in texts.items() if text}


@contextmanager
def measured_energy() -> Iterator[dict[str, float]]:
    """A context that notes the watt-hours that it took, where `codecarbon` is installed to measure them."""
    found: dict[str, float] = {}
    if find_spec("codecarbon") is None:
        yield found
        return
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    options = {"country_iso_code": "USA", "save_to_file": False, "log_level": "error", "allow_multiple_runs": True}
    tracker = OfflineEmissionsTracker(**options)  # the country matters for carbon, not for energy
    tracker.start()
    try:
        yield found
    finally:
        tracker.stop()
        data = getattr(tracker, "final_emissions_data", None)  # missing where another tracker of the machine runs
        if data is not None:
            found["watt_hours"] = 1000 * float(data.energy_consumed)


def _noted(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


def _submit(cells: list[StudyRun], study: Study) -> None:
    if find_spec("submitit") is None:
        raise ImportError(f"Runs as jobs need submitit: {how_to_install('study')}.")
    import submitit

    options: dict[str, Any] = dict(study.workers)
    executor = submitit.AutoExecutor(Path(study.output_dir) / "jobs", cluster=options.pop("cluster", None))
    executor.update_parameters(**options)
    for job in executor.map_array(run_cell, cells):
        job.wait()
