"""Ask a run and its exported model the questions of the run, and keep the proof next to what was exported."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from qa_lm import __version__
from qa_lm.data.encoding import encode_prompts
from qa_lm.errors import UserError
from qa_lm.export.gguf_file import GgufFile
from qa_lm.export.gguf_types import GgufType
from qa_lm.export.llama_cpp import LlamaCpp
from qa_lm.export.proof import ODD, Proof, tolerance_of
from qa_lm.export.source import Source
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import Continuation
from qa_lm.modeling.causal_lm import context_of
from qa_lm.run.atomic import write_json

PACKAGES = ("torch", "transformers", "tokenizers", "gguf", "xllamacpp")


@dataclass(frozen=True)
class Asked:
    """Questions with their prompts and the answers of the run."""

    questions: list[str]
    prompts: list[list[int]]
    answers: list[Continuation]
    limit: int
    """Tokens of an answer at most."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return max(map(len, self.prompts)) + self.limit + 1


def ask_run(source: Source, limit: int | None) -> Asked:
    """Ask the run its questions.

    Args:
        source: the run.
        limit: number of questions; None for all.

    Raises:
        UserError: the files of the run hold no questions.
    """
    questions = list(source.pairs)[:limit]
    if not questions:
        raise UserError(f"{source.run}: holds neither ledger.parquet nor answers.jsonl, so there is nothing to ask")
    answerer = source.answerer
    prompts = encode_prompts(questions, answerer.tokenizer, answerer.template)
    context = context_of(answerer.model)
    fitting = [place for place, prompt in enumerate(prompts) if len(prompt) < context]
    questions, prompts = [questions[place] for place in fitting], [prompts[place] for place in fitting]
    return Asked(
        questions, prompts, _greedy(answerer, source, questions, prompts, source.answer_limit), source.answer_limit
    )


def _greedy(
    answerer: Answerer, source: Source, questions: list[str], prompts: list[list[int]], limit: int
) -> list[Continuation]:
    """Greedy answers, with those of the pairs as drafts."""
    texts = [source.answerer.template.answer_text(source.pairs[question]) for question in questions]
    drafts = [Draft(*each) for each in zip(prompts, answerer.tokenizer.encode(texts), strict=True)]
    room = context_of(answerer.model)
    fitting = [draft if len(draft) <= room else Draft(draft.prompt, []) for draft in drafts]
    return greedy_answers(answerer.model, fitting, answerer.tokenizer.eos_id, limit)


def prove_gguf(source: Source, file: GgufFile, limit: int | None) -> Proof:
    """Compare a GGUF file in llama.cpp with the run, and write the proof.

    Raises:
        UserError: llama.cpp does not load the file, or the run has no questions.
    """
    asked = ask_run(source, limit)
    exact = file.type is GgufType.f32
    context = min(context_of(source.answerer.model), asked.longest)
    llama = LlamaCpp.load(file.path, context, torch.get_num_threads(), exact)
    tokenizer, template = source.answerer.tokenizer, source.answerer.template
    proof = Proof(len(asked.questions), tolerance_of(file.type, source.answerer.model.config.model_type))
    odd = encode_prompts(list(ODD), tokenizer, template)
    for question, prompt in zip([*asked.questions, *ODD], [*asked.prompts, *odd], strict=True):
        middle = llama.ids(template.prompt_text(question), special=False)
        whole = [*template.before, *middle, *template.after]
        proof.compare_prompt(question, prompt, whole, llama.prompt_ids(question))
    for question, prompt, answer in zip(asked.questions, asked.prompts, asked.answers, strict=True):
        room = min(asked.limit, context - len(prompt))
        found = llama.answer(prompt, tokenizer.eos_id, room)
        proof.compare_answer(question, answer, found, tokenizer.decode)
    details = {
        "file": file.path.name,
        "sha256": sha256([file.path]),
        "type": file.type.value,
        "matrices": dict(file.formats),
        "cache": "float32" if exact else "float16, the default of llama.cpp",
    }
    write_proof(source, proof, limit, details, file.path)
    return proof


def prove_folder(source: Source, folder: Path, exported: Answerer, dtype: str, limit: int | None) -> Proof:
    """Compare a transformers folder, loaded again, with the run, and write the proof."""
    asked = ask_run(source, limit)
    proof = Proof(len(asked.questions), tolerance_of(dtype))
    texts = [*asked.questions, *ODD]
    ours = encode_prompts(texts, source.answerer.tokenizer, source.answerer.template)
    theirs = encode_prompts(texts, exported.tokenizer, exported.template)
    for each in zip(texts, ours, theirs, strict=True):
        proof.compare_prompt(*each)
    answers = _greedy(exported, source, asked.questions, asked.prompts, asked.limit)
    for question, run, found in zip(asked.questions, asked.answers, answers, strict=True):
        proof.compare_answer(question, run, found, source.answerer.tokenizer.decode)
    files = sorted(folder.glob("*.safetensors"))
    details = {"file": folder.name, "sha256": sha256(files), "type": dtype, "computed_in": "float32"}
    write_proof(source, proof, limit, details, folder)
    return proof


def write_proof(source: Source, proof: Proof, limit: int | None, details: dict[str, Any], target: Path) -> None:
    """Write a proof next to a file or folder."""
    record = {
        **details,
        "run": source.run.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"qa_lm": __version__} | {name: _version(name) for name in PACKAGES},
        "questions_of_the_run": len(source.pairs),
        "limit": limit,
        **proof.record(),
    }
    write_json(proof_path(target), record)


def proof_path(target: Path) -> Path:
    """The file of the proof of a file or folder."""
    return target.with_name(f"{target.name}.proof.json")


def sha256(files: Sequence[Path]) -> str:
    """sha256 of a file; of several, of their digests in order."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(each.digest() for each in digests)).hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
