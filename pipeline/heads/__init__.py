"""Heads: what predicts one target from one matrix, and the search for the one that serves best.

::

    catalog.py         heads by name
    factories.py       how each is made
    tuned.py           strength by inner cross-validation
    temperature.py     probabilities for heads that only score
    torch_heads.py     small torch heads
    several_labels.py  a head for each label
    inner.py           folds inside the rows that a head is given
    foreign.py         estimators of the user's own
    problem.py         the rows that a head is fitted on
    search.py          which fusion and head serve best
    scoring.py         out-of-fold scores
"""

from pipeline.heads.catalog import HEADS, OWN_STEPS, TRUSTED, make_head
from pipeline.heads.cross_validation import build, cross_validated, fit_head
from pipeline.heads.fitting import (
    FUSING,
    check_choice,
    fit_fusing,
    fit_ridge,
    is_ridge,
    makeable,
    resolved_head,
)
from pipeline.heads.former import FORMER_STEPS
from pipeline.heads.looking import MOST_ROWS
from pipeline.heads.problem import Problem
from pipeline.heads.random_features import MOST_COMPONENTS
from pipeline.heads.search import search_fusions

__all__ = [
    "FORMER_STEPS",
    "FUSING",
    "HEADS",
    "MOST_COMPONENTS",
    "MOST_ROWS",
    "OWN_STEPS",
    "TRUSTED",
    "Problem",
    "build",
    "check_choice",
    "cross_validated",
    "fit_fusing",
    "fit_head",
    "fit_ridge",
    "is_ridge",
    "make_head",
    "makeable",
    "resolved_head",
    "search_fusions",
]
