"""The command line: its order and quotes for Hydra, and messages for arguments that Hydra cannot read."""

import re
import shlex
from collections import Counter
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from qa_lm.config.aliases import DATA_SUFFIXES
from qa_lm.config.budget.settings import with_time
from qa_lm.errors import UserError

SETTING = re.compile(r"(?P<key>[~+]{0,2}[\w.@/:-]+)=(?P<value>.+)", re.DOTALL)
NETWORK_PATH = re.compile(r"""\\\\[^\\,'"\[\]{}()$]+\\[^,'"\[\]{}()$]+""")


def hydra_arguments(arguments: list[str]) -> list[str]:
    """Convert the command line to the form that Hydra accepts.

    Hydra alone would refuse settings on both sides of an option such as `-m`, and values with non-ASCII letters, such
    as `data.path=질문.csv`.

    Raises:
        UserError: Hydra does not have an option.
    """
    options, rest = get_args_parser().parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("-")]:
        key, _, value = unknown[0].lstrip("-").partition("=")
        raise UserError(f"{unknown[0]}: no such option; settings have no dashes: {key or 'seed'}={value or 'VALUE'}")
    settings = Counter([*options.overrides, *rest])
    first: list[str] = []
    others: list[str] = []
    for word in arguments:
        (first if settings[word] else others).append(word)
        settings[word] -= 1
    return [*(_with_quotes(with_time(word)) for word in first), *others]


def config_dir(arguments: list[str]) -> Path | None:
    """Return the folder of `--config-dir` as an absolute path; None if it is not given."""
    given = get_args_parser().parse_known_args(arguments)[0].config_dir
    return None if given is None else Path(given).absolute()


def unreadable(override: str) -> str:
    """Return the message for an argument that Hydra cannot parse, with the correct form."""
    found = SETTING.fullmatch(override)
    if found is None:
        if Path(override).suffix in DATA_SUFFIXES:
            return f"{override}: not a setting; did you mean data.path={override}?"
        return f"cannot read {override!r}: write a setting as key=value, without spaces around the ="
    quoted = quoted_setting(found["key"], found["value"])
    if not _is_read(quoted):
        return f"cannot read {override!r}: {found['key']} is not the name of a setting"
    brackets = "Close its brackets, or quote" if found["value"][0] in "[{(" else "Quote"
    return f"cannot read {override!r}\n{brackets} the value to take it as plain text: {shlex.quote(quoted)}"


def several_values(override: str) -> str:
    """Return the message for `key=1,2` without `-m`."""
    key, _, value = override.partition("=")
    return (
        f"{override}: several values; add -m to train with each of them\n"
        f"As one value: {shlex.quote(f'{key}=[{value}]')} is a list, {shlex.quote(quoted_setting(key, value))} is text."
    )


def _with_quotes(word: str) -> str:
    """Quote a value that Hydra would refuse only for its non-ASCII letters, or a Windows network path, of which Hydra
    would remove the first backslash."""
    found = SETTING.fullmatch(word)
    if found and NETWORK_PATH.fullmatch(found["value"]):
        return quoted_setting(found["key"], found["value"])
    if found is None or found["value"].isascii() or _is_read(word):
        return word
    plain = "".join(letter if letter.isascii() else "x" for letter in found["value"])
    if re.search(r"""[,"']""", plain) or not _is_read(f"{found['key']}={plain}"):
        return word  # a list, a sweep, or invalid for another reason
    return quoted_setting(found["key"], found["value"])


def quoted_setting(key: str, value: str) -> str:
    """Return a setting whose value Hydra reads as plain text, whatever it contains."""
    escaped = re.sub(r"(\\+)(?=\"|$)", r"\1\1", value).replace('"', '\\"')
    return f'{key}="{escaped}"'


def _is_read(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
