"""The model card: what the model was trained on, what it answers, its prompt, and how to ask it."""

import json
import re
import shutil

import pytest
import yaml

from qa_lm.data.cache import META
from qa_lm.data.pretrained.origin import base_origin
from qa_lm.data.pretrained.place import Base
from qa_lm.inference.answerer import Answerer
from qa_lm.reporting.card import GREEDY
from qa_lm.reporting.run.report import write_report


@pytest.fixture
def run(learnt_run, tmp_path):
    return shutil.copytree(learnt_run.folder, tmp_path / "run")


def card(run):
    write_report(run)
    _, front, text = (run / "model" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def changed(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_card_of_a_run(run, learnt_run):
    front, text = card(run)
    assert front == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["question-answering", "qa_lm"],
    }
    assert text.startswith(
        "\n# Answers from tutorial\n\nA causal language model (gpt2, 135.7 thousand parameters), trained "
    )
    assert "- **Data**: tutorial: 10 pairs, 8 for training and 2 held out for validation" in text
    right = sum(answer.exact_match for answer in learnt_run.answers if answer.split == "train")
    assert re.search(rf"\| trained pairs \| 8 \| {right} \(\d+\.\d%\) \| ", text)
    assert "- It has learnt 8 pairs. An answer to any other question is a guess" in text
    assert "stands in this text; the answer follows it:\n\n```text\n{question}\n```" in text
    assert GREEDY.strip() in text
    for words in ("pipeline(", "vllm serve", "llama-server -m", "ollama create", "qa-lm ask", "qa-lm export"):
        assert words in text


def test_the_examples_can_be_run(run):
    """The Python of the card, and the JSON that it sends."""
    _, text = card(run)
    (python,) = re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
    compile(python, "card", "exec")
    assert "What is" in python or "?" in python
    (body,) = re.findall(r"-d '(\{.*\})'", text)
    question = json.loads(body)["messages"][0]["content"]
    assert question in python
    assert Answerer.load(run).template.prompt == "{question}"


def test_the_name_of_a_run_is_text(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"name": "<b>*bold*</b>"}))
    assert "# &#60;b&#62;\\*bold\\*&#60;/b&#62;\n" in card(run)[1]


def test_columns_besides_the_question(run):
    path = run / "model" / "prompt_template.json"
    changed(path, prompt="{{Context}}: {context}\nQ: {question}\nA:")
    text = card(run)[1]
    assert "```text\n{Context}: {question}\nA:\n```" in text
    assert "filled like this:\n\n```text\n{context}\nQ: {question}\n```" in text


def test_a_prompt_that_other_tools_must_write(run):
    (run / "model" / "chat_template.jinja").unlink()
    changed(run / "model" / "prompt_template.json", before=[1])
    text = card(run)[1]
    assert "The folder has no chat template, since none gives the ids of training: write this text." in text
    assert "Other tools take names of special tokens in a question for special tokens" in text


def test_the_pretrained_base_and_its_licence(run):
    changed(run / "environment.json", base_model="owner/small", base_license="apache-2.0")
    front, text = card(run)
    assert (front["base_model"], front["license"]) == ("owner/small", "apache-2.0")
    assert "fine-tuned from owner/small by qa_lm" in text
    assert "- **Licence of the pretrained model**: apache-2.0, as that model names it" in text
    changed(run / "environment.json", base_license=None)
    front, text = card(run)
    assert "license" not in front
    assert "not named by that model; look it up" in text


def test_a_long_question_is_no_example(run):
    lines = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    lines = [line | {"question": "long " * 40} for line in lines]
    (run / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert 'content": "What is 2 + 2?"' in card(run)[1]


def test_an_unfinished_run_has_no_card(run):
    (run / "metrics.json").unlink()
    write_report(run)
    assert not (run / "model" / "README.md").exists()


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("owner/small", {}, {"base_model": "owner/small"}),
        ("small.gguf", {META: '{"license": "mit"}'}, {"base_license": "mit"}),
        (
            "base",
            {"README.md": "---\nlicense: apache-2.0\n---\n# A model\n", "config.json": '{"_name_or_path": "o/m"}'},
            {"base_model": "o/m", "base_license": "apache-2.0"},
        ),
        ("base", {"README.md": "no front matter", "config.json": '{"_name_or_path": "/tmp/m"}'}, {}),
        ("base", {"README.md": "---\n[1\n---\n", "config.json": "{"}, {}),
        ("base", {"README.md": "---\nlicense: [a, b]\n---\n"}, {}),
    ],
)
def test_what_a_pretrained_model_says_about_itself(tmp_path, name, files, expected):
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    assert base_origin(Base(name, tmp_path)) == expected
