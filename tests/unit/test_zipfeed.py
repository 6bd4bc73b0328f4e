"""A zip at core as a file, for threads."""

import asyncio
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from core.client import CoreAccess, CoreClient
from core.contract.task import Blob
from gpu_agent.zipfeed import BLOCK_BYTES, with_zip_file

JOBS = 4
SECONDS = 20


@pytest.mark.asyncio(loop_scope="function")  # its pool is its own
async def test_threads_that_wait_for_reads_keep_none_from_looking_up_core() -> None:
    """Names are looked up in threads of the loop's pool: more zips at once than these must not take them all."""
    content = os.urandom(BLOCK_BYTES + 1)

    async def give(request: web.Request) -> web.Response:
        return web.Response(status=206, body=content[request.http_range])

    def read(file: BinaryIO) -> None:
        digests.append(hashlib.sha256(file.read()).digest())

    digests: list[bytes] = []
    app = web.Application()
    app.router.add_get("/{path:.*}", give)
    async with asyncio.timeout(SECONDS), TestServer(app, host="localhost") as server:
        access = CoreAccess(core_url=f"http://localhost:{server.port}", core_token=SecretStr("token"))
        async with CoreClient.open(access) as core, asyncio.TaskGroup() as jobs:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=JOBS - 1))
            for _ in range(JOBS):
                jobs.create_task(
                    with_zip_file(
                        Blob(id="z", size=len(content)),
                        lambda offset, length: core.input_range("x" * 43, offset, length),
                        read,
                    )
                )
    assert digests == [hashlib.sha256(content).digest()] * JOBS
