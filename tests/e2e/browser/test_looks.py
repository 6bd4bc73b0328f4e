"""How the pages look and read: on a phone and on a desk, in light and in the dark, for eyes and for screen readers."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.browser.conftest import DESKTOP, TabOpener
from tests.e2e.conftest import INPUT, ModelMaker
from tests.waiting import eventually

PHONE = (360, 740)
FAILING = "for slice in 1 2 3; do echo slice $slice of 3: mask kept; done; echo 'series 4 has 119 slices' >&2; exit 3"
ENDED = (552,)


@pytest.fixture
def failed(core: Api, model: ModelMaker) -> str:
    uid = core.post(model(FAILING), INPUT)
    eventually(lambda: core.get(f"/api/tasks/outputs/{uid}").status_code in ENDED)
    return uid


async def _judge(page: Page, name: str, folder: Path | None) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
    found = (await Axe().run(page)).response["violations"]
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == [], name
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=folder / f"{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desk"])
async def test_pages(
    open_tab: TabOpener,
    stack: Stack,
    failed: str,
    size: tuple[int, int],
    scheme: str,
    pytestconfig: pytest.Config,
) -> None:
    """No page is wider than the screen, axe finds nothing serious, and all that is loaded is ours."""
    folder = pytestconfig.getoption("--screenshots")
    kind = f"{'phone' if size == PHONE else 'desk'}-{scheme}"
    user = (await open_tab(f"{stack.gateway_url}/#{failed}", size=size, scheme=scheme)).page
    await expect(user.get_by_role("region", name="Log")).to_contain_text("series 4")
    await _judge(user, f"user-{kind}", folder)
    operator = (await open_tab(f"{stack.core_url}/dashboard", size=size, scheme=scheme, is_operator=True)).page
    asked: set[str] = set()
    operator.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    await operator.reload()
    await expect(operator.locator("#rows tr")).to_contain_text("failed")
    await _judge(operator, f"operator-{kind}", folder)
    await operator.locator("#rows").get_by_role("button").click()
    await expect(operator.get_by_role("region", name="Log")).to_contain_text("series 4")
    await _judge(operator, f"operator-task-{kind}", folder)
    assert asked == {urlsplit(stack.core_url).netloc}
