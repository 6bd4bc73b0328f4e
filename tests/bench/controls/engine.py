"""What any task costs that runs a container: the engine's API and nothing else, over its socket.

Two named volumes bound to folders, the input written, the container created, started, awaited and removed, the output
read, the volumes removed.
"""

import http.client
import json
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

CALL_SECONDS = 60


class BareEngine:
    """One connection, kept alive. Its folders are in `folder`."""

    def __init__(self, docker_host: str, folder: Path) -> None:
        self._path = docker_host.removeprefix("unix://")
        self._folder = folder
        self._connection = self._connect()
        self.start_seconds: list[float] = []
        """What each start call took."""

    def run(self, image: str, name: str, content: bytes) -> bytes:
        """What the container made, in the file `name` of its output, of the file `name` of its input."""
        id = f"bench-{secrets.token_hex(8)}"
        folders = {place: self._folder / id / place for place in ("input", "output")}
        for place, folder in folders.items():
            folder.mkdir(parents=True)
            options = {"type": "none", "o": "bind", "device": str(folder)}
            self._call("POST", "/volumes/create", {"Name": f"{id}-{place}", "DriverOpts": options})
        (folders["input"] / name).write_bytes(content)
        binds = [f"{id}-input:/input:ro", f"{id}-output:/output"]
        created = {"Image": image, "HostConfig": {"Binds": binds, "NetworkMode": "none"}}
        container = self._call("POST", "/containers/create", created)["Id"]
        before = time.perf_counter()
        self._call("POST", f"/containers/{container}/start")
        self.start_seconds.append(time.perf_counter() - before)
        ended = self._call("POST", f"/containers/{container}/wait")
        assert ended["StatusCode"] == 0, ended
        output = (folders["output"] / name).read_bytes()
        self._call("DELETE", f"/containers/{container}")
        for place in folders:
            self._call("DELETE", f"/volumes/{id}-{place}")
        shutil.rmtree(self._folder / id)
        return output

    @contextmanager
    def events(self, *kinds: str) -> Iterator[Iterator[tuple[str, float]]]:
        """Kind and time, in seconds, of what happens to containers from now on, for ever."""
        filters = json.dumps({"type": ["container"], "event": list(kinds)}, separators=(",", ":"))
        with closing(self._connect()) as connection:
            connection.request("GET", f"/events?filters={filters}")
            with connection.getresponse() as answer:
                yield ((event["Action"], event["timeNano"] / 1e9) for event in map(json.loads, answer))

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status < 300, f"{method} {path}: {content.decode()}"
        return json.loads(content) if content else None

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=CALL_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(CALL_SECONDS)
        connection.sock.connect(self._path)
        return connection
