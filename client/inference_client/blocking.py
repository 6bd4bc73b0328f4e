"""Coroutines that never have to wait, run without an event loop.

All operations are written once, as coroutines over a wire (wire.py). Over a blocking wire every await is answered on
the spot, so a coroutine runs from its start to its end in one step: that is all that the blocking client is.
"""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Operations = TypeVar("Operations")


class Blocking(Protocol[Operations]):
    """Has the operations, over a wire that blocks."""

    _operations: Operations


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking call waited for an event loop")


def blocking(
    operation: Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[Operations], P], T]:
    """The operation as a method that blocks, with the same parameters and words."""

    @functools.wraps(operation)
    def call(self: Blocking[Operations], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(operation(self._operations, *args, **kwargs))

    return call


def blocking_iterator(
    operation: Callable[Concatenate[Operations, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Blocking[Operations], P], Iterator[T]]:
    """As `blocking`, of one that yields."""

    @functools.wraps(operation)
    def call(self: Blocking[Operations], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = operation(self._operations, *args, **kwargs)
        try:
            while True:
                try:
                    item = run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            run(items.aclose())

    return call


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)
