"""Write model/, the trained model as a transformers folder with its tokenizer and prompt template, and
checkpoints/model/, the same without weights, for readers of an unfinished run (`qa_lm.inference.in_progress`)."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.inference.golden import write_golden
from qa_lm.modeling.causal_lm import context_of


def export_model(
    model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, questions: Sequence[str], folder: Path
) -> None:
    """Write safetensors and JSON, which is all that `AutoModelForCausalLM.from_pretrained(folder)` needs.

    The write is atomic: the folder is written under a temporary name and then renamed.

    Args:
        model: the trained model.
        tokenizer: the tokenizer of the model.
        template: the prompt template.
        questions: golden questions, see `qa_lm.inference.golden`.
        folder: the folder to write.
    """
    with _atomic_folder(folder) as temporary:
        _end_answers(model, tokenizer)
        model.save_pretrained(temporary)
        tokenizer.save(temporary, context=context_of(model))
        template.save(temporary)
        write_golden(temporary, model, tokenizer, template, questions)


def export_architecture(
    model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, folder: Path
) -> None:
    """Write what `export_model` writes, except weights and golden questions. Nothing needs to be trained yet."""
    folder.parent.mkdir(exist_ok=True)
    with _atomic_folder(folder) as temporary:
        _end_answers(model, tokenizer)
        model.config.save_pretrained(temporary)
        tokenizer.save(temporary, context=context_of(model))
        template.save(temporary)


def _end_answers(model: PreTrainedModel, tokenizer: TextTokenizer) -> None:
    """Let the model end its answers with the tokenizer's EOS, and generate greedily, as it is measured."""
    model.config.eos_token_id = tokenizer.eos_id
    if model.can_generate():
        ends = tokenizer.end_ids
        model.generation_config = GenerationConfig(
            do_sample=False,
            bos_token_id=model.config.bos_token_id,
            eos_token_id=ends if len(ends) > 1 else ends[0],
            pad_token_id=model.config.pad_token_id,
        )


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into, which then replaces the folder."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    before = temporary.with_name(f"{temporary.name}.before")
    try:
        os.chmod(temporary, 0o755)
        with _system_errors(folder):
            yield temporary
        for file in temporary.iterdir():  # safetensors creates files that only their owner can read
            file.chmod(0o644)
        if folder.is_dir():  # a finished run was resumed; only an empty folder can be replaced in one step
            os.replace(folder, before)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Raise system errors as `OSError`; libraries written in Rust raise them as plain exceptions."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, OSError) or not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
