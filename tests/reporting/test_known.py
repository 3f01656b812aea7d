"""What the terminal and the reports say about answers from the file."""

import copy
from typing import Any, cast

import pytest

from qa_lm.reporting.run.board import board_rows
from qa_lm.reporting.run.known import known_lines, known_sentences
from qa_lm.run.reader import Board
from tests.reporting.report_example import BOARD, HOSTILE, measured, run_folder
from tests.reporting.report_pages import assert_both_say, both


def row(mode, value, split="validation", n=200):
    return {"split": split, "mode": mode, "n": n, "exact_match": measured(value, value - 0.06, value + 0.06)}


KNOWN: Any = {
    "default_mode": "best",
    "rows": [row("free", 0.31), row("known", 0.52), row("nearest (TF-IDF)", 0.6), row("best", 0.72)],
    "not_in_file": [{"split": "train", "n": 90, "count": 7}, {"split": "validation", "n": 1200, "count": 1034}],
    "robustness": [
        {"variant": "lower case", "n": 88, "exact_match": measured(0.991, 0.9, 1.0)},
        {"variant": "one typo", "n": 91, "exact_match": measured(0.875, 0.8, 0.9)},
    ],
    "unrelated": {"n": 200, "refused": 193, "threshold": 0.4567},
}


def changed(**changes):
    return copy.deepcopy(KNOWN) | changes


def test_the_reports_compare_the_modes(tmp_path):
    page, plain = both(run_folder(tmp_path, board=BOARD | {"known_answers": KNOWN}))
    texts = (
        "Answers from the file",
        "In mode best, which ask.py uses unless asked otherwise, every answer is one of the trained answers.",
        "Copying a known answer is better than what the model finds (72.0% and 52.0%).",
        "Of the 1,200 answers that the model wrote to held-out questions, 1,034 are not in the file.",
        "Of 200 unrelated questions, 193 get \N{LEFT DOUBLE QUOTATION MARK}I don't know\N{RIGHT DOUBLE QUOTATION MARK} "
        "below a probability of 0.46.",
        "best (default)",
        "the known answer that the model finds most likely",
        "Trained questions as people write them, in mode best:",
    )
    assert_both_say(texts, page, plain)
    assert (
        "| all held-out pairs | known | the known answer that the model finds most likely | 200 | "
        "52.0% (46.0% to 58.0%) |" in plain
    )
    assert "| one typo | 91 | 87.5% |" in plain


@pytest.mark.parametrize("known", [{}, {"known_answers": None}])
def test_a_run_without_known_answers_says_nothing_of_them(tmp_path, known):
    page, plain = both(run_folder(tmp_path, board=BOARD | known))
    assert "Answers from the file" not in page.text + plain
    assert known_lines(cast(Board, BOARD | known)) == []


def test_the_terminal_says_the_same():
    lines = known_lines(cast(Board, BOARD | {"known_answers": KNOWN}))
    text = "\n".join(lines)
    assert lines[0] == ""
    assert [line.split("  ")[0] for line in lines[3:7]] == ["free", "known", "nearest (TF-IDF)", "best (default)"]
    assert "72.0% (66.0% to 78.0%)" in text
    assert "Trained questions, in mode best: lower case 99.1%, one typo 87.5%." in lines
    assert lines[-3:] == known_sentences(KNOWN)


@pytest.mark.parametrize(
    ("free", "known", "best", "said"),
    [
        (0.5, 0.95, 0.6, "The model generalises: it is clearly better than copying (95.0% and 60.0%)."),
        (0.95, 0.5, 0.6, "The model generalises: it is clearly better than copying (95.0% and 60.0%)."),
        (0.5, 0.62, 0.6, "The model is not clearly better than copying a known answer (62.0% and 60.0%)."),
        (0.5, 0.59, 0.6, "Copying a known answer is better than what the model finds (60.0% and 59.0%)."),
    ],
)
def test_copying_is_what_the_model_must_beat(free, known, best, said):
    rows = [row("free", free), row("known", known), row("nearest (TF-IDF)", 0.1), row("best", best)]
    assert known_sentences(changed(rows=rows, not_in_file=[], unrelated=None)) == [said]


@pytest.mark.parametrize(
    ("untrained", "said"),
    [
        (
            0.2,
            "The model generalises: it is clearly better than copying (95.0% and 60.0%), and than before training "
            "(20.0%); 175 held-out answers are right, of which 40 were known before training.",
        ),
        (
            0.9,
            "The model is clearly better than copying (95.0% and 60.0%), but not than before training (90.0%); "
            "175 held-out answers are right, of which 40 were known before training.",
        ),
    ],
)
def test_a_pretrained_model_generalises_only_beyond_what_it_knew(untrained, said):
    before = {"untrained_model": measured(untrained, untrained - 0.06, untrained + 0.06), "known_and_kept": 40}
    before |= {"known_and_lost": 10, "taught": 135, "not_learnt": 123}
    whole = BOARD["rows"][1] | {"before": before}
    known = changed(rows=[row("known", 0.95), row("best", 0.6)], not_in_file=[], unrelated=None)
    board = cast(Board, BOARD | {"rows": [whole], "known_answers": known})
    assert known_sentences(known, board_rows(board)) == [said]
    assert said in known_lines(board)


def test_each_split_is_judged_by_itself():
    rows = [*KNOWN["rows"], row("free", 0.9, "test"), row("best", 0.2, "test")]
    sentences = known_sentences(changed(rows=rows))
    assert sentences[0].startswith("Copying")
    assert sentences[1].startswith("The model generalises")


def test_what_was_not_measured_is_not_said(tmp_path):
    known = changed(rows=[], robustness=[], not_in_file=[{"split": "validation", "n": 5, "count": 0}], unrelated=None)
    assert known_sentences(known) == []
    page, _ = both(run_folder(tmp_path, board=BOARD | {"known_answers": known}))
    assert "Answers from the file" in page.text
    assert "as people write them" not in page.text


def test_foreign_text_stays_text(tmp_path):
    rows = [row(HOSTILE, 0.5, HOSTILE), row("free", 0.5, HOSTILE), row("best", 0.5, HOSTILE)]
    variants = [{"variant": HOSTILE, "n": 1, "exact_match": measured(0.5, 0.1, 0.9)}]
    known = changed(default_mode=HOSTILE, rows=rows, robustness=variants)
    page, _ = both(run_folder(tmp_path, board=BOARD | {"known_answers": known}))
    assert {"script", "img"} & {*page.tags} == set()
