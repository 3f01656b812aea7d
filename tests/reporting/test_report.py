"""report.md and report.html: what they say, what they leave out, and that foreign text stays text."""

import re
from typing import Any

import pytest

from qa_lm.errors import UserError
from qa_lm.reporting.run.charts import recall_chart
from qa_lm.reporting.run.report import write_report
from qa_lm.reporting.run.samples import COUNT, sample_answers
from qa_lm.run.reader import read_run
from tests.reporting.report_example import (
    BOARD,
    ENVIRONMENT,
    HOSTILE,
    LEDGER,
    METRICS,
    answer,
    hostile_folder,
    run_folder,
)
from tests.reporting.report_pages import MEASURE, assert_both_say, both, in_browser


def test_both_say_the_same(tmp_path):
    page, plain = both(run_folder(tmp_path))
    texts = (
        "What the model learnt from faq.jsonl",
        "Run 2026-11-25/04-16-36",
        "The model has memorised nearly all of its training questions, and answers held-out ones better than copying",
        "It answers 98.4% of the 512 training questions asked (of 1,050) word for word, 95% interval 96.9% to 99.2%.",
        "It answers 56.8% of 308 held-out questions (validation), 95% interval 51.2% to 62.2%, clearly more than "
        "copying",
        "By kind (validation): unseen fact 0.0% of 133.",
        "It answers 10.0% of 40 held-out questions (test), 95% interval 4.0% to 23.0%, clearly fewer than copying",
        "10.0% of its answers do not end on their own (train).",
        "See the 2 warnings below.",
        "faq.jsonl: 1,358 pairs, 1,050 for training and 308 held out for validation",
        "by question, seed 7; held out: unseen fact 133",
        "2 lines without a valid pair",
        r"{question}\n {answer}",
        "16.4 per pair, 5.6 in the answer, end token included; tokenizer bpe",
        "llama, 2.9 million parameters, width 256, layers 1, context 256",
        "muon; learning rate 0.0045, linear; 16 rows of 64 tokens per batch",
        "3 of at most 60, stopped early; the best is epoch 2, by val/loss; its validation loss 3.5000",
        "2 min 5 s in total, 90 s of it in training steps",
        "11,431 tokens per second, 0.78 GB peak memory",
        "2 (best)",
        "6.8335",
        "the fact was not trained with any wording: the answer is a guess",
        "calibrated by isotonic regression on 133 held-out and 400 trained pairs",
        "Brier score 0.083",
        "3 of 3, an equal selection",
        "✗ wrong",
        "I do not know",
        "12.5%",
        "faq.jsonl:12",
        "never learnt; high loss",
        "few held-out pairs",
        "repeats of an earlier pair: 50",
        "python scripts/train.py experiment=recall 'data.path=my pairs.jsonl'",
        "The code had uncommitted changes",
        "torch 2.13.0",
    )
    assert_both_say(texts, page, plain)
    assert "hydra.run.dir" not in page.text + plain


def test_the_tables_hold_the_numbers(tmp_path):
    _, plain = both(run_folder(tmp_path))
    assert (
        "| Held out for validation: all held-out pairs | every pair that was kept out of training | 308 | "
        "56.8% (51.2% to 62.2%) | 40.0% (35.0% to 45.0%) | 1.0% (0.0% to 2.0%) | "
        "90.0% (80.0% to 95.0%) | 93.0% (90.0% to 96.0%) |"
    ) in plain
    assert "| Trained | 512 | 90.0% | 3 | 2 | 97.0% |" in plain
    assert "| 0.90 | 40.0% | 97.0% |" in plain
    assert "| 3 | 1.1250 | - | 75.0% | - |" in plain
    assert "| faq.jsonl:12 | Which? | That. | - | 1 | 0.80 | never learnt; high loss |" in plain


def test_nothing_comes_from_outside(tmp_path):
    page, _ = both(run_folder(tmp_path))
    assert not {"script", "link", "iframe", "object", "a", "img"} & set(page.tags)
    assert not {"src", "href", "srcset"} & {name for name, _ in page.attributes}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes


def test_foreign_text_stays_text_in_html(tmp_path):
    folder = hostile_folder(tmp_path)
    page, _ = both(folder)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>document.title='ran'</script>") >= 12
    assert "\x07" not in page.text
    assert "\u202e" not in page.text


def test_no_validation(tmp_path):
    folder = run_folder(
        tmp_path,
        epochs="epoch,step,train_loss,val_loss,val_exact_match,train_recall\n1,8,2.0,,,\n2,16,1.0,,,\n",
        answers=[answer(1), answer(2, right=False)],
        metrics=METRICS | {"best_epoch": 2, "epochs_run": 2, "best_val_loss": None},
        board=BOARD | {"rows": BOARD["rows"][:1]},
    )
    page, plain = both(folder)
    assert "No pairs were held out" in page.text
    assert "The model has memorised nearly all of its training questions. It answers 98.4%" in plain
    assert recall_chart(read_run(folder)) is None
    assert 'id="chart-loss"' in (folder / "report.html").read_text()
    assert 'id="chart-recall"' not in (folder / "report.html").read_text()


def test_no_board_no_ledger(tmp_path):
    page, plain = both(run_folder(tmp_path, board=None, ledger_summary=None))
    for title in ("How well it answers", "Do answers end", "When it says", "Pairs worth checking"):
        assert title not in page.text
        assert title not in plain


def test_no_confidence(tmp_path):
    page, plain = both(run_folder(tmp_path, board=BOARD | {"confidence": None}))
    assert "How well it answers" in page.text
    assert "When it says" not in page.text + plain


