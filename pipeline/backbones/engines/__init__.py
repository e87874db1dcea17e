"""Engines: what runs an embedding graph on a device, one file each, chosen by rule.

====================  ================================================================
`engine`              what every engine does
`openvino_engine`     the processor: fastest, and the same vector whatever the batch
`torch_engine`        every other device, and what OpenVINO cannot run; compiled on CUDA
                      once the number of pictures repays it
`fidelity`            the gate: an engine that gives other numbers is not used
`choice`              the rule
====================  ================================================================
"""

from pipeline.backbones.engines.choice import make_engine, prepared_engine
from pipeline.backbones.engines.engine import Engine, EngineMemoryError, Pending
from pipeline.backbones.engines.fidelity import agreement

__all__ = [
    "Engine",
    "EngineMemoryError",
    "Pending",
    "agreement",
    "make_engine",
    "prepared_engine",
]
