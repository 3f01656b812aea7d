"""Write a model as a transformers folder with weights in another number format."""

import shutil
from enum import StrEnum
from pathlib import Path

import torch

from qa_lm.export.source import Source
from qa_lm.inference import calibration, known_answers
from qa_lm.inference.answerer import Answerer, load_causal_lm
from qa_lm.inference.export import atomic_folder, save_model
from qa_lm.inference.golden import golden_questions, write_golden
from qa_lm.retrieval import encoder, known_pairs, model_encoder


class Dtype(StrEnum):
    """Number format of the weights."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"

    @property
    def torch(self) -> torch.dtype:
        """The same as torch names it."""
        return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[self.value]


OWN = (known_pairs.FILE, known_answers.FILE, calibration.FILE, model_encoder.FILE, "README.md")
"""Files of a model folder that are copied as they are."""


def write_folder(source: Source, folder: Path, dtype: Dtype) -> Answerer:
    """Write the folder, in one step, and load it again.

    Its golden questions are answered by the rounded weights.
    """
    template = source.answerer.template
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        save_model(load_causal_lm(source.folder, dtype.torch), source.tokenizer, template, temporary)
        for name in OWN:
            if (source.folder / name).is_file():
                shutil.copy(source.folder / name, temporary / name)
        if (source.folder / encoder.FOLDER).is_dir():
            shutil.copytree(source.folder / encoder.FOLDER, temporary / encoder.FOLDER)
        questions = golden_questions(source.folder)
        write_golden(temporary, load_causal_lm(temporary), source.tokenizer, template, questions)
    return Answerer.load(folder)
