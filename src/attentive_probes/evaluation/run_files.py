"""The files in the folder of a run, by name."""

RESULTS = "results.json"
HISTORY = "history.jsonl"
PREDICTIONS = "predictions.parquet"  # what the selected head answered about each test image
RECIPE = "recipe.yaml"
SPLITS = "splits.csv"  # which image is in which split, where some were drawn
REPORT = "report.html"
PROBES = "probes"
CHECKPOINTS = "checkpoints"
STATE = "state.pt"  # in the checkpoints: what a run goes on from
TESTED = "tested.pt"  # there, too: what comparisons need
ATTENTION_PICTURE = "attention.png"
LAYERS_PICTURE = "layers.png"
WRONG_PICTURE, RIGHT_PICTURE = "wrong.jpg", "right.jpg"
OF_ONE_RUN = (
    RESULTS, HISTORY, PREDICTIONS, REPORT, ATTENTION_PICTURE, LAYERS_PICTURE, WRONG_PICTURE, RIGHT_PICTURE,
)  # fmt: skip
