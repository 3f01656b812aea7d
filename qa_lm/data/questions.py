"""Questions for a model: the prompt template of a run, and its columns filled with texts."""

from collections.abc import Mapping
from pathlib import Path

from qa_lm.data.encoding import TEMPLATE_FILE, PromptTemplate
from qa_lm.errors import UserError
from qa_lm.run.run_folder import CHECKPOINTS, MODEL
from qa_lm.templates import fill_template, placeholders


def template_of(run: Path) -> PromptTemplate:
    """Load the template of a run folder or a model folder; the default template if it has none.

    Raises:
        UserError: the file is damaged.
    """
    folders = (run / MODEL, run / CHECKPOINTS / MODEL, run)
    folder = next((folder for folder in folders if (folder / TEMPLATE_FILE).is_file()), None)
    return PromptTemplate.load(folder) if folder else PromptTemplate()


def question_of(template: PromptTemplate, texts: Mapping[str, str]) -> str:
    """Build a question from the columns of the template.

    Args:
        template: the prompt template.
        texts: text of each column: the question, and the values of `--set`.

    Raises:
        UserError: a column is missing, or is not in the template.
    """
    needed = placeholders(template.question_parts)
    check_names(texts, needed)
    if missing := [name for name in needed if name not in texts]:
        given = " ".join(f"--set {name}=TEXT" for name in missing)
        raise UserError(
            f"this model is asked with {', '.join(needed)}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; give {given}, or --file with a column of that name"
        )
    return fill_template(template.question_parts, texts)


def columns_of(template: PromptTemplate, texts: Mapping[str, str]) -> Mapping[str, str]:
    """Check that each column of a prompt has a text, for a request in JSON.

    Raises:
        UserError: a column is missing, or is not in the template.
    """
    needed = placeholders(template.question_parts)
    if wrong := [name for name in needed if name not in texts] or [
        name for name in texts if name not in (*needed, "question")
    ]:
        raise UserError(
            f"qa_lm.columns: {wrong[0]} is {'missing' if wrong[0] in needed else 'not a column'}; this model is asked "
            f"with {', '.join(needed)}"
        )
    return texts


def check_names(texts: Mapping[str, str], needed: list[str]) -> None:
    """Refuse texts of columns that are not in the template.

    Raises:
        UserError: names the first one.
    """
    if unknown := [name for name in texts if name not in (*needed, "question")]:
        raise UserError(f"--set {unknown[0]}=...: this model is asked with {', '.join(needed)}")
