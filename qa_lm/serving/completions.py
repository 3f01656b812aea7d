"""The two endpoints that answer: /v1/chat/completions and /v1/completions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from qa_lm.errors import UserError
from qa_lm.inference.sampling import GREEDY
from qa_lm.serving.batching import Batches, QueueFull
from qa_lm.serving.engine import Engine, Job, Outcome
from qa_lm.serving.metrics import Metrics
from qa_lm.serving.protocol.errors import ApiError, JsonResponse, check_name
from qa_lm.serving.protocol.fields import Fields, parsed
from qa_lm.serving.protocol.requests import Options, chat_request, completion_request
from qa_lm.serving.protocol.responses import (
    DONE,
    Envelope,
    chat_logprobs,
    completion_logprobs,
    events_of,
    reply_details,
    usage,
)
from qa_lm.serving.security import unexpected
from qa_lm.serving.streaming import TextStream, before_stop
from qa_lm.templates import parse_template

T = TypeVar("T")
Written = tuple[str, str]
"""The text that is sent, and why it ends: `stop` or `length`."""


@dataclass(frozen=True)
class Service:
    """What the endpoints need."""

    name: str
    """Name of the model."""
    engine: Engine
    batches: Batches
    metrics: Metrics
    max_new_tokens: int
    """Maximum length of an answer if the request names none."""
    seconds: float
    """Seconds that a request may take."""


class Endpoints:
    """Answers requests.

    Args:
        service: what answers them.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        fields = await self._fields(request)
        asked = chat_request(fields)
        options = asked.options
        job = self._job(options, messages=asked.messages, columns=asked.columns)
        envelope = Envelope(self.service.name, chat=True)
        if options.stream:
            if options.logprobs is not None:
                raise fields.wrong("stream", "comes without logprobs")
            return await self._streamed(request, job, options, envelope)
        outcome = await until_gone(request, self._within_time(self._submit(job)))
        text, reason = written(outcome, options)
        scores = outcome.scores and outcome.scores[len(outcome.prompt) :]
        logprobs = chat_logprobs(scores) if scores and not _withheld(outcome) else None
        choice = envelope.choice(text, reason, logprobs=logprobs)
        content = envelope.whole([choice], self._usage([outcome]), qa_lm=_details(job, outcome))
        return JsonResponse(content)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        fields = await self._fields(request)
        asked = completion_request(fields)
        options = asked.options
        jobs = [self._job(options, prompt=prompt) for prompt in asked.prompts]
        envelope = Envelope(self.service.name, chat=False)
        if options.stream:
            if len(jobs) > 1 or asked.echo or options.logprobs is not None:
                raise fields.wrong("stream", "takes one prompt, without echo and logprobs")
            return await self._streamed(request, jobs[0], options, envelope)
        outcomes = await until_gone(request, self._within_time(_together([self._submit(job) for job in jobs])))
        choices = [
            self._choice(envelope, number, outcome, options, self._echo(prompt) if asked.echo else None)
            for number, (outcome, prompt) in enumerate(zip(outcomes, asked.prompts, strict=True))
        ]
        return JsonResponse(envelope.whole(choices, self._usage(outcomes)))

    def _choice(
        self, envelope: Envelope, index: int, outcome: Outcome, options: Options, echo: str | None
    ) -> dict[str, Any]:
        text, reason = written(outcome, options)
        scores = outcome.scores
        if scores and echo is None:
            scores = scores[len(outcome.prompt) :]
        logprobs = scores and completion_logprobs(scores)
        return envelope.choice((echo or "") + text, reason, index, logprobs=logprobs)

    def _echo(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self.service.engine.answerer.tokenizer.decode(prompt)

    async def _fields(self, request: Request) -> Fields:
        fields = parsed(await request.body())
        if name := fields.text("model"):
            check_name(name, self.service.name)
        return fields

    def _job(self, options: Options, **content: Any) -> Job:
        limit = self.service.max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
        return Job(max_new_tokens=limit, sampling=options.sampling, logprobs=options.logprobs, **content)

    async def _submit(self, job: Job) -> Outcome:
        """Have the model answer.

        Raises:
            ApiError: it cannot.
        """
        try:
            outcome = await self.service.batches.submit(job)
        except QueueFull:
            raise ApiError("too many requests are waiting; try again", 503, headers={"retry-after": "1"}) from None
        except UserError as error:
            raise as_api_error(error, "messages" if job.messages else "prompt") from None
        self.service.metrics.add_tokens(len(outcome.prompt), len(outcome.ids))
        self.service.metrics.abstained += _withheld(outcome)
        return outcome

    async def _within_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.service.seconds):
                return await work
        except TimeoutError:
            raise ApiError(
                f"the answer took longer than {self.service.seconds:g} seconds", 503, headers={"retry-after": "1"}
            ) from None

    def _usage(self, outcomes: Sequence[Outcome]) -> dict[str, int]:
        return usage(sum(len(each.prompt) for each in outcomes), sum(len(each.ids) for each in outcomes))

    async def _streamed(self, request: Request, job: Job, options: Options, envelope: Envelope) -> Response:
        """A stream, whose first event is there: what fails before it has a status of its own."""
        events: asyncio.Queue[int | Outcome | Exception] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        if self.service.engine.streams(job):
            job.on_token = lambda token: _hand_over(loop, events, token)

        async def answering() -> None:
            try:
                events.put_nowait(await self._within_time(self._submit(job)))
            except Exception as error:
                events.put_nowait(error)

        task = asyncio.create_task(answering())
        try:
            first = await until_gone(request, events.get())
            if isinstance(first, Exception):
                raise first
        except BaseException:
            task.cancel()
            raise
        pieces = self._pieces(task, first, events, job, options, envelope)
        return StreamingResponse(pieces, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _pieces(
        self,
        task: "asyncio.Task[None]",
        first: int | Outcome,
        events: "asyncio.Queue[int | Outcome | Exception]",
        job: Job,
        options: Options,
        envelope: Envelope,
    ) -> AsyncIterator[bytes]:
        engine = self.service.engine
        tail = len(parse_template(engine.answerer.template.answer).after) if job.messages else 0
        stream = TextStream(lambda ids: engine.text_of(job, ids), options.stop, tail)
        more: dict[str, Any] = {"usage": None} if options.include_usage else {}
        try:
            if envelope.chat:
                begin = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                yield envelope.chunk([begin], **more)
            event: int | Outcome | Exception = first
            while isinstance(event, int):
                if piece := "" if stream.stopped else stream.add(event):
                    yield envelope.chunk([envelope.delta(piece)], **more)
                event = await events.get()
            if isinstance(event, Exception):
                raise event
            for last in self._end(event, stream, job, options, envelope, more):
                yield last
        except ApiError as error:
            for last in events_of(error.content):
                yield last
        except Exception as error:
            for last in events_of(unexpected(error).content):
                yield last
        finally:
            task.cancel()

    def _end(
        self,
        outcome: Outcome,
        stream: TextStream,
        job: Job,
        options: Options,
        envelope: Envelope,
        more: dict[str, Any],
    ) -> list[bytes]:
        """The rest of a stream: what is left of the text, why it ends, and the number of tokens."""
        text, reason = written(outcome, options)
        rest = stream.finish(text)
        chunks = [envelope.chunk([envelope.delta(rest)], **more)] if rest else []
        ours = {"qa_lm": _details(job, outcome)} if outcome.reply else {}
        chunks.append(envelope.chunk([envelope.delta("", reason)], **more, **ours))
        if options.include_usage:
            chunks.append(envelope.chunk([], usage=self._usage([outcome])))
        return [*chunks, DONE]


def written(outcome: Outcome, options: Options) -> Written:
    """The text of an answer up to a stop text, and why it ends."""
    text, stopped = before_stop(outcome.text, options.stop)
    return text, "stop" if stopped or outcome.stopped or _withheld(outcome) else "length"


def as_api_error(error: UserError, place: str) -> ApiError:
    """The error for a request that the model cannot answer."""
    message = str(error)
    named = message.partition(":")[0]
    param = named if named in ("messages", "prompt", "temperature", "qa_lm.columns") else place
    code = "context_length_exceeded" if "context is" in message else None
    return ApiError(message.replace("question 1 has", "the question has"), 400, param, code)


def _withheld(outcome: Outcome) -> bool:
    return bool(outcome.reply and outcome.reply.abstained)


def _details(job: Job, outcome: Outcome) -> dict[str, Any]:
    assert outcome.reply
    return reply_details(outcome.reply, None if job.sampling == GREEDY else job.sampling.seed)


def _hand_over(loop: asyncio.AbstractEventLoop, events: "asyncio.Queue[Any]", token: int) -> None:
    """Give a token to the loop; not once it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(events.put_nowait, token)


async def _together(work: Sequence[Awaitable[T]]) -> list[T]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


class ClientGone(Exception):
    """The client has left."""


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for the work, but no longer than the client does.

    Raises:
        ClientGone: the client has left; the work was cancelled.
    """
    task, gone = asyncio.ensure_future(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
