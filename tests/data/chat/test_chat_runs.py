"""Runs with data.template=chat: trained, exported, asked, evaluated, resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from qa_lm.commands import ask, check_data, evaluate
from qa_lm.config.enums import PromptKind, TooLong, Weights
from qa_lm.config.schema import DataConfig, ModelConfig, TokenizerConfig, TrainConfig
from qa_lm.config.validate import check_values
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.question_files import questions_in
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from qa_lm.evaluation.before.general import GeneralAnswer
from qa_lm.training.finetune import before
from qa_lm.training.train import TrainingResult, train
from tests.conftest import small_config
from tests.data.chat.chat_folders import CHATML, LLAMA3, QWEN, chat_folder
from tests.prepared_pairs import jsonl

QUESTION = "What does <|im_end|> end?"
PAIRS = [
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Peru?", "Lima"),
    ("  Which day follows Monday? ", "Tuesday"),
    (QUESTION, "<|im_end|> ends a turn."),
    ("What is 2 + 2?", "4"),
    ("Which vowels come first?", "A\nE"),
]


def chat_config(folder: Path, template: str = QWEN, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "data__path": str(jsonl(folder / "pairs.jsonl", PAIRS)),
        "data__template": PromptKind.chat,
        "data__train_fraction": 1.0,
        "data__shuffle": True,
        "tokenizer": TokenizerConfig("folder", str(chat_folder(folder / "base", template))),
        "trainer__max_epochs": 80,
        "stop_at_recall": 1.0,
        "export_weights": Weights.last,
    }
    return small_config(**(settings | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    folder = tmp_path_factory.mktemp("chat")
    return train(chat_config(folder, data__system="Be brief."), folder / "run")


def test_a_run_learns_all_pairs_as_turns(run, capsys):
    assert [answer.exact_match for answer in run.answers] == [True] * len(PAIRS)
    for question, answer in PAIRS:
        assert ask.main([str(run.folder), question, "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["answer"] == answer


def pretrained(run: TrainingResult, folder: Path, **changes: object) -> TrainConfig:
    model = ModelConfig(
        path=str(run.folder / "model"), architecture=None, hidden_size=None, layers=None, heads=None, context=None
    )
    settings: dict[str, Any] = {
        "model": model,
        "tokenizer": TokenizerConfig(kind="model"),
        "trainer__max_epochs": 1,
    } | changes
    return chat_config(folder, QWEN, **settings)


def test_a_chat_model_starts_with_what_it_knew_in_its_turns(run, tmp_path, capsys):
    result = train(pretrained(run, tmp_path, data__system="Be brief."), tmp_path / "run")
    said = capsys.readouterr().out
    assert f"it knows {len(PAIRS)} of {len(PAIRS)} training pairs" in said
    assert "prompt: plain" not in said
    assert [answer.exact_match for answer in result.answers] == [True] * len(PAIRS)


def test_general_questions_are_asked_by_the_chat_template_of_the_model(run, tmp_path, capsys, monkeypatch):
    asked: list[PromptTemplate] = []
    ask_general = before.ask_general

    def recorded(model: PreTrainedModel, tokenizer: TextTokenizer, template: PromptTemplate) -> list[GeneralAnswer]:
        asked.append(template)
        return ask_general(model, tokenizer, template)

    monkeypatch.setattr(before, "ask_general", recorded)
    train(pretrained(run, tmp_path, data__template=PromptKind.plain), tmp_path / "run")
    assert "prompt: plain; this model has a chat template too: data.template=chat" in capsys.readouterr().out
    assert [template.chat is not None for template in asked] == [True]


def test_the_exported_folder_is_a_chat_model(run):
    model, folder = AutoModelForCausalLM.from_pretrained(run.folder / "model"), run.folder / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    settings = json.loads((folder / "generation_config.json").read_text())
    assert (settings["do_sample"], settings["eos_token_id"]) == (False, ends)
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == ends[0]
    for record in json.loads((folder / "golden.json").read_text()):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": record["question"]}]
        found = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, sanitize_control_tokens=True, return_tensors="pt"
        )
        assert found["input_ids"][0].tolist() == record["prompt_ids"]
        answers = dict(PAIRS)
        if record["question"] in answers:
            ids = model.generate(**found, max_new_tokens=64)[0, found["input_ids"].shape[1] :]
            assert ids[-1] == ends[0]
            assert tokenizer.decode(ids[:-1]) == answers[record["question"]]


@pytest.mark.parametrize("pairs", [[], ["data.path={base}/pairs.jsonl"]], ids=["own", "given"])
def test_a_run_is_evaluated_as_it_was_trained(run, tmp_path, pairs):
    arguments = [each.replace("{base}", str(run.folder.parent)) for each in pairs]
    assert evaluate.main([str(run.folder), *arguments, "--out", str(tmp_path)]) == 0
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["exact_match"] for answer in answers] == [True] * len(PAIRS)


def test_a_run_resumes_only_with_its_own_chat_template(tmp_path):
    folder = tmp_path / "run"
    config = chat_config(tmp_path, stop_at_recall=None, trainer__max_epochs=2)
    train(config, folder)
    config = chat_config(tmp_path, stop_at_recall=None, trainer__max_epochs=4, resume="auto")
    assert train(config, folder).metrics["epochs_run"] == 4
    chat_folder(tmp_path / "base", QWEN.replace("You are Qwen.", "You are not."))
    config.trainer["max_epochs"] = 6
    with pytest.raises(UserError, match="the tokenizer has changed since this run started"):
        train(config, folder)


# Data


def prepared(folder: Path, path: Path, template: str = CHATML, **changes: Any) -> PreparedData:
    data = DataConfig(path=str(path), template=PromptKind.chat, cache="off", **changes)
    return prepare(data, TokenizerConfig("folder", str(chat_folder(folder / "base", template))), 256)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def dialogues(path: Path, *turns: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"messages": [*turns, turn("assistant", f"No {n}.")]}) + "\n" for n in range(9)))
    return path


def test_a_dialogue_of_one_question_is_one_pair(tmp_path):
    path = dialogues(tmp_path / "talks.jsonl", turn("user", "Who?"))
    data = prepared(tmp_path, path, split="shuffle")
    assert data.table.pairs([0])[0][:2] == ("Who?", "No 0.")
    path = dialogues(path, turn("system", "Be brief."), turn("user", "Who?"))
    data = prepared(tmp_path, path, split="shuffle", system="Be brief.")
    assert data.table.pairs([0])[0].question == "Who?"
    with pytest.raises(UserError, match="the system turn of this dialogue is not data.system; set data.system to its"):
        prepared(tmp_path, path, split="shuffle")
    data = prepared(tmp_path, path, split="shuffle", prompt="{system}\n{question}")
    assert data.table.pairs([0])[0].question == "Be brief.\nWho?"


def test_earlier_turns_are_refused_unless_the_prompt_places_them(tmp_path):
    path = dialogues(tmp_path / "talks.jsonl", turn("user", "Who?"), turn("assistant", "Ada."), turn("user", "No?"))
    with pytest.raises(UserError, match=r"this dialogue has earlier turns; write them into the question: data.prompt="):
        prepared(tmp_path, path, split="shuffle")
    data = prepared(tmp_path, path, split="shuffle", prompt="{history}\n{question}")
    assert data.table.pairs([1])[0].question == "User: Who?\nAssistant: Ada.\nNo?"
    template = prepared(tmp_path, jsonl(tmp_path / "pairs.jsonl", PAIRS)).template
    with pytest.raises(UserError, match="this dialogue has earlier turns"):
        questions_in(path, template, {}, None, "utf-8")


def test_a_question_is_not_cut_where_a_prompt_begins_with_special_tokens(tmp_path):
    path = jsonl(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(UserError, match=r"^data.too_long=truncate_question: would cut the special tokens"):
        prepared(tmp_path, path, LLAMA3, too_long=TooLong.truncate_question)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": TokenizerConfig("gpt2")}, "data.template=chat: needs a tokenizer with a chat template"),
        ({"data__template": PromptKind.plain, "data__system": ""}, "data.system=: has no effect here"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        check_values(chat_config(tmp_path, **changes))


@pytest.mark.parametrize(
    "change",
    [
        {"before": 5},
        {"before": [-1]},
        {"after": ["a"]},
        {"before": [10**9]},
        {"chat": 5},
        {"chat": {"strip": 1}},
        {"chat": {"text_before": None}},
        {"chat": {"other": 1}},
    ],
    ids=str,
)
def test_a_damaged_prompt_template(run, tmp_path, change, capsys):
    path = run.folder / "model" / "prompt_template.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(text) | change))
        assert ask.main([str(run.folder), "Who?"]) == 2
    finally:
        path.write_text(text)
    found = capsys.readouterr().err
    assert "prompt_template.json: " in found
    assert len(found.splitlines()) == 1


def test_a_prompt_template_of_an_older_run(tmp_path):
    (tmp_path / "prompt_template.json").write_text('{"prompt": "{question}", "answer": " {answer}"}')
    assert PromptTemplate.load(tmp_path) == PromptTemplate()


def test_a_file_is_checked_with_its_turns(tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}\n', encoding="utf-8")
    folder, report = chat_folder(tmp_path / "model", QWEN), tmp_path / "report.json"
    lengths = []
    for options in ([], ["--template", "chat"], ["--template", "chat", "--system", "Answer in a word."]):
        given = [str(file), "--tokenizer", str(folder), "--cache", "off", "--output", str(report), *options]
        assert check_data.main(given) == 0
        lengths.append(json.loads(report.read_text(encoding="utf-8"))["lengths"]["prompt_tokens"]["p50"])
    assert lengths[0] < lengths[1] != lengths[2]
    for options, message in ((["--template", "chat"], "--tokenizer"), (["--system", "x"], "--template chat")):
        assert check_data.main([str(file), *options]) == 2
        assert message in capsys.readouterr().err
