"""Locks among agents: many may use a thing, or one may remove it."""

import asyncio
from pathlib import Path

from gpu_agent.uses import alone, in_turn, in_use


async def test_what_is_used_is_nobodys_to_remove(tmp_path: Path) -> None:
    """By any number of users, until the last has gone."""
    path = tmp_path / "thing"
    async with in_use(path):
        async with in_use(path):
            pass
        with alone(path) as file:
            assert file is None
    with alone(path) as file:
        assert file is not None


async def test_who_waited_uses_what_is_there_now(tmp_path: Path) -> None:
    """Not the file that was removed while they waited: others would not see its lock."""
    path = tmp_path / "thing"
    with alone(path) as file:
        assert file is not None
        file.write("old")
        file.flush()
        entered = asyncio.Event()

        async def use() -> None:
            async with in_use(path) as used:
                assert used.read() == ""
                entered.set()
                with alone(path) as other:
                    assert other is None

        using = asyncio.create_task(use())
        await asyncio.sleep(0)
        assert not entered.is_set()
        path.unlink()
    await using


async def test_one_after_the_other(tmp_path: Path) -> None:
    """Whoever comes while somebody is alone waits, and then is alone as well."""
    path = tmp_path / "thing"
    inside: list[int] = []

    async def take(number: int) -> None:
        async with in_turn(path):
            inside.append(number)
            assert len(inside) == 1
            await asyncio.sleep(0)
            with alone(path) as other:
                assert other is None
            inside.remove(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(take(number))
