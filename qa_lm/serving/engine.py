"""The model behind the server: answers several requests at once. Only one thread uses it.

All greedy answers are decoded in one batch, each up to its own limit. A sampled answer is decoded alone, so that its
seed decides it and not what else was asked at that moment.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qa_lm.config.enums import AnswerMode
from qa_lm.data.chat.conversation import Conversations
from qa_lm.data.questions import columns_of
from qa_lm.errors import UserError
from qa_lm.evaluation.replies import Replies, Reply
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.sampling import GREEDY, Continuation, Sampling
from qa_lm.modeling.causal_lm import context_of
from qa_lm.serving.protocol.requests import Message
from qa_lm.serving.token_scores import TokenScores, token_scores
from qa_lm.templates import fill_template


@dataclass
class Job:
    """What one client wants: a reply to a chat, or the continuation of a raw prompt."""

    messages: tuple[Message, ...] = ()
    """The chat; empty for a raw prompt."""
    prompt: str | list[int] = ""
    """The raw prompt, as text or as ids."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Texts of further columns of the prompt of a chat."""
    max_new_tokens: int = 64
    sampling: Sampling = GREEDY
    logprobs: int | None = None
    """Number of the most likely tokens to report at each position; None for no log-probabilities."""
    on_token: Callable[[int], None] | None = None
    """Gets each token of a greedy answer when it is decoded, in the model's thread."""
    unwanted: bool = False
    """Set when the client has left; decoding then ends."""


@dataclass(frozen=True)
class Outcome:
    """What the model wrote."""

    prompt: list[int]
    ids: list[int]
    """Without EOS."""
    stopped: bool
    """Whether the model ended the text itself."""
    text: str
    reply: Reply | None = None
    """The reply to a chat."""
    scores: TokenScores | None = None
    """Of the prompt, the text and its EOS."""


