"""Kinds of label, one file each: `PROBLEMS` lists them."""

from __future__ import annotations

from attentive_probes.checks import unknown_name
from attentive_probes.problems.base import Problem, Scores
from attentive_probes.problems.multi_label import MultiLabel
from attentive_probes.problems.regression import Regression
from attentive_probes.problems.single_label import SingleLabel

__all__ = ["PRIMARY", "PROBLEMS", "SMALLER_IS_BETTER", "Problem", "Scores", "find_problem"]

PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in (SingleLabel(), MultiLabel(), Regression())}
# Metrics that stand for a problem in a table, and those of which smaller values are better.
PRIMARY = tuple(problem.primary for problem in PROBLEMS.values())
SMALLER_IS_BETTER = tuple(dict.fromkeys(name for problem in PROBLEMS.values() for name in problem.errors))


def find_problem(problem_type: str | None) -> Problem:
    """The problem of a `problem_type` as transformers writes it; `None` means one class per image.

    Raises:
        ValueError: If the name is unknown; the text lists the known ones.
    """
    if problem_type is None:
        return PROBLEMS[SingleLabel.name]
    if problem_type not in PROBLEMS:
        raise ValueError(unknown_name("problem_type", problem_type, PROBLEMS))
    return PROBLEMS[problem_type]
