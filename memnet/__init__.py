"""Neural memory that writes, links, dreams and forgets. The names below are imported when they are first used."""
__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dreaming.synthesizer import MemorySynthesizer
    from .memory.bank import MultiHeadMemoryBank
    from .memory.fused_path import set_memory_path
    from .memory.state import MemoryState
    from .models.controller import TransformerController
    from .models.memnet import MemNet, MemNetConfig
    from .models.memory_layer import MemoryLayer
    from .scorecard.card import Scorecard, score
    from .training.fit import fit

_HOME = {
    "MemorySynthesizer": "dreaming.synthesizer", "MemoryState": "memory.state", "MultiHeadMemoryBank": "memory.bank", "TransformerController": "models.controller",
    "MemNet": "models.memnet", "MemNetConfig": "models.memnet", "MemoryLayer": "models.memory_layer", "fit": "training.fit", "Scorecard": "scorecard.card", "score": "scorecard.card", "set_memory_path": "memory.fused_path",
}
__all__ = ["MemNet", "MemNetConfig", "MemoryLayer", "MemoryState", "MemorySynthesizer", "MultiHeadMemoryBank", "Scorecard", "TransformerController", "fit", "score", "set_memory_path"]

def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'memnet' has no attribute {name!r}: it has {', '.join(__all__)}; the rest is in its parts, such as memnet.memory")
    return getattr(import_module(f"memnet.{_HOME[name]}"), name)

def __dir__(): return [*globals(), *__all__]
