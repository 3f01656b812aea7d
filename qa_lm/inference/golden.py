"""Golden questions: a model's folder carries questions with their prompt ids and answers, replayed when it is loaded.

A model answers what it was trained to answer only if it sees the very ids it was trained with. A tokenizer of another
version, a changed template or damaged weights would make it worse without a word; replaying finds that.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError, first_line
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers

FILE = "golden.json"
ODD = "  Is <|endoftext|> text,\tor 2 + 2 = é 한국 🙂 ?  "
"""A question of what tokenizers differ in: spaces at both ends, a special token's name, several scripts."""
SURE = math.log(0.6)
"""Log-probability that every token of a golden answer has: between tokens that are nearly even, rounding on another
machine may decide."""
LONGEST = 64


def write_golden(
    folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, questions: Sequence[str]
) -> None:
    """Write the file beside a model.

    Args:
        folder: the model's folder.
        model: as it is saved there.
        tokenizer: as it is saved there.
        template: as it is saved there.
        questions: what it was trained on and asked; `ODD` is added.
    """
    questions = [*questions, ODD]
    prompts = encode_prompts(questions, tokenizer, template)
    context = model.config.max_position_embeddings
    short = [(question, prompt) for question, prompt in zip(questions, prompts, strict=True) if len(prompt) < context]
    answers = greedy_answers(model, [Draft(prompt, []) for _, prompt in short], tokenizer.eos_id, LONGEST)
    records = [
        {
            "question": question,
            "prompt_ids": prompt,
            "answer_ids": answer.ids if answer.stopped and min(answer.log_probabilities) >= SURE else None,
        }
        for (question, prompt), answer in zip(short, answers, strict=True)
    ]
    (folder / FILE).write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def check_golden(folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate) -> None:
    """Replay the file of a model's folder, if there is one.

    Raises:
        UserError: a prompt has other ids, or an answer is another one; the message names the first difference.
    """
    path = folder / FILE
    if not path.exists():
        return
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        questions = [str(record["question"]) for record in records]
        wanted = [(list(record["prompt_ids"]), _ids(record["answer_ids"], len(tokenizer))) for record in records]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: is damaged: {first_line(error)}") from None
    prompts = encode_prompts(questions, tokenizer, template)
    for question, prompt, (prompt_ids, _) in zip(questions, prompts, wanted, strict=True):
        if prompt != prompt_ids:
            raise UserError(
                f"{folder}: the prompt of {question!r} has other ids than in training: "
                f"{_difference(prompt, prompt_ids)}"
                "\nThe tokenizer or the prompt template is not the one it was trained with."
            )
    sure = [(number, answer_ids) for number, (_, answer_ids) in enumerate(wanted) if answer_ids is not None]
    drafts = [Draft(prompts[number], answer_ids) for number, answer_ids in sure]
    found = greedy_answers(model, drafts, tokenizer.eos_id, LONGEST)
    for (number, _), draft, answer in zip(sure, drafts, found, strict=True):
        if answer.ids != draft.answer or not answer.stopped:
            raise UserError(
                f"{folder}: the answer to {questions[number]!r} is {tokenizer.decode(answer.ids)!r}, it was "
                f"{tokenizer.decode(draft.answer)!r} when the model was saved\nIts weights have changed since."
            )


def _ids(found: object, entries: int) -> list[int] | None:
    """The ids of an answer as the file has them; None where it has none.

    Raises:
        ValueError: they are no ids of a vocabulary with so many entries.
    """
    if found is None:
        return None
    if not isinstance(found, list) or not all(type(each) is int and 0 <= each < entries for each in found):
        raise ValueError(f"answer_ids must be ids below {entries}")
    return found


def _difference(ids: list[int], wanted: list[int]) -> str:
    """Where two lists part, and a few ids of each from there."""
    same = next((n for n, pair in enumerate(zip(ids, wanted, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(ids), len(wanted)) if same is None else same
    found, before = (each[place : place + 8] or "nothing" for each in (ids, wanted))
    return f"from place {place + 1} on {found} instead of {before}"
