"""A proof says what is the same and what differs, and how sure the run was."""

import json
import math
import shutil

import pytest

from qa_lm.commands import export
from qa_lm.export import proving
from qa_lm.export.proof import ODD, Proof, proof_lines
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.sampling import Continuation
from tests.export.model_folders import model_folder_of

SURE, UNSURE = math.log(0.9), math.log(0.3)


def answer(*ids, stopped=True, sure=True, by=0.0):
    return Continuation(list(ids), stopped, [(SURE if sure else UNSURE) + by] * (len(ids) + stopped))


def compared(*pairs):
    proof = Proof(len(pairs))
    for number, (run, exported) in enumerate(pairs):
        proof.compare_answer(f"question {number}", run, exported, lambda ids: " ".join(map(str, ids)))
    return proof


def test_a_sure_answer_that_differs_ends_the_proof():
    proof = compared((answer(1, 2), answer(1, 2)), (answer(1, 2), answer(1, 3)), (answer(4, sure=False), answer(5)))
    assert (proof.sure, proof.sure_parted, proof.holds) == (2, 1, False)
    found = proof.record()["answers"]
    assert {name: found[name] for name in ("asked", "same", "sure", "sure_and_same")} == {
        **{"asked": 3, "same": 1, "sure": 2},
        "sure_and_same": 1,
    }
    assert found["different"][0] == {"question": "question 1", "run": "1 2", "exported": "1 3", "sure": True}
    assert proof_lines(proof)[1] == "answers: 1 of 3 are the same, token by token; 1 of 2 SURE ones differ"
    assert proof_lines(proof)[-1] == "differs: 'question 1': '1 2' in the run, '1 3' exported"


@pytest.mark.parametrize("other", [answer(1, 2, stopped=False), answer(1), answer(1, 2, 3)])
def test_an_answer_that_ends_elsewhere_differs(other):
    assert compared((answer(1, 2), other)).sure_parted == 1


def test_an_unsure_answer_may_differ():
    proof = compared((answer(1, sure=False), answer(2)), (answer(1, stopped=False), answer(2)))
    assert (proof.sure, len(proof.parted), proof.holds) == (0, 2, True)
    assert proof_lines(proof)[1] == "answers: 0 of 2 are the same, token by token; all 0 sure ones among them"


def test_log_probabilities_are_compared_up_to_where_answers_part():
    assert compared((answer(1, 2), answer(1, 2, by=-0.25))).largest_difference == pytest.approx(0.25)
    run, exported = answer(1, 2, 3), answer(1, 9, 3)
    exported.log_probabilities[2] = -9
    assert compared((run, exported)).largest_difference == 0
    exported.log_probabilities[0] = SURE - 0.5
    assert compared((run, exported)).largest_difference == pytest.approx(0.5)


def test_a_prompt_with_other_ids_ends_the_proof():
    proof = Proof(1)
    proof.compare_prompt("What?", [1, 2], [1, 2], [1, 2])
    assert proof.holds
    proof.compare_prompt("Who?", [1, 2], [1, 2], [1, 3])
    assert not proof.holds
    assert proof.record()["prompts"]["different"] == [{"question": "Who?", "run": [1, 2], "exported": [1, 3]}]
    assert proof_lines(proof)[-1] == "first other prompt: 'Who?': [1, 2] in the run, [1, 3] exported"


