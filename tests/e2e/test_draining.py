"""SIGTERM: what runs ends well or is handed back, and nothing stays."""

import signal
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from demo.image import docker
from demo.stack import Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.waiting import eventually
from tests.zips import files_of


def _containers(stack: Stack, agent: str) -> str:
    return docker(stack.docker_host, "ps", "-aq", "--filter", f"label=inference-server.agent={agent}")


def _task(core: Api, uid: str) -> dict[str, Any]:
    task: dict[str, Any] = core.get(f"/api/tasks/{uid}").json()
    return task


def test_an_agent_lets_its_task_end(api: Api, core: Api, stack: Stack, model: ModelMaker, tmp_path: Path) -> None:
    """It takes no other one, delivers, and stops."""
    slow = model("sleep 3; echo done > /output/done")
    with own_agent(stack, tmp_path, "ending") as agent:
        first = api.post(slow, INPUT)
        eventually(lambda: agent.said("container.started"))
        agent.process.send_signal(signal.SIGTERM)
        eventually(lambda: agent.said("agent.draining"))
        second = api.post(slow, INPUT)
        assert agent.process.wait(timeout=60) == 0
        assert files_of(api.get(f"/api/tasks/{first}").content) == {"done": b"done\n"}
        assert (_task(core, first)["attempt"], _task(core, second)["attempt"]) == (1, 0)
        assert _containers(stack, "ending") == ""
    assert api.wait(second).status_code == 200


def test_what_runs_longer_is_handed_back(api: Api, core: Api, stack: Stack, model: ModelMaker, tmp_path: Path) -> None:
    """Its container is killed, the task waits for the next agent with all its tries, and no lease has to run out."""
    long = model("sleep 1000")
    with own_agent(stack, tmp_path, "handing-back", DRAIN_SECONDS="0.2") as agent:
        uid = api.post(long, INPUT)
        eventually(lambda: agent.said("container.started"))
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(timeout=60) == 0
        assert _task(core, uid)["state"] == "pending"
        assert _containers(stack, "handing-back") == ""
        assert core.delete(uid).status_code == 200


def test_a_gateway_lets_an_upload_end(api: Api, stack: Stack, copying: str) -> None:
    """The client that was in the middle of it gets its uid, and is told to come back on another connection."""
    context = ssl.create_default_context(cafile=str(stack.certificates.ca_cert))
    head = (
        f"POST /api/tasks/?model_human_readable_id={copying} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/zip\r\nContent-Length: {len(INPUT)}\r\n\r\n"
    )
    with (
        socket.create_connection(("localhost", stack.ports.gateway), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(head.encode() + INPUT[:10])
        stopping = threading.Thread(target=stack.stop, args=("gateway",))
        stopping.start()
        eventually(lambda: "server.draining" in stack.log("gateway").read_text())
        connection.sendall(INPUT[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        stopping.join()
    stack.start("gateway")
    assert answer.startswith("HTTP/1.1 200")
    assert "connection: close" in answer.lower()
    uid = answer.rpartition("\r\n\r\n")[2].strip('"')
    assert files_of(api.wait(uid).content)["hello.txt"] == files_of(INPUT)["hello.txt"]
