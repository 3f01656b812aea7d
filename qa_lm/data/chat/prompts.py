"""Make a prompt template from a chat template.

The chat template is rendered once, with marks instead of texts, and cut at the marks. Its own text is encoded with
special tokens, the texts of pairs are not, so a question that contains `<|im_end|>` does not end a turn. Otherwise a
prompt has the ids that `apply_chat_template` gives. A chat template for which this does not hold is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from qa_lm.data.chat.chat_tokenizer import ChatTokenizer
from qa_lm.data.chat.rendering import Renderer, load_renderer
from qa_lm.data.encoding import ChatTurn, PromptTemplate, encode_pairs, encode_prompts
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer, load_tokenizer
from qa_lm.errors import UserError

USER, ANSWER, SYSTEM, NEXT = "\ue0f0", "\ue0f1", "\ue0f2", "\ue0f4"
"""Marks of the texts, characters for private use."""
ODD_TEXT = "{mark}Ab  {{{{ x }}}}\n<b> &amp; é{mark}"
"""A text that a template may change."""
ORDINARY = (
    Pair("What is 2 + 2?", "2 + 2 equals 4."),
    Pair("오늘은 무슨 요일이에요?", "화요일이에요."),
    Pair("Is it 'é',\nor 1/2?", "Yes"),
)
"""Pairs whose ids must be those of the whole conversation."""


def with_special_tokens(
    folder: Path, template: PromptTemplate, trained: bool = True
) -> tuple[TextTokenizer, PromptTemplate]:
    """Load the tokenizer of a folder, and complete a template with the special tokens around a prompt: those of the
    chat template, or for a plain prompt what the tokenizer puts before every text.

    Args:
        folder: the tokenizer's folder.
        template: the template; its `chat.system` is the text of the system turn.
        trained: whether answers are trained by the chat template too, so that EOS is the token that ends a turn.

    Raises:
        UserError: the tokenizer or the chat template cannot be used; the message says why, in one line.
    """
    tokenizer = load_tokenizer(folder)
    if template.chat is None:
        return tokenizer, replace(template, before=tokenizer.prefix)
    cut = ChatCut(load_renderer(folder), tokenizer, template.chat.system)
    prompt = cut.prompt(template)
    return cut.with_answer(prompt) if trained else (cut.tokenizer, prompt)


class ChatCut:
    """Cuts the texts of a chat template at their marks.

    Args:
        render: renders the template.
        tokenizer: encodes its parts.
        system: text of the system turn; None for what the template does by itself, empty for no system turn.
    """

    def __init__(self, render: Renderer, tokenizer: TextTokenizer, system: str | None) -> None:
        self.render = render
        self.tokenizer = ChatTokenizer.of(tokenizer, render.tokenizer.chat_template, render.tokenizer.bos_token)
        self.system = self._no_system_turn() if system == "" else system
        self.rendered = self._rendered(USER)
        if self.rendered.count(USER) != 1:
            raise render.error(f"writes a question {self.rendered.count(USER)} times instead of once")

    def prompt(self, template: PromptTemplate) -> PromptTemplate:
        """The template of a prompt."""
        head, tail = self._with_system_mark().split(USER)
        before, after = self.tokenizer.special_tokens_in(head), self.tokenizer.special_tokens_in(tail)
        begin, end = before[-1].end if before else 0, after[0].begin if after else len(tail)
        system = template.chat.system if template.chat else None
        turn = ChatTurn(self._filled(head[begin:]), tail[:end], self._strips(), system)
        ids = self._ids(head[:begin]), self.tokenizer.encode_with_special(tail[end:])
        template = replace(template, before=tuple(ids[0]), after=tuple(ids[1]), chat=turn)
        questions = [pair.question for pair in ORDINARY]
        whole = [self.tokenizer.encode_with_special(self._rendered(question)) for question in questions]
        if encode_prompts(questions, self.tokenizer, replace(template, prompt="{question}")) != whole:
            raise self.render.error("gives other ids for a whole prompt than for its parts")
        return template

    def with_answer(self, template: PromptTemplate) -> tuple[ChatTokenizer, PromptTemplate]:
        """Complete the template of a prompt with the answer; returns the tokenizer with the end of a turn as EOS."""
        text = self._rendered(USER, ANSWER)
        if not text.startswith(self.rendered):
            raise self.render.error("begins an answer in another way than its generation prompt")
        parts = text[len(self.rendered) :].split(ANSWER)
        if len(parts) != 2 or self._rendered(USER, _odd(ANSWER)) != text.replace(ANSWER, _odd(ANSWER)):
            raise self.render.error("does not write an answer once, as it stands")
        lead, rest = parts
        if lead.strip():
            raise self.render.error(f"does not mark where an answer begins: {lead!r} is not in its generation prompt")
        ends = self.tokenizer.special_tokens_in(rest)
        if not ends or rest[: ends[0].begin].strip():
            raise self.render.error(f"does not end an answer with one special token, but with {rest!r}")
        trail = rest[: ends[0].begin]
        tokenizer = self.tokenizer.ending_with(ends[0].id)
        self._check_answers(tokenizer, replace(template, prompt="{question}", answer=f"{lead}{{answer}}{trail}"))
        self._check_export(tokenizer, text)
        return tokenizer, replace(template, answer=f"{lead}{template.answer.lstrip()}{trail}")

    def _check_answers(self, tokenizer: ChatTokenizer, template: PromptTemplate) -> None:
        for pair, example in zip(ORDINARY, encode_pairs(ORDINARY, tokenizer, template), strict=True):
            whole = tokenizer.encode_with_special(self._rendered(*pair[:2]))
            if whole[: len(example.ids)] != example.ids:
                raise self.render.error("gives other ids for a whole conversation than for question and answer")

    def _check_export(self, tokenizer: ChatTokenizer, text: str) -> None:
        """Check that the template writes the same when the end of a turn is its `eos_token`."""
        render = Renderer(tokenizer.for_transformers(context=1), self.render.folder)
        if render(USER, ANSWER, self.system) != text or render(USER, system=self.system) != self.rendered:
            raise self.render.error(
                f"writes eos_token where no turn ends; write {tokenizer.text_end} there instead of eos_token"
            )

    def _rendered(self, user: str, answer: str | None = None) -> str:
        return self.render(user, answer, self.system)

    def _strips(self) -> bool:
        """Whether the template removes white space around a question. Any other change is an error."""
        if self._rendered(_odd(USER)) != self.rendered.replace(USER, _odd(USER)):
            raise self.render.error("changes the text of a question")
        wide = f" \n{USER}\n "
        found = self._rendered(wide)
        if found not in (self.rendered, self.rendered.replace(USER, wide)):
            raise self.render.error("changes the white space around a question")
        return found == self.rendered

    def _no_system_turn(self) -> str | None:
        """What to render for no system turn: None, or an empty text if the template otherwise writes a default."""
        if not self._own_text(None):
            return None
        try:
            if not self._own_text(""):
                return ""
        except UserError:
            pass
        raise UserError(
            f"data.system: the chat template of {self.render.folder} always writes a system turn; "
            "give its text, or null for the template's own",
            "data.system",
        )

    def _own_text(self, system: str | None) -> str:
        """What stands before the first question and not before a later one, without special tokens."""
        first = self.render(USER, system=system).split(USER)[0]
        later = self.render(USER, ANSWER, system, NEXT).split(NEXT)[0]
        ids, others = (self.tokenizer.encode_with_special(text) for text in (first, later))
        while ids and others and ids[-1] == others[-1]:
            ids, others = ids[:-1], others[:-1]
        return self.tokenizer.decode(ids).strip()

    def _with_system_mark(self) -> str:
        """The prompt of `USER`, with the mark `SYSTEM` where the text of the system turn stands."""
        if not self.system:
            return self.rendered
        marked = self.render(USER, system=SYSTEM)
        if marked.partition(USER)[0].count(SYSTEM) != 1 or marked.replace(SYSTEM, self.system) != self.rendered:
            raise UserError(
                f"data.system: the chat template of {self.render.folder} does not write this text once, as it stands, "
                "before a question; change the text, or leave out data.system",
                "data.system",
            )
        if self.tokenizer.special_tokens_in(self.system):
            raise UserError(
                "data.system: contains special tokens of the tokenizer; write it without them", "data.system"
            )
        return marked

    def _filled(self, text: str) -> str:
        return text.replace(SYSTEM, self.system or "")

    def _ids(self, text: str) -> list[int]:
        return self.ids(text, {SYSTEM: self.system or ""})

    def ids(self, text: str, texts: Mapping[str, str]) -> list[int]:
        """Encode text of the template, in which marks stand for texts without special tokens."""
        ids: list[int] = []
        at = 0
        for begin, end, token in [*self.tokenizer.special_tokens_in(text), (len(text), len(text), None)]:
            plain = re.sub("[\ue000-\uf8ff]", lambda mark: texts.get(mark[0], mark[0]), text[at:begin])
            ids += self.tokenizer.encode([plain])[0]
            ids += [] if token is None else [token]
            at = end
        return ids


def _odd(mark: str) -> str:
    return ODD_TEXT.format(mark=mark)
