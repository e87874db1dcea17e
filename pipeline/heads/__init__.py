"""Heads: what predicts one target from one matrix, and the search for what serves best.

Any head::

    catalog.py           heads by name
    factories.py         how each is made
    fitting.py           from what was asked for to what is fitted
    problem.py           the rows that a head is fitted on
    cross_validation.py  a fusion and a head, scored out of fold
    scoring.py           those scores
    inner.py             folds inside the rows that a head is given
    tuned.py             strength by inner cross-validation
    temperature.py       probabilities for heads that only score
    foreign.py           estimators of the user's own
    discriminant.py, torch_heads.py, several_labels.py
    folding.py           a linear head as one affine map of the columns
    former.py            heads of old model files

Ridge over layers, from the ground up::

    moments.py           sums over rows that all of it follows from
    linear_map.py        a fusion, as what it does to columns
    sharing.py           what targets with the same labelled rows have in common
    ridge_rows.py        the problem: rows or their moments
    spectrum.py          its eigenvectors; every row left out, for every strength
    labels.py            labels as columns
    judging.py           what predictions of rows left out are worth
    solving.py           the strength that is worth most
    layer_scaling.py     layers with an equal say, and their penalties
    evidence.py          penalties from the data alone
    calibration.py       which classes are mistaken for which
    looking.py           which rows are left out, and the passes over the data
    stream.py            rows that come bit by bit
    ridge_base.py        what the two estimators share
    layer_ridge.py       LayerRidgeClassifier, LayerRidgeRegressor

The search, and several heads at once::

    fused.py             every fusion, tried
    selection.py         columns over all layers
    stacking.py          weights of predictions
    search.py            search_fusions()
    random_features.py   what no plane parts
    members.py           logistic regression that starts from ridge
    stacked_heads.py     members, and what each brings
    best.py              BestClassifier, BestRegressor
"""

from pipeline.heads.best import BestClassifier, BestRegressor
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
    widened,
)
from pipeline.heads.folding import Folded, folded, refuse_unfoldable
from pipeline.heads.former import FORMER_STEPS
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.looking import MOST_ROWS
from pipeline.heads.moments import Moments
from pipeline.heads.problem import Problem
from pipeline.heads.random_features import MOST_COMPONENTS, RandomFeatures
from pipeline.heads.search import search_fusions
from pipeline.heads.sharing import Sharing
from pipeline.heads.temperature import best_temperature

__all__ = [
    "FORMER_STEPS",
    "FUSING",
    "HEADS",
    "MOST_COMPONENTS",
    "MOST_ROWS",
    "OWN_STEPS",
    "TRUSTED",
    "BestClassifier",
    "BestRegressor",
    "Folded",
    "LayerRidgeClassifier",
    "LayerRidgeRegressor",
    "Moments",
    "Problem",
    "RandomFeatures",
    "Sharing",
    "best_temperature",
    "build",
    "check_choice",
    "cross_validated",
    "fit_fusing",
    "fit_head",
    "fit_ridge",
    "folded",
    "is_ridge",
    "make_head",
    "makeable",
    "refuse_unfoldable",
    "resolved_head",
    "search_fusions",
    "widened",
]
