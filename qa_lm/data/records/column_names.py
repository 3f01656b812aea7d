"""Usual column names in several languages.

Case, accents, `_`, `-` and spaces make no difference: "Best Answer" is `best_answer`, "Réponse" is `reponse`.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping

_SEPARATORS = re.compile(r"[\s_\-]+")
Names = tuple[str, ...]

_ENGLISH_ANSWERS = (
    *("answer", "answers", "best answer", "correct answer", "accepted answer", "answer text", "final answer"),
    *("response", "reply", "solution", "completion", "output", "target"),
)
PAIRS: tuple[tuple[Names, Names], ...] = (
    (("question", "questions", "question text"), _ENGLISH_ANSWERS),
    (("prompt",), ("completion", "response", "chosen")),
    (("instruction",), ("output", "response")),
    (("query",), ("response", "answer")),
    (("problem",), ("answer", "solution")),
    (("input",), ("output", "target")),
    (("q",), ("a",)),
    (("질문", "질의", "물음", "문의", "문제"), ("답변", "답", "대답", "응답", "정답", "해답")),  # Korean
    (("質問", "質問文", "問い", "問題", "問"), ("回答", "答え", "答", "解答", "応答", "返答", "正解")),  # Japanese
    (("问题", "提问", "问句", "问"), ("答案", "回答", "答复", "回复", "答")),  # Chinese, simplified
    (("問題", "提問", "問句", "問"), ("答案", "回答", "答覆", "答復", "回覆", "回復", "答")),  # Chinese, traditional
    (("frage", "fragen", "fragestellung"), ("antwort", "antworten", "antworttext")),  # German
    (("question", "questions"), ("réponse", "réponses")),  # French
    (("pregunta", "preguntas", "consulta"), ("respuesta", "respuestas")),  # Spanish
    (("pergunta", "perguntas", "questão"), ("resposta", "respostas")),  # Portuguese
    (("domanda", "domande", "quesito"), ("risposta", "risposte")),  # Italian
    (("вопрос", "вопросы"), ("ответ", "ответы")),  # Russian
)
"""Names of question and answer columns, the most explicit first. If a file has no pair from one line, any question
column is combined with any answer column."""
GROUP, INPUT = "group", "input"
BEFORE = (
    *("system", "system prompt", "history", "context", "contexts", "passage", "passages", "paragraph", "document"),
    *("documents", "article", "story", "background", "evidence", "support", "table", "schema", "facts", "premise"),
    *("문맥", "지문", "본문", "배경", "맥락", "文脈", "背景", "本文", "上下文", "文章", "段落", "語境", "语境"),
    *("kontext", "absatz", "contexte", "contexto", "pasaje", "contesto", "контекст"),
)
"""Columns that an answer often depends on, placed before the question."""
AFTER = (
    *("input", "choices", "options", "candidates", "answer choices", "선택지", "보기", "選択肢", "选项", "選項"),
    *("antwortmöglichkeiten", "optionen", "opciones", "opzioni", "opções", "варианты"),
)
"""Columns that an answer often depends on, placed after the question."""
LETTERS = re.compile(r"(?:option |choice |choice|option|op)?([a-h])")
"""Names of columns with one choice each: A to D, option_a to option_d, opa to opd."""


@functools.lru_cache(maxsize=4096)
def name_key(name: str) -> str:
    """Normalise a column name; equal keys mean the same column."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    bare = "".join(each for each in letters if not unicodedata.combining(each))
    return _SEPARATORS.sub(" ", bare).strip(" :?*")


def _keys(names: Iterable[str]) -> Names:
    return tuple(name_key(name) for name in names)


_PAIRS = tuple((_keys(questions), _keys(answers)) for questions, answers in PAIRS)
_QUESTIONS = tuple(dict.fromkeys(name for questions, _ in _PAIRS for name in questions))
_ANSWERS = tuple(
    name for name in dict.fromkeys(name for _, answers in _PAIRS for name in answers) if name not in ("a", "chosen")
)
_BEFORE, _AFTER = (dict(zip(_keys(names), range(len(names)), strict=True)) for names in (BEFORE, AFTER))


def by_key(names: Iterable[str]) -> dict[str, str]:
    """Map keys to the column names of a file; the first name of each key counts."""
    return {name_key(name): name for name in reversed(list(names))}


def recognised_pair(
    found: Mapping[str, str], question: str | None, answer: str | None
) -> tuple[str | None, str | None]:
    """Recognise the columns of question and answer; None for one that is not found.

    Args:
        found: result of `by_key`.
        question: column of the question, if the user named it.
        answer: column of the answer, if the user named it.
    """
    for questions, answers in _PAIRS:
        if answers == ("a",) and "b" in found:  # A to D are choices
            continue
        one = question or _first(found, questions)
        other = answer or _first(found, answers)
        if one and other:
            return one, other
    return question or _first(found, _QUESTIONS), answer or _first(found, _ANSWERS)


def is_question_name(name: str) -> bool:
    """Whether this is a usual name of a question column, except `input`."""
    return name_key(name) in _QUESTIONS and name_key(name) != INPUT


def _first(found: Mapping[str, str], keys: Names) -> str | None:
    return next((found[key] for key in keys if key in found), None)


def answer_may_rest_on(names: Iterable[str]) -> list[str]:
    """The columns of a file that answers often depend on, in the order of a prompt."""
    found = by_key(names)
    letters = {match[1] for key in found if (match := LETTERS.fullmatch(key))}
    ranks = {key: (0, _BEFORE[key]) for key in found if key in _BEFORE}
    ranks |= {key: (1, _AFTER[key]) for key in found if key in _AFTER}
    if {"a", "b"} <= letters:
        ranks |= {key: (2, ord(match[1])) for key in found if (match := LETTERS.fullmatch(key))}
    return [found[key] for key in sorted(ranks, key=lambda key: ranks[key])]


def prompt_with(columns: Iterable[str]) -> str:
    """A template for `data.prompt` with the question and these columns, as typed on the command line."""
    before, after = [], []
    for column in columns:
        name = f"{{{column}}}"
        if name_key(column) in _BEFORE:
            before.append(name)
        else:
            letter = LETTERS.fullmatch(name_key(column))
            after.append(f"{letter[1].upper()}: {name}" if letter else name)
    return "\\n".join([*before, "{question}", *after])
