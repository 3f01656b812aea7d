"""Prove that an exported model answers as the run does: prompt ids, and greedy answers token by token.

An answer is *sure* if it ends on its own and the model gives each of its tokens at least the probability of
`qa_lm.inference.golden`. Others may part where two tokens are nearly equal, because rounding decides there.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

from qa_lm.inference.golden import EDGE_CASES, is_certain
from qa_lm.inference.sampling import Continuation

LISTED = 20
"""Number of differences in the file of a proof."""
TOLERANCE = {"f32": 1e-2, "f16": 0.1}
"""By number format, the difference of log-probabilities, in nats, that rounding explains. Measured: 4e-5 and 4e-3."""
ROUNDED_IN_F32 = ("gpt2",)
"""Architectures whose float32 files differ as those of float16 do: up to 1e-3 for random GPT-2 models, probably because
llama.cpp rounds the activation."""
ODD = (
    EDGE_CASES,
    "x  12345 a\n\n 12 b\r\n",
    "don't DON'T we'll _a__ x_1 1,234.56",
    "a\u00a0nbsp\u2003em ½ ² ٣ १ ǅ ﬁ ß İ",
    "{{ x }} {% if y %} \\n \"quoted\" '''",
)
"""Texts on which tokenizers differ. Only their prompt ids are compared."""


@dataclass(frozen=True)
class Parted:
    """A question whose answer differs."""

    question: str
    run: str
    """Answer of the run."""
    exported: str
    """Answer of the exported model."""
    sure: bool


@dataclass(frozen=True)
class DifferentPrompt:
    """A question whose prompt has other ids."""

    question: str
    run: list[int]
    exported: list[int]


@dataclass
class Proof:
    """What was compared, and what differs."""

    asked: int
    """Number of questions."""
    tolerance: float | None = None
    """Difference of log-probabilities, in nats, that rounding explains; None where it explains any."""
    sure: int = 0
    """Number of sure answers of the run."""
    different_prompts: list[DifferentPrompt] = field(default_factory=list)
    parted: list[Parted] = field(default_factory=list)
    compared_tokens: int = 0
    """Number of tokens whose log-probabilities are compared."""
    largest_difference: float = 0.0
    """Largest difference of the log-probability of a token, in nats, up to where answers part."""

    @property
    def sure_parted(self) -> int:
        """Number of sure answers that differ."""
        return sum(each.sure for each in self.parted)

    @property
    def holds(self) -> bool:
        """Whether all prompts have the same ids, all sure answers are the same, and rounding explains the rest."""
        return not self.different_prompts and not self.sure_parted and not self.too_different

    @property
    def too_different(self) -> bool:
        """Whether rounding does not explain a difference of log-probabilities."""
        return self.tolerance is not None and not self.largest_difference <= self.tolerance

    def record(self) -> dict[str, Any]:
        """The content of the proof's file."""
        parted = sorted(self.parted, key=lambda each: not each.sure)
        return {
            "holds": self.holds,
            "prompts": {
                "asked": self.asked + len(ODD),
                "same_ids": self.asked + len(ODD) - len(self.different_prompts),
                "different": [asdict(each) for each in self.different_prompts[:LISTED]],
            },
            "answers": {
                "asked": self.asked,
                "same": self.asked - len(self.parted),
                "sure": self.sure,
                "sure_and_same": self.sure - self.sure_parted,
                "different": [asdict(each) for each in parted[:LISTED]],
            },
            "tokens_with_compared_log_probability": self.compared_tokens,
            "largest_difference_of_log_probability": self.largest_difference,
            "largest_difference_that_rounding_explains": self.tolerance,
        }

    def compare_prompt(self, question: str, run: list[int], *exported: list[int]) -> None:
        """Compare the ids of a prompt with those that the exported model has, in each of several ways."""
        other = next((each for each in exported if each != run), None)
        if other is not None:
            self.different_prompts.append(DifferentPrompt(question, run, other))

    def compare_answer(
        self, question: str, run: Continuation, exported: Continuation, text: Callable[[list[int]], str]
    ) -> None:
        """Compare an answer.

        Args:
            question: the question.
            run: answer of the run.
            exported: answer of the exported model.
            text: decodes ids.
        """
        sure = is_certain(run)
        self.sure += sure
        if (run.ids, run.stopped) != (exported.ids, exported.stopped):
            self.parted.append(Parted(question, text(run.ids), text(exported.ids), sure))
        differences = log_probability_differences(run, exported)
        self.compared_tokens += len(differences)
        self.largest_difference = max([self.largest_difference, *differences])


def tolerance_of(kind: str, architecture: str = "") -> float | None:
    """The difference of log-probabilities, in nats, that rounding explains; None where it explains any.

    Args:
        kind: number format of the weights.
        architecture: of the model, if llama.cpp computes it.
    """
    return TOLERANCE.get("f16" if kind == "f32" and architecture in ROUNDED_IN_F32 else kind)


def log_probability_differences(one: Continuation, other: Continuation) -> list[float]:
    """Differences of the log-probabilities of two continuations up to where they part."""
    found = []
    ids: Sequence[tuple[int | None, int | None]] = list(zip_longest(one.ids, other.ids))
    same = next((place for place, pair in enumerate(ids) if pair[0] != pair[1]), len(ids) + 1)
    for ours, theirs in list(zip(one.log_probabilities, other.log_probabilities, strict=False))[:same]:
        found.append(abs(ours - theirs))
    return [each for each in found if each == each]  # nan: not known


def proof_lines(proof: Proof) -> list[str]:
    """A few lines on a proof."""
    prompts = proof.asked + len(ODD)
    sure = (
        f"all {proof.sure:,} sure ones among them"
        if not proof.sure_parted
        else f"{proof.sure_parted:,} of {proof.sure:,} SURE ones differ"
    )
    lines = [
        f"prompts: {prompts - len(proof.different_prompts):,} of {prompts:,} have the same ids",
        f"answers: {proof.asked - len(proof.parted):,} of {proof.asked:,} are the same, token by token; {sure}",
        f"largest difference of a log-probability: {proof.largest_difference:.1e}",
    ]
    if proof.too_different:
        lines[-1] += f", more than rounding explains ({proof.tolerance})"
    if proof.different_prompts:
        first = proof.different_prompts[0]
        lines.append(f"first other prompt: {first.question!r}: {first.run} in the run, {first.exported} exported")
    for each in [each for each in proof.parted if each.sure][:3]:
        lines.append(f"differs: {each.question!r}: {each.run!r} in the run, {each.exported!r} exported")
    return lines
