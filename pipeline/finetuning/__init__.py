"""Stage 3: the top blocks of a network trained end to end, starting from the trained head.

::

    stage.py       finetune()
    rows.py        which rows are trained on, and which judge
    objectives.py  a target as a loss
    start.py       the frozen model that it begins with
    network.py     the cut network with the heads as its linear layers
    looking.py     what the frozen blocks give, once for every view
    feeds.py       where the inputs of a step come from
    training.py    batches, rates and losses for the one training loop
    judging.py     how far to go from frozen to tuned weights, and which are kept
    tuned.py       TunedBackbone
    outcome.py     the model that comes of it, and its figures beside those of the frozen one
    traces.py      the files beside the model, and going on after a kill
    log.py         the epochs as a table and as a picture
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.finetuning.outcome import Outcome, compared
    from pipeline.finetuning.stage import finetune
    from pipeline.finetuning.tuned import TunedBackbone, Tuning

__all__ = ["Outcome", "TunedBackbone", "Tuning", "compared", "finetune"]

_HOMES = {
    "Outcome": "outcome",
    "TunedBackbone": "tuned",
    "Tuning": "tuned",
    "compared": "outcome",
    "finetune": "stage",
}


def __getattr__(name: str) -> Any:
    """Load torch only when something of this wing is used."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
