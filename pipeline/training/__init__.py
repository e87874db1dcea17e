"""Stage 2: cached layers and labels become a model, and a model gets its figures.

::

    stage.py       train()
    labelled.py    which column is the target, and which rows are held out
    learning.py    the fitted head that serves best
    figures.py     figures of a head on rows that it has not seen
    evaluation.py  evaluate(): the same on other inputs
"""

from pipeline.training.evaluation import Evaluation, evaluate
from pipeline.training.figures import measure, no_figures
from pipeline.training.labelled import refuse_sameness
from pipeline.training.learning import Learnt, learn, relearn
from pipeline.training.stage import train

__all__ = [
    "Evaluation",
    "Learnt",
    "evaluate",
    "learn",
    "measure",
    "no_figures",
    "refuse_sameness",
    "relearn",
    "train",
]
