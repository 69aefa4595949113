"""Where everything of a run lies: paths below its folder."""

from __future__ import annotations

from pathlib import Path

RESULTS = "results.json"
HISTORY = "history.jsonl"
PREDICTIONS = "predictions.parquet"  # what the selected head answered about each test image
HEAD_PREDICTIONS = "head_predictions.parquet"  # what every head answered about them, where that was asked for
RECIPE = "recipe.yaml"
ROWS = "rows.json"  # of a run of a study: it is done
SPLITS = "splits.csv"  # which image is in which split, where some were drawn
REPORT = "report.html"
PROBES = "probes"
CHECKPOINTS = "checkpoints"
STATE = f"{CHECKPOINTS}/state.pt"  # from which an interrupted run goes on
TESTED = f"{CHECKPOINTS}/tested.pt"  # which test images each head got right, for comparisons
REFIT = f"{CHECKPOINTS}/refit.pt"  # heads trained on training and validation images
ATTENTION_PICTURE = "attention.png"
LAYERS_PICTURE = "layers.png"
WRONG_PICTURE, RIGHT_PICTURE = "wrong.jpg", "right.jpg"
BEST = "best"  # the selected probe, wherever it comes from
FOLDS = "folds"  # what is known of each fold of a cross-validation
AUDIT, FINDINGS = "audit.json", "audit.csv"  # what is wrong with images and labels
SUSPECTS_PICTURE, COPIES_PICTURE = "suspects.jpg", "copies.jpg"
OF_ONE_RUN = (
    RESULTS, HISTORY, PREDICTIONS, HEAD_PREDICTIONS, REPORT, ATTENTION_PICTURE, LAYERS_PICTURE, WRONG_PICTURE,
    RIGHT_PICTURE, AUDIT, FINDINGS, SUSPECTS_PICTURE, COPIES_PICTURE,
)  # fmt: skip


def probe_folder(folder: Path, name: str) -> Path:
    """The folder of the probe with the head of that name, in the folder of its run."""
    return folder / PROBES / name
