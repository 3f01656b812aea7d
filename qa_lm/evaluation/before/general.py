"""60 general questions, asked before and after training: what else the model has lost. general_answers.jsonl.

They have nothing to do with the pairs. An answer is right if it contains the right one as whole words, normalised by
SQuAD's rules: an untrained model answers in sentences.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.evaluation.metrics import Share, normalise_answer, share
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.scoring import Continued, Scorer
from qa_lm.run.atomic import write_jsonl
from qa_lm.run.run_folder import GENERAL_ANSWERS

MAX_NEW_TOKENS = 24
WORST = 10
"""Number of lost answers that the board lists."""


@dataclass(frozen=True)
class GeneralAnswer:
    """A general question with its answers: a line of general_answers.jsonl."""

    question: str
    answer: str
    """The right answer."""
    before: str
    """What the model answered before training."""
    right_before: bool
    ids: list[int]
    """Tokens of that answer, EOS included where it ended."""
    log_probability_before: float
    """Mean log-probability of these tokens before training, in nats."""
    after: str | None = None
    """What it answers now; None, like the next two, until training has ended."""
    right_after: bool | None = None
    log_probability_after: float | None = None
    """Mean log-probability of the tokens of the former answer now, in nats."""

    @property
    def fall(self) -> float:
        """How much the log-probability of the former answer fell, in nats per token."""
        assert self.log_probability_after is not None
        return self.log_probability_before - self.log_probability_after


def general_questions() -> list[dict[str, Any]]:
    """The questions: `question`, `answer` and, for some, `other_answers`."""
    content = (files("qa_lm") / "evaluation" / "general_en.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()]


def contains(text: str, accepted: Sequence[str]) -> bool:
    """Whether a text contains an accepted answer as whole words."""
    words = f" {normalise_answer(text)} "
    return any(f" {normalise_answer(each)} " in words for each in accepted)


def ask_general(model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate) -> list[GeneralAnswer]:
    """Ask a model that is not trained yet.

    Args:
        model: a causal LM in eval mode.
        tokenizer: its tokenizer.
        template: the prompt template.
    """
    asked = general_questions()
    prompts = encode_prompts([each["question"] for each in asked], tokenizer, template)
    given = _answers(model, prompts, tokenizer, template)
    scores = _scores(model, prompts, [ids for _, ids in given])
    return [
        GeneralAnswer(each["question"], each["answer"], text, contains(text, _accepted(each)), ids, score)
        for each, (text, ids), score in zip(asked, given, scores, strict=True)
    ]


def ask_again(
    model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate, before: Sequence[GeneralAnswer]
) -> list[GeneralAnswer]:
    """Ask the trained model the same questions; see `ask_general`."""
    accepted = {each["question"]: _accepted(each) for each in general_questions()}
    prompts = encode_prompts([each.question for each in before], tokenizer, template)
    given = _answers(model, prompts, tokenizer, template)
    scores = _scores(model, prompts, [each.ids for each in before])
    return [
        replace(
            each,
            after=text,
            right_after=contains(text, accepted.get(each.question, [each.answer])),
            log_probability_after=score,
        )
        for each, (text, _), score in zip(before, given, scores, strict=True)
    ]


def _accepted(question: dict[str, Any]) -> list[str]:
    return [question["answer"], *question.get("other_answers", ())]


def _answers(
    model: PreTrainedModel, prompts: list[list[int]], tokenizer: TextTokenizer, template: PromptTemplate
) -> list[tuple[str, list[int]]]:
    """Greedy answers as text and as ids, EOS included where it ended the answer."""
    drafts = [Draft(prompt, []) for prompt in prompts]
    answers = greedy_answers(model, drafts, tokenizer.eos_id, MAX_NEW_TOKENS, check=False)
    return [
        (template.answer_from(tokenizer.decode(each.ids)).strip(), [*each.ids, *[tokenizer.eos_id] * each.stopped])
        for each in answers
    ]


def _scores(model: PreTrainedModel, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
    """Mean log-probability of the tokens of each answer."""
    continued = [Continued(number, ids) for number, ids in enumerate(answers)]
    return [float(each.sum()) / max(1, len(each)) for each in Scorer(model, prompts)(continued)]


def general_board(answers: Sequence[GeneralAnswer]) -> dict[str, Any]:
    """The entry `general` of board.json.

    Returns:
        n: number of questions; same: share of the answers that stayed the same; right_before, right_after: how many
            contain the right answer; lost: how many were right and are wrong now; worst: changed answers, those that
            were right and are wrong now first, then by how much the log-probability of the former answer fell.
    """
    same = share(float(each.after == each.before) for each in answers)
    assert isinstance(same, Share)
    changed = [each for each in answers if each.after != each.before]
    changed.sort(key=lambda each: (not _lost(each), -each.fall))
    kept = ("question", "answer", "before", "right_before", "after", "right_after")
    return {
        "n": len(answers),
        "same": same._asdict(),
        "right_before": sum(each.right_before for each in answers),
        "right_after": sum(bool(each.right_after) for each in answers),
        "lost": sum(map(_lost, answers)),
        "worst": [{name: getattr(each, name) for name in kept} | {"fall": each.fall} for each in changed[:WORST]],
    }


def _lost(answer: GeneralAnswer) -> bool:
    return answer.right_before and not answer.right_after


def save_general(answers: Sequence[GeneralAnswer], folder: Path) -> None:
    """Write general_answers.jsonl."""
    write_jsonl(folder / GENERAL_ANSWERS, [asdict(each) for each in answers])


def load_general(folder: Path) -> list[GeneralAnswer] | None:
    """Read what `save_general` wrote; None if the file is missing or damaged."""
    try:
        lines = (folder / GENERAL_ANSWERS).read_text(encoding="utf-8").split("\n")
        return [GeneralAnswer(**json.loads(line)) for line in lines if line] or None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
