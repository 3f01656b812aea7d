"""Error messages for invalid configurations, in one or two lines: the key, its file, and the closest valid key.

Hydra and OmegaConf spread this over messages of up to ten lines and a dozen types of exceptions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from qa_lm.config.aliases import choice_hint
from qa_lm.config.arguments import several_values, unreadable
from qa_lm.config.budget.settings import HINT, BudgetConfig
from qa_lm.config.compose import unknown_key
from qa_lm.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Folders:
    """The folders of settings files: `conf`, and that of `--config-dir`, which takes precedence."""

    conf: Path
    own: Path | None = None
    """The folder of `--config-dir`, an absolute path."""

    def all(self) -> list[Path]:
        """Return the folders in the order of precedence."""
        return [self.own, self.conf] if self.own else [self.conf]

    def file(self, name: str) -> Path:
        """Return the file of a name such as `model/tiny`. If no folder has it, the path is below `conf`."""
        candidates = [folder / f"{name}.yaml" for folder in self.all()]
        return next((file for file in candidates if file.is_file()), candidates[-1])

    def below(self, file: Path) -> str | None:
        """Return the path of a file within its folder; None for a file outside of these folders."""
        folder = next((folder for folder in self.all() if file.is_relative_to(folder)), None)
        return None if folder is None else file.relative_to(folder).as_posix()

    def shown(self, file: Path) -> str:
        """Return the path of a file as it is printed."""
        if file.is_relative_to(self.conf):
            return f"conf/{file.relative_to(self.conf).as_posix()}"
        return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)

    def groups(self) -> list[str]:
        """Return the names of the groups."""
        return sorted({path.name for folder in self.all() for path in folder.iterdir() if any(path.glob("*.yaml"))})

    def choices(self, group: str) -> list[str]:
        """Return the choices of a group."""
        return sorted({file.stem for folder in self.all() for file in (folder / group).glob("*.yaml")})


DEFAULTS_ENTRY = re.compile(r"(override |optional )*/?\w[\w/]*(@[\w.:]+)?")


def is_configuration_error(error: BaseException) -> bool:
    """Whether an error comes from the user's settings, not from a bug."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError):
        return True
    # Hydra refuses some overrides (`optimizer=3`) with a plain ValueError.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return isinstance(error, ValueError) and raised_in.startswith(("hydra.", "omegaconf."))


def check_defaults_lists(folders: Folders, choices: Mapping[str, object]) -> None:
    """Refuse a mistyped entry in a defaults list that Hydra ignores, such as `overide /data: file`.

    Args:
        folders: the folders of settings files.
        choices: group to chosen file, as resolved by Hydra.
    """
    for file in _composed_files(folders, choices):
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for entry in content.get("defaults", []):
            for group in entry if isinstance(entry, dict) else ():
                if not DEFAULTS_ENTRY.fullmatch(str(group)):
                    raise UserError(
                        f"{folders.shown(file)}: in defaults, {group!r} is not a group; write 'override /group: choice'"
                    )


def explain(error: BaseException, folders: Folders, overrides: list[str]) -> str:
    """Return the message of an error in one or two lines.

    Args:
        error: a configuration error; see `is_configuration_error`.
        folders: the folders of settings files.
        overrides: the arguments of the command line.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"{folders.shown(Path(mark.name))}:{mark.line + 1}: " if mark else ""
        return f"{where}not YAML: {error.problem}"
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, UserError | OmegaConfBaseException):
        message, key = (str(cause), cause.key) if isinstance(cause, UserError) else _setting(str(cause))
        return _file_that_sets(key, folders, overrides) + message
    if isinstance(error, ValueError):
        for group, _, choice in (override.partition("=") for override in overrides):
            if group in folders.groups() and not folders.file(f"{group}/{choice}").is_file():
                return _missing_choice(group, choice, folders)
    return _composition(str(error), folders, overrides)


def _composition(text: str, folders: Folders, overrides: list[str]) -> str:
    """Rewrite a message of Hydra: `In 'model/small': ...`, `Could not find ...`."""
    if match := re.match(r"Ambiguous value for argument '(.+)'\n", text):
        return several_values(match[1])
    source = re.match(r"In '?([^':]+)'?: (\w+ raised while composing config:\n)?", text)
    body = text[source.end() :] if source else text
    file = folders.file(source[1]) if source else None
    where = f"{folders.shown(file)}: " if file and file.is_file() else ""
    if source and source[2]:
        return where + _setting(body)[0]
    if match := re.match(r"(?:Multiple values for .*'override |Override '.+' is defined before ')(\S+: \w+)'", body):
        return _file_that_lists(match[1], folders, overrides) + body.splitlines()[0]
    match = re.match(r"Could not (?:find|load) '([^']+)/([^']+)'|Could not (?:load|override) '([^'@]+)", body)
    if match is None:
        return where + body.splitlines()[0]
    group, choice = match[1] or match[3], match[2] or ""
    if not where or (source and source[1] == "train"):  # Hydra names train.yaml for entries of other files too
        where = _file_that_lists(choice or group, folders, overrides)
    return where + _missing_choice(group, choice, folders)


def _setting(text: str) -> tuple[str, str | None]:
    """Rewrite a message of OmegaConf. Returns it with its key."""
    first = text.splitlines()[0]
    if f"not a subclass of {BudgetConfig.__name__}" in first:
        return HINT, "budget"
    match = re.search(r"full_key: (\S+)", text)
    if match is None:
        return first, None
    key = match[1]
    return (str(unknown_key(key)) if first.startswith("Key ") else f"{key}: {first}"), key


def _missing_choice(group: str, choice: str, folders: Folders) -> str:
    choices = folders.choices(group)
    if group.startswith("hydra/"):
        return f"{group}={choice}: Hydra has no such choice"
    if not (choices and choice):
        return f"{group}: no such group" + did_you_mean(group, [*folders.groups(), "train_schema"])
    if instead := choice_hint(group, choice):
        return f"{group}={choice}: no such choice; use {instead}\nChoices: {', '.join(choices)}."
    hint = did_you_mean(choice, [*choices, f"{group}_schema"])
    return f"{group}={choice}: no such choice{hint or '.'} Choices: {', '.join(choices)}."


def _file_that_sets(key: str | None, folders: Folders, overrides: list[str]) -> str:
    """Return the file that sets the key, with a colon; nothing if the command line sets it."""
    if key is None or any(re.match(rf"[+~]*{re.escape(key)}([.=]|$)", override) for override in overrides):
        return ""
    files = _likely_files(folders, overrides)
    return next((f"{folders.shown(file)}: " for file in files if _sets(file, key, folders)), "")


def _file_that_lists(name: str, folders: Folders, overrides: list[str]) -> str:
    """Return the file whose defaults list has the name, with a colon; nothing if the command line has it."""
    if any(name in override for override in overrides):
        return ""
    entry = re.compile(rf"^ *- .*\b{re.escape(name)}\b", re.MULTILINE)
    files = _likely_files(folders, overrides)
    return next((f"{folders.shown(file)}: " for file in files if entry.search(file.read_text(encoding="utf-8"))), "")


def _likely_files(folders: Folders, overrides: list[str]) -> list[Path]:
    """Return the files that the command line and the defaults list of train.yaml choose, later ones first."""
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
    """Return the files of one choice of a group, or of several: a list, or a text such as `[a,b]`."""
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
