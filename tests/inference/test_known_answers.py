"""Known answers come back as they were saved, and a damaged or hostile file is one error."""

import json
from typing import Any

import pytest

from qa_lm.config.enums import AnswerMode
from qa_lm.errors import UserError
from qa_lm.evaluation.known import fit_known_answers
from qa_lm.inference.known_answers import FILE, KnownAnswers
from tests.retrieval.faq import faq, pairs_of

PAIRS, OTHERS = faq(20)


@pytest.fixture(scope="module")
def fitted():
    return fit_known_answers(PAIRS)


@pytest.fixture
def folder(fitted, tmp_path):
    fitted.save(tmp_path)
    return tmp_path


def test_they_come_back(fitted, folder):
    found = KnownAnswers.load(folder)
    assert found
    assert found == fitted
    assert None not in (found.ranking, found.confidence, found.calibration)
    for mode in (AnswerMode.nearest, AnswerMode.best):
        assert found.matches(OTHERS.questions, mode) == fitted.matches(OTHERS.questions, mode)


def test_without_anything_fitted_they_come_back_and_answer(tmp_path):
    few = KnownAnswers(pairs_of([("Who are you?", "A model."), ("What is 2 + 2?", "4")]), AnswerMode.best)
    few.save(tmp_path)
    assert KnownAnswers.load(tmp_path) == few
    (found,) = few.matches(["what is 2 + 2"], AnswerMode.best)
    assert (found.answer, found.probability) == ("4", None)
    assert 0 < found.similarity <= 1


def test_best_and_nearest_answer_trained_questions(fitted):
    for mode in (AnswerMode.nearest, AnswerMode.best):
        assert [each.answer for each in fitted.matches(PAIRS.questions, mode)] == PAIRS.answers


def test_only_best_has_probabilities(fitted):
    assert {each.probability for each in fitted.matches(OTHERS.questions, AnswerMode.nearest)} == {None}
    assert all(0 <= each.probability <= 1 for each in fitted.matches(OTHERS.questions, AnswerMode.best))


@pytest.mark.parametrize("gone", ["known_pairs.jsonl", FILE])
def test_a_folder_without_one_of_the_files_has_none(folder, gone):
    (folder / gone).unlink()
    assert KnownAnswers.load(folder) is None


DEEP = {"weights": [[[[1.0]]]]}
LIST: list[Any] = []
TABLE: dict[str, Any] = {}
WRONG: list[tuple[str, Any]] = [
    *(("default_mode", value) for value in ("loud", "", None, 3, LIST, TABLE)),
    *(("ranking", {"weights": value}) for value in (LIST, [1.0] * 2, [1.0] * 6, [1.0] * 100_000, 5, "123", None)),
    *(("ranking", {"weights": value}) for value in ([1.0, float("nan"), 1.0], [1.0, float("inf"), 1.0], [1, 2, "x"])),
    *(("ranking", {"weights": value}) for value in ([10**400, 1, 1], [[1.0] * 3], [1, 2, [3]], [None] * 3, TABLE)),
    *(("ranking", value) for value in ([8.0] * 3, "text", 7, True, DEEP, {"weight": [8.0] * 3})),
    *(("confidence", value) for value in ([1.0], 7, {"coefficients": [1.0] * 7}, {"intercept": 0.0})),
    *(("confidence", {"coefficients": [1.0] * count, "intercept": 0.0}) for count in (0, 3, 6, 8, 11, 100_000)),
    *(("confidence", {"coefficients": [1.0] * 7, "intercept": value}) for value in (None, "x", float("nan"), [1.0])),
    *(("calibration", value) for value in ([1], 7, "text", {"method": "platt"})),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda value: repr(value)[:40])
def test_a_wrong_value_is_one_error(folder, key, value):
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(content | {key: value}))
    with pytest.raises(UserError, match=r"known_answers\.json: is not valid: .+") as caught:
        KnownAnswers.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change", [{"probabilities": [2.0]}, {"log_probabilities": [float("nan")]}, {"brier": -1}, {"curve": []}]
)
def test_a_wrong_calibration_is_one_error(folder, change):
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(content | {"calibration": content["calibration"] | change}))
    with pytest.raises(UserError, match="is not valid"):
        KnownAnswers.load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b"[" * 100_000, b"\xff", b"1" * 9000]
)
def test_a_damaged_file_is_one_error(folder, content):
    (folder / FILE).write_bytes(content)
    with pytest.raises(UserError, match="is not valid"):
        KnownAnswers.load(folder)
