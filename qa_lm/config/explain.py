"""What went wrong in composing a configuration, in one or two lines: the key, its file, and the nearest right one.

Hydra and OmegaConf say all of it, spread over messages of up to ten lines and exceptions of a dozen kinds.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Folders:
    """The folders of settings files: ours, and the one of `--config-dir`, which is looked at first."""

    conf: Path
    own: Path | None = None
    """An absolute path."""

    def all(self) -> list[Path]:
        """The folders, in the order in which files are looked for."""
        return [self.own, self.conf] if self.own else [self.conf]

    def file(self, name: str) -> Path:
        """The file of a name such as `model/tiny`; one of `conf` that is not there if none has it."""
        found = [folder / f"{name}.yaml" for folder in self.all()]
        return next((file for file in found if file.is_file()), found[-1])

    def below(self, file: Path) -> str | None:
        """The path of a file within its folder; None for a file of Hydra's or of others."""
        folder = next((folder for folder in self.all() if file.is_relative_to(folder)), None)
        return None if folder is None else file.relative_to(folder).as_posix()

    def shown(self, file: Path) -> str:
        """The path of a file for people."""
        if file.is_relative_to(self.conf):
            return f"conf/{file.relative_to(self.conf).as_posix()}"
        return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)

    def groups(self) -> list[str]:
        """The groups of choices."""
        found = {each.name for folder in self.all() for each in folder.iterdir() if any(each.glob("*.yaml"))}
        return sorted(found)

    def choices(self, group: str) -> list[str]:
        """The choices of a group."""
        return sorted({file.stem for folder in self.all() for file in (folder / group).glob("*.yaml")})


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


def check_defaults_lists(folders: Folders, choices: Mapping[str, object]) -> None:
    """Refuse a mistyped entry in a defaults list that Hydra passes over, such as `overide /data: file`.

    Args:
        folders: where configuration files are.
        choices: group to chosen file, as Hydra resolved them.
    """
    for file in _composed_files(folders, choices):
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for entry in content.get("defaults", []):
            for group in entry if isinstance(entry, dict) else ():
                if not DEFAULTS_ENTRY.fullmatch(str(group)):
                    raise UserError(
                        f"{folders.shown(file)}: in defaults, {group!r} is no group; write 'override /group: choice'"
                    )


def explain(error: BaseException, folders: Folders, overrides: list[str]) -> str:
    """The error in one or two lines.

    Args:
        error: what `is_configuration_error` accepted.
        folders: where configuration files are.
        overrides: the command line's arguments.
    """
    if isinstance(error, UserError):
        return _with_origin(str(error), error.key, folders, overrides)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"{folders.shown(Path(mark.name))}:{mark.line + 1}: " if mark else ""
        return f"{where}not YAML: {error.problem}"
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, OmegaConfBaseException):
        return _with_origin(*_setting(str(error)), folders, overrides)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _setting(str(error.__cause__))[0]
    for group, _, choice in (override.partition("=") for override in overrides):
        if (
            isinstance(error, ValueError)
            and group in folders.groups()
            and not folders.file(f"{group}/{choice}").is_file()
        ):
            return _missing_choice(f"{group}/{choice}", folders)
    return _composition(str(error), folders, overrides)


def _composition(text: str, folders: Folders, overrides: list[str]) -> str:
    """A message of Hydra's: `In 'model/small': ...`, `Could not find ...`."""
    if match := re.match(r"Ambiguous value for argument '(.+)'\n", text):
        return several_values(match[1])
    found = re.match(r"In '?([^':]+)'?: ", text)
    where = f"{folders.shown(folders.file(found[1]))}: " if found and found[1] != "train" else ""
    if found and not folders.file(found[1]).is_file():
        where = ""  # a file of Hydra's own
    body = text[found.end() :] if found else text
    if match := re.match(r"\w+ raised while composing config:\n", body):
        file = f"{folders.shown(folders.file(found[1]))}: " if found else ""
        return file + _setting(body[match.end() :])[0]
    if match := re.match(r"Could not (?:find|load) '([^']+)'", body):
        where = where or _named_in(match[1], folders, overrides)
        return where + _missing_choice(match[1], folders)
    if match := re.match(r"Multiple values for [\w/]+\. .*'override ([\w/]+): (\w+)'", body):
        return _named_in(f"{match[1]}/{match[2]}", folders, overrides) + body
    if match := re.match(r"Override '.+' is defined before '(\S+): (\S+)'", body):
        where = _named_in(f"{match[1]}/{match[2]}", folders, overrides)
        return f"{where}{match[1]}: {match[2]} stands behind an override; is 'override {match[1]}: {match[2]}' meant?"
    if match := re.match(r"Could not override '([^'@]+)", body):
        if found and not any(override.lstrip("+~").startswith(match[1]) for override in overrides):
            where = f"{folders.shown(folders.file(found[1]))}: "
        return f"{where}{match[1]}: no such group" + _did_you_mean(match[1], folders.groups())
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


def _missing_choice(name: str, folders: Folders) -> str:
    group, _, choice = name.rpartition("/")
    if group.startswith("hydra/"):
        return f"{group}={choice}: Hydra has no such choice"
    if not any((folder / group).is_dir() for folder in folders.all()):
        return f"{group}: no such group" + _did_you_mean(group, folders.groups())
    choices = folders.choices(group)
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


def _with_origin(message: str, key: str | None, folders: Folders, overrides: list[str]) -> str:
    """The message, with the file that sets the key in front unless the command line does."""
    if key is None or any(override.strip("+~").startswith((f"{key}=", f"{key}.")) for override in overrides):
        return message
    if f"~{key}" in overrides:
        return message
    for file in _likely_files(folders, overrides):
        if _sets(file, key, folders):
            return f"{folders.shown(file)}: {message}"
    return message


def _likely_files(folders: Folders, overrides: list[str]) -> list[Path]:
    """The files that the command line and train.yaml's defaults list choose, the later ones first."""
    entries = yaml.safe_load(folders.file("train").read_text(encoding="utf-8")).get("defaults", [])
    choices = {str(group): name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}
    choices |= {group: choice for group, _, choice in (override.partition("=") for override in overrides)}
    chosen = [
        file
        for group, choice in choices.items()
        if group in folders.groups()
        for file in _files(group, choice, folders)
    ]
    return [file for file in (*reversed(chosen), folders.file("train")) if file.is_file()]


def _files(group: str, choices: object, folders: Folders) -> list[Path]:
    """The files of a group's choice, or of several: a list, or a text such as `[a,b]`."""
    names = choices if isinstance(choices, list) else str(choices).strip("[]").split(",")
    return [folders.file(f"{group}/{str(name).strip()}") for name in names]


def _sets(file: Path, key: str, folders: Folders) -> bool:
    text = file.read_text(encoding="utf-8")
    folder = Path(folders.below(file) or "").parent.as_posix()
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


def _composed_files(folders: Folders, choices: Mapping[str, object]) -> list[Path]:
    files = [folders.file("train")]
    files += [file for group, choice in choices.items() for file in _files(group, choice, folders)]
    return [file for file in files if file.is_file()]


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


def _named_in(choice: str, folders: Folders, overrides: list[str]) -> str:
    """The file whose defaults list names the choice, unless the command line does."""
    group, _, name = choice.rpartition("/")
    if f"{group}={name}" in overrides:
        return ""
    for file in _likely_files(folders, overrides):
        for entry in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", []):
            named = entry.items() if isinstance(entry, dict) else [("", entry)]
            if any((str(key).split()[-1:] or [""])[0].strip("/") == group and each == name for key, each in named):
                return f"{folders.shown(file)}: "
    return ""
