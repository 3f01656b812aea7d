"""Write the model card, README.md in model/: what the model was trained on, what it answers, and how to ask it."""

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from qa_lm.reporting.markdown import escape, fenced
from qa_lm.reporting.run.board import board_rows
from qa_lm.reporting.run.facts import run_facts, source_names
from qa_lm.reporting.run.verdict import verdict
from qa_lm.reporting.wording import format_int, pluralize, printable, size
from qa_lm.run import run_folder
from qa_lm.run.atomic import write_text
from qa_lm.run.reader import RunFiles
from qa_lm.templates import parse_template

CARD = "README.md"
FACTS = ("Data", "Split", "Model", "Epochs")
"""Labels of the facts of a run that the card has."""
LONGEST = 80
"""Characters of the question in the examples at most."""
GREEDY = """
`generation_config.json` asks for greedy decoding: transformers obeys `do_sample`, and vLLM, SGLang and the pipelines of
transformers 4 obey `temperature` and `top_k`. transformers warns that it ignores these two, and version 4 refuses to
save them: before you save a model that you trained further, set both to None in `model.generation_config`.
"""


def write_card(run: RunFiles, folder: Path) -> None:
    """Write the card of a finished run.

    Args:
        run: the files of the run.
        folder: the run folder.
    """
    model = folder / run_folder.MODEL
    parts = [
        _front_matter(run),
        f"# {escape(_title(run))}",
        _what_it_is(run),
        "## What it answers",
        _table(run),
        str(escape(" ".join(verdict(run)))),
        "## What it cannot do",
        _limits(run),
        "## Prompt",
        _prompt(model),
        "## Ask it",
        _snippets(run),
    ]
    write_text(model / CARD, "\n\n".join(parts) + "\n")


def _front_matter(run: RunFiles) -> str:
    """Settings that model hubs read."""
    base, licence = (run.environment.get(name) for name in ("base_model", "base_license"))
    content: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["question-answering", "qa_lm"],
    }
    content |= {"base_model": base} if base else {}
    content |= {"license": licence} if licence else {}
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _title(run: RunFiles) -> str:
    return str(run.config.get("name") or f"Answers from {source_names(run)}")


def _what_it_is(run: RunFiles) -> str:
    model = run.config["model"]
    base = run.environment.get("base_model") or model.get("path")
    start = f"fine-tuned from {escape(str(base))}" if base else "trained from scratch"
    parameters = size(run.metrics.get("parameters"))
    licence = run.environment.get("base_license")
    lines = [
        f"A causal language model ({escape(model['architecture'])}, {parameters} parameters), {start} by qa_lm on "
        f"question-answer pairs.",
        "",
        *(f"- **{label}**: {escape(value)}" for label, value in run_facts(run) if label in FACTS),
    ]
    if base:
        said = f"{escape(str(licence))}, as that model names it" if licence else "not named by that model; look it up"
        lines.append(f"- **Licence of the pretrained model**: {said}")
    return "\n".join(lines)


def _table(run: RunFiles) -> str:
    lines = ["| pairs | asked | answered word for word | 95% interval |", "|---|---|---|---|"]
    for row in board_rows(run.board):
        right = format_int(round(row.exact.value * row.n))
        name = escape(row.name)
        lines.append(f"| {name} | {format_int(row.n)} | {right} ({row.exact.text}) | {row.exact.interval} |")
    return "\n".join(lines)


def _limits(run: RunFiles) -> str:
    trained = pluralize(run.metrics.get("pairs_trained"), "pair")
    lines = [
        f"- It has learnt {trained}. An answer to any other question is a guess, however confident it sounds.",
        "- It answers one question at a time, and remembers no conversation.",
        "- It does not look anything up: what has changed since training, it does not know.",
        "- Its answers are as right as the pairs that it was trained on.",
    ]
    known = run.board.get("known_answers")
    if known and known["default_mode"] != "free":
        lines.append(
            "- `qa-lm ask` chooses among the trained answers, which other tools do not: they get what the model writes "
            "by itself."
        )
    return "\n".join(lines)


def _prompt(model: Path) -> str:
    """How a question is written, from the files of the model."""
    template = json.loads((model / "prompt_template.json").read_text(encoding="utf-8"))
    before, parts, after = parse_template(template["prompt"])
    has_chat_template = (model / "chat_template.jinja").is_file()
    lines = []
    if template.get("chat"):
        lines.append("A question is the only message, of the user, in the chat template of this folder.")
    else:
        lines.append("A question stands in this text; the answer follows it:")
        lines.append(str(fenced(f"{before}{{question}}{after}")))
        if not has_chat_template:
            lines.append("The folder has no chat template, since none gives the ids of training: write this text.")
    if len(parts) > 1 or parts[0][0] != "question":
        filled = "".join(f"{{{name}}}{text}" for name, text in parts)
        lines.append("Where it says question, write the text of all columns, filled like this:")
        lines.append(str(fenced(filled)))
    if template.get("before") or template.get("chat"):
        lines.append(
            "Other tools take names of special tokens in a question for special tokens; qa_lm takes them for text."
        )
    return "\n\n".join(lines)


def _snippets(run: RunFiles) -> str:
    short = [each["question"] for each in run.answers if len(printable(each["question"]).splitlines()) == 1]
    question = next((each for each in short if len(each) <= LONGEST), "What is 2 + 2?")
    quoted = json.dumps(question, ensure_ascii=False)
    path = "PATH_OF_THIS_FOLDER"
    python = (
        "from transformers import pipeline\n\n"
        f'answer = pipeline("text-generation", model="{path}")\n'
        f'messages = [{{"role": "user", "content": {quoted}}}]\n'
        'print(answer(messages, return_full_text=False)[0]["generated_text"].strip())'
    )
    body = f'{{"model": "{path}", "messages": [{{"role": "user", "content": {quoted}}}]}}'
    ask = (
        "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )
    commands = {
        "With qa_lm, which also says how sure an answer is:": ("bash", f"qa-lm ask {path} {shlex.quote(question)}"),
        "With transformers:": ("python", python),
        "With vLLM:": ("bash", f"vllm serve {path}\n{ask}"),
        "With llama.cpp, or Ollama:": (
            "bash",
            "qa-lm export RUN_FOLDER --to gguf --prove   # pip install 'qa_lm[gguf]'\n"
            "llama-server -m RUN_FOLDER/export/NAME.gguf --port 8000\n"
            "ollama create NAME -f RUN_FOLDER/export/Modelfile",
        ),
    }
    blocks = [f"{label}\n\n{fenced(code, language)}" for label, (language, code) in commands.items()]
    return "\n\n".join([*blocks, GREEDY.strip()])
