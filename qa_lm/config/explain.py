"""What went wrong in composing a configuration, in one or two lines: the key, its file, and the nearest right one.

Hydra and OmegaConf say all of it, spread over messages of up to ten lines and exceptions of a dozen kinds.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from hydra.conf import HydraConf
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qa_lm.config.arguments import several_values, unreadable
from qa_lm.config.compose import nearest_key, schema_keys, unknown_key
from qa_lm.config.words import choice_here
from qa_lm.errors import UserError

DEFAULTS_ENTRY = re.compile(r"(override |optional )*/?\w[\w/]*(@[\w.:]+)?")


def is_configuration_error(error: BaseException) -> bool:
    """Whether the user's settings are at fault, not the program."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError):
        return True
    # Hydra refuses some overrides (`optimizer=3`) by a bare ValueError.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return isinstance(error, ValueError) and raised_in.startswith(("hydra.", "omegaconf."))


def check_defaults_lists(conf: Path, choices: Mapping[str, object]) -> None:
    """Refuse a mistyped entry in a defaults list that Hydra passes over, such as `overide /data: file`.

    Args:
        conf: the folder of configuration files.
        choices: group to chosen file, as Hydra resolved them.
    """
    for file in _composed_files(conf, choices):
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for entry in content.get("defaults", []):
            for group in entry if isinstance(entry, dict) else ():
                if not DEFAULTS_ENTRY.fullmatch(str(group)):
                    raise UserError(
                        f"{_shown(file, conf)}: in defaults, {group!r} is no group; write 'override /group: choice'"
                    )


def explain(error: BaseException, conf: Path, overrides: list[str]) -> str:
    """The error in one or two lines.

    Args:
        error: what `is_configuration_error` accepted.
        conf: the folder of configuration files.
        overrides: the command line's arguments.
    """
    if isinstance(error, UserError):
        return _with_origin(str(error), error.key, conf, overrides)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"{_shown(Path(mark.name), conf)}:{mark.line + 1}: " if mark else ""
        return f"{where}not YAML: {error.problem}"
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, OmegaConfBaseException):
        return _with_origin(*_setting(str(error)), conf, overrides)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _setting(str(error.__cause__))[0]
    for group, _, choice in (override.partition("=") for override in overrides):
        if isinstance(error, ValueError) and group in _groups(conf) and not (conf / group / f"{choice}.yaml").is_file():
            return _missing_choice(f"{group}/{choice}", conf)
    return _composition(str(error), conf, overrides)


def _composition(text: str, conf: Path, overrides: list[str]) -> str:
    """A message of Hydra's: `In 'model/small': ...`, `Could not find ...`."""
    if match := re.match(r"Ambiguous value for argument '(.+)'\n", text):
        return several_values(match[1])
    found = re.match(r"In '?([^':]+)'?: ", text)
    where = f"{_shown(conf / f'{found[1]}.yaml', conf)}: " if found and found[1] != "train" else ""
    if found and not (conf / f"{found[1]}.yaml").is_file():
        where = ""  # a file of Hydra's own
    body = text[found.end() :] if found else text
    if match := re.match(r"\w+ raised while composing config:\n", body):
        file = f"{_shown(conf / f'{found[1]}.yaml', conf)}: " if found else ""
        return file + _setting(body[match.end() :])[0]
    if match := re.match(r"Could not (?:find|load) '([^']+)'", body):
        where = where or _named_in(match[1], conf, overrides)
        return where + _missing_choice(match[1], conf)
    if match := re.match(r"Multiple values for [\w/]+\. .*'override ([\w/]+): (\w+)'", body):
        return _named_in(f"{match[1]}/{match[2]}", conf, overrides) + body
    if match := re.match(r"Override '.+' is defined before '(\S+): (\S+)'", body):
        where = _named_in(f"{match[1]}/{match[2]}", conf, overrides)
        return f"{where}{match[1]}: {match[2]} stands behind an override; is 'override {match[1]}: {match[2]}' meant?"
    if match := re.match(r"Could not override '([^'@]+)", body):
        if found and not any(override.lstrip("+~").startswith(match[1]) for override in overrides):
            where = f"{_shown(conf / f'{found[1]}.yaml', conf)}: "
        return f"{where}{match[1]}: no such group" + _did_you_mean(match[1], _groups(conf))
    return where + body.splitlines()[0]


