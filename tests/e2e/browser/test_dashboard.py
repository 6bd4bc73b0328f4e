"""An operator at core's page, without any command line."""

import secrets
from datetime import UTC, datetime

import pytest
import requests
from playwright.async_api import Error, expect

from core.contract.gateway import GatewayReport
from core.contract.key import KEY
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.browser.conftest import Tab, TabOpener
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.images import Images
from tests.waiting import eventually

FAR_AWAY = datetime(2099, 1, 1, tzinfo=UTC)
FAILING = "echo 'no weights for CT-2041' >&2; exit 3"


async def _dashboard(open_tab: TabOpener, stack: Stack) -> Tab:
    return await open_tab(f"{stack.core_url}/dashboard", is_operator=True)


async def test_finds_out_why_a_task_failed_and_retries_it(
    open_tab: TabOpener, stack: Stack, core: Api, model: ModelMaker, images: Images, copying: str
) -> None:
    """Found by state and by how its uid begins, among others; then its attempts and its log. It finishes when it is
    tried again with a model that was mended.
    """
    failing = model(FAILING)
    uid, other = core.post(failing, INPUT), core.post(copying, INPUT)
    eventually(lambda: {core.get(f"/api/tasks/{one}").json()["status"] for one in (uid, other)} == {0, 1})
    page = (await _dashboard(open_tab, stack)).page
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(2)
    await page.get_by_label("State").select_option("failed")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("The model stopped with an error (exit code 3).")
    await page.get_by_label("State").select_option("")
    await page.get_by_label("Task id").fill(uid[:12])
    await expect(rows).to_have_count(1)
    await rows.get_by_role("button").click()
    task = page.get_by_role("dialog")
    await expect(task.get_by_role("region", name="What it said last")).to_contain_text("no weights for CT-2041")
    await expect(task.locator(".attempts li")).to_contain_text(["agent-"])
    await expect(task.get_by_role("region", name="Log")).to_contain_text("no weights for CT-2041")
    mended = {"container_tag": images.running(COPY)}
    broken = core.get(f"/api/models/human_readable_id/{failing}").json()["uid"]
    core.call("PUT", f"/api/models/{broken}", params=mended).raise_for_status()
    await task.get_by_role("button", name="Try again").click()
    await expect(task.locator(".sentence .chip")).to_have_text("finished")
    await expect(task.locator(".attempts li")).to_have_count(2)
    await page.keyboard.press("Escape")
    await expect(task).to_be_hidden()
    await expect(rows.locator(".chip")).to_have_text("finished")


async def test_a_whole_uid_is_found(open_tab: TabOpener, stack: Stack, core: Api, waiting: str) -> None:
    """Whatever else is asked for, and however many tasks are newer; one that is nobody's isn't."""
    uid = core.post(waiting, INPUT)
    tab = await _dashboard(open_tab, stack)
    tab.forgiven.append("/api/tasks/%25/")
    page = tab.page
    await page.get_by_label("State").select_option("failed")
    await expect(page.locator("#none")).to_contain_text("A whole task id is found at any age.")
    await page.get_by_label("Task id").fill(uid)
    await expect(page.locator("#rows tr")).to_contain_text(uid[:8])
    await page.get_by_label("Task id").fill("x" * 43)
    await expect(page.locator("#rows tr")).to_have_count(0)
    await page.goto(f"{stack.core_url}/dashboard#task/%")
    await expect(page.get_by_role("dialog")).to_contain_text("There is no such task")


async def test_cancels_and_deletes(open_tab: TabOpener, stack: Stack, core: Api, waiting: str) -> None:
    """A task that waits for what nobody has: the page says so."""
    uid = core.post(waiting, INPUT)
    page = (await _dashboard(open_tab, stack)).page
    page.on("dialog", lambda question: question.accept())
    await expect(page.locator("#rows tr")).to_contain_text("Waits for")
    await page.locator("#rows tr").get_by_role("button").click()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#view .sentence")).to_contain_text("It was cancelled.")
    await page.locator("#view").get_by_role("button", name="Delete").click()
    await expect(page.locator("#rows tr")).to_have_count(0)
    assert core.get(f"/api/tasks/{uid}").status_code == 554


async def test_disables_a_model(open_tab: TabOpener, stack: Stack, core: Api, model: ModelMaker) -> None:
    """It takes no new tasks then, and users aren't offered it."""
    name = model("true")
    page = (await _dashboard(open_tab, stack)).page
    await page.get_by_role("button", name=f"Disable {name}").click()
    await page.get_by_role("button", name=f"Enable {name}").wait_for()
    assert core.call("POST", "/api/tasks/", params={"model_human_readable_id": name}, zip=INPUT).status_code == 409
    user = (await open_tab(stack.gateway_url)).page
    await expect(user.get_by_label("Model").locator("option", has_text=name)).to_have_count(0)
    await page.bring_to_front()
    page.on("dialog", lambda question: question.accept())
    await page.get_by_role("button", name=f"Delete {name}").click()
    await expect(page.locator("#model-list")).not_to_contain_text(name)


