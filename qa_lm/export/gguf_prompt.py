"""The prompt of a model in a GGUF file, and for Ollama."""

from qa_lm.data.chat.exported import chat_templates, matching_template, single_question
from qa_lm.data.chat.rendering import FIXED
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from qa_lm.export.gguf_tokens import GgufTokens
from qa_lm.export.source import Source

MARK = "\ue0f9"
"""Stands for a question."""
IN_GO = {"{": '{{ "{" }}', '"': '{{ "\\"" }}'}


def renamed_tokenizer(tokens: GgufTokens, eos_id: int) -> TextTokenizer:
    """The tokenizer with the new names of special tokens."""
    return TextTokenizer(tokens.renamed, str(tokens.renamed.id_to_token(eos_id)))


def chat_template(source: Source, tokens: GgufTokens) -> str:
    """The chat template of the file: one question as a message has the ids of its prompt.

    For a model that was trained by a chat template this is its own, or else one that knows a single question.

    Raises:
        UserError: no chat template gives the ids.
    """
    tokenizer, template = renamed_tokenizer(tokens, source.answerer.tokenizer.eos_id), source.answerer.template
    own = None if source.own_template is None else tokens.rename(without_plus(source.own_template))
    before, after = around_prompt(source, tokens)
    special = "".join(str(tokens.renamed.id_to_token(each)) for each in template.before)
    strip = template.chat is not None and template.chat.strip
    candidates = [*chat_templates(template, special, own), single_question(before, after, strip)]
    bos = None if tokens.bos_id is None else tokens.renamed.id_to_token(tokens.bos_id)
    found = matching_template(tokenizer, template, candidates, split_special_tokens=False, bos_token=bos)
    if found is None:
        raise UserError("no chat template gives the ids of its prompt")
    return found


def without_plus(template: str) -> str:
    """A chat template whose fixed values are written without "+%}", which llama.cpp does not read."""
    for fixed in FIXED.values():
        template = template.replace(fixed, fixed.replace("+%}", "%}"))
    return template


def around_prompt(source: Source, tokens: GgufTokens) -> tuple[str, str]:
    """The text before and after a question, with special tokens by their new names."""
    template = source.answerer.template
    before, after = template.prompt_text(MARK).split(MARK)
    return _text(template.before, tokens) + before, after + _text(template.after, tokens)


def _text(ids: tuple[int, ...], tokens: GgufTokens) -> str:
    return tokens.renamed.decode(list(ids), skip_special_tokens=False)


def modelfile(source: Source, tokens: GgufTokens, file: str, answer_tokens: int) -> str:
    """Ollama's description of a model: its file, its prompt, and greedy decoding.

    Args:
        source: the model.
        tokens: its tokenizer.
        file: name of the GGUF file, next to which it stands.
        answer_tokens: tokens of an answer at most.
    """
    before, after = around_prompt(source, tokens)
    if tokens.add_bos:  # Ollama adds it, as the file says
        before = before.removeprefix(str(tokens.renamed.id_to_token(tokens.bos_id or 0)))
    ends = [tokens.renamed.id_to_token(each) for each in tokens.end_ids]
    context = source.answerer.model.config.max_position_embeddings
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{_in_go(before)}{{{{ .Prompt }}}}{_in_go(after)}"""',
        "PARAMETER temperature 0",
        "PARAMETER top_k 1",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {context}",
        f"PARAMETER num_predict {answer_tokens}",
        *(f'PARAMETER stop "{end}"' for end in ends),
    ]
    return "\n".join(lines) + "\n"


def _in_go(text: str) -> str:
    """Text of a template in Go, in which a brace may begin an action and quotes may end the string."""
    return "".join(IN_GO.get(character, character) for character in text)
