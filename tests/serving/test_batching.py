"""The queue before the model, without a model."""

import asyncio
import threading

import pytest

from qa_lm.errors import UserError
from qa_lm.serving.batching import MOST, Batches, QueueFull
from qa_lm.serving.engine import Job, Outcome
from qa_lm.serving.streaming import TextStream, before_stop


class Model:
    """Answers with the prompt; it can be held, and fails at some prompts."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.sizes: list[int] = []
        self.seen: list[str] = []

    def answer(self, jobs):
        self.free.wait(10)
        self.sizes.append(len(jobs))
        if any(job.prompt == "poison" for job in jobs):
            raise RuntimeError("poison")
        self.seen += [job.prompt for job in jobs if not job.unwanted]
        return [UserError("bad") if job.prompt == "bad" else Outcome([1], [2], True, str(job.prompt)) for job in jobs]


def running(test):
    """Run a coroutine that takes the model and the queue of at most 100 jobs."""

    async def run() -> None:
        model = Model()
        batches = Batches(model.answer, 100)
        worker = asyncio.create_task(batches.run())
        try:
            await asyncio.wait_for(test(model, batches), 20)
        finally:
            model.free.set()
            worker.cancel()

    asyncio.run(run())


async def queued(batches, count, prompt="x"):
    """Jobs that wait: their tasks."""
    tasks = [asyncio.create_task(batches.submit(Job(prompt=f"{prompt}{number}"))) for number in range(count)]
    await asyncio.sleep(0.05)
    return tasks


def test_jobs_that_wait_are_answered_together():
    async def test(model, batches):
        model.free.clear()
        tasks = await queued(batches, 1) + await queued(batches, 70, "y")
        model.free.set()
        found = [await task for task in tasks]
        assert [each.text for each in found] == ["x0", *(f"y{number}" for number in range(70))]
        assert model.sizes == [1, MOST, 6]

    running(test)


def test_a_single_client_does_not_wait():
    async def test(model, batches):
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for _ in range(40):
            await batches.submit(Job(prompt="x"))
        assert loop.time() - begin < 40 * 0.004  # a wait for others would take 0.005

    running(test)


def test_a_full_queue_refuses():
    async def test(model, batches):
        model.free.clear()
        first = await queued(batches, 1)  # it is with the model, and waits no longer
        rest = await queued(batches, 100)
        with pytest.raises(QueueFull):
            await batches.submit(Job())
        model.free.set()
        await asyncio.gather(*first, *rest)
        await batches.submit(Job())

    running(test)


def test_a_client_that_leaves_frees_its_place():
    async def test(model, batches):
        model.free.clear()
        first = await queued(batches, 1)
        rest = await queued(batches, 100, "left")
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        assert not batches.waiting
        others = await queued(batches, 100, "y")
        model.free.set()
        await asyncio.gather(*first, *others)
        assert not any("left" in prompt for prompt in model.seen)

    running(test)


def test_a_client_that_leaves_while_the_model_answers_is_marked():
    async def test(model, batches):
        model.free.clear()
        job = Job(prompt="x")
        task = asyncio.create_task(batches.submit(job))
        await asyncio.sleep(0.05)
        assert not job.unwanted
        task.cancel()
        await asyncio.sleep(0.05)
        assert job.unwanted
        model.free.set()

    running(test)


@pytest.mark.parametrize(("prompt", "error"), [("bad", UserError), ("poison", RuntimeError)])
def test_one_bad_job_fails_alone(prompt, error):
    async def test(model, batches):
        model.free.clear()
        first = await queued(batches, 1)
        others = await queued(batches, 5, "y")
        bad = asyncio.create_task(batches.submit(Job(prompt=prompt)))
        await asyncio.sleep(0.05)
        model.free.set()
        assert [each.text for each in await asyncio.gather(*first, *others)] == ["x0", *(f"y{n}" for n in range(5))]
        with pytest.raises(error):
            await bad
        assert (await batches.submit(Job(prompt="z"))).text == "z"

    running(test)


def streamed(tokens, stops=(), held_back=0):
    """The pieces of a stream; the ids 2, 3 are the bytes of one character."""
    text = "".join({(1,): "a", (2,): "", (3,): "é", (4,): " EN", (5,): "D", (6,): "c"}[token,] for token in tokens)

    def text_of(ids):
        shown = "".join({1: "a", 2: "", 3: "é", 4: " EN", 5: "D", 6: "c"}[each] for each in ids)
        return shown + ("\ufffd" if ids[-1] == 2 else "")

    stream = TextStream(text_of, stops, held_back)
    pieces = [stream.add(token) for token in tokens]
    return pieces, stream.finish(before_stop(text, stops)[0])


def test_a_piece_ends_before_a_character_that_is_not_complete():
    assert streamed([1, 2, 3, 6]) == (["a", "", "é", "c"], "")


def test_what_may_become_a_stop_text_is_held_back():
    assert streamed([1, 6, 4, 6], ["END"]) == (["", "", "ac ", "EN"[:0] + "E"], "Nc")
    assert streamed([1, 6, 4, 5, 6], ["END", "never"]) == (["", "", "a", "c ", ""], "")


def test_what_may_be_the_end_of_the_template_is_held_back():
    assert streamed([1, 6, 1], held_back=1) == (["", "a", "c"], "a")
