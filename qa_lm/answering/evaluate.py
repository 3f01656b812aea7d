"""Ask a model the questions of pairs and compare its answers with the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from qa_lm.answering.drafts import Draft
from qa_lm.answering.greedy import greedy_answers
from qa_lm.answering.metrics import f1, normalised_exact_match
from qa_lm.answering.relations import Relation
from qa_lm.answering.sampling import Continuation
from qa_lm.data.encoding import Example, PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer


@dataclass
class EvaluatedPair:
    """A pair and what the model answered: a line of answers.jsonl."""

    question: str
    answer: str
    generated: str
    exact_match: bool
    """The answer token for token, EOS included, or another accepted answer letter for letter."""
    normalised_exact_match: bool
    """An accepted answer, by SQuAD's rules."""
    f1: float
    """Of words, by SQuAD's rules, against the best of the accepted answers."""
    stopped: bool
    """Whether the model ended its answer; if not, it was cut at the length limit."""
    split: str
    held_out: str
    """Why the pair is held out, where pairs have groups."""
    relation: str
    """How a held-out pair stands to the trained ones, of `qa_lm.answering.relations`; empty where that is not known."""
    nearest_question: str
    """Trained question that is most like this one; empty where that is not known."""
    nearest_is_right: bool | None
    """Whether that question's answer is an accepted one here."""
    most_common_is_right: bool | None
    """Whether the most common trained answer is."""
    log_probability: float
    """Mean of the answer's tokens, EOS included, in nats."""
    eos_log_probability: float
    """Of EOS after the true answer, in nats."""
    probability: float | None = None
    """Calibrated probability that the answer is right; None where nothing is calibrated."""


def evaluate_pairs(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    template: PromptTemplate,
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    split: str,
    held_out: Sequence[str] | None,
    relations: Sequence[Relation] | None,
    batch_size: int,
    max_new_tokens: int,
) -> list[EvaluatedPair]:
    """The model's greedy answer to each pair's question.

    Args:
        model: a causal LM of transformers.
        tokenizer: ids to text.
        template: how an answer is written.
        pairs: what is asked.
        examples: the pairs encoded, in the same order.
        split: name of the pairs' split, for the record.
        held_out: why each pair is held out, for the record.
        relations: how each stands to the trained pairs, for the record.
        batch_size: answers decoded at once.
        max_new_tokens: longest answer; raised to the longest true one, so that no right answer is cut.
    """
    longest = max((len(example.answer_ids) for example in examples), default=1)
    drafts = [Draft(example.ids[: example.prompt_tokens], example.answer_ids[:-1]) for example in examples]
    found = greedy_answers(model, drafts, tokenizer.eos_id, max(max_new_tokens, longest), batch_size)
    return [
        _evaluated(
            pair,
            answer,
            template.answer_from(tokenizer.decode(answer.ids)),
            [*answer.ids, tokenizer.eos_id] == example.answer_ids,
            split,
            held_out[number] if held_out else "",
            relations[number] if relations else None,
        )
        for number, (pair, example, answer) in enumerate(zip(pairs, examples, found, strict=True))
    ]


def _evaluated(
    pair: Pair,
    answer: Continuation,
    generated: str,
    same_ids: bool,
    split: str,
    held_out: str,
    relation: Relation | None,
) -> EvaluatedPair:
    accepted = (pair.answer, *pair.other_answers)
    return EvaluatedPair(
        question=pair.question,
        answer=pair.answer,
        generated=generated,
        exact_match=answer.stopped and (same_ids or generated in pair.other_answers),
        normalised_exact_match=normalised_exact_match(generated, accepted),
        f1=f1(generated, accepted),
        stopped=answer.stopped,
        split=split,
        held_out=held_out,
        relation=relation.name if relation else "",
        nearest_question=relation.nearest_question if relation else "",
        nearest_is_right=relation and relation.nearest_answer in accepted,
        most_common_is_right=relation and relation.most_common_answer in accepted,
        log_probability=answer.mean_log_probability,
        eos_log_probability=answer.eos_log_probability,
    )


def exact_match(evaluated: list[EvaluatedPair]) -> float | None:
    """Share of the pairs answered exactly; None if there are none."""
    return sum(pair.exact_match for pair in evaluated) / len(evaluated) if evaluated else None
