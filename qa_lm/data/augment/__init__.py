"""Rewrite questions in the ways people write them, without changing what is asked."""

from qa_lm.data.augment.rewriter import Rewriter
from qa_lm.data.augment.rules import Generator
from qa_lm.data.augment.variants import VARIANTS

__all__ = ["VARIANTS", "Generator", "Rewriter"]