def test_a_folder_in_half_precision_is_proved(learnt_run, tmp_path, capsys):
    assert export.main([str(learnt_run.folder), "--to", "safetensors", "--prove", "--output", str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"wrote {tmp_path / 'b'}: bf16, 0.")
    assert out[1] == f"prompts: {10 + len(ODD)} of {10 + len(ODD)} have the same ids"
    assert out[-1] == f"proof: {tmp_path / 'b.proof.json'}"
    proof = json.loads((tmp_path / "b.proof.json").read_text())
    assert (proof["type"], proof["answers"]["asked"], proof["holds"], proof["limit"]) == ("bf16", 10, True, None)
    assert proof["answers"]["sure"] > 0
    assert 0 < proof["largest_difference_of_log_probability"] < 0.5
    assert json.loads((tmp_path / "b/config.json").read_text())["torch_dtype"] == "bfloat16"
    names = {path.name for path in (learnt_run.folder / "model").iterdir()}
    assert {path.name for path in (tmp_path / "b").iterdir()} == names
    Answerer.load(tmp_path / "b")


def test_the_default_place_and_fewer_questions(learnt_run, capsys):
    assert (
        export.main([str(learnt_run.folder), "--to", "safetensors", "--dtype", "f16", "--prove", "--limit", "3"]) == 0
    )
    out = capsys.readouterr().out
    folder = learnt_run.folder / "export" / f"{learnt_run.folder.name}-f16"
    assert f"wrote {folder}: f16" in out
    assert "asked: the first 3 of 10 questions of the run\n" in out
    proof = json.loads(folder.with_name(f"{folder.name}.proof.json").read_text())
    assert (proof["answers"]["asked"], proof["limit"], proof["questions_of_the_run"]) == (3, 3, 10)


def test_exit_code_1_if_a_sure_answer_differs(learnt_run, tmp_path, monkeypatch, capsys):
    greedy = proving._greedy

    def of_other_prompts(answerer, source, questions, prompts, limit):
        own = answerer is source.answerer
        return greedy(answerer, source, questions, prompts if own else [prompts[-1]] * len(prompts), limit)

    monkeypatch.setattr(proving, "_greedy", of_other_prompts)
    arguments = [str(learnt_run.folder), "--to", "safetensors", "--prove", "--output", str(tmp_path / "b")]
    assert export.main(arguments) == 1
    assert "SURE ones differ" in capsys.readouterr().out
    assert json.loads((tmp_path / "b.proof.json").read_text())["holds"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gguf", "--dtype", "f16"], "--dtype is for --to safetensors; choose --type"),
        (["--to", "safetensors", "--type", "f16"], "--type is for --to gguf; choose --dtype"),
        (["--to", "gguf", "--limit", "3"], "--limit needs --prove"),
        (["--to", "gguf", "--prove", "--limit", "0"], "--limit must be at least 1"),
    ],
)
def test_options_that_do_not_fit(arguments, message, tmp_path, capsys):
    assert export.main([str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("target", "to", "message"),
    [
        ("run", "safetensors", "exists and was not written by this command, so it is not replaced; name a new folder"),
        ("run/model", "safetensors", "exists and was not written by this command, so it is not replaced"),
        ("file", "safetensors", "is a file; name the folder to write"),
        ("run", "gguf", "is a folder; name the file to write"),
    ],
)
def test_nothing_else_is_replaced(learnt_run, tmp_path, target, to, message, capsys):
    run = shutil.copytree(learnt_run.folder, tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert export.main([str(run), "--to", to, "--output", str(tmp_path / target)]) == 2
    assert f"error: --output {tmp_path / target}: {message}" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_an_earlier_export_is_replaced(learnt_run, tmp_path):
    arguments = [str(learnt_run.folder), "--to", "safetensors", "--output", str(tmp_path / "b")]
    (tmp_path / "b").mkdir()
    for dtype in ("f16", "bf16"):
        assert export.main([*arguments, "--dtype", dtype]) == 0
        assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] in ("float16", "bfloat16")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_missing_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert export.main([str(tmp_path), "--to", "gguf", "--prove"]) == 2
    assert capsys.readouterr().err == "error: --to gguf: needs gguf and xllamacpp: pip install 'qa_lm[gguf]'\n"


def test_a_model_without_a_run_has_no_questions(tmp_path, capsys):
    folder = model_folder_of(tmp_path / "model")
    assert export.main([str(folder), "--to", "safetensors", "--prove", "--output", str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}: holds neither ledger.parquet nor answers.jsonl, so there is nothing to ask\n"
    )


def test_a_folder_without_a_model(tmp_path, capsys):
    assert export.main([str(tmp_path), "--to", "gguf"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: contains no model; give the folder of a finished run\n"
