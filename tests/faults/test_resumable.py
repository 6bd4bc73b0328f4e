"""kill -9 of core while an upload comes that can be resumed."""

from redis import Redis

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.tus import Tus, half_sent, uid_of
from tests.faults.kills import kill, wait_until_back
from tests.faults.transfers import BEGUN_BYTES, FILES, LARGE, let_time_pass
from tests.waiting import eventually
from tests.zips import files_of


def test_what_a_dead_core_stored_is_not_sent_again(api: Api, stack: Stack, redis: Redis, copying: str) -> None:
    """All that was told as stored is there, and the next core goes on from there."""
    tus = Tus(api)
    path = tus.opened(copying, len(LARGE))
    half = len(LARGE) // 2
    with half_sent(stack, path, 0, LARGE[:half], of=len(LARGE)):
        told = eventually(lambda: (offset := tus.offset(path)) > BEGUN_BYTES and offset)
        kill(stack, "core")
    wait_until_back(stack, "core")
    offset = tus.offset(path)
    assert told <= offset <= half
    tus.send_rest(path, LARGE)
    assert files_of(api.wait(uid_of(path)).content) == FILES
    let_time_pass(redis)