async def test_what_there_is(open_tab: TabOpener, stack: Stack) -> None:
    """Readiness, queues, Redis's memory, the agents with their disks, the gateways with their certificates."""
    page = (await _dashboard(open_tab, stack)).page
    await expect(page.locator("#readiness")).to_have_text("Ready")
    await expect(page.locator("#queues")).to_contain_text("unfinished_job_queue")
    await expect(page.locator("#memory")).to_contain_text("Redis holds")
    for name in ("agent-1", "agent-2"):  # others may have been there before
        await expect(page.locator("#agent-list > li", has_text=name)).to_contain_text(" free at /")
    await expect(page.locator("#gateway-list > li").first).to_contain_text("days left")


async def test_a_certificate_that_is_not_served(open_tab: TabOpener, stack: Stack, core: Api) -> None:
    """The gateway that was given it is named, and why."""
    report = GatewayReport(name="with-another-key", certificate_expires=FAR_AWAY, certificate_refused="not its key")
    assert core.call("POST", "/api/gateways/", data=report.model_dump_json()).status_code == 204
    page = (await _dashboard(open_tab, stack)).page
    gateway = page.locator("#gateway-list > li", has_text="with-another-key")
    await expect(gateway).to_contain_text("A new certificate isn't served: not its key")


async def test_only_who_has_the_token_gets_in(open_tab: TabOpener, stack: Stack) -> None:
    """A browser is asked for it, and gets nothing without."""
    answer = requests.get(f"{stack.core_url}/dashboard", timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Basic realm="')
    tab = await open_tab("about:blank")
    tab.forgiven.append("status of 401")
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # nobody is there to be asked
        await tab.page.goto(f"{stack.core_url}/dashboard")


@pytest.mark.parametrize("origin", [None, "own", "https://elsewhere.example", "null"])
def test_other_sites_change_nothing(stack: Stack, core: Api, waiting: str, origin: str | None) -> None:
    """A browser that knows the token sends it with their forms as well, and says whose they are."""
    uid = core.post(waiting, INPUT)
    headers = {} if origin is None else {"Origin": stack.core_url if origin == "own" else origin}
    answer = core.call("POST", f"/api/tasks/{uid}/cancel", headers=headers)
    assert answer.status_code == (200 if origin in (None, "own") else 403)


async def test_a_form_of_another_site(open_tab: TabOpener, stack: Stack, core: Api, waiting: str) -> None:
    """As before, in a browser that is logged in."""
    uid = core.post(waiting, INPUT)
    tab = await _dashboard(open_tab, stack)
    tab.forgiven.append("status of 403")
    form = f'<form method="post" action="{stack.core_url}/api/tasks/{uid}/cancel"><button>Win a prize</button></form>'
    await tab.page.route("http://elsewhere.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    await tab.page.goto("http://elsewhere.example/")
    async with tab.page.expect_navigation() as navigation:
        await tab.page.get_by_role("button").click()
    answer = await navigation.value
    assert answer.request.headers["origin"] == "http://elsewhere.example"
    assert answer.status == 403
    assert core.get(f"/api/tasks/{uid}/status").json()["state"] == "pending"


async def test_makes_and_revokes_a_key(open_tab: TabOpener, stack: Stack, core: Api) -> None:
    """It is shown once. That keys aren't required is said loudly."""
    name = f"Dr. Example {secrets.token_hex(4)}"
    page = (await _dashboard(open_tab, stack)).page
    await expect(page.locator("#open-to-all")).to_contain_text("API keys aren't required")
    await page.get_by_text("Make a key").click()
    await page.get_by_label("Whose it is").fill(name)
    await page.get_by_label("registering models").check()
    await page.get_by_label("Tasks at once").fill("7")
    await page.get_by_role("button", name="Make the key").click()
    await expect(page.locator("#made-key code")).to_have_text(KEY)
    await page.get_by_role("button", name="I have it").click()
    await expect(page.locator("#made-key")).to_be_empty()
    made = page.locator("#key-list > li", has_text=name)
    await expect(made).to_contain_text("submit, models")
    await expect(made).to_contain_text("never used · 0 of 7 tasks at once")
    page.on("dialog", lambda question: question.accept())
    await page.get_by_role("button", name=f"Revoke {name}").click()
    await expect(made).to_have_count(0)
    assert [key["revoked"] is None for key in core.get("/api/keys/").json() if key["name"] == name] == [False]


async def test_shows_who_did_what(open_tab: TabOpener, stack: Stack, api: Api, core: Api, waiting: str) -> None:
    """What was refused stands out."""
    uid = api.post(waiting, INPUT)
    assert api.call("POST", f"/api/tasks/{uid}/retry").status_code == 409
    eventually(lambda: len(core.call("GET", "/api/audit/", params={"task": uid}).json()) == 2)
    page = (await _dashboard(open_tab, stack)).page
    entries = page.locator("#audit-list > li", has_text=uid)
    await expect(entries).to_contain_text(["task.retried: 409", "task.submitted"])
    await expect(entries.first.locator(".bad")).to_have_count(1)
    await expect(entries.last).to_contain_text("anybody")
