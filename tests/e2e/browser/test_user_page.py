"""An hour of a person at the gateway's page."""

import secrets
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Route, expect

from core.contract.key import Scope
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.browser.conftest import Tab, TabOpener
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.e2e.guarded import Guarded
from tests.e2e.tus import Tus
from tests.proxy import Proxies, holding
from tests.zips import files_of

CASE = {"scan.txt": b"slice\n" * 1000, "series 1/ä.dcm": b"\x00\x01\xff", "series 1/empty": b""}
TALKING = "echo reading; echo 'progress: 50% half of it'; cp -R /input/. /output/; echo done"
FAILING = "echo 'series 4 has 119 slices' >&2; exit 3"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder with files, one of them in a folder of its own."""
    folder = tmp_path / "case-7"
    for name, content in CASE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


async def _choose(page: Page, model: str) -> None:
    await page.get_by_label("Model").select_option(model)


async def _run(page: Page) -> None:
    """Until the task is there."""
    before = page.url
    await page.get_by_role("button", name="Run").click()
    await page.wait_for_url(lambda url: url != before)


async def _state(page: Page, state: str) -> None:
    await expect(page.locator("#view .sentence .chip")).to_have_text(state, timeout=30_000)


async def _result(page: Page) -> dict[str, bytes]:
    """The files in the zip that the page gives out."""
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download the result").click()
    found = files_of((await (await download.value).path()).read_bytes())
    return {name: content for name, content in found.items() if not name.endswith("/")}


async def _drop(tab: Tab, *paths: Path) -> None:
    """As from a file manager."""
    box = await tab.page.locator("#drop").bounding_box()
    assert box
    session = await tab.context.new_cdp_session(tab.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + 20}
        await session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


async def test_a_folder_becomes_a_result(open_tab: TabOpener, stack: Stack, model: ModelMaker, case: Path) -> None:
    """Chosen, zipped by the browser, sent, watched and fetched: what is in the folder is what the model finds."""
    talking = model(TALKING)
    tab = await open_tab(stack.gateway_url)
    await _choose(tab.page, talking)
    await tab.page.locator("#folder").set_input_files(case)
    await expect(tab.page.locator("#chosen")).to_have_text("case-7 (3 files, 6.0 kB)")
    await _run(tab.page)
    await _state(tab.page, "finished")
    await expect(tab.page.get_by_role("region", name="Log")).to_contain_text("reading\n")
    assert await _result(tab.page) == CASE


async def test_a_browser_with_a_key(open_tab: TabOpener, guarded: Guarded, model: ModelMaker, tmp_path: Path) -> None:
    """It asks for the key by itself, and sends it with all that the page does: upload, events, download."""
    talking = model(TALKING)
    made = guarded.make(Scope.SUBMIT)
    large = tmp_path / "large.bin"
    large.write_bytes(secrets.token_bytes(2**22))
    without = await open_tab(guarded.gateway.url, key="wrong")
    without.forgiven.append("status of 401")
    await expect(without.page.locator("#problem")).to_contain_text("any name and your key as the password")
    tab = await open_tab(guarded.gateway.url, key=made["key"])
    tab.forgiven.append("status of 401")  # with which it is asked
    await _choose(tab.page, talking)
    await tab.page.locator("#files").set_input_files([large])
    await _run(tab.page)
    await _state(tab.page, "finished")
    await expect(tab.page.get_by_role("region", name="Log")).to_contain_text("reading\n")
    assert await _result(tab.page) == {"large.bin": large.read_bytes()}
    guarded.revoke(made["id"])


async def test_dropped(open_tab: TabOpener, stack: Stack, copying: str, case: Path, tmp_path: Path) -> None:
    """Files and a folder together keep their names; a zip goes as it is."""
    other, zip = tmp_path / "notes.txt", tmp_path / "input.zip"
    other.write_bytes(b"notes")
    zip.write_bytes(INPUT)
    tab = await open_tab(stack.gateway_url)
    await _choose(tab.page, copying)
    for paths, expected in (
        ((case,), CASE),
        ((case, other), {f"case-7/{name}": content for name, content in CASE.items()} | {"notes.txt": b"notes"}),
        ((zip,), files_of(INPUT)),
    ):
        await _drop(tab, *paths)
        await expect(tab.page.get_by_role("button", name="Run")).to_be_enabled()
        await _run(tab.page)
        await _state(tab.page, "finished")
        assert await _result(tab.page) == expected
    (tmp_path / "empty").mkdir()
    await _drop(tab, tmp_path / "empty")
    await expect(tab.page.locator("#problem")).to_have_text("There is no file in it.")


async def test_an_upload_survives_a_cut(
    open_tab: TabOpener, stack: Stack, api: Api, copying: str, tmp_path: Path
) -> None:
    """The connection breaks in the middle of the bytes: the page goes on where the server has it."""
    content = bytes(4_000_000)
    (tmp_path / "large").write_bytes(content)
    with holding(stack.ports.gateway, up_after=1_000_000) as proxy:
        tab = await open_tab(f"https://localhost:{proxy.port}")
        tab.forgiven.append("/api/uploads/")
        await _choose(tab.page, copying)
        await tab.page.locator("#files").set_input_files(tmp_path / "large")
        await tab.page.get_by_role("button", name="Run").click()
        await expect(tab.page.locator("#pace")).to_contain_text("of 4.0 MB")
        proxy.wait_until_it_holds()
        proxy.cut()
        await _state(tab.page, "finished")
    assert files_of(api.wait(tab.page.url.partition("#")[2]).content) == {"large": content}


async def test_an_upload_that_stands_still(open_tab: TabOpener, stack: Stack, copying: str, tmp_path: Path) -> None:
    """Nobody says that the connection is gone: after a minute it counts as cut. A file that has changed does not."""
    large = tmp_path / "large"
    large.write_bytes(bytes(30_000_000))
    with holding(stack.ports.gateway, up_after=1_000_000) as proxy:
        tab = await open_tab("about:blank")
        await tab.page.clock.install()
        await tab.page.goto(f"https://localhost:{proxy.port}")
        tab.forgiven.append("/api/uploads/")
        await _choose(tab.page, copying)
        await tab.page.locator("#files").set_input_files(large)
        await tab.page.get_by_role("button", name="Run").click()
        proxy.wait_until_it_holds()
        await expect(tab.page.locator("#pace")).to_contain_text("Sent")
        await tab.page.clock.fast_forward(60_000)
        await expect(tab.page.locator("#sending").get_by_role("status")).to_contain_text("Trying again.")
        large.write_bytes(b"other")
        proxy.cut()
        await expect(tab.page.locator("#problem")).to_contain_text("Have they changed?")


@pytest.mark.parametrize("is_there", [False, True], ids=["on its way", "there"])
async def test_stopped(open_tab: TabOpener, stack: Stack, api: Api, waiting: str, is_there: bool) -> None:
    """Nothing is kept, or it was too late, and the page shows the task that it became."""
    tus, tab = Tus(api), await open_tab(stack.gateway_url)
    tab.forgiven.append("/api/uploads/")
    paths: list[str] = []

    async def held(route: Route) -> None:
        if route.request.method != "PATCH":
            return await route.continue_()
        path = urlsplit(route.request.url).path
        if is_there:
            tus.send_rest(path, INPUT)
        paths.append(path)
        await tab.page.get_by_role("button", name="Stop").click()

    await tab.page.route("**/api/uploads/*", held)
    await _choose(tab.page, waiting)
    await tab.page.locator("#files").set_input_files({"name": "a.zip", "mimeType": "application/zip", "buffer": INPUT})
    await tab.page.get_by_role("button", name="Run").click()
    if is_there:
        await expect(tab.page.locator("#problem")).to_contain_text("Its task is above")
        await _state(tab.page, "pending")
    else:
        await expect(tab.page.locator("#problem")).to_have_text("Stopped. Nothing was kept.")
        assert tus.ask(paths[0]).status_code == 404


async def test_a_log_that_goes_on_while_the_page_is_cut_off(
    open_tab: TabOpener, stack: Stack, api: Api, model: ModelMaker
) -> None:
    """The task has ended when the page hears of it again: what was printed meanwhile is shown as well."""
    uid = api.post(model(f"{COPY}; echo first; sleep 3; echo last"), INPUT)
    with Proxies() as proxies:
        proxy = proxies.to(("127.0.0.1", stack.ports.gateway))
        tab = await open_tab(f"https://localhost:{proxy.port}/#{uid}")
        tab.forgiven.append(f"/api/tasks/{uid}")
        log = tab.page.get_by_role("region", name="Log")
        await expect(log).to_contain_text("first")
        await tab.page.route("**/events?*", lambda route: route.abort())
        proxy.cut()
        await _state(tab.page, "finished")
        await tab.page.unroute("**/events?*")
        await expect(log).to_contain_text("last")


async def test_what_the_page_missed(open_tab: TabOpener, stack: Stack, api: Api, waiting: str) -> None:
    """It was open before the server was, and learns what became of tasks that it doesn't look at."""
    tab = await open_tab("about:blank")
    tab.forgiven.append("/api/models/")
    await tab.page.clock.install()
    await tab.page.route("**/api/models/", lambda route: route.abort())
    await tab.page.goto(stack.gateway_url)
    await expect(tab.page.locator("#problem")).to_contain_text("can't be reached")
    await tab.page.unroute("**/api/models/")
    await tab.page.clock.fast_forward(5000)
    await _choose(tab.page, waiting)
    await expect(tab.page.locator("#problem")).to_be_empty()
    await tab.page.locator("#files").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    await _run(tab.page)
    await _state(tab.page, "pending")
    uid = urlsplit(tab.page.url).fragment
    await tab.page.evaluate("location.hash = ''")
    api.call("POST", f"/api/tasks/{uid}/cancel").raise_for_status()
    await tab.page.clock.fast_forward(30_000)
    await expect(tab.page.locator("#tasks .chip")).to_have_text("failed")


