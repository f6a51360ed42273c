"""Rows of concurrent requests are computed together; order, errors and limits are those of each request."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from helpers.serving import Lengths, open_lengths

from loraft.delivery.batching import Batcher, Limits, QueueFullError
from loraft.delivery.metrics import Metrics

FOREVER = 1000.0  # seconds: a batch that waits so long fails by the timeout below


def run(work: Callable[[Batcher], Awaitable[Any]], models: dict[str, Lengths], **limits: Any) -> Any:
    async def main() -> Any:
        batcher = Batcher(models, Limits(**{"wait": FOREVER, **limits}), Metrics())
        worker = asyncio.create_task(batcher.work())
        try:
            async with asyncio.timeout(20):
                return await work(batcher)
        finally:
            worker.cancel()

    return asyncio.run(main())


async def while_one_is_computed(batcher: Batcher, model: Lengths, *requests: tuple[str, list[str]]) -> list[Any]:
    """Sends requests while the first one is computed, and returns the answers, or errors, of all but that one."""
    first = asyncio.create_task(batcher.predict("a", ["đầu tiên"]))
    await asyncio.to_thread(model.entered.wait, 10)
    tasks = [asyncio.create_task(batcher.predict(name, texts)) for name, texts in requests]
    await asyncio.sleep(0)
    model.go.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def shares(answer: Any) -> list[float]:
    return [list(one.probs.values())[1] for one in answer[0]]


def test_requests_that_wait_are_one_batch_and_each_gets_its_own_rows_in_order() -> None:
    model = Lengths()
    requests = [("a", ["x", "xxx"]), ("a", ["xx"]), ("a", ["xxxx", "x", "xx"])]
    found = run(lambda batcher: while_one_is_computed(batcher, model, *requests), {"a": model})
    assert model.batches == [["đầu tiên"], ["x", "xxx", "xx", "xxxx", "x", "xx"]]
    assert [shares(answer) for answer in found] == [[1 / (1 + len(text)) for text in texts] for _, texts in requests]
    assert [tokens for _, tokens in found] == [204, 102, 307]


def test_a_client_alone_never_waits_for_others() -> None:
    model = open_lengths()

    async def three(batcher: Batcher) -> None:
        for _ in range(3):
            await batcher.predict("a", ["x"])

    run(three, {"a": model})
    assert model.batches == [["x"]] * 3


def test_the_clients_of_a_batch_meet_in_the_next_one() -> None:
    model = Lengths()

    async def twice(batcher: Batcher) -> None:
        await while_one_is_computed(batcher, model, ("a", ["x"]), ("a", ["y"]))  # a batch of two
        early = asyncio.create_task(batcher.predict("a", ["sớm"]))
        await asyncio.sleep(0.01)
        assert not early.done()  # waits for the other client
        await batcher.predict("a", ["muộn"])
        await early

    run(twice, {"a": model})
    assert model.batches[1:] == [["x", "y"], ["sớm", "muộn"]]


def test_a_batch_waits_no_longer_than_its_limit_for_a_client_that_has_gone() -> None:
    model = Lengths()

    async def twice(batcher: Batcher) -> Any:
        await while_one_is_computed(batcher, model, ("a", ["x"]), ("a", ["y"]))
        return await batcher.predict("a", ["một mình"])

    assert len(run(twice, {"a": model}, wait=0.005)[0]) == 1


def test_a_text_that_cannot_be_computed_fails_its_own_request_alone() -> None:
    model = Lengths()
    requests = [("a", ["x"]), ("a", ["lỗi"]), ("a", ["xx"])]
    good, bad, other = run(lambda batcher: while_one_is_computed(batcher, model, *requests), {"a": model})
    assert (shares(good), shares(other)) == ([1 / 2], [1 / 3])
    assert isinstance(bad, ValueError)


def test_batches_hold_one_run_and_no_more_rows_than_allowed() -> None:
    model, other = Lengths(), open_lengths()
    requests = [("b", ["1"]), ("a", ["2"]), ("b", ["3"]), ("a", ["4", "5", "6"]), ("b", ["7"]), ("b", ["8"])]
    models = {"a": model, "b": other}
    run(lambda batcher: while_one_is_computed(batcher, model, *requests), models, batch=3, wait=0)
    assert other.batches == [["1", "3", "7"], ["8"]]
    assert model.batches == [["đầu tiên"], ["2"], ["4", "5", "6"]]


def test_a_queue_that_is_full_takes_nothing_and_forgets_nothing() -> None:
    model = Lengths()
    requests = [("a", ["1", "2"]), ("a", ["3", "4"]), ("a", ["5"])]
    first, second, third = run(
        lambda batcher: while_one_is_computed(batcher, model, *requests), {"a": model}, queue=3, batch=3
    )
    assert len(first[0]) == 2
    assert isinstance(second, QueueFullError)
    assert len(third[0]) == 1
    assert model.batches == [["đầu tiên"], ["1", "2", "5"]]


def test_a_request_above_a_batch_takes_turns_with_others() -> None:
    model = Lengths()
    requests = [("a", ["1", "22", "333", "4444", "55555"]), ("a", ["x"]), ("a", ["y"])]
    long, *_ = run(lambda batcher: while_one_is_computed(batcher, model, *requests), {"a": model}, batch=2, wait=0)
    assert model.batches == [["đầu tiên"], ["1", "22"], ["x", "y"], ["333", "4444"], ["55555"]]
    assert (shares(long), long[1]) == ([1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6], 515)


def test_rows_whose_client_has_gone_are_not_computed_and_leave_the_queue() -> None:
    model = Lengths()

    async def leave(batcher: Batcher) -> int:
        first = asyncio.create_task(batcher.predict("a", ["1", "2", "3"]))
        await asyncio.to_thread(model.entered.wait, 10)
        others = [asyncio.create_task(batcher.predict("a", texts)) for texts in (["4", "5", "6"], ["7"])]
        await asyncio.sleep(0)
        assert batcher.waiting == 1 + 3 + 1
        first.cancel()
        others[0].cancel()
        model.go.set()
        await asyncio.wait((first, others[0]))
        await others[1]
        return batcher.waiting

    assert run(leave, {"a": model}, batch=2, wait=0) == 0
    assert model.batches == [["1", "2"], ["7"]]


def test_a_request_whose_piece_cannot_be_computed_leaves_no_rows_in_the_queue() -> None:
    async def wrong(batcher: Batcher) -> int:
        (found,) = await asyncio.gather(batcher.predict("a", ["1", "lỗi", "3"]), return_exceptions=True)
        assert isinstance(found, ValueError)
        return batcher.waiting

    assert run(wrong, {"a": open_lengths()}, batch=2, wait=0) == 0


def test_the_event_loop_does_not_wait_for_a_model_that_computes() -> None:
    model = Lengths()

    async def leave(batcher: Batcher) -> None:
        task = asyncio.create_task(batcher.predict("a", ["x"]))
        await asyncio.to_thread(model.entered.wait, 10)
        task.cancel()

    threading.Timer(5, model.go.set).start()
    run(leave, {"a": model})
    assert not model.go.is_set()
    model.go.set()
