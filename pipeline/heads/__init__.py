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
from pipeline.heads.problem import Problem
from pipeline.heads.comparison import AUTO_FUSIONS, AUTO_HEADS, build, compare, fit_head
from pipeline.heads.search import search_fusions

__all__ = [
    "AUTO_FUSIONS",
    "AUTO_HEADS",
    "HEADS",
    "OWN_STEPS",
    "TRUSTED",
    "Problem",
    "build",
    "compare",
    "fit_head",
    "make_head",
    "search_fusions",
]
