"""serve.py, ask.py and evaluate.py agree: on answers, stop reasons, probabilities and "I don't know"."""

import json

import pytest

from qa_lm.evaluation.replies import UNKNOWN
from tests.conftest import builtin
from tests.serving.served import served

PARAPHRASED = ("what's 2 plus 2?", "Which city is the capital of Japan?", "who is the author of harry potter")
UNRELATED = ("Why does the sky turn red at sunset?", "zzz", "How many legs has a spider?")
SHORT = ("What is 2 + 2?", "What is the tallest mountain?", "What is the capital of Japan?")
"""Trained, with answers of fewer tokens than the limit, which therefore may be in the file that evaluate.py reads: it
raises the limit to the longest of them."""
LIMIT = "20"
CLOSE = 1e-5
"""Sums of float32 in batches of different shapes; here they differ by at most 1e-6."""


@pytest.mark.parametrize("mode", ["free", "best"])
def test_the_three_commands_agree(scripts, served_run, script, tmp_path, mode):
    answers = {pair.question: pair.answer if pair.question in SHORT else "no" for pair in builtin("tutorial")}
    answers |= dict.fromkeys([*PARAPHRASED, *UNRELATED], "no")
    (tmp_path / "questions.txt").write_text("".join(f"{question}\n" for question in answers))
    rows = [json.dumps({"question": question, "answer": answer}) for question, answer in answers.items()]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    options = ["--mode", mode, "--abstain-below", "0.5", "--max-new-tokens", LIMIT]
    asked = script("ask.py", str(served_run), "--file", "questions.txt", "--json", *options)
    assert asked.returncode == 0, asked.stderr
    evaluated = script("evaluate.py", str(served_run), "data.path=pairs.jsonl", "--out", "out", *options)
    assert evaluated.returncode == 0, evaluated.stderr
    with served(scripts, str(served_run), *options) as server:
        replies = [server.ask(question) for question in answers]

    records = [json.loads(line) for line in asked.stdout.splitlines()]
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["question"] for line in lines] == [record["question"] for record in records] == [*answers]
    for reply, record, line in zip(replies, records, lines, strict=True):
        (choice,), details = reply["choices"], reply["qa_lm"]
        said = UNKNOWN if record["abstained"] else record["answer"]
        assert (line["generated"], choice["message"]["content"]) == (record["answer"], said)
        assert line["stopped"] is record["stopped"]
        ended = record["stopped"] or record["abstained"]  # "I don't know" is whole, whatever it stands for
        assert choice["finish_reason"] == ("stop" if ended else "length")
        assert line["abstained"] is details["abstained"] is record["abstained"]
        assert details["mode"] == record["mode"] == mode
        if mode == "best":  # no model writes
            assert line["probability"] == details["probability"] == record["probability"]
            continue
        for name in ("probability", "log_probability"):
            for other in (line, details):
                assert other[name] == pytest.approx(record[name], rel=0, abs=CLOSE)
    assert {record["abstained"] for record in records} == {True, False}
    assert len({record["probability"] for record in records}) > 5
    assert {record["stopped"] for record in records} == ({True, False} if mode == "free" else {True})