def _setting(text: str) -> tuple[str, str | None]:
    """A message of OmegaConf's, and the key it is about."""
    first = text.splitlines()[0]
    found = re.search(r"full_key: (\S+)", text)
    if found is None:
        return first, None
    key = found[1]
    if not first.startswith("Key "):
        return f"{key}: {first}", key
    if key.startswith("hydra."):
        return f"{key}: no such setting" + _did_you_mean(key, _hydra_keys()), key
    if key.startswith("model.extra."):
        return f"{key}: put a + before it to add an argument of the transformers config: +{key}=...", key
    return str(unknown_key(key)), key


def _missing_choice(name: str, conf: Path) -> str:
    group, _, choice = name.rpartition("/")
    if group.startswith("hydra/"):
        return f"{group}={choice}: Hydra has no such choice"
    if not (conf / group).is_dir():
        return f"{group}: no such group" + _did_you_mean(group, _groups(conf))
    choices = [file.stem for file in sorted((conf / group).glob("*.yaml"))]
    if here := choice_here(group, choice):
        return f"{group}={choice}: no such choice; here it is {here}\nThere is {', '.join(choices)}."
    entries = [*choices, "_self_", *([f"{group}_schema"] if group in schema_keys() else ["train_schema"])]
    close = difflib.get_close_matches(choice, entries, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return (
        f"{group or 'defaults'}={choice}: no such choice{hint or '.'} There is {', '.join(choices)}."
        if group
        else f"{choice}: no such file in conf{hint}"
    )


def _with_origin(message: str, key: str | None, conf: Path, overrides: list[str]) -> str:
    """The message, with the file that sets the key in front unless the command line does."""
    if key is None or any(override.strip("+~").startswith((f"{key}=", f"{key}.")) for override in overrides):
        return message
    if f"~{key}" in overrides:
        return message
    for file in _likely_files(conf, overrides):
        if _sets(file, key, conf):
            return f"{_shown(file, conf)}: {message}"
    return message


def _likely_files(conf: Path, overrides: list[str]) -> list[Path]:
    """The files that the command line and train.yaml's defaults list choose, the later ones first."""
    entries = yaml.safe_load((conf / "train.yaml").read_text(encoding="utf-8")).get("defaults", [])
    choices = {str(group): name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}
    choices |= {group: choice for group, _, choice in (override.partition("=") for override in overrides)}
    chosen = [conf / group / f"{choice}.yaml" for group, choice in choices.items() if group in _groups(conf)]
    return [file for file in (*reversed(chosen), conf / "train.yaml") if file.is_file()]


def _sets(file: Path, key: str, conf: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    folder = file.parent.relative_to(conf).as_posix()
    package = [] if folder == "." or "@package _global_" in text else folder.split("/")
    node = yaml.safe_load(text)
    parts = key.split(".")
    if parts[: len(package)] != package:
        return False
    for part in parts[len(package) :]:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _composed_files(conf: Path, choices: Mapping[str, object]) -> list[Path]:
    files = [conf / "train.yaml", *(conf / group / f"{choice}.yaml" for group, choice in choices.items())]
    return [file for file in files if file.is_file()]


def _groups(conf: Path) -> list[str]:
    return sorted(folder.name for folder in conf.iterdir() if folder.is_dir() and any(folder.glob("*.yaml")))


def _hydra_keys() -> list[str]:
    def walk(node: DictConfig, prefix: str) -> list[str]:
        keys = []
        for name in map(str, node):
            keys.append(f"{prefix}{name}")
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
                keys += walk(child, f"{prefix}{name}.")
        return keys

    return walk(OmegaConf.structured(HydraConf), "hydra.")


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f"; did you mean {close[0]}?"
    nearest = nearest_key(word)
    return f"; did you mean {nearest}?" if nearest else f". There is {', '.join(known)}." if len(known) < 12 else ""


def _named_in(choice: str, conf: Path, overrides: list[str]) -> str:
    """The file whose defaults list names the choice, unless the command line does."""
    group, _, name = choice.rpartition("/")
    if f"{group}={name}" in overrides:
        return ""
    for file in _likely_files(conf, overrides):
        for entry in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", []):
            named = entry.items() if isinstance(entry, dict) else [("", entry)]
            if any((str(key).split()[-1:] or [""])[0].strip("/") == group and each == name for key, each in named):
                return f"{_shown(file, conf)}: "
    return ""


def _shown(file: Path, conf: Path) -> str:
    return f"conf/{file.relative_to(conf).as_posix()}" if file.is_relative_to(conf) else str(file)
