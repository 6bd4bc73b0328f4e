"""A real Chromium before the real pages."""

import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from demo.stack import Stack
from tests.lacking import cannot_run

FLAGS = (
    # Of a browser as root, on a machine without a screen; and nothing that it would call home for.
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP = (1280, 800)
SECONDS = 30.0
"""For whatever is waited for; it only ends a test that would fail anyway."""


@dataclass(frozen=True)
class Tab:
    """A page in a window of its own."""

    page: Page
    forgiven: list[str]
    """Words of complaints that belong to the test: the browser notes each request that is refused."""

    @property
    def context(self) -> BrowserContext:
        return self.page.context


TabOpener = Callable[..., Coroutine[Any, Any, Tab]]


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        cannot_run("not installed: chromium")
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=program, args=FLAGS) as browser,
    ):
        yield browser


@pytest.fixture
async def open_tab(chromium: Browser, stack: Stack) -> AsyncIterator[TabOpener]:
    """`open_tab(url)`: in a window of its own, with a memory of its own. At the end no page may have complained, as a
    developer sees it in the console: of errors, and of what the policy forbids.
    """
    complaints: list[str] = []
    forgiven = ["status of 554"]  # an agent's report may name a task that was deleted since
    async with AsyncExitStack() as windows:

        async def opened(
            url: str,
            *,
            size: tuple[int, int] = DESKTOP,
            scheme: str = "light",
            is_operator: bool = False,
            key: str = "",
        ) -> Tab:
            password = _token(stack) if is_operator else key
            context = await chromium.new_context(
                viewport={"width": size[0], "height": size[1]},
                color_scheme="dark" if scheme == "dark" else "light",
                ignore_https_errors=True,  # the authority is the stack's own
                http_credentials={"username": "anybody", "password": password} if password else None,
            )
            await windows.enter_async_context(context)
            context.set_default_timeout(SECONDS * 1000)
            context.on("console", lambda line: complaints.append(f"{line.text} ({line.location['url']})"))
            context.on("weberror", lambda error: complaints.append(str(error.error)))
            page = await context.new_page()
            await page.goto(url)
            return Tab(page, forgiven)

        yield opened
    assert [line for line in complaints if not any(words in line for words in forgiven)] == []


def _token(stack: Stack) -> str:
    return stack.token_file.read_text().strip()
