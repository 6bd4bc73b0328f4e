"""What a hostile model tries, and what comes of it. What may do harm runs alone, and others' tasks go on beside it."""

import json
import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

import pytest

from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import TASK
from gpu_agent.job import FILE_TOO_LARGE
from tests.e2e.api import NOT_YET, Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.images import Images
from tests.waiting import eventually
from tests.zips import files_of, zip_of

MiB = 2**20
NOT_PERMITTED, NOT_THERE = "1", "38"
NEIGHBOURS = "neighbours.txt"

SYSTEM_CALLS = {
    # To other namespaces, roots and mounts.
    "unshare_user": "272, 0x10000000",
    "unshare_mount": "272, 0x20000",
    "clone_user": "56, 0x10000000 | 17, 0, 0, 0, 0",
    "clone3": "435, $nothing, 64",
    "setns": "308, 0, 0",
    "mount": '165, "none", "/tmp", "tmpfs", 0, 0',
    "umount": '166, "/proc", 2',
    "pivot_root": '155, "/", "/tmp"',
    "chroot": '161, "/"',
    "open_tree": '428, -100, "/", 1',
    "fsopen": '430, "tmpfs", 0',
    # To files past the file system's own names: the way out that was called Shocker.
    "open_by_handle_at": "304, -100, $nothing, 0",
    "mknod_disk": '133, "/tmp/disk", 0060600, 0xfe00',
    # To the kernel.
    "bpf": "321, 0, $nothing, 64",
    "perf_event_open": "298, $nothing, 0, -1, -1, 0",
    "userfaultfd": "323, 0",
    "kexec_load": "246, 0, 0, 0, 0",
    "init_module": '175, $nothing, 0, ""',
    "iopl": "172, 3",
    "swapon": '167, "/tmp/x", 0',
    "reboot": "169, 0xfee1dead, 672274793, 0, 0",
    "settimeofday": "164, 0, 0",
    "sethostname": '170, "x", 1',
    "syslog": "103, 3, $nothing, 64",
    "acct": '163, "/tmp/x"',
    # To keys that others have in the kernel's keyring, which has no namespace.
    "keyctl": "250, 0, -3, 1",
    "add_key": '248, "user", "x", "x", 1, -3',
    "request_key": '249, "user", "x", "", 0',
    # To the network below the sockets.
    "raw_socket": "41, 2, 3, 1",
    "packet_socket": "41, 17, 3, 768",
}
"""By x86-64's numbers, as Perl passes the arguments: such that would do no harm if they were let through."""

PERL = r"""
my $nothing = "\0" x 256;
sub attempt {
    my ($name, @call) = @_;
    print "$name ", syscall($call[0], @call[1 .. $#call]) < 0 ? $! + 0 : "done", "\n";
}
"""

