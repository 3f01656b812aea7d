"""Ask a model the questions of pairs and compare its answers with the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from qa_lm.data.encoding import Example, PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.evaluation.metrics import f1, normalised_exact_match
from qa_lm.evaluation.overlap import Relation
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import Continuation


@dataclass(frozen=True)
class Asked:
    """The pairs of one split that are asked."""

    split: str
    pairs: list[Pair]
    examples: list[Example]
    """The pairs encoded, in the same order."""
    held_out: list[str] | None = None
    """Why each pair is held out, where that is known."""


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
    """How a held-out pair stands to the trained ones, of `qa_lm.evaluation.overlap`; empty where that is not known."""
    nearest_question: str
    """Trained question that is most like this one; empty where that is not known."""
    nearest_is_right: bool | None
    """Whether that question's answer is an accepted one here."""
    most_common_is_right: bool | None
    """Whether the most common trained answer is."""
    log_probability: float
    """Mean of the answer's tokens, EOS included, in nats."""
    eos_log_probability: float
    """Of EOS after the true answer, in nats; nan where that was not looked at."""
    probability: float | None = None
    """Calibrated probability that the answer is right; None where nothing is calibrated."""


def evaluate_pairs(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    template: PromptTemplate,
    asked: Asked,
    relations: Sequence[Relation] | None,
    batch_size: int,
    max_new_tokens: int,
    use_drafts: bool = True,
    by_text: bool = False,
) -> list[EvaluatedPair]:
    """The model's greedy answer to each pair's question.

    Args:
        model: a causal LM of transformers.
        tokenizer: ids to text.
        template: how an answer is written.
        asked: the pairs.
        relations: how each stands to the trained pairs, for the record.
        batch_size: answers decoded at once.
        max_new_tokens: longest answer; raised to the longest true one, so that no right answer is cut.
        use_drafts: whether true answers may serve as drafts, see `qa_lm.modeling.causal_lm.packs_exactly`.
        by_text: whether an answer is exact whose text is, but for white space at its ends, whatever its ids: for models
            that were trained otherwise.
    """
    longest = max((len(example.answer_ids) for example in asked.examples), default=1)
    drafts = [Draft(example.ids[: example.prompt_tokens], example.answer_ids[:-1]) for example in asked.examples]
    found = greedy_answers(model, drafts, tokenizer.eos_id, max(max_new_tokens, longest), batch_size, use_drafts)
    evaluated = []
    for number, (pair, example, answer) in enumerate(zip(asked.pairs, asked.examples, found, strict=True)):
        generated = template.answer_from(tokenizer.decode(answer.ids))
        same = [*answer.ids, tokenizer.eos_id] == example.answer_ids or generated in pair.other_answers
        if by_text:
            generated = generated.strip()
            same = same or generated in {each.strip() for each in (pair.answer, *pair.other_answers)}
        held_out = asked.held_out[number] if asked.held_out else ""
        relation = relations[number] if relations else None
        evaluated.append(_evaluated(pair, answer, generated, same, asked.split, held_out, relation))
    return evaluated


def _evaluated(
    pair: Pair,
    answer: Continuation,
    generated: str,
    same: bool,
    split: str,
    held_out: str,
    relation: Relation | None,
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
        relation=relation.name if relation else "",
        nearest_question=relation.nearest_question if relation else "",
        nearest_is_right=relation.nearest_answer in accepted if relation else None,
        most_common_is_right=relation.most_common_answer in accepted if relation else None,
        log_probability=answer.mean_log_probability,
        eos_log_probability=answer.eos_log_probability,
    )


def exact_match(evaluated: list[EvaluatedPair]) -> float | None:
    """Share of the pairs answered exactly; None if there are none."""
    return sum(pair.exact_match for pair in evaluated) / len(evaluated) if evaluated else None
