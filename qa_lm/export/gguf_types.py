"""Number formats of GGUF, and which of them each weight gets."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

MAX_F16 = 65504
"""Largest number in float16."""
BLOCK = 32
"""Numbers of a row that share a scale when quantised."""
EXACT = ("position_embd.weight", "rope_freqs.weight")
"""Weights that llama.cpp reads in float32 only."""
EMBEDDINGS = ("token_embd.weight", "output.weight")


class GgufType(StrEnum):
    """Number format of the weights in a file."""

    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"
    q4_0 = "q4_0"


@dataclass
class TypedWeights:
    """Chooses a format for each weight and converts it. Vectors stay in float32, as in every GGUF file.

    Args:
        type: the format that is asked for.
    """

    type: GgufType
    counts: Counter[str] = field(default_factory=Counter)
    """Number of matrices by their format."""
    kept: int = 0
    """Number of matrices that should be quantised, but whose rows are not multiples of `BLOCK`."""

    def converted(self, name: str, weight: np.ndarray) -> tuple[np.ndarray, Any]:
        """The weight in its format, and gguf's name of the format."""
        import gguf

        found = self.format_of(name, weight)
        if weight.ndim > 1:
            self.counts[found] += 1
            quantised = self.type not in (GgufType.f32, GgufType.f16) and name not in EXACT
            self.kept += quantised and weight.shape[-1] % BLOCK != 0
        kind = gguf.GGMLQuantizationType[found.upper()]
        return gguf.quants.quantize(np.ascontiguousarray(weight), kind), kind

    def format_of(self, name: str, weight: np.ndarray) -> str:
        """The format of a weight."""
        if weight.ndim == 1 or name in EXACT or self.type is GgufType.f32:
            return "f32"
        if self.type is not GgufType.f16 and weight.shape[-1] % BLOCK == 0:
            return "q8_0" if name in EMBEDDINGS else self.type.value  # embeddings in 4 bits cost many answers
        return "f16" if np.abs(weight).max() < MAX_F16 else "f32"