NETWORK = {
    "metadata": "nc -w 3 169.254.169.254 80",
    "outside": "nc -w 3 192.0.2.1 443",
    "outside_ipv6": "nc -w 3 2001:db8::1 443",
    "bridge": "nc -w 3 172.17.0.1 2375",
    "address": "ip address add 192.0.2.2/24 dev lo",
}
FILES = {
    "passwords": "cat /etc/shadow /proc/1/root/etc/shadow",
    "engine": "ls /var/lib/docker",
    "socket": "ls /var/run/docker.sock /run/docker.sock /run/containerd",
    "memory": "cat /dev/mem",
    "kernel_memory": "cat /proc/kcore",
    "kernel_log": "cat /dev/kmsg",
    "disk": "mknod /tmp/disk b 254 0",
    "firmware": "cat /sys/firmware/*/*",
}
WRITES = {
    "core_pattern": ": >> /proc/sys/kernel/core_pattern",
    "any_setting": "sysctl -w vm.overcommit_memory=1",
    "sysrq": ": >> /proc/sysrq-trigger",
    "uevent_helper": ": >> /sys/kernel/uevent_helper",
    "own_memory": "echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo max > /sys/fs/cgroup/memory.max",
    "own_processes": "echo max > /sys/fs/cgroup/pids/pids.max || echo max > /sys/fs/cgroup/pids.max",
    "release_agent": ": >> /sys/fs/cgroup/memory/release_agent || mkdir /sys/fs/cgroup/own",
    "input": "touch /input/x || rm -f /input/hello.txt && test ! -e /input/hello.txt",
    "remount": "mount -o remount,rw /input",
    "bind_mount": "mount -o bind /tmp /input",
    "shared_memory": "dd if=/dev/zero of=/dev/shm/x bs=1M count=17",
}
SHOWN = {
    "control": "cat /input/hello.txt",
    "mounts": "cat /proc/self/mountinfo",
    "status": "cat /proc/self/status",
    "processes": "cat /proc/[0-9]*/comm",
    "devices": "find /dev -type c -o -type b",
    "environment": 'cat /proc/self/environ | tr "\\0" "\\n"',
    "interfaces": "ls /sys/class/net",
    "resolver": "cat /etc/resolv.conf",
    "hostname": "cat /proc/sys/kernel/hostname",
    "neighbours": f"find / -path /proc -prune -o -path /sys -prune -o -name {NEIGHBOURS} -print",
    "limits": "cat /proc/self/limits",
}
ASKED_FOR = {
    "Privileged": False,
    "CapAdd": None,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "NetworkMode": "none",
    "Dns": ["127.0.0.1"],
    "DnsSearch": ["."],
    "IpcMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "UsernsMode": "",
    "Binds": None,
    "VolumesFrom": None,
    "Devices": None,
    "DeviceRequests": None,
    "GroupAdd": None,
    "Init": True,
    "ReadonlyRootfs": True,
    "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=16m"},
    "Memory": 64 * MiB,
    "MemorySwap": 64 * MiB,
    "NanoCpus": 500_000_000,
    "CpuShares": 512,
    "PidsLimit": 64,
    "ShmSize": 16 * MiB,
    "Ulimits": [
        {"Name": "core", "Soft": 0, "Hard": 0},
        {"Name": "fsize", "Soft": 33 * MiB, "Hard": 33 * MiB},
    ],
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "16m", "max-file": "1"}},
}
TRY = 'attempt() { sh -c "$2" > "/output/$1" 2>&1 < /dev/null; echo "exit $?" >> "/output/$1"; }\n'


@pytest.fixture(scope="module")
def attempts(api: Api, core: Api, stack: Stack, model: ModelMaker) -> Mapping[str, str]:
    """What came of each attempt of one container, while another task runs: what it printed, and how it ended."""
    here = {
        "services": " ; ".join(f"nc -w 1 127.0.0.1 {port} && exit 0" for port in astuple(stack.ports)) + "; exit 1",
        "host": f"nc -w 3 {_own_address()} {stack.ports.core}",
        "work_dir": f"ls {' '.join(map(str, stack.work_dirs))}",
        "own_engine": f"ls {stack.docker_host.removeprefix('unix://')}",
    }
    commands = NETWORK | FILES | WRITES | SHOWN | here
    script = TRY + "".join(f"attempt {name} '{command}'\n" for name, command in commands.items())
    neighbour = api.post(model("sleep 600"), zip_of({NEIGHBOURS: b"42"}))
    _wait_until_it_runs(core, neighbour)
    output = files_of(api.output(model(script, shm_mb="16", memory_mb="256"), INPUT))
    assert api.get(f"/api/tasks/{neighbour}").status_code == NOT_YET
    api.delete(neighbour)
    return {name: text.decode(errors="replace") for name, text in output.items()}


def _own_address() -> str:
    """Of this machine, as others reach it; nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(connection.getsockname()[0])


def _wait_until_it_runs(core: Api, uid: str) -> None:
    eventually(lambda: core.get(f"/api/tasks/{uid}").json()["state"] == "running")


def _failed(text: str) -> bool:
    return not text.endswith("exit 0\n")


def test_an_attempt_that_may_succeed_does(attempts: Mapping[str, str]) -> None:
    """So that those that fail don't fail for the test's own sake."""
    assert attempts["control"] == "Hello, model!\nexit 0\n"


@pytest.mark.parametrize("way", [*NETWORK, "services", "host"])
def test_no_way_to_the_network(attempts: Mapping[str, str], way: str) -> None:
    """Not to a cloud's metadata, not to the outside or the bridge, not to the host or what listens there."""
    assert _failed(attempts[way])
    assert re.search("unreachable|refused|Cannot assign requested address|not permitted", attempts[way])


