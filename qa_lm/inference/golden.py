"""Golden questions: a model's folder contains questions with their prompt ids and answers, verified on loading.

A model gives the answers it learnt only for the exact ids it was trained on. A different tokenizer version, a changed
template or damaged weights would degrade it silently; verifying the golden questions detects that.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError, reading
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import Continuation
from qa_lm.modeling.causal_lm import context_of

FILE = "golden.json"
EDGE_CASES = "  Is <|endoftext|> text,\tor 2 + 2 = é 한국 🙂 ?  "
"""A question on which tokenizers differ: spaces at both ends, the name of a special token, several scripts."""
MIN_LOG_PROBABILITY = math.log(0.6)
"""Minimum log-probability of each token of a golden answer, in nats: between nearly equal tokens, rounding on another
machine could change the choice."""
MAX_NEW_TOKENS = 64


def write_golden(
    folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, questions: Sequence[str]
) -> None:
    """Write the golden questions into a model's folder.

    Args:
        folder: the model's folder.
        model: the model saved there.
        tokenizer: the tokenizer saved there.
        template: the template saved there.
        questions: trained questions; `EDGE_CASES` is added.
    """
    questions = [*questions, EDGE_CASES]
    prompts = encode_prompts(questions, tokenizer, template)
    context = context_of(model)
    fitting = [(question, prompt) for question, prompt in zip(questions, prompts, strict=True) if len(prompt) < context]
    drafts = [Draft(prompt, []) for _, prompt in fitting]
    answers = greedy_answers(model, drafts, tokenizer.eos_id, MAX_NEW_TOKENS)
    records = [
        {
            "question": question,
            "prompt_ids": prompt,
            "answer_ids": answer.ids if is_certain(answer) else None,
        }
        for (question, prompt), answer in zip(fitting, answers, strict=True)
    ]
    (folder / FILE).write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def golden_questions(folder: Path) -> list[str]:
    """The golden questions of a model's folder that were trained or held out; none if it has no file of them."""
    path = folder / FILE
    if not path.exists():
        return []
    with reading(path, "is damaged"):
        questions = [str(record["question"]) for record in json.loads(path.read_text(encoding="utf-8"))]
    return [question for question in questions if question != EDGE_CASES]


def is_certain(answer: Continuation) -> bool:
    """Whether an answer ends on its own and each of its tokens is so likely that rounding does not change it."""
    return answer.stopped and min(answer.log_probabilities) >= MIN_LOG_PROBABILITY


def check_golden(folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate) -> None:
    """Verify the golden questions of a model's folder, if it has any.

    Raises:
        UserError: the ids of a prompt or an answer differ; the message names the first difference.
    """
    path = folder / FILE
    if not path.exists():
        return
    with reading(path, "is damaged"):
        records = json.loads(path.read_text(encoding="utf-8"))
        questions = [str(record["question"]) for record in records]
        expected = [(list(record["prompt_ids"]), _ids(record["answer_ids"], len(tokenizer))) for record in records]
    prompts = encode_prompts(questions, tokenizer, template)
    for question, prompt, (prompt_ids, _) in zip(questions, prompts, expected, strict=True):
        if prompt != prompt_ids:
            raise UserError(
                f"{folder}: the prompt of {question!r} has different ids than in training: "
                f"{_difference(prompt, prompt_ids)}"
                "\nThe tokenizer or the prompt template is not the one the model was trained with."
            )
    known = [(number, answer_ids) for number, (_, answer_ids) in enumerate(expected) if answer_ids is not None]
    drafts = [Draft(prompts[number], answer_ids) for number, answer_ids in known]
    answers = greedy_answers(model, drafts, tokenizer.eos_id, MAX_NEW_TOKENS)
    for (number, _), draft, answer in zip(known, drafts, answers, strict=True):
        if answer.ids != draft.answer or not answer.stopped:
            raise UserError(
                f"{folder}: the answer to {questions[number]!r} is {tokenizer.decode(answer.ids)!r}; when the model "
                f"was saved it was {tokenizer.decode(draft.answer)!r}\nThe weights have changed since."
            )


def _ids(value: object, vocab_size: int) -> list[int] | None:
    """The ids of a golden answer; None if the file has none.

    Raises:
        ValueError: the value is not a list of ids of the vocabulary.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(each) is int and 0 <= each < vocab_size for each in value):
        raise ValueError(f"answer_ids must be ids below {vocab_size}")
    return value


def _difference(ids: list[int], expected: list[int]) -> str:
    """The position of the first difference, and a few ids of both lists from there."""
    first = next((n for n, pair in enumerate(zip(ids, expected, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(ids), len(expected)) if first is None else first
    now, before = (each[start : start + 8] or "nothing" for each in (ids, expected))
    return f"from position {start + 1}: {now} instead of {before}"
