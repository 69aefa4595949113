"""Who is in which split: hold-out, folds, groups."""