def test_no_interface_and_no_name_server(attempts: Mapping[str, str]) -> None:
    """Its own loopback; what the host's name servers are isn't told."""
    assert attempts["interfaces"] == "lo\nexit 0\n"
    assert re.findall(r"^nameserver (\S+)", attempts["resolver"], re.MULTILINE) == ["127.0.0.1"]


@pytest.mark.parametrize("way", [*FILES, "work_dir", "own_engine"])
def test_no_way_to_the_hosts_files(attempts: Mapping[str, str], way: str) -> None:
    """Not to passwords, nor to the engine's socket and folders, nor past the file system to disks and memory."""
    assert _failed(attempts[way])
    assert "root:" not in attempts[way]


def test_nothing_is_mounted_but_its_own(attempts: Mapping[str, str]) -> None:
    """Beside what each container has: its input, read-only, and its output."""
    lines = [line.split() for line in attempts["mounts"].splitlines()[:-1]]
    mounts = {line[4]: line[5].split(",") for line in lines}
    own = {path for path in mounts if not re.match(r"/(proc|sys|dev)(/|$)", path)}
    assert own == {"/", "/input", "/output", "/sbin/docker-init", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    assert "ro" in mounts["/input"]
    # In cgroup v1 its folders are mounted below one in memory, which nobody may write to either.
    assert all("ro" in mounts[path] for path in mounts if path.startswith("/sys") and path != "/sys/fs/cgroup")


def test_another_tasks_files_are_nowhere(attempts: Mapping[str, str]) -> None:
    """Of a task that runs on the same host at the same time."""
    assert NEIGHBOURS not in attempts["neighbours"]


def test_no_process_of_anybody_else_is_seen(attempts: Mapping[str, str]) -> None:
    """Neither the host's nor another container's."""
    assert set(attempts["processes"].split()) <= {"docker-init", "sh", "cat", "exit", "0", "1"}


def test_no_device_but_the_harmless(attempts: Mapping[str, str]) -> None:
    """Those that each container has."""
    harmless = {"full", "null", "ptmx", "random", "tty", "urandom", "zero"}
    assert {line.removeprefix("/dev/") for line in attempts["devices"].splitlines()[:-1]} <= harmless | {"pts/ptmx"}


def test_the_environment_holds_no_secret(attempts: Mapping[str, str]) -> None:
    """Nothing of the agent's, and not the host's name."""
    names = {line.partition("=")[0] for line in attempts["environment"].splitlines() if "=" in line}
    assert names <= {"PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "OLDPWD"}
    assert attempts["hostname"] == "model\nexit 0\n"


@pytest.mark.parametrize("way", WRITES)
def test_nothing_of_the_host_is_written(attempts: Mapping[str, str], way: str) -> None:
    """Not the kernel's settings, not the container's own bounds, not the input."""
    assert _failed(attempts[way])


def test_it_has_no_power_and_gets_none(attempts: Mapping[str, str]) -> None:
    """No capability, none to be had from a program, system calls filtered, no core dump."""
    status = dict(line.split(":\t", 1) for line in attempts["status"].splitlines() if ":\t" in line)
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert re.search(r"Max core file size +0 +0 ", attempts["limits"])


@pytest.fixture(scope="module")
def answers(api: Api, model: ModelMaker) -> Mapping[str, str]:
    """What the kernel said to each of the system calls."""
    if platform.machine() != "x86_64":
        pytest.skip("the numbers are x86-64's")
    calls = "".join(f'attempt("{name}", {call});\n' for name, call in SYSTEM_CALLS.items())
    script = f"perl -e '{PERL}{calls}' > /output/answers"
    output = files_of(api.output(model(script, programs=("perl",)), INPUT))
    return dict(line.split() for line in output["answers"].decode().splitlines())


@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_a_system_call_is_refused(answers: Mapping[str, str], call: str) -> None:
    """By the filter, or because the container has no capability for it."""
    assert answers[call] in (NOT_PERMITTED, NOT_THERE)


def test_a_setuid_program_gives_nothing(api: Api, model: ModelMaker) -> None:
    """Of the image's own, which belongs to root."""
    script = "$(command -v /usr/bin/cat /bin/cat | head -n 1) /proc/self/status > /output/status"
    status = files_of(api.output(model(script, user="1234:1234", programs=("cat",), mode=0o4755), INPUT))["status"]
    assert re.search(rb"^Uid:\t1234\t1234\t1234\t1234$", status, re.MULTILINE)


def test_a_fork_bomb_is_bounded(api: Api, core: Api, copying: str, model: ModelMaker) -> None:
    """It ends with its time, and others' tasks go on."""
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 600"
    uid = api.post(model(f"({bomb}) 2>/dev/null; sleep 600", pids="64", timeout_seconds="5"), INPUT)
    _goes_on_beside(api, core, copying, uid)
    assert api.wait(uid).json()["detail"]["reason"] == "timeout"


@pytest.mark.parametrize("way", ["tail /dev/zero", "dd if=/dev/zero of=/dev/shm/x bs=1M count=128"])
def test_memory_is_bounded(api: Api, core: Api, copying: str, model: ModelMaker, way: str) -> None:
    """Its own, and what it shares within: others' tasks go on."""
    uid = api.post(model(f"sleep 1; {way}", memory_mb="48", shm_mb="256", max_attempts="1"), INPUT)
    _goes_on_beside(api, core, copying, uid)
    assert api.wait(uid).json()["detail"]["reason"] == "out_of_memory"


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ("dd if=/dev/zero of=/x bs=1M count=64", "disk_limit", "larger disk_mb"),
        ("dd if=/dev/zero of=/tmp/x bs=1M count=64", "disk_limit", "larger disk_mb"),
        *(
            (f"dd if=/dev/zero of=/etc/{name} bs=1M count=64", "disk_limit", "larger disk_mb")
            for name in ("hosts", "hostname", "resolv.conf")
        ),
        ("dd if=/dev/zero of=/output/x bs=1M count=64", "output_too_large", "larger output_mb"),
        ("mkdir /output/a; dd if=/dev/zero of=/output/a/x bs=1M count=64", "output_too_large", "larger output_mb"),
        ("for i in $(seq 200); do mkdir x; cd x; done", "output_invalid", "nested"),
    ],
)
def test_the_disk_is_bounded_while_it_runs(
    api: Api, core: Api, copying: str, model: ModelMaker, script: str, reason: str, words: str
) -> None:
    """The container ends long before it would by itself, and the user is told what to do; others' tasks go on."""
    limits = {"disk_mb": "32", "output_mb": "32"}
    uid = api.post(model(f"cd /output; sleep 1; {script}; sleep 600", **limits), INPUT)
    _goes_on_beside(api, core, copying, uid)
    detail = api.wait(uid).json()["detail"]
    assert (detail["reason"], detail["exit_code"]) == (reason, None)
    assert words in detail["message"]


