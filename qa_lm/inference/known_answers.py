"""Answer with answers that stand in the trained pairs, instead of writing one.

Modes besides `free`, in which the model writes its answer token by token:

- `known`: the known answer that the model finds most likely (`qa_lm.inference.known`);
- `nearest`: the answer of the nearest known pair, question and answer together;
- `best`: the first of a ranking by several similarities, with a calibrated probability.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from qa_lm.config.enums import AnswerMode
from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError, reading
from qa_lm.inference.calibration import Calibration
from qa_lm.inference.known import AnswerTrie, known_answers
from qa_lm.retrieval.confidence import Confidence, sign_count, signs_of
from qa_lm.retrieval.encoder import FOLDER, Encoder, SentenceEncoder
from qa_lm.retrieval.known_pairs import KnownPairs
from qa_lm.retrieval.model_encoder import ModelEncoder
from qa_lm.retrieval.ranking import Candidates, Ranking, find_candidates
from qa_lm.retrieval.similarity import MEASURES, SimilarityIndex, tfidf_index

FILE = "known_answers.json"
LAST_LARGEST = MEASURES.index("largest") - len(MEASURES)
"""Place of the largest similarity to a pair, by the last index."""


@dataclass(frozen=True)
class Match:
    """A known answer to a question."""

    answer: str
    similarity: float
    """Largest similarity of the question to a pair with this answer, from 0 to 1."""
    probability: float | None
    """Calibrated probability that it is right; None where nothing was calibrated, and in other modes than `best`."""


@dataclass(frozen=True)
class KnownAnswers:
    """The known pairs of a model, and how their answers are ranked."""

    pairs: KnownPairs
    default_mode: AnswerMode = AnswerMode.free
    ranking: Ranking | None = None
    """None for the default weights."""
    confidence: Confidence | None = None
    calibration: Calibration | None = None
    """Maps the log-odds of `confidence` to probabilities."""
    encoder: Encoder | None = field(default=None, compare=False)

    @cached_property
    def tfidf(self) -> SimilarityIndex:
        """The index by TF-IDF."""
        return tfidf_index(self.pairs)

    @cached_property
    def indexes(self) -> list[SimilarityIndex]:
        """TF-IDF, and the encoder if there is one."""
        return [self.tfidf] + ([SimilarityIndex(self.pairs, *[self.encoder.vectors] * 2)] if self.encoder else [])

    def candidates(self, questions: Sequence[str]) -> Candidates:
        """The most similar known answers of each question."""
        return find_candidates(self.indexes, questions)

    def nearest_pairs(self, questions: Sequence[str], mode: AnswerMode, count: int) -> list[list[tuple[int, float]]]:
        """For each question, the index of the nearest pair of each of the first answers, and its similarity.

        Args:
            questions: some questions.
            mode: orders the answers: by the ranking of `best`, otherwise by similarity. For `free` and `known`, which
                compare no texts, by TF-IDF.
            count: maximum number of answers.
        """
        indexes = self.indexes if mode in (AnswerMode.nearest, AnswerMode.best) else [self.tfidf]
        candidates = find_candidates(indexes, questions)
        scores = candidates.similarities[:, :, LAST_LARGEST]
        if mode is AnswerMode.best:
            scores = (self.ranking or Ranking.default(len(indexes))).scores(candidates)
        answers = np.take_along_axis(candidates.answers, np.argsort(-scores, axis=1, kind="stable"), 1)[:, :count]
        similarities = indexes[-1].to_pairs(questions)
        return [self._nearest(*each) for each in zip(answers, similarities, strict=True)]

    def _nearest(self, answers: np.ndarray, similarities: np.ndarray) -> list[tuple[int, float]]:
        places = [np.flatnonzero(self.pairs.answer_of == answer) for answer in answers]
        nearest = [int(each[similarities[each].argmax()]) for each in places]
        return [(place, float(similarities[place])) for place in nearest]

    def nearest(self, candidates: Candidates) -> np.ndarray:
        """Places of the candidates whose pair is nearest by the last index, (questions,)."""
        return candidates.similarities[:, :, LAST_LARGEST].argmax(axis=1)

    def matches(self, questions: Sequence[str], mode: AnswerMode) -> list[Match]:
        """The answers by mode `nearest` or `best`."""
        candidates = self.candidates(questions)
        ranking = self.ranking or Ranking.default(len(self.indexes))
        if mode is AnswerMode.nearest:
            places = self.nearest(candidates)
            probabilities: Sequence[float | None] = [None] * len(questions)
        else:
            places = ranking.scores(candidates).argmax(axis=1)
            probabilities = self.probabilities(signs_of(candidates, ranking))
        rows = np.arange(len(places))
        answers = candidates.answers[rows, places]
        similarities = candidates.similarities[rows, places, MEASURES.index("largest")]
        return [
            Match(self.pairs.distinct[answer], float(similarity), probabilities[row])
            for row, (answer, similarity) in enumerate(zip(answers, similarities, strict=True))
        ]

    def probabilities(self, signs: np.ndarray) -> Sequence[float | None]:
        """Calibrated probability that the first answer of each ranking is right; None without a calibration."""
        if self.confidence is None or self.calibration is None:
            return [None] * len(signs)
        return [self.calibration.probability(odds) for odds in self.confidence.log_odds(signs)]

    def most_likely(
        self, questions: Sequence[str], model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate
    ) -> list[tuple[str, float]]:
        """The answers by mode `known`, each with the mean log-probability of its tokens in nats."""
        order, trie = self._trie(tokenizer, template)
        prompts = encode_prompts(list(questions), tokenizer, template)
        found = known_answers(model, prompts, trie)
        return [(self.pairs.distinct[order[index]], answer.mean_log_probability) for index, answer in found]

    def _trie(self, tokenizer: TextTokenizer, template: PromptTemplate) -> tuple[list[int], AnswerTrie]:
        """The answers as a trie, made once, and the index of each in `pairs.distinct`."""
        key = tokenizer.fingerprint, template
        if key not in self._tries:
            ids = tokenizer.encode([template.answer_text(answer) for answer in self.pairs.distinct])
            numbers = {tuple(each): number for number, each in reversed(list(enumerate(ids)))}  # equal ids: the first
            trie = AnswerTrie([[*each, tokenizer.eos_id] for each in numbers])
            self._tries[key] = list(numbers.values()), trie
        return self._tries[key]

    @cached_property
    def _tries(self) -> dict[tuple[str, PromptTemplate], tuple[list[int], AnswerTrie]]:
        return {}

    def save(self, folder: Path) -> None:
        """Write the known pairs, the ranking and the encoder into a model's folder."""
        self.pairs.save(folder)
        content = {
            "default_mode": self.default_mode.value,
            "ranking": self.ranking and asdict(self.ranking),
            "confidence": self.confidence and asdict(self.confidence),
            "calibration": self.calibration and asdict(self.calibration),
        }
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if self.encoder:
            self.encoder.save(folder)

    @classmethod
    def load(
        cls, folder: Path, model: PreTrainedModel | None = None, tokenizer: TextTokenizer | None = None
    ) -> "KnownAnswers | None":
        """Read what `save` wrote; None if the folder has no known pairs.

        Args:
            folder: the model's folder.
            model: its model, and
            tokenizer: its tokenizer, without which it cannot be the encoder.

        Raises:
            UserError: a file is damaged. The encoder is loaded only where a mode needs it.
        """
        pairs = KnownPairs.load(folder)
        path = folder / FILE
        if pairs is None or not path.is_file():
            return None
        with reading(path, "is not valid"):
            found = _parsed(json.loads(path.read_text(encoding="utf-8")), pairs)
        encoder: Encoder | None = ModelEncoder.read(folder, model, tokenizer, pairs) if model and tokenizer else None
        if (folder / FOLDER).is_dir():
            encoder = SentenceEncoder(str(folder / FOLDER))
        found = replace(found, encoder=encoder)
        indexes = 2 if encoder else 1
        if found.ranking and len(found.ranking.weights) != len(MEASURES) * indexes:
            raise UserError(f"{path}: is not valid: ranking needs {len(MEASURES) * indexes} weights")
        if found.confidence and len(found.confidence.coefficients) != sign_count(indexes):
            raise UserError(f"{path}: is not valid: confidence needs {sign_count(indexes)} coefficients")
        return found


def _parsed(content: dict[str, dict[str, object] | None], pairs: KnownPairs) -> KnownAnswers:
    """The content of `FILE`, checked, because it may come from someone else.

    Raises:
        ValueError: a value is invalid; depending on it, TypeError, KeyError or another error instead.
    """
    ranking, confidence = content["ranking"], content["confidence"]
    return KnownAnswers(
        pairs,
        AnswerMode(content["default_mode"]),
        Ranking(_numbers(ranking["weights"])) if ranking else None,
        Confidence(_numbers(confidence["coefficients"]), _numbers([confidence["intercept"]])[0])
        if confidence
        else None,
        Calibration.parsed(content["calibration"]) if content["calibration"] else None,
    )


def _numbers(values: object) -> tuple[float, ...]:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError("finite numbers are needed")
    return tuple(found.tolist())
