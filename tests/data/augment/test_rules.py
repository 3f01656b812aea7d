"""What each rule makes of a question, by language."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import pytest

from qa_lm.data.augment import VARIANTS, Generator
from qa_lm.data.augment.greetings import greeting
from qa_lm.data.augment.hangul import hangul_typo
from qa_lm.data.augment.keyboards import NEIGHBOURS
from qa_lm.data.augment.languages import language
from qa_lm.data.augment.rules import Rule
from qa_lm.data.augment.surface import case, final_mark, spacing
from qa_lm.data.augment.typos import typo
from qa_lm.data.augment.unicode_forms import unicode_form
from qa_lm.data.augment.words import dropped_word, swapped_words


def results(rule: Rule, question: str, seeds: int = 400) -> set[str]:
    """All that a rule makes of a question."""
    return {result for seed in range(seeds) if (result := rule(question, Generator.of(seed))) not in (None, question)}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of France?", "en"),
        ("what is the capital of france", "en"),
        ("Wie viele Einwohner hat die Stadt?", "de"),
        ("Quelle est la capitale de la France ?", "fr"),
        ("¿Cuál es la capital de Francia?", "es"),
        ("Qual è la capitale della Francia?", "it"),
        ("Qual é a capital da França?", "pt"),
        ("Wat is de hoofdstad van Frankrijk?", "nl"),
        ("Какая столица Франции?", "ru"),
        ("フランスの首都はどこですか？", "ja"),
        ("法国的首都是哪里？", "zh"),
        ("法國的首都是哪裡？", "zh-Hant"),
        ("ما هي عاصمة فرنسا؟", "ar"),
        ("프랑스의 수도는 어디인가요?", "ko"),
        ("Vad heter Frankrikes huvudstad?", None),
        ("Jaka jest stolica Francji?", None),
        ("Яка столиця Франції?", None),
        ("پایتخت فرانسه کجاست؟", None),
        ("nemo: Open a directory in a window", None),
    ],
)
def test_languages_and_their_greetings(question, expected):
    assert language(question) == expected
    assert bool(results(greeting, question)) == (expected is not None)


def test_greetings_by_register_and_never_twice():
    casual = results(greeting, "어디가 좋을까?")
    assert {"안녕, 어디가 좋을까?", "어디가 좋을까? 고마워"} <= casual
    assert not any("니다" in text or "하세요" in text for text in casual)
    polite = results(greeting, "배송 조회는 어떻게 하나요?")
    assert "안녕하세요, 배송 조회는 어떻게 하나요?" in polite
    assert not any("고마워" in text for text in polite)
    english = results(greeting, "Where is it?")
    assert {"Hi, where is it?", "Hi, Where is it?", "Where is it, please?", "Where is it? Thanks!"} <= english
    assert "Hola, ¿cuál es la capital?" in results(greeting, "¿Cuál es la capital?")
    for greeted in ("Hi, where is it?", "안녕하세요, 어디인가요?", "Where is it, please?"):
        assert not results(greeting, greeted)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Where is it?", "Where is it"),
        ("¿Dónde está?", "Dónde está"),
        ("Hola, ¿dónde está?", "Hola, dónde está"),
        ("Où est-ce ?", "Où est-ce"),
        ("どこですか？", "どこですか"),
        ("أين هو؟", "أين هو"),
        ("What is 2 + 2.", "What is 2 + 2"),
        ("What is 5!", None),
        ("list the files of .", None),
        ("Where is it", None),
        ("first\nsecond?", "first\nsecond"),
        ("run f(x) where x = ?", None),
    ],
)
def test_the_variant_without_a_final_mark(question, expected):
    assert VARIANTS["no final mark"](question, Generator(1)) == expected


def test_marks_are_added_only_where_they_ask_nothing_new():
    assert results(final_mark, "where is it") == {"where is it?"}
    assert results(final_mark, "밥 먹었어") == {"밥 먹었어.."}
    assert results(final_mark, "어디인가요") == {"어디인가요?"}
    assert results(final_mark, "Go away") == {"Go away."}
    assert results(final_mark, "¿Quién?") == {"Quién", "Quién?", "¿Quién??", "¿Quién???"}


def test_case_spares_addresses_and_paths():
    assert VARIANTS["lower case"]("See Https://A.com/B or A@B.org in WORD", Generator(1)) == (
        "see Https://A.com/B or A@B.org in word"
    )
    assert results(case, "Who is it?") == {"who is it?", "WHO IS IT?"}
    assert not results(case, "배송 조회")


def test_spaces_and_unicode_forms():
    assert {"Well,where is it?", "Well, where is it ?", "Well, where  is it?"} <= results(spacing, "Well, where is it?")
    assert all("1, 2" in text or "1,  2" in text for text in results(spacing, "is 1, 2 odd"))
    assert results(spacing, "배송 조회") == {"배송조회", "배송  조회"}
    assert results(spacing, "잘 못했어") == {"잘  못했어"}
    assert results(unicode_form, "What's “it”") == {'What\'s "it"'}
    assert results(unicode_form, "what's it") == {"what’s it"}
    assert results(unicode_form, "你好吗?") == {"你好吗？"}
    assert results(unicode_form, "wait...") == {"wait…"}
    assert results(unicode_form, "2003–04") == {"2003-04"}
    assert results(unicode_form, "caf\u00e9") == {"cafe\u0301"}


def test_typos_are_those_of_the_keyboard():
    assert set(NEIGHBOURS["qwerty"]["s"]) == set("adwezx")
    assert "z" in NEIGHBOURS["qwertz"]["t"]
    assert "q" in NEIGHBOURS["azerty"]["z"]
    english = results(typo, "who is the president", 3000)
    assert {"who is the presidemt", "who is the presdient", "who is the presient", "who is the presiddent"} <= english
    assert all(text.startswith("who is the p") for text in english)
    german = results(typo, "Wo ist die Zeitung heute", 4000)
    assert "Wo ist die Zeitung heuze" in german
    assert "Wo ist die Zeitung heuye" not in german
    assert results(typo, "где вопрос") >= {"где вопроы"} or "где вопрс" in results(typo, "где вопрос")


def test_typos_spare_what_must_stay():
    kept = "NASA abc never without thirteen B2B12 me@a.org http://a.com/path src/main.py --verbose C3PO 못합니다"
    assert not results(typo, kept)
    shoes = results(typo, "신발", 4000)
    assert shoes
    assert "시발" not in shoes
    assert "In which county" not in results(typo, "In which country", 4000)


def test_hangul_typos_are_valid_syllables():
    words = {typed for seed in range(4000) if (typed := hangul_typo("한국어있다", Generator.of(seed)))}
    assert {"학눅어있다", "한구거있다", "하국어있다", "한국어잇다"} <= words
    assert all("가" <= letter <= "힣" for word in words for letter in word)


def test_dropped_and_swapped_words():
    assert results(dropped_word, "what is the capital of france") == {
        "what the capital of france",
        "what is capital of france",
        "what is the capital france",
    }
    assert results(dropped_word, "is 2 of 3 the half of it") == {"2 of 3 the half of it", "is 2 of 3 the half it"} - {
        "2 of 3 the half of it"
    }
    assert results(dropped_word, "Who is The Edge really") == {"Who The Edge really"}
    assert not results(dropped_word, "why do not they come")
    assert not results(dropped_word, "where is it")
    assert results(dropped_word, "나는 친구를 만났어") == {"나는 친구 만났어"}
    assert not results(dropped_word, "내가 서두를 필요")
    assert results(swapped_words, "나는 친구를 만났어") == {"친구를 나는 만났어"}
    assert "what is capital the of france" in results(swapped_words, "what is the capital of france")
    assert not results(swapped_words, "who is not Paris")
