"""The command `qa-lm`, which works in any folder: `qa-lm train experiment=recall data.path=faq.jsonl`."""

import difflib
import importlib
import sys

COMMANDS = {
    "train": ("train", "train on question-answer pairs"),
    "ask": ("ask", "ask a trained model"),
    "serve": ("serve", "serve a trained model over HTTP, with a page"),
    "evaluate": ("evaluate", "evaluate any model on any pairs"),
    "export": ("export", "write a trained model for llama.cpp, Ollama and other tools"),
    "check": ("check_data", "check files of pairs"),
    "plan": ("plan", "say what a run would need on 1 to 1,024 devices, without training"),
    "ledger": ("ledger", "show the trained pairs that may be wrong"),
    "sweep-report": ("sweep_report", "write the report of a sweep"),
    "verify-resume": ("verify_resume", "check that runs resume exactly"),
}
"""Each command with its module in `qa_lm.commands` and its description."""


def main() -> int:
    """Run a command with the rest of the command line. Returns the exit code."""
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0 if given else 2
    name, *rest = given
    if name == "--version":
        from qa_lm import __version__

        print(f"qa-lm {__version__}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"available: {', '.join(COMMANDS)}"
        print(f"error: {name}: no such command; {hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"qa_lm.commands.{COMMANDS[name][0]}")
    sys.argv = [f"qa-lm {name}", *rest]  # shown in usage messages and environment.json
    code = module.main(["-m", "qa_lm.cli", "train"]) if name == "train" else module.main()
    return int(code)


def _usage() -> str:
    lines = [f"  {name:<14} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: qa-lm COMMAND ...", "", *lines, "", "qa-lm COMMAND --help describes each command."])


if __name__ == "__main__":
    sys.exit(main())