def test_too_few_right_held_out_answers_for_a_curve(tmp_path):
    confidence = BOARD["confidence"] | {"held_out": {"pairs": 133, "right": 19, "needed": 20}}
    page, plain = both(run_folder(tmp_path, board=BOARD | {"confidence": confidence}))
    for text in (page.text, " ".join(plain.split())):
        assert "Only 19 of 133 answers to held-out questions are right. At least 20 are needed" in text
        assert "Measured on held-out pairs only" not in text


def test_pairs_without_a_reason_are_not_listed(tmp_path):
    worst = [LEDGER["worst"][0] | {"place": f"faq.jsonl:{line}", "why": why} for line, why in ((1, ""), (2, "odd"))]
    page, plain = both(run_folder(tmp_path, ledger_summary=LEDGER | {"worst": worst, "note": "Too few pairs."}))
    for text in (page.text, " ".join(plain.split())):
        assert "faq.jsonl:2" in text
        assert "faq.jsonl:1 " not in text
        assert "at least once. Too few pairs." in text
    page, _ = both(run_folder(tmp_path / "none", ledger_summary=LEDGER | {"worst": worst[:1]}))
    assert "These may be label errors" not in page.text


def test_no_answers(tmp_path):
    page, plain = both(run_folder(tmp_path, answers=[], board=None))
    assert "No training question was asked" in page.text
    assert "Sample answers" not in page.text + plain


def test_a_run_that_still_trains(tmp_path):
    page, plain = both(run_folder(tmp_path, answers=[], metrics=None, board=None, ledger_summary=None))
    for text in (page.text, " ".join(plain.split())):
        assert "No training question was asked" in text
        assert "faq.jsonl: 1,358 pairs, 1,050 for training and 308 held out for validation" in text
        assert "3, unfinished" in text
        assert "None" not in text[: text.index("Environment")]


def test_not_a_run_folder(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match="not a run folder: environment.json is missing"):
        write_report(tmp_path)


def test_what_was_not_measured_is_left_out_or_a_dash(tmp_path):
    unknown = dict.fromkeys(
        ("best_epoch", "best_val_loss", "recall", "final_train_recall", "tokens_per_second", "peak_memory")
    )
    stopping = [BOARD["stopping"][0] | {"eos_probability": None}]
    worst = [LEDGER["worst"][0] | {"learnt_at": None, "last_loss": None}]
    page, plain = both(
        run_folder(
            tmp_path,
            metrics=METRICS | unknown,
            board=BOARD | {"stopping": stopping},
            ledger_summary=LEDGER | {"worst": worst},
            environment=ENVIRONMENT | {"git": None},
        )
    )
    assert "| Trained | 512 | 90.0% | 3 | 2 | - |" in plain
    assert "| faq.jsonl:12 | Which? | That. | - | 1 | - | never learnt; high loss |" in plain
    assert "2 min 5 s in total, 90 s of it in training steps" in page.text
    for text in (page.text[: page.text.index("Every setting")], plain):
        assert "None" not in text
        assert "per second" not in text
        assert "commit" not in text


def test_a_report_is_written_again_the_same(tmp_path):
    folder = run_folder(tmp_path)
    page = write_report(folder)
    first = page.read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not list(folder.glob(".report*"))


def test_the_picture_is_shown_in_markdown_where_it_is(tmp_path):
    folder = run_folder(tmp_path)
    _, plain = both(folder)
    assert "loss_curve.png" not in plain
    (folder / "loss_curve.png").write_bytes(b"")
    _, plain = both(folder)
    assert "![Train and validation loss by epoch](loss_curve.png)" in plain


def test_samples_are_a_mix():
    answers: list[Any] = [answer(n, "train", n != 400) for n in range(500)] + [
        answer(n, "validation", n < 520) for n in range(500, 900)
    ]
    samples = sample_answers(answers)
    assert len(samples) == COUNT
    kinds = [(sample["notes"], sample["mark"]) for sample in samples]
    assert [kinds.count(kind) for kind in dict.fromkeys(kinds)] == [7, 1, 6, 6]
    assert samples == sample_answers(answers)
    assert [sample["notes"] for sample in samples] == sorted((sample["notes"] for sample in samples), reverse=True)
    assert {"question 0", "question 400", "question 499", "question 899"} <= {sample["question"] for sample in samples}


def test_samples_of_few_and_of_long_answers():
    assert sample_answers([]) == []
    answers: list[Any] = [
        answer(1, "validation", right=False, generated="x" * 5000, answer="", normalised_exact_match=True)
    ]
    shown = sample_answers(answers)
    assert [sample["mark"] for sample in shown] == ["nearly"]
    assert shown[0]["generated"] == "x" * 600 + "… (cut; 5,000 characters)"


@pytest.mark.slow
def test_in_a_browser(tmp_path):
    text = write_report(hostile_folder(tmp_path)).read_text(encoding="utf-8")
    # Without its Content-Security-Policy, so that the escaping alone has to hold, and the measuring script may run.
    unguarded = re.sub(r"<meta http-equiv=\"Content-Security-Policy\".*\n", "", text)
    assert unguarded != text
    page = tmp_path / "unguarded.html"
    page.write_text(unguarded.replace("</head>", MEASURE + "</head>"), encoding="utf-8")
    ran, content, frame = in_browser(page)
    assert not ran
    assert content <= frame <= 360

    # The same check sees a script that does run, and a page that is too wide.
    wide = f'</h1>{HOSTILE}<div style="width: 700px">wide</div>'
    page.write_text(page.read_text(encoding="utf-8").replace("</h1>", wide), encoding="utf-8")
    ran, content, frame = in_browser(page)
    assert ran
    assert content > frame