class Engine:
    """Answers jobs.

    Args:
        answerer: the model.
        mode: how chats are answered.
        replies: turns answers into replies, by mode; a mode that is not in it cannot be asked.
        conversations: encodes whole conversations; None if only the last question counts.
    """

    def __init__(
        self,
        answerer: Answerer,
        mode: AnswerMode,
        replies: Mapping[AnswerMode, Replies],
        conversations: Conversations | None = None,
    ) -> None:
        self.answerer, self.mode, self.replies, self.conversations = answerer, mode, replies, conversations

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return context_of(self.answerer.model)

    def answer(self, jobs: Sequence[Job]) -> list[Outcome | UserError]:
        """Answer each job, in order; a job that cannot be answered gets its error."""
        outcomes: dict[int, Outcome | UserError] = {}
        ready: dict[int, tuple[Job, list[int]]] = {}
        for number, job in enumerate(jobs):
            try:
                ready[number] = job, self._prompt(job)
            except UserError as error:
                outcomes[number] = error
        copied = [n for n, (job, _) in ready.items() if self._is_copied(job)]
        sampled = [n for n, (job, _) in ready.items() if job.sampling != GREEDY]
        greedy = [n for n in ready if n not in copied and n not in sampled]
        outcomes |= zip(copied, self._copied([ready[n] for n in copied]), strict=True)
        outcomes |= zip(greedy, self._greedy([ready[n] for n in greedy]), strict=True)
        outcomes |= {n: self._sampled(*ready[n]) for n in sampled}
        return [outcomes[number] for number in range(len(jobs))]

    def streams(self, job: Job) -> bool:
        """Whether the tokens of the answer can be shown while it is decoded: nothing else is said in the end."""
        abstention = self.replies[AnswerMode.free].abstention if AnswerMode.free in self.replies else None
        return job.sampling == GREEDY and not self._is_copied(job) and not (job.messages and abstention)

    def text_of(self, job: Job, ids: list[int]) -> str:
        """The text of an answer, or of its beginning."""
        text = self.answerer.tokenizer.decode(ids)
        return self.answerer.template.answer_from(text) if job.messages else text

    def _is_copied(self, job: Job) -> bool:
        return bool(job.messages) and job.sampling == GREEDY and self.mode is not AnswerMode.free

    def _prompt(self, job: Job) -> list[int]:
        if not job.messages:
            return self._fitting(self._raw(job.prompt))
        if job.sampling != GREEDY and AnswerMode.free not in self.replies:
            raise UserError(
                "temperature: this server does not sample; leave out temperature and top_p, or send temperature 0"
            )
        if self.conversations is None or self._is_copied(job):
            return self.answerer.prompts([self._question(job)])[0]
        if job.messages[-1].role != "user":
            raise UserError("messages: the last message must be one of the user")
        self._question(job)  # an empty one is refused
        turns = [(message.role, message.content) for message in job.messages]
        return self._fitting(self.conversations.ids([*turns[:-1], ("user", self._question(job))]))

    def _question(self, job: Job) -> str:
        """The last question of a chat, in the form of the model's prompt."""
        question = next(message.content for message in reversed(job.messages) if message.role == "user")
        if not question.strip():
            raise UserError("messages: the question is empty")
        columns = columns_of(self.answerer.template, {**job.columns, "question": question})
        return fill_template(self.answerer.template.question_parts, columns)

    def _raw(self, prompt: str | list[int]) -> list[int]:
        tokenizer, template = self.answerer.tokenizer, self.answerer.template
        if isinstance(prompt, str):
            before = [] if template.chat else template.before
            return [*before, *tokenizer.encode([prompt])[0]]
        if not all(0 <= each < len(tokenizer) for each in prompt):
            raise UserError(f"prompt: token ids must be from 0 to {len(tokenizer) - 1}")
        return prompt

    def _fitting(self, prompt: list[int]) -> list[int]:
        if not prompt:
            raise UserError("prompt: is empty")
        if len(prompt) >= self.context:
            raise UserError(
                f"the prompt has {len(prompt)} tokens; this model's context is {self.context}, answer included"
            )
        return prompt

    def _greedy(self, jobs: Sequence[tuple[Job, list[int]]]) -> list[Outcome]:
        if not jobs:
            return []

        def watch(numbers: Sequence[int], tokens: Sequence[int]) -> Container[int]:
            for number, token in zip(numbers, tokens, strict=True):
                if on_token := jobs[number][0].on_token:
                    on_token(token)
            return {number for number in numbers if jobs[number][0].unwanted}

        limits = [max(1, job.max_new_tokens) for job, _ in jobs]
        found = self.answerer.continuations([prompt for _, prompt in jobs], limits, watch=watch)
        return self._outcomes(jobs, found)

    def _sampled(self, job: Job, prompt: list[int]) -> Outcome:
        limit = max(1, job.max_new_tokens)
        (outcome,) = self._outcomes([(job, prompt)], self.answerer.continuations([prompt], limit, job.sampling))
        return outcome

    def _outcomes(self, jobs: Sequence[tuple[Job, list[int]]], found: Sequence[Continuation]) -> list[Outcome]:
        outcomes = [self._outcome(job, prompt, each) for (job, prompt), each in zip(jobs, found, strict=True)]
        chats = [number for number, (job, _) in enumerate(jobs) if job.messages]
        if chats:
            questions = [self._question(jobs[number][0]) for number in chats]
            answers = self.answerer.written(questions, [found[number] for number in chats])
            replies = self.replies[AnswerMode.free].of(answers, AnswerMode.free)
            for number, reply in zip(chats, replies, strict=True):
                outcomes[number] = replace(outcomes[number], reply=reply, text=reply.said)
        return outcomes

    def _outcome(self, job: Job, prompt: list[int], found: Continuation) -> Outcome:
        if job.max_new_tokens == 0:  # only the prompt is to be scored
            found = Continuation([], False)
        outcome = Outcome(prompt, found.ids, found.stopped, self.text_of(job, found.ids))
        if job.logprobs is not None:
            text = [*prompt, *found.ids, *([self.answerer.tokenizer.eos_id] if found.stopped else [])]
            scores = token_scores(self.answerer.model, self.answerer.tokenizer, text, job.logprobs)
            outcome = replace(outcome, scores=scores)
        return outcome

    def _copied(self, jobs: Sequence[tuple[Job, list[int]]]) -> list[Outcome]:
        """Replies from the known answers."""
        if not jobs:
            return []
        answers = self.answerer.answer([self._question(job) for job, _ in jobs], 1, mode=self.mode)
        ids = self.answerer.tokenizer.encode([self.answerer.template.answer_text(each.answer) for each in answers])
        replies = self.replies[self.mode].of(answers, self.mode)
        return [
            Outcome(prompt, each, True, reply.said, reply)
            for (_, prompt), each, reply in zip(jobs, ids, replies, strict=True)
        ]
