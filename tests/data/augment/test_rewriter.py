"""Rewritten questions: the same everywhere, and with every digit and negation of the question."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import re
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.data.augment import VARIANTS, Generator, Rewriter
from qa_lm.data.augment import rewriter as module
from qa_lm.data.augment.rewriter import WEIGHTS
from tests.conftest import ROOT

QUESTIONS = [
    "What is the capital of France?",
    "how do i cancel my order 4711 without a fee",
    "Why can't I log in to my account, and what should I do?",
    "Is there no way to never pay the 25% fee in the U.S.?",
    "배송 조회는 어떻게 하나요?",
    "주문을 안 했는데 왜 결제가 2번 됐어?",
    "나는 친구를 못 만났어",
    "Warum kann ich das Passwort nicht ändern?",
    "Pourquoi le paiement n'est pas accepté sans carte ?",
    "¿Por qué no puedo pagar sin tarjeta?",
    "Perché non posso pagare senza la carta?",
    "Quando não posso pagar sem cartão?",
    "Waarom kan ik het wachtwoord niet zonder code wijzigen?",
    "Почему я не могу войти без пароля?",
    "なぜログインできないのですか？",
    "为什么我不能登录，怎么办？",
    "لماذا لا أستطيع الدخول بدون كلمة مرور؟",
    "Where is https://example.com/a-b?x=1 and me@example.org?",
    "git-commit: use `--amend` or -v in /usr/local/bin",
    "First line 1.\nSecond line, is it 2?",
]
_NEGATIONS = "no not never without nicht pas sin non senza não sem niet zonder не без لا بدون can't ne n'est"
NEGATIONS = frozenset(_NEGATIONS.split())
WORDS = [
    *("not", "never", "안", "못해", "nicht", "the", "Paris", "배송", "서비스는"),
    *("12", "a1b2", "Straße", "вопрос", "?", "ç"),
]
TEXTS = st.one_of(
    st.sampled_from(QUESTIONS),
    st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join),
    st.text(max_size=60),
    st.text("가각힣뷁먹어않아 ?.1", max_size=30),
)


def words(text: str) -> Counter[str]:
    text = unicodedata.normalize("NFC", text).replace("’", "'").lower()
    return Counter(word for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", text) if word in NEGATIONS)


def digits(text: str) -> list[str]:
    return [letter for letter in text if letter.isdigit()]


def assert_same_question(question: str, result: str) -> None:
    assert digits(result) == digits(question)
    assert words(question) <= words(result)
    for syllable in "안못않없":
        assert result.count(syllable) >= question.count(syllable)
    if any(letter.isalnum() for letter in question):
        assert any(letter.isalnum() for letter in result)
    if question.isprintable():
        result.encode()
    assert not re.search("[ᄀ-ᇿㄱ-ㅣ]", result) or re.search("[ᄀ-ᇿㄱ-ㅣ]", question)


@given(TEXTS, st.integers(0, 2**40), st.integers(0, 1000))
@settings(max_examples=1500, deadline=None)
def test_a_rewritten_question_keeps_digits_negations_and_syllables(question, seed, epoch):
    result = Rewriter(seed, 1.0).rewrite(question, epoch)
    assert_same_question(question, result)
    assert Rewriter(seed, 1.0).rewrite(question, epoch) == result
    assert Rewriter(seed, 0.0).rewrite(question, epoch) == question


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_rule_keeps_the_question(question):
    for rule in [*WEIGHTS, *VARIANTS.values()]:
        results = [rule(question, Generator.of(seed)) for seed in range(150)]
        for result in {result for result in results if result is not None}:
            if "\n" not in question or rule in VARIANTS.values():
                assert_same_question(question, result)


def test_a_rule_that_drops_negations_is_noticed(monkeypatch):
    monkeypatch.setattr(module, "WEIGHTS", {lambda question, generator: question.replace(" not", ""): 1})
    result = Rewriter(0, 1.0).rewrite("why is it not here", 0)
    with pytest.raises(AssertionError):
        assert_same_question("why is it not here", result)


@pytest.mark.slow
def test_the_order_of_calls_and_the_process_do_not_matter():
    texts = Rewriter(5, 0.5)
    forward = [texts.rewrite(question, epoch) for epoch in range(3) for question in QUESTIONS]
    backward = [texts.rewrite(question, epoch) for epoch in (2, 1, 0) for question in reversed(QUESTIONS)]
    assert backward == forward[::-1]
    code = (
        "from tests.data.augment.test_rewriter import QUESTIONS, Rewriter; texts = Rewriter(5, 0.5);"
        "print(ascii([texts.rewrite(question, epoch) for epoch in range(3) for question in QUESTIONS]))"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == ascii(forward)


def test_random_numbers_are_those_of_splitmix64():
    generator = Generator(1234567)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [generator.below(2**64) for _ in range(3)] == expected


def test_the_share_is_the_share_and_nearly_all_of_all():
    questions = [f"Where is the office of branch {number}?" for number in range(2000)]
    for share, low, high in ((0.0, 0, 0), (0.3, 500, 700), (1.0, 1990, 2000)):
        texts = Rewriter(1, share)
        assert low <= sum(texts.rewrite(question, 0) != question for question in questions) <= high
    texts = Rewriter(1, 1.0)
    assert sum(texts.rewrite(question, 0) != texts.rewrite(question, 1) for question in questions) > 1500
    with pytest.raises(ValueError, match="between 0 and 1"):
        Rewriter(1, 1.5)


@pytest.mark.parametrize(
    "question",
    ["Use `ls -l`.\nWhat is\tshown here?", "word " * 100 + "end?", "Run rm -r {a} now please?"],
)
def test_long_texts_and_code_change_only_their_surface(question):
    surface = {question, question[:-1], question[0].swapcase() + question[1:], question[0].swapcase() + question[1:-1]}
    results = {Rewriter(seed, 1.0).rewrite(question, 0) for seed in range(100)}
    assert results <= surface
    assert len(results) > 1


@pytest.mark.parametrize("question", ["", " ", "???", "…", "___", "\n"])
def test_texts_without_letters_stay(question):
    assert {Rewriter(seed, 1.0).rewrite(question, 0) for seed in range(50)} == {question}
    assert all(variant(question, Generator(1)) is None for variant in VARIANTS.values())


@pytest.mark.parametrize(
    "expected",
    [
        ("What is the capital of France?", "What is the capital of France", "What is capital of France?"),
        ("배송 조회는 어떻게 하나요?", "배송 조회는 어덯게 하나요", "배송 조회는 어떻게 하나요? 답변 부탁드립니다."),
        (
            "Warum kann ich das Passwort nicht ändern?",
            "Warum kann ich das Passwort nicht ändern? danke",
            "Warum kann ich das Passwort nicht ändern??",
        ),
    ],
)
def test_every_version_of_python_rewrites_alike(expected):
    question, first, second = expected
    texts = Rewriter(42, 1.0)
    assert texts.rewrite(question, 0) == first
    assert texts.rewrite(question, 1) == second
