"""How good heads are: results of runs, references, predictions, scores of splits."""