def test_a_file_without_a_name_is_bounded(api: Api, model: ModelMaker) -> None:
    """Nobody sees how large it is; a pipe may carry more."""
    script = """
        test $(dd if=/dev/zero bs=1M count=64 | wc -c) = 67108864 || exit 1
        exec 3> /output/x; rm /output/x; exec dd if=/dev/zero bs=1M count=64 >&3
    """
    bounds = {"disk_mb": "16", "output_mb": "32", "shm_mb": "16", "read_only": "true", "tmp_mb": "16"}
    failure = api.failure(model(script, **bounds), INPUT)
    assert (failure["reason"], failure["exit_code"]) == ("disk_limit", FILE_TOO_LARGE)
    assert "more than 33 MB to one file" in failure["message"]


def test_what_the_engine_is_asked_for(api: Api, core: Api, stack: Stack, model: ModelMaker) -> None:
    """All by which a container's bounds are told to the engine: those that nothing else shows, too."""
    bounds = {"memory_mb": "64", "cpus": "0.5", "pids": "64", "shm_mb": "16", "read_only": "true", "tmp_mb": "16"}
    uid = api.post(model("sleep 600", disk_mb="32", output_mb="16", **bounds), INPUT)
    _wait_until_it_runs(core, uid)
    wanted = "--filter", f"label={TASK}={uid}"
    eventually(lambda: docker(stack.docker_host, "ps", "--quiet", *wanted))
    container = docker(stack.docker_host, "ps", "--quiet", *wanted).strip()
    [shown] = json.loads(docker(stack.docker_host, "inspect", container))
    assert {name: shown["HostConfig"][name] for name in ASKED_FOR} == ASKED_FOR
    assert shown["Config"]["Hostname"] == "model"
    api.delete(uid)


