"""Answer the questions of pairs with a model, and compare its answers with the true ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel

from qa_lm.data.encoding import Example, PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.evaluation.metrics import f1, normalised_exact_match
from qa_lm.evaluation.overlap import Overlap
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import Continuation


@dataclass(frozen=True)
class EvalSet:
    """Pairs of one split to evaluate on."""

    split: str
    pairs: list[Pair]
    examples: list[Example]
    """The encoded pairs, in the same order."""
    held_out: list[str] | None = None
    """Reason why each pair is held out, if known."""
    known_before: list[bool] | None = None
    """Whether the model knew each pair before training; None unless it started from a pretrained model."""


@dataclass
class EvaluatedPair:
    """A pair with the model's answer: a line of answers.jsonl."""

    question: str
    answer: str
    generated: str
    exact_match: bool
    """Whether the ids equal those of the answer (EOS included), or the text equals another accepted answer."""
    normalised_exact_match: bool
    """Whether the generated text is an accepted answer after SQuAD's normalisation."""
    f1: float
    """SQuAD's F1 over words, for the best accepted answer."""
    stopped: bool
    """Whether the model ended the answer with EOS; if not, it was cut at the length limit."""
    split: str
    held_out: str
    """Reason why the pair is held out, if pairs have groups; otherwise empty."""
    relation: str
    """Overlap of a held-out pair with the trained pairs, see `qa_lm.evaluation.overlap`; empty if unknown."""
    nearest_question: str
    """The nearest trained question; empty if unknown."""
    nearest_is_right: bool | None
    """Whether the answer of that question is accepted here; None if unknown."""
    most_common_is_right: bool | None
    """Whether the most common trained answer is accepted here; None if unknown."""
    log_probability: float
    """Mean log-probability of the generated tokens (EOS included), in nats."""
    eos_log_probability: float
    """Log-probability of EOS after the true answer, in nats; nan if not measured."""
    probability: float | None = None
    """Calibrated probability that the answer is right; None without a calibration."""
    known_before: bool | None = None
    """Whether the model knew the pair before training, see `qa_lm.evaluation.before`; None if it was not asked."""

    def record(self) -> dict[str, Any]:
        """The line of answers.jsonl; `known_before` only where it is known."""
        record = asdict(self)
        if self.known_before is None:
            del record["known_before"]
        return record


def evaluate_pairs(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    template: PromptTemplate,
    eval_set: EvalSet,
    overlaps: Sequence[Overlap] | None,
    batch_size: int,
    max_new_tokens: int,
    use_drafts: bool = True,
    by_text: bool = False,
) -> list[EvaluatedPair]:
    """Generate the greedy answer to each question and score it.

    Args:
        model: a causal LM of transformers.
        tokenizer: decodes ids to text.
        template: the prompt template.
        eval_set: the pairs.
        overlaps: overlap of each pair with the trained pairs, stored in the result; None if unknown.
        batch_size: number of answers decoded at once.
        max_new_tokens: maximum length of an answer; raised to the length of the longest true one, so that no right
            answer is cut.
        use_drafts: whether to use the true answers as drafts, see `qa_lm.modeling.causal_lm.packs_exactly`.
        by_text: whether to compare texts, ignoring white space at both ends, instead of ids; for external models.
    """
    examples = eval_set.examples
    longest = max((len(example.answer_ids) for example in examples), default=1)
    drafts = [Draft(example.ids[: example.prompt_tokens], example.answer_ids[:-1]) for example in examples]
    answers = greedy_answers(model, drafts, tokenizer.eos_id, max(max_new_tokens, longest), batch_size, use_drafts)
    evaluated = []
    for number, (pair, example, answer) in enumerate(zip(eval_set.pairs, examples, answers, strict=True)):
        generated = template.answer_from(tokenizer.decode(answer.ids))
        same = [*answer.ids, tokenizer.eos_id] == example.answer_ids or generated in pair.other_answers
        if by_text:
            generated = generated.strip()
            same = same or generated in {each.strip() for each in (pair.answer, *pair.other_answers)}
        held_out = eval_set.held_out[number] if eval_set.held_out else ""
        overlap = overlaps[number] if overlaps else None
        evaluated.append(_score(pair, answer, generated, same, eval_set.split, held_out, overlap))
        if eval_set.known_before:
            evaluated[-1].known_before = eval_set.known_before[number]
    return evaluated


def _score(
    pair: Pair,
    answer: Continuation,
    generated: str,
    same: bool,
    split: str,
    held_out: str,
    overlap: Overlap | None,
) -> EvaluatedPair:
    accepted = (pair.answer, *pair.other_answers)
    return EvaluatedPair(
        question=pair.question,
        answer=pair.answer,
        generated=generated,
        exact_match=answer.stopped and same,
        normalised_exact_match=normalised_exact_match(generated, accepted),
        f1=f1(generated, accepted),
        stopped=answer.stopped,
        split=split,
        held_out=held_out,
        relation=overlap.name if overlap else "",
        nearest_question=overlap.nearest_question if overlap else "",
        nearest_is_right=overlap.nearest_answer in accepted if overlap else None,
        most_common_is_right=overlap.most_common_answer in accepted if overlap else None,
        log_probability=answer.mean_log_probability,
        eos_log_probability=answer.eos_log_probability,
    )


def exact_match(evaluated: list[EvaluatedPair]) -> float | None:
    """Share of the pairs that are answered exactly; None without pairs."""
    return sum(pair.exact_match for pair in evaluated) / len(evaluated) if evaluated else None
