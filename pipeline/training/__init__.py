"""Stage 2: cached layers and labels become a model, and a model gets its figures.

::

    stage.py       train()
    labelled.py    which columns are the targets, and which rows are held out
    rows.py        rows of a store, read once for all targets
    memory.py      whether they fit
    tasks.py       targets trained together: each as alone, what they share computed once
    learning.py    the fitted head that serves best
    figures.py     figures of a head on rows that it has not seen
    evaluation.py  evaluate(): the same on other inputs
"""

from pipeline.training.evaluation import Evaluation, evaluate
from pipeline.training.figures import measure, measure_outputs, no_figures
from pipeline.training.labelled import refuse_sameness
from pipeline.training.learning import Learnt, class_weight_of, relearn
from pipeline.training.memory import MemoryPlan
from pipeline.training.stage import train
from pipeline.training.tasks import (
    Task,
    learn_tasks,
    plan_tasks,
    refuse_fusions,
    refuse_heads,
    united,
)

__all__ = [
    "Evaluation",
    "Learnt",
    "MemoryPlan",
    "Task",
    "class_weight_of",
    "evaluate",
    "learn_tasks",
    "measure",
    "measure_outputs",
    "no_figures",
    "plan_tasks",
    "refuse_fusions",
    "refuse_heads",
    "refuse_sameness",
    "relearn",
    "train",
    "united",
]
