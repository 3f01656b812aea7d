"""Sources of pairs, and how to read them, from the configuration."""

from dataclasses import replace

from qa_lm.config.enums import BadLines, PromptKind
from qa_lm.config.schema import DataConfig
from qa_lm.data.encoding import ChatTurn, PromptTemplate
from qa_lm.data.readers.reading import Reading, Source, file_sources
from qa_lm.data.records.columns import ColumnNames
from qa_lm.errors import UserError


def template_of_settings(data: DataConfig) -> PromptTemplate:
    """The prompt template of the settings, without the special tokens around a prompt, which the tokenizer knows.

    Raises:
        UserError: a template is invalid.
    """
    template = PromptTemplate.from_settings(data.prompt, data.completion)
    return replace(template, chat=ChatTurn(system=data.system)) if data.template is PromptKind.chat else template


def how_to_read(data: DataConfig, template: PromptTemplate) -> Reading:
    """How to read the sources for this template."""
    return Reading(
        columns=ColumnNames(data.question, data.answer, data.group),
        prompt=template.question_parts,
        completion=template.answer_parts,
        unanswerable=data.unanswerable,
        chat=template.chat is not None,
        system=template.chat.system if template.chat else None,
        header=None if data.columns is None else tuple(data.columns),
        encoding=data.encoding,
        skip_bad_lines=data.bad_lines is BadLines.skip,
    )


def source_name(data: DataConfig) -> str:
    """The display name of the data set: a hub name, a file, or files."""
    source = data.hub or data.path
    return ", ".join(source) if isinstance(source, list) else str(source)


def main_sources(data: DataConfig) -> list[Source]:
    """The sources that `data.hub` or `data.path` names."""
    if data.hub is not None:
        return [Source(data.hub, None, data.hub_subset, data.hub_split)]
    return file_sources(data.path, "data.path")


def sources_of(data: DataConfig) -> list[list[Source]]:
    """The sources of training pairs (to be split without validation files), validation pairs and test pairs."""
    main = main_sources(data)
    validation = file_sources(data.validation_path, "data.validation_path") if data.validation_path else []
    test = file_sources(data.test_path, "data.test_path") if data.test_path else []
    sides = [main, validation, test]
    if data.columns is not None and not any(source.may_lack_header for side in sides for source in side):
        raise UserError(
            "data.columns: has no effect here: it names the columns of CSV, TSV and Excel files", "data.columns"
        )
    return sides
