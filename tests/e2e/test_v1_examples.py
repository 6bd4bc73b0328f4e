"""Version 1's documented way of use, as its users wrote it down in their scripts."""

import time
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from demo.stack import Stack
from tests.e2e.conftest import COPY, INPUT
from tests.images import Images
from tests.zips import files_of


@pytest.mark.parametrize("path", ["/api/models/", "/api/tasks/"], ids=["right", "slip"])
def test_register_post_poll_and_fetch(
    stack: Stack, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The documented script runs unchanged, and also when it registers the model at /api/tasks/."""
    monkeypatch.setenv("NO_PROXY", "localhost")
    tag, model, ca = images.running(COPY), f"documented{path.replace('/', '-')}", str(stack.certificates.ca_cert)
    input_zip, output_zip = tmp_path / "input.zip", tmp_path / "output.zip"
    input_zip.write_bytes(INPUT)

    # Register the model
    url = urljoin(stack.gateway_url, f"{path}?container_tag={tag}&human_readable_id={model}&use_gpu=False")
    res = requests.post(url, verify=ca, timeout=60)
    assert res.ok
    assert res.json()["human_readable_id"] == model

    # Post a task
    url = urljoin(stack.gateway_url, f"/api/tasks/?model_human_readable_id={model}")
    with open(input_zip, "rb") as r:  # noqa: PTH123 - as it was written
        res = requests.post(url, files={"zip_file": r}, verify=ca, timeout=60)
    assert res.ok
    uid = res.json()
    assert len(uid) == 43

    # Get the output
    url = urljoin(stack.gateway_url, f"/api/tasks/{uid}")
    deadline = time.time() + 60
    while True:
        res = requests.get(url, verify=ca, timeout=60)
        if res.status_code != 551:
            break
        assert time.time() < deadline
        time.sleep(0.1)
    assert res.ok
    with open(output_zip, "wb") as f:  # noqa: PTH123
        f.write(res.content)

    assert files_of(output_zip.read_bytes()).items() >= files_of(INPUT).items()
