"""The files in the folder of a run, by name."""

RESULTS = "results.json"
HISTORY = "history.jsonl"
PREDICTIONS = "predictions.parquet"  # what the selected head answered about each test image
ANSWERS = "answers.parquet"  # what every head answered about them, where that was asked for
RECIPE = "recipe.yaml"
ROWS = "rows.json"  # of a run of a study: it is done
SPLITS = "splits.csv"  # which image is in which split, where some were drawn
REPORT = "report.html"
PROBES = "probes"
CHECKPOINTS = "checkpoints"
STATE = "state.pt"  # in the checkpoints: what a run goes on from
TESTED = "tested.pt"  # there, too: what comparisons need
REFIT = "refit.pt"  # and heads that were trained on training and validation images
ATTENTION_PICTURE = "attention.png"
LAYERS_PICTURE = "layers.png"
WRONG_PICTURE, RIGHT_PICTURE = "wrong.jpg", "right.jpg"
BEST = "best"  # the selected probe, wherever it comes from
FOLDS = "folds"  # what is known of each fold of a cross-validation
AUDIT, FINDINGS = "audit.json", "audit.csv"  # what is wrong with images and labels
SUSPECTS_PICTURE, COPIES_PICTURE = "suspects.jpg", "copies.jpg"
OF_ONE_RUN = (
    RESULTS, HISTORY, PREDICTIONS, ANSWERS, REPORT, ATTENTION_PICTURE, LAYERS_PICTURE, WRONG_PICTURE, RIGHT_PICTURE,
    AUDIT, FINDINGS, SUSPECTS_PICTURE, COPIES_PICTURE,
)  # fmt: skip