def test_a_volume_that_the_image_declares_is_bounded(api: Api, core: Api, stack: Stack, images: Images) -> None:
    """It is no part of the container's root, and takes as much of the disk."""
    base, tag = (
        images.running("dd if=/dev/zero of=/data/x bs=1M count=64; sleep 600"),
        f"{images.repository}/declares:1",
    )
    docker(stack.docker_host, "build", "--tag", tag, "-", stdin=f"FROM {base}\nVOLUME /data\n".encode())
    parameters = {"human_readable_id": tag, "container_tag": tag, "use_gpu": "false", "disk_mb": "32"}
    core.call("POST", "/api/models/", params=parameters).raise_for_status()
    assert api.failure(tag, INPUT)["reason"] == "disk_limit"
    docker(stack.docker_host, "image", "rm", "--force", tag)


def test_a_log_flood_is_bounded(api: Api, core: Api, stack: Stack, copying: str, model: ModelMaker) -> None:
    """The engine keeps the last 16 MB while it runs, core as much as it is told to, and the user a few lines."""
    uid = api.post(model("yes 0123456789", timeout_seconds="5"), INPUT)
    _wait_until_it_runs(core, uid)
    wanted = "--filter", f"label={TASK}={uid}"
    eventually(lambda: docker(stack.docker_host, "ps", "--quiet", *wanted))
    container = docker(stack.docker_host, "ps", "--quiet", *wanted).strip()
    file = Path(docker(stack.docker_host, "inspect", "--format", "{{.LogPath}}", container).strip())
    largest = 0

    def ended() -> bool:
        nonlocal largest
        largest = max([largest, *(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))])
        return api.call("HEAD", f"/api/tasks/{uid}").status_code != NOT_YET

    _goes_on_beside(api, core, copying, uid)
    eventually(ended)
    assert MiB < largest < 17 * MiB
    detail = api.wait(uid).json()["detail"]
    assert detail["reason"] == "timeout"
    assert len(detail["message"]) < 10_000


def test_a_model_may_have_a_root_that_is_read_only(api: Api, model: ModelMaker) -> None:
    """Then /tmp is memory, as large as it was registered; /output is written as ever."""
    script = """
        touch /x && exit 11
        touch /etc/x && exit 12
        dd if=/dev/zero of=/tmp/x bs=1M count=17 && exit 13
        cp /bin/busybox /tmp/; rm /tmp/x; cp /bin/busybox /tmp/ && /tmp/busybox id -u > /output/id
    """
    assert files_of(api.output(model(script, read_only="true", tmp_mb="16"), INPUT)) == {"id": b"0\n"}


def _goes_on_beside(api: Api, core: Api, copying: str, uid: str) -> None:
    """Another task runs to its end while this one runs."""
    _wait_until_it_runs(core, uid)
    assert files_of(api.output(copying, INPUT)).items() >= files_of(INPUT).items()
    assert core.get(f"/api/tasks/{uid}").json()["attempt"] == 1
