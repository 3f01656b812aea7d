"""What is exported: the model of a run with its tokenizer, prompt, ends, and questions."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet
import yaml

from qa_lm.data.chat.chat_tokenizer import ChatTokenizer
from qa_lm.data.chat.exported import own_part
from qa_lm.data.tokenizer import CONFIG, FILE, TextTokenizer
from qa_lm.errors import reading
from qa_lm.inference.answerer import Answerer, model_folder
from qa_lm.run import run_folder
from qa_lm.run.reader import read_answers, read_object

MIN_ANSWER = 64
"""Tokens of an answer at least before it is cut."""


@dataclass(frozen=True)
class Source:
    """A trained model with its files.

    Args:
        folder: its model folder.
        answerer: the loaded model.
    """

    folder: Path
    answerer: Answerer

    @classmethod
    def load(cls, folder: Path) -> "Source":
        """Load the model of a run folder or a model folder, see `Answerer.load`."""
        found = model_folder(folder)
        return cls(found, Answerer.load(found))

    @property
    def run(self) -> Path:
        """The run folder, or the model folder if that belongs to no run."""
        parent = self.folder.resolve().parent
        return parent if (parent / run_folder.CONFIG).is_file() else self.folder

    @property
    def name(self) -> str:
        """The name of the run: the setting `name`, or that of its folder."""
        path = self.run / run_folder.CONFIG
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return str(config.get("name") or self.run.resolve().name).replace("/", "-")

    @cached_property
    def tokenizer_content(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        return read_object(self.folder / FILE)

    @cached_property
    def tokenizer_settings(self) -> dict[str, Any]:
        """The content of tokenizer_config.json."""
        return read_object(self.folder / CONFIG)

    @property
    def own_template(self) -> str | None:
        """The chat template by which the model was trained; None for a plain prompt."""
        if self.answerer.template.chat is None:
            return None
        file = self.folder / "chat_template.jinja"
        text = file.read_text(encoding="utf-8") if file.is_file() else self.tokenizer_settings.get("chat_template")
        return None if text is None else own_part(str(text))

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer as in training: with its chat template, if the model was trained by one."""
        plain, own = self.answerer.tokenizer, self.own_template
        if own is None:
            return plain
        named = self.tokenizer_settings.get("bos_token")
        found = ChatTokenizer.of(plain, own, named.get("content") if isinstance(named, dict) else named)
        found.text_end = str(plain.token(self.end_ids[-1]))
        return found

    @property
    def bos_id(self) -> int | None:
        """The id of BOS, if the tokenizer has one."""
        tokenizer, before = self.tokenizer, self.answerer.template.before
        if isinstance(tokenizer, ChatTokenizer):
            return None if tokenizer.bos_token is None else tokenizer.id_of(tokenizer.bos_token)
        return before[0] if before else None

    @cached_property
    def end_ids(self) -> list[int]:
        """Ids that end an answer, the trained one first."""
        trained = self.answerer.tokenizer.eos_id
        path = self.folder / "generation_config.json"
        named = read_object(path).get("eos_token_id") if path.is_file() else None
        others = named if isinstance(named, list) else []
        return [trained, *(each for each in others if each != trained)]

    @cached_property
    def pairs(self) -> dict[str, str]:
        """The questions of the run, trained ones first, each with an answer; none for a model without a run."""
        found: dict[str, str] = {}
        for question, answer in self._read():
            found.setdefault(question, answer)
        return found

    @cached_property
    def answer_limit(self) -> int:
        """Tokens of an answer at most: as many as the longest one of the run has, and some more."""
        template, tokenizer = self.answerer.template, self.answerer.tokenizer
        ids = tokenizer.encode([template.answer_text(answer) for answer in self.pairs.values()])
        return max(MIN_ANSWER, 8 + max(map(len, ids), default=0))

    def _read(self) -> list[tuple[str, str]]:
        ledger, answers = self.run / run_folder.LEDGER, self.run / run_folder.ANSWERS
        found: list[tuple[str, str]] = []
        if ledger.is_file():
            with reading(ledger, "cannot be read"):
                columns = pyarrow.parquet.read_table(ledger, columns=["question", "answer"]).columns
                found += zip(*(map(str, column.to_pylist()) for column in columns), strict=True)
        if answers.is_file():
            found += [(each["question"], each["answer"]) for each in read_answers(self.run)]
        return found