async def test_a_zip_that_is_refused(open_tab: TabOpener, stack: Stack, copying: str) -> None:
    """The page says what is wrong with it, and takes another one."""
    tab = await open_tab(stack.gateway_url)
    tab.forgiven.append("/api/uploads/")
    await _choose(tab.page, copying)
    await tab.page.locator("#files").set_input_files({"name": "a.zip", "mimeType": "application/zip", "buffer": b"PK"})
    await tab.page.get_by_role("button", name="Run").click()
    await expect(tab.page.locator("#problem")).to_contain_text("zip")
    await tab.page.locator("#files").set_input_files({"name": "a.zip", "mimeType": "application/zip", "buffer": INPUT})
    await _run(tab.page)
    await _state(tab.page, "finished")


async def test_come_back_later(open_tab: TabOpener, stack: Stack, api: Api, copying: str) -> None:
    """By the link from any machine; in the same browser the page has a list. A uid that is nobody's is told as such."""
    uid = api.post(copying, INPUT)
    tab = await open_tab(f"{stack.gateway_url}/#{uid}")
    await _state(tab.page, "finished")
    assert await _result(tab.page) == files_of(INPUT)
    await _choose(tab.page, copying)
    await tab.page.locator("#files").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    await _run(tab.page)
    await _state(tab.page, "finished")
    await tab.page.goto("about:blank")
    await tab.page.goto(stack.gateway_url)
    await tab.page.get_by_role("link", name="a.txt").click()
    assert await _result(tab.page) == {"a.txt": b"a"}
    tab.forgiven.append("x" * 43)
    await tab.page.goto(f"{stack.gateway_url}/#{'x' * 43}")
    await expect(tab.page.locator("#view")).to_contain_text("There is no such task")


