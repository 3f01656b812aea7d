"""Ask a model the questions of pairs and compare its answers with the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from qa_lm.answering.generate import generate
from qa_lm.data.encoding import Example, PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer


@dataclass(frozen=True)
class EvaluatedPair:
    """A pair, what the model answered, and whether that is the answer token for token, EOS included.

    An answer that is another of the pair's accepted ones, letter for letter, is a match too.
    """

    question: str
    answer: str
    generated: str
    exact_match: bool
    stopped: bool
    split: str
    held_out: str = ""
    """Why the pair is held out, where pairs have groups."""


def evaluate_pairs(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    template: PromptTemplate,
    pairs: list[Pair],
    examples: list[Example],
    split: str,
    held_out: Sequence[str] | None,
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
        batch_size: questions at once.
        max_new_tokens: longest answer; raised to the longest true one, so that no right answer is cut.
    """
    longest = max((len(example.answer_ids) for example in examples), default=1)
    prompts = [example.ids[: example.prompt_tokens] for example in examples]
    answers = generate(model, prompts, tokenizer.eos_id, max(max_new_tokens, longest), batch_size)
    evaluated = []
    for number, (pair, example, answer) in enumerate(zip(pairs, examples, answers, strict=True)):
        generated = template.answer_from(tokenizer.decode(answer.ids))
        exact = [*answer.ids, tokenizer.eos_id] == example.answer_ids or generated in pair.other_answers
        evaluated.append(
            EvaluatedPair(
                question=pair.question,
                answer=pair.answer,
                generated=generated,
                exact_match=answer.stopped and exact,
                stopped=answer.stopped,
                split=split,
                held_out=held_out[number] if held_out else "",
            )
        )
    return evaluated


def exact_match(evaluated: list[EvaluatedPair]) -> float | None:
    """Share of the pairs answered exactly; None if there are none."""
    return sum(pair.exact_match for pair in evaluated) / len(evaluated) if evaluated else None
