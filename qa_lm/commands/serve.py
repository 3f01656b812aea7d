"""Serve a trained model over HTTP: `python scripts/serve.py RUN_FOLDER`, then open the address that it prints.

Clients of the OpenAI API can ask it, and there is a page. It listens only on this machine unless asked otherwise.
"""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qa_lm.commands.exit_codes import exit_code, notice
from qa_lm.commands.options import add_abstention, add_mode, add_trust, check_abstention
from qa_lm.config.enums import AnswerMode
from qa_lm.config.targets import import_trusted
from qa_lm.errors import UserError
from qa_lm.quick_start import light_transformers, without_garbage_collection
from qa_lm.threads import spin_briefly

if TYPE_CHECKING:
    from qa_lm.evaluation.replies import Replies
    from qa_lm.inference.answerer import Answerer
    from qa_lm.serving.app import Settings
    from qa_lm.serving.engine import Engine

KEY_VARIABLE = "QA_LM_API_KEY"
PACKAGES = ("starlette", "uvicorn")
TERMINATED = 128 + signal.SIGTERM


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal. Returns the exit code."""
    spin_briefly()
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    return exit_code(lambda: _serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Serve a trained model over HTTP: the protocol of OpenAI, and a page to ask questions.",
        epilog="Ctrl-C and SIGTERM end it after the requests in progress.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN_FOLDER", help="the folder that train.py printed last, or its model/ folder"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any free one (default 8000)")
    parser.add_argument("--name", help="name of the model for clients (default: the name of the run folder)")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"key that clients must send; better in the environment variable {KEY_VARIABLE}, which `ps` does not show",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which clients may reach the server, as behind a proxy; can be repeated",
    )
    parser.add_argument("--cors", metavar="ORIGIN", help="origin whose pages may ask, such as https://example.org")
    add_abstention(parser)
    add_mode(parser)
    parser.add_argument(
        "--no-explain", action="store_true", help="leave out the nearest trained questions and their answers"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=64,
        metavar="N",
        help="maximum tokens of an answer if the request names no maximum (default 64)",
    )
    parser.add_argument("--queue", type=int, default=256, metavar="N", help="requests that may wait (default 256)")
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="SECONDS", help="time limit of a request (default 60)"
    )
    add_trust(parser)
    return parser


def _check(options: argparse.Namespace) -> None:
    rules = {
        "--port must be from 0 to 65535": 0 <= options.port <= 65535,
        "--max-new-tokens must be at least 1": options.max_new_tokens >= 1,
        "--queue must be at least 1": options.queue >= 1,
        "--timeout must be above 0, and finite": 0 < options.timeout < float("inf"),
        "--name must not be empty": options.name != "",
        "--cors takes an origin such as https://example.org, without a path": options.cors is None
        or (options.cors.startswith(("http://", "https://")) and options.cors.count("/") == 2),
    }
    for rule, holds in rules.items():
        if not holds:
            raise UserError(rule)
    check_abstention(options)
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f'{missing[0]} is not installed: pip install -e ".[serve]"')


def _key(options: argparse.Namespace) -> str | None:
    from qa_lm.serving.listening import is_loopback

    key: str | None = os.environ.get(KEY_VARIABLE) if options.api_key is None else options.api_key
    if key is not None and not (key.strip() and key.isascii() and key.isprintable()):
        raise UserError(f"--api-key or {KEY_VARIABLE}: the key must be printable ASCII text, and not empty")
    if key is None and not is_loopback(options.host):
        raise UserError(
            f"--host {options.host}: other machines could ask without a key; set {KEY_VARIABLE}, or keep 127.0.0.1"
        )
    return key


def _serve(options: argparse.Namespace) -> None:
    _check(options)
    with without_garbage_collection():
        with notice(f"loading {options.run} ..."):
            from qa_lm.serving.listening import bind, listen, url_of

            key = _key(options)
            bound = bind(options.host, options.port)
            import_trusted(options.trust)
            answerer = _answerer(options)
        engine, settings = _engine(options, answerer), _settings(options, key)
        from qa_lm.serving.app import create_app

        app = create_app(engine, settings)
    gc.freeze()  # what was imported stays, so no collection looks through it
    url = url_of(bound, options.host)
    listen(app, bound, options.timeout, lambda: print(f"serving {settings.name} at {url}", flush=True))


def _answerer(options: argparse.Namespace) -> "Answerer":
    with nullcontext() if options.trust else light_transformers():  # code of the user's own may need all of it
        import transformers

        from qa_lm.inference.in_progress import load_answerer

        transformers.utils.logging.disable_progress_bar()
        answerer = load_answerer(options.run)
        answerer.prepare(_mode(options, answerer))
        return answerer


def _mode(options: argparse.Namespace, answerer: "Answerer") -> AnswerMode:
    return AnswerMode(options.mode) if options.mode else answerer.default_mode


def _engine(options: argparse.Namespace, answerer: "Answerer") -> "Engine":
    from qa_lm.data.chat.conversation import Conversations
    from qa_lm.inference.answerer import model_folder
    from qa_lm.inference.in_progress import is_in_progress
    from qa_lm.serving.engine import Engine

    conversations = None
    if answerer.template.chat and not is_in_progress(options.run):
        conversations = Conversations(model_folder(options.run), answerer.tokenizer, answerer.template)
    mode = _mode(options, answerer)
    return Engine(answerer, mode, _replies(options, answerer, mode), conversations)


def _replies(options: argparse.Namespace, answerer: "Answerer", mode: AnswerMode) -> "Mapping[AnswerMode, Replies]":
    """How answers become replies, by mode: the mode of the server, and `free` for samples, unless the options exclude
    it."""
    from qa_lm.evaluation.replies import Abstention, Replies

    explainer = None
    if not options.no_explain:
        from qa_lm.evaluation.explanation import explainer_of  # imports pyarrow and scipy

        explainer = explainer_of(options.run, answerer.known)
    abstention = Abstention.of(options.run, answerer, mode, options.abstain_below, options.precision)
    if abstention:
        print(f"note: {abstention.note}", file=sys.stderr)
    found = {mode: Replies(abstention, explainer)}
    if mode is not AnswerMode.free and options.mode is None:
        try:
            free = Abstention.of(options.run, answerer, AnswerMode.free, options.abstain_below, options.precision)
            found[AnswerMode.free] = Replies(free, explainer)
        except UserError:
            pass  # samples would be answered without a threshold, so there are none
    return found


def _settings(options: argparse.Namespace, key: str | None) -> "Settings":
    from qa_lm.serving.app import Settings
    from qa_lm.serving.security import LOCAL_NAMES, host_name

    run = options.run.resolve()
    return Settings(
        name=options.name or (run.parent if run.name == "model" else run).name,
        created=int(run.stat().st_mtime),
        hosts=(*LOCAL_NAMES, options.host.strip("[]"), *map(host_name, options.allow_host)),
        key=key,
        origin=options.cors,
        max_new_tokens=options.max_new_tokens,
        seconds=options.timeout,
        most_waiting=options.queue,
    )
