"""What a task costs beyond its container: POST until the output is fetched, against a bare `docker run`.

The control is what a user would type without us: `docker run --rm` of the same image with two named volumes, which the
engine makes on the way. Both do the same work: copy /input to /output.
"""

import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import requests

from demo import image
from demo.ports import Ports
from demo.stack import Stack
from tests.zips import files_of, zip_of

LIMIT = 1.6
POLL_SECONDS = 0.01
NOT_YET = 551


def run(rounds: int) -> int:
    """Prints the table; 1 when the ratio of the medians is over the limit."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stack = Stack(Path(folder) / "stack", Ports.free(), settings={"ALLOW_PUBLIC_POST_MODEL": "yes"})
        stack.up()
        try:
            return _measure(stack, rounds)
        finally:
            stack.down()
            stack.delete()


def _measure(stack: Stack, rounds: int) -> int:
    tag = image.build(stack.docker_host)
    session = requests.Session()
    session.verify = str(stack.certificates.ca_cert)
    session.trust_env = False
    session.post(
        f"{stack.gateway_url}/api/models/",
        params={"container_tag": tag, "human_readable_id": "bench", "use_gpu": "false"},
        timeout=60,
    ).raise_for_status()
    posted = zip_of({"scan.txt": b"0" * 10_000})
    bare, ours = [], []
    for number in range(rounds + 1):
        pair = _bare(stack.docker_host, tag), _task(session, stack.gateway_url, posted)
        if number:  # the first of each warms the caches
            bare.append(pair[0])
            ours.append(pair[1])
    ratio = statistics.median(ours) / statistics.median(bare)
    for name, seconds in (("docker run --rm", bare), ("POST to output", ours)):
        print(f"{name:<16} median {statistics.median(seconds):.3f} s   range {min(seconds):.3f}-{max(seconds):.3f} s")
    print(f"ratio of the medians over {rounds} rounds: {ratio:.2f} (limit {LIMIT})")
    return int(ratio > LIMIT)


def _bare(docker_host: str, tag: str) -> float:
    volumes = [f"bench-{uuid.uuid4().hex}" for _ in range(2)]
    docker = ["docker", "--host", docker_host]
    mounts = ["-v", f"{volumes[0]}:/input", "-v", f"{volumes[1]}:/output"]
    started = time.perf_counter()
    subprocess.run([*docker, "run", "--rm", "--network", "none", *mounts, tag], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    subprocess.run([*docker, "volume", "rm", *volumes], check=True, capture_output=True)
    return seconds


def _task(session: requests.Session, url: str, posted: bytes) -> float:
    started = time.perf_counter()
    answer = session.post(
        f"{url}/api/tasks/",
        params={"model_human_readable_id": "bench"},
        files={"zip_file": ("task.zip", posted)},
        timeout=60,
    )
    answer.raise_for_status()
    while (fetched := session.get(f"{url}/api/tasks/{answer.json()}", timeout=60)).status_code == NOT_YET:
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - started
    fetched.raise_for_status()
    files_of(fetched.content)  # checksums verified
    return seconds
