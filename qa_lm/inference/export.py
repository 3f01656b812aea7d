"""model/: the trained model as a folder that transformers loads, with its tokenizer and prompt template; and
checkpoints/model/, the same without weights, for readers of an unfinished run (`qa_lm.inference.in_progress`)."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.inference.golden import write_golden


def export_model(
    model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, questions: Sequence[str], folder: Path
) -> None:
    """Write safetensors and JSON: `AutoModelForCausalLM.from_pretrained(folder)` needs nothing else.

    The folder appears whole: it is written beside the target and renamed.

    Args:
        model: what was trained.
        tokenizer: its tokenizer.
        template: how it is asked.
        questions: golden ones, see `qa_lm.inference.golden`.
        folder: where to.
    """
    with _appearing_whole(folder) as beside:
        model.save_pretrained(beside)
        tokenizer.save(beside, context=model.config.max_position_embeddings)
        template.save(beside)
        write_golden(beside, model, tokenizer, template, questions)


def export_architecture(
    model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, folder: Path
) -> None:
    """Write what `export_model` writes of a model before anything is trained: all but weights and golden questions."""
    folder.parent.mkdir(exist_ok=True)
    with _appearing_whole(folder) as beside:
        model.config.save_pretrained(beside)
        tokenizer.save(beside, context=model.config.max_position_embeddings)
        template.save(beside)


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which then gets the name and takes the place of what had it."""
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    before = beside.with_name(f"{beside.name}.before")
    try:
        os.chmod(beside, 0o755)
        with _system_errors(folder):
            yield beside
        for file in beside.iterdir():  # safetensors makes its file readable by its owner alone
            file.chmod(0o644)
        if folder.is_dir():  # of a run that goes on after its end: only an empty folder can be replaced in one step
            os.replace(folder, before)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Errors of the system, which the libraries written in Rust raise as plain exceptions, as `OSError`."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, OSError) or not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
