import asyncio
import threading
from concurrent.futures import Future

import pytest

from albatros.http.handover import Handover

LONG = 120.0


def test_results_and_errors_of_another_thread_reach_those_who_wait() -> None:
    async def run() -> list[object]:
        handover: Handover[int] = Handover(asyncio.get_running_loop())
        futures: list[Future[int]] = [Future() for _ in range(50)]

        def end() -> None:
            for number, future in enumerate(futures):
                if number % 2:
                    future.set_result(number)
                else:
                    future.set_exception(ValueError(number))

        waiting = asyncio.gather(*(handover.wait(future, LONG) for future in futures), return_exceptions=True)
        await asyncio.sleep(0)
        thread = threading.Thread(target=end)
        thread.start()
        results: list[object] = list(await waiting)
        thread.join()
        return results

    results = asyncio.run(run())
    assert results[1::2] == list(range(1, 50, 2))
    assert [str(error) for error in results[::2]] == [str(number) for number in range(0, 50, 2)]


def test_one_that_has_ended_already_is_not_waited_for() -> None:
    async def run() -> int:
        future: Future[int] = Future()
        future.set_result(7)
        return await Handover[int](asyncio.get_running_loop()).wait(future, LONG)

    assert asyncio.run(run()) == 7


def test_who_waited_too_long_is_told_and_the_work_is_cancelled() -> None:
    async def run() -> Future[int]:
        future: Future[int] = Future()
        with pytest.raises(TimeoutError):
            await Handover[int](asyncio.get_running_loop()).wait(future, 0.01)
        return future

    assert asyncio.run(run()).cancelled()


def test_an_end_after_the_loop_is_gone_is_nobodys_error() -> None:
    loop = asyncio.new_event_loop()
    handover: Handover[int] = Handover(loop)
    future: Future[int] = Future()
    waiting = loop.create_task(handover.wait(future, LONG))
    loop.run_until_complete(asyncio.sleep(0))
    assert future.set_running_or_notify_cancel()
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()
    future.set_result(1)
    assert future.result() == 1
