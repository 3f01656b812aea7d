"""Write a trained model for other tools, and prove that it answers the same there:

    python scripts/export.py RUN_FOLDER --to gguf [--type f32|f16|q8_0|q4_0] [--prove] [--limit N] [--output FILE]
    python scripts/export.py RUN_FOLDER --to safetensors [--dtype bf16|f16|f32] [--prove] [--limit N] [--output FOLDER]

The exit code is 1 if the proof finds a sure answer, the ids of a prompt or, by more than rounding explains, a
log-probability that differs.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qa_lm.commands.exit_codes import exit_code, notice
from qa_lm.errors import UserError, sanitize
from qa_lm.run.run_folder import CONFIG

if TYPE_CHECKING:
    from qa_lm.export.proof import Proof
    from qa_lm.export.source import Source

TEMPLATE = "prompt_template.json"
"""A file of every folder that is written."""
TYPES, DTYPES = ("f32", "f16", "q8_0", "q4_0"), ("bf16", "f16", "f32")


def main(arguments: list[str] | None = None) -> int:
    """Write, prove and print. Returns the exit code."""
    options = _parser().parse_args(arguments)
    holds: list[bool] = []
    code = exit_code(lambda: holds.append(_export(options)))
    return code or int(holds == [False])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write a trained model for llama.cpp and Ollama (GGUF), or with smaller weights (safetensors)."
    )
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder that train.py printed last")
    parser.add_argument("--to", required=True, choices=["gguf", "safetensors"], help="file format")
    parser.add_argument("--type", choices=TYPES, help="number format of the weights in GGUF (default f16)")
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights in safetensors (default bf16)")
    parser.add_argument(
        "--prove", action="store_true", help="ask the run and what was written all questions of the run, and compare"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="with --prove: ask the first N questions only")
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="where to write (default: in the folder export/ of the run)"
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    gguf = options.to == "gguf"
    rules = {
        "--type is for --to gguf; choose --dtype": gguf or options.type is None,
        "--dtype is for --to safetensors; choose --type": not gguf or options.dtype is None,
        "--limit must be at least 1": options.limit is None or options.limit >= 1,
        "--limit needs --prove": options.limit is None or options.prove,
    }
    for rule, holds in rules.items():
        if not holds:
            raise UserError(rule)
    if options.output is not None:
        _check_output(options.output, gguf)
    needed = (["gguf"] if gguf else []) + (["xllamacpp"] if gguf and options.prove else [])
    if missing := [name for name in needed if find_spec(name) is None]:
        raise UserError(f"--to gguf: needs {' and '.join(missing)}: pip install 'qa_lm[gguf]'")


def _check_output(path: Path, gguf: bool) -> None:
    """Refuse a place where something else would be lost."""
    if gguf and path.is_dir():
        raise UserError(f"--output {path}: is a folder; name the file to write")
    if gguf or not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"--output {path}: is a file; name the folder to write")
    earlier = (path / TEMPLATE).is_file() and not (path.resolve().parent / CONFIG).is_file()
    if any(path.iterdir()) and not earlier:
        raise UserError(
            f"--output {path}: exists and was not written by this command, so it is not replaced; name a new folder"
        )


def _export(options: argparse.Namespace) -> bool:
    """Write, prove and print. Returns whether the proof holds; True without one."""
    _check(options)
    with notice(f"loading {options.run} ..."):
        import transformers

        from qa_lm.export.source import Source

        transformers.utils.logging.disable_progress_bar()
        source = Source.load(options.run)
    proof, written = (_gguf if options.to == "gguf" else _safetensors)(options, source)
    if proof is None:
        return True
    from qa_lm.export.proof import proof_lines
    from qa_lm.export.proving import proof_path

    if options.limit is not None and options.limit < len(source.pairs):
        print(f"asked: the first {options.limit:,} of {len(source.pairs):,} questions of the run")
    print(sanitize("\n".join(proof_lines(proof))))
    print(f"proof: {proof_path(written)}")
    return proof.holds


def _gguf(options: argparse.Namespace, source: "Source") -> "tuple[Proof | None, Path]":
    from qa_lm.export.gguf_file import MODELFILE, write_gguf
    from qa_lm.export.gguf_types import GgufType
    from qa_lm.export.proving import prove_gguf

    kind = GgufType(options.type or "f16")
    path = options.output or source.run / "export" / f"{source.name}-{kind}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    with notice(f"writing {path} ..."):
        file = write_gguf(source, path, kind)
    print(f"wrote {path}: {kind}, {path.stat().st_size / 1e6:,.1f} MB")
    if file.kept:
        print(
            f"note: rows of {file.kept} of {file.formats.total()} matrices are not multiples of 32 numbers, so they "
            "stay in 16 or 32 bits"
        )
    print(f"Ollama: {path.with_name(MODELFILE)}", flush=True)
    return (prove_gguf(source, file, options.limit) if options.prove else None), path


def _safetensors(options: argparse.Namespace, source: "Source") -> "tuple[Proof | None, Path]":
    from qa_lm.export.proving import prove_folder
    from qa_lm.export.safetensors_folder import Dtype, write_folder

    dtype = Dtype(options.dtype or "bf16")
    folder = options.output or source.run / "export" / f"{source.name}-{dtype}"
    with notice(f"writing {folder} ..."):
        exported = write_folder(source, folder, dtype)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"wrote {folder}: {dtype}, {size / 1e6:,.1f} MB", flush=True)
    return (prove_folder(source, folder, exported, dtype, options.limit) if options.prove else None), folder
