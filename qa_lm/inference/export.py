"""Write model/, the trained model as a transformers folder with its tokenizer and prompt template, and
checkpoints/model/, the same without weights, for readers of an unfinished run (`qa_lm.inference.in_progress`).

Every tool that reads such a folder shall give the trained answers, so the folder says what a tool needs: the prompt as
a chat template, greedy decoding, all ids that end an answer, and settings by the names of transformers 4 and 5.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from qa_lm.data.chat.chat_tokenizer import ChatTokenizer
from qa_lm.data.chat.exported import chat_templates, matching_template
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import CONFIG, TextTokenizer
from qa_lm.inference.golden import write_golden
from qa_lm.modeling.causal_lm import context_of

GENERATION = "generation_config.json"
GREEDY = {"do_sample": False, "temperature": 0.0, "top_k": 1}
"""Settings by which all tools decode greedily. transformers obeys `do_sample`, except that the pipelines of version 4
sample unless `top_k` is 1; vLLM and SGLang do not read it, and take the other two. transformers warns that it does not
need them, and refuses to save them itself."""
TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""A class that transformers 4 and 5 have; transformers 5 writes the name of one that only it has."""


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
    with atomic_folder(folder) as temporary:
        save_model(model, tokenizer, template, temporary)
        write_golden(temporary, model, tokenizer, template, questions)


def save_model(model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, folder: Path) -> None:
    """Write the files of a model into an existing folder, all but the golden questions."""
    _end_answers(model, tokenizer)
    model.save_pretrained(folder)
    _complete(folder, model, tokenizer, template)


def export_architecture(
    model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, folder: Path
) -> None:
    """Write what `export_model` writes, except weights and golden questions. Nothing needs to be trained yet."""
    folder.parent.mkdir(exist_ok=True)
    with atomic_folder(folder) as temporary:
        _end_answers(model, tokenizer)
        model.config.save_pretrained(temporary)
        _complete(temporary, model, tokenizer, template)


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


def _complete(folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate) -> None:
    """Write the tokenizer and the prompt template next to a model, and complete the settings for other tools."""
    tokenizer.save(folder, context_of(model), **_chat_settings(tokenizer, template))
    template.save(folder)
    _change_json(folder / CONFIG, tokenizer_class=TOKENIZER_CLASS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters")
    names = {"torch_dtype": config["dtype"]} if "dtype" in config else {}
    if isinstance(rope, dict) and isinstance(rope.get("rope_theta"), float | int):
        names["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            names["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    _change_json(folder / "config.json", **names)
    if (folder / GENERATION).is_file():
        _change_json(folder / GENERATION, **GREEDY)


def _chat_settings(tokenizer: TextTokenizer, template: PromptTemplate) -> dict[str, Any]:
    """Settings of the tokenizer by which a question as a message has the ids of its prompt; none if nothing does that.

    Special tokens in texts are split, as in training, unless the template has to write some itself.
    """
    before = "".join(str(tokenizer.token(each)) for each in template.before)
    split = template.chat is None and not before
    own = tokenizer.template if isinstance(tokenizer, ChatTokenizer) else None
    found = matching_template(tokenizer, template, chat_templates(template, before, own), split_special_tokens=split)
    return {} if found is None else {"chat_template": found, "split_special_tokens": split}


def _change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
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