async def test_a_task_that_fails(open_tab: TabOpener, stack: Stack, api: Api, model: ModelMaker) -> None:
    """The page says why in plain words and has its last lines; it can be tried again."""
    uid = api.post(model(FAILING), INPUT)
    tab = await open_tab(f"{stack.gateway_url}/#{uid}")
    await expect(tab.page.locator("#view .sentence")).to_have_text(
        "failed The model stopped with an error (exit code 3)."
    )
    await expect(tab.page.get_by_role("region", name="What it said last")).to_contain_text("series 4 has 119 slices")
    await tab.page.get_by_role("button", name="Try again").click()
    await expect(tab.page.locator("#view .attempts li")).to_have_count(2)
    await _state(tab.page, "failed")


async def test_a_task_that_waits(open_tab: TabOpener, stack: Stack, api: Api, waiting: str) -> None:
    """What it lacks is told; it can be cancelled, and deleted."""
    uid = api.post(waiting, INPUT)
    tab = await open_tab(f"{stack.gateway_url}/#{uid}")
    tab.page.on("dialog", lambda question: question.accept())
    await expect(tab.page.locator("#view .sentence")).to_contain_text("Waiting for")
    await tab.page.get_by_role("button", name="Cancel").click()
    await expect(tab.page.locator("#view .sentence")).to_have_text("failed It was cancelled.")
    await tab.page.get_by_role("button", name="Delete").click()
    await expect(tab.page.locator("#task")).to_be_hidden()
    assert api.get(f"/api/tasks/{uid}").status_code == 554


async def test_what_others_wrote_is_text(open_tab: TabOpener, stack: Stack, core: Api, model: ModelMaker) -> None:
    """Names, descriptions, log and messages may hold markup: it is shown, never run."""
    hostile = "<img src=/x onerror=alert(1)>"
    name = model(f"echo '{hostile}'; exit 1")
    tag = core.get(f"/api/models/human_readable_id/{name}").json()["container_tag"]
    params = {"human_readable_id": hostile, "description": hostile, "container_tag": tag, "use_gpu": "false"}
    core.call("POST", "/api/models/", params=params).raise_for_status()
    uid = core.post(hostile, INPUT)
    tab = await open_tab(f"{stack.gateway_url}/#{uid}")
    await _choose(tab.page, hostile)
    await expect(tab.page.locator("#description")).to_have_text(hostile)
    await expect(tab.page.get_by_role("region", name="Log")).to_contain_text(hostile)
    await expect(tab.page.locator("#view .message")).to_contain_text(hostile)
    assert await tab.page.locator("img").count() == 0
