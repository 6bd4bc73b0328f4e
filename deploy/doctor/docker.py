"""Docker: the engine, Compose, what the engine needs of the kernel, GPUs, a swarm."""

import getpass
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.compose import INSTALLATION
from deploy.compose import OLDEST as OLDEST_COMPOSE
from deploy.doctor.finding import Finding, broken, ok, warning
from deploy.doctor.site import NOT_FOUND, TOO_SLOW, Said, Site
from gpu_agent import sandbox

OLDEST_API: Final = (1, 41)
"""Engine 20.10's."""

CDI_FOLDERS: Final = ("/etc/cdi", "/var/run/cdi")
_NVIDIA: Final = "0x10de"
_DISPLAY: Final = ("0x0300", "0x0302")
"""PCI classes: graphics cards, and those without an output."""

_UUID: Final = re.compile(r"^GPU UUID:[ \t]*(GPU-\S+)", re.MULTILINE)
GPU_FILE: Final = "deploy/gpu.yaml"
TOOLKIT: Final = (
    "install nvidia-container-toolkit from NVIDIA's repository; then "
    "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"
)


def engine(site: Site) -> Iterator[Finding]:
    yield judge_engine(site.engine, user=getpass.getuser())
    if site.engine_info:
        yield from judge_info(site.engine_info)
        yield from judge_isolation(site.engine_info)


def judge_engine(said: Said, *, user: str) -> Finding:
    if said.code == NOT_FOUND:
        return broken("there is no docker command", INSTALLATION)
    if not said.is_well:
        words = said.error.splitlines()[-1] if said.error else "no answer"
        if said.code == TOO_SLOW:
            return broken(words, "`sudo systemctl restart docker`, if it stays so")
        if "permission denied" in words:
            return broken(
                f"{user} may not use the Docker engine", f"`sudo usermod -aG docker {user}`, then log in again"
            )
        return broken(words, "`sudo systemctl start docker`, or set DOCKER_HOST to where the engine listens")
    server = json.loads(said.out)["Server"]
    seen = f"Docker {server['Version']}, API {server['ApiVersion']}, {server['Os']} {server.get('KernelVersion', '')}"
    if version(server["ApiVersion"]) < OLDEST_API:
        return broken(f"{seen}: older than 20.10", INSTALLATION)
    return ok(seen)


def judge_info(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Without these of the kernel's, what a model may take of the host has no bounds."""
    missing = [name for name in ("MemoryLimit", "PidsLimit", "CpuCfsQuota") if not info.get(name)]
    if missing:
        yield broken(
            f"the kernel can't bound containers: {', '.join(missing)}",
            "add cgroup_enable=memory to the kernel's command line, and reboot",
        )
    else:
        yield ok(f"cgroup v{info.get('CgroupVersion', '1')}, {info.get('Driver')}, in {info.get('DockerRootDir')}")
    if not info.get("SwapLimit"):
        yield warning(
            "the kernel can't keep containers from swapping: their memory's limit is none for the host's disk",
            "add swapaccount=1 to the kernel's command line, and reboot; or `sudo swapoff -a`",
        )


def judge_isolation(info: Mapping[str, Any]) -> Iterator[Finding]:
    """What lies between a model and the host's kernel beside its limits."""
    if not sandbox.filters_calls(info):
        yield broken(
            "the engine filters no system calls (seccomp)",
            "take seccomp-profile out of /etc/docker/daemon.json, then `sudo systemctl restart docker`",
        )
    options = info.get("SecurityOptions") or ()
    is_mapped = any(option.startswith(("name=userns", "name=rootless")) for option in options)
    yield ok(f"root in a container is {'nobody' if is_mapped else 'root without capabilities'} on the host")


def compose(site: Site) -> Iterator[Finding]:
    yield judge_compose(site.run("docker", "compose", "version", "--short"))
    if site.env_file.exists():
        said = site.run("docker", "compose", "config", "--quiet")
        if not said.is_well:
            yield broken(
                f"Compose refuses the set-up: {said.error.splitlines()[-1]}", "correct .env, or docker-compose.yaml"
            )


def judge_compose(said: Said) -> Finding:
    oldest = ".".join(map(str, OLDEST_COMPOSE))
    if not said.is_well:
        return broken("Docker Compose v2 is missing", INSTALLATION)
    seen = said.out.strip()
    if version(seen) < OLDEST_COMPOSE:
        return broken(f"Docker Compose {seen} is older than {oldest}", INSTALLATION)
    return ok(f"Docker Compose {seen}")


def gpus(site: Site) -> Iterator[Finding]:
    cards = [card for card in site.pci.glob("*") if _is_gpu(card)]
    texts = [path.read_text() for path in sorted(site.driver.glob("gpus/*/information"))]
    driven = [match[1] for text in texts if (match := _UUID.search(text))]
    yield from judge_driver(len(cards), driven, has_driver=site.driver.is_dir())
    if site.driver.is_dir():
        names = [file.name for folder in CDI_FOLDERS for file in Path(folder).glob("*")]
        if site.engine_info:
            yield judge_gpu_runtime(site.engine_info, names)
    yield from judge_compose_file(site.setting("COMPOSE_FILE"), has_driver=site.driver.is_dir())


def judge_driver(cards: int, driven: Sequence[str], *, has_driver: bool) -> Iterator[Finding]:
    if not has_driver:
        if cards:
            yield broken(
                f"{cards} NVIDIA GPUs in this host, and no driver",
                "install NVIDIA's driver (nvidia-driver on Debian), then reboot",
            )
        else:
            yield ok("none in this host: models that use no GPU run here")
        return
    if len(driven) < cards:
        yield broken(
            f"the driver has {len(driven)} of the {cards} NVIDIA GPUs in this host",
            "`sudo dmesg | grep -E 'NVRM|Xid'` says why; a reboot brings a lost one back, if it isn't defective",
        )
    asleep = [uuid for uuid in driven if uuid.startswith("GPU-?")]
    if asleep:
        yield warning(
            f"{len(asleep)} GPUs show no UUID before their first use", "`sudo nvidia-smi -pm 1`, at each boot"
        )
    if len(driven) >= cards and not asleep:
        yield ok(", ".join(driven) or "a driver, and no GPU")


def judge_gpu_runtime(info: Mapping[str, Any], cdi_files: Sequence[str]) -> Finding:
    """The engine gives containers GPUs through the toolkit's runtime, or by CDI descriptions."""
    if "nvidia" in info.get("Runtimes", {}):
        return ok("the engine has the nvidia runtime")
    devices = [device.get("ID", "") for device in info.get("DiscoveredDevices") or ()]
    if any(device.startswith("nvidia.com/gpu") for device in devices) or (
        info.get("CDISpecDirs") and any("nvidia" in name for name in cdi_files)
    ):
        return ok("the engine knows the GPUs by CDI")
    return broken("the engine can't give GPUs to containers: it has neither the nvidia runtime nor CDI", TOOLKIT)


def judge_compose_file(compose_file: str, *, has_driver: bool) -> Iterator[Finding]:
    if has_driver and compose_file and GPU_FILE not in compose_file:
        yield broken(
            f"COMPOSE_FILE in .env lacks {GPU_FILE}: the agent can't look after the GPUs",
            f"`COMPOSE_FILE={compose_file}:{GPU_FILE}` in .env; then `just up`",
        )
    if GPU_FILE in compose_file and not has_driver:
        without = ":".join(file for file in compose_file.split(":") if file != GPU_FILE)
        yield broken(
            f"COMPOSE_FILE in .env names {GPU_FILE}, and there is no NVIDIA driver",
            f"`sudo modprobe nvidia`, or `COMPOSE_FILE={without}` in .env; then `just up`",
        )


def swarm(site: Site) -> Iterator[Finding]:
    state = site.engine_info.get("Swarm", {})
    if state.get("LocalNodeState") != "active" or not state.get("ControlAvailable"):
        return
    nodes = _rows(site.run("docker", "node", "ls", "--format", "{{json .}}"))
    services = _rows(site.run("docker", "service", "ls", "--format", "{{json .}}"))
    yield from judge_swarm(nodes, services)


def judge_swarm(nodes: Sequence[Mapping[str, str]], services: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    wrong = []
    for node in nodes:
        if node["Status"] != "Ready":
            fix = f"look at that host; if it won't come back, `docker node rm --force {node['Hostname']}`"
            wrong.append(broken(f"the node {node['Hostname']} is {node['Status']}", fix))
        elif node["Availability"] != "Active":
            fix = f"`docker node update --availability active {node['Hostname']}`"
            wrong.append(warning(f"the node {node['Hostname']} takes nothing: {node['Availability']}", fix))
    for service in services:
        running, _, wanted = service["Replicas"].split(" ")[0].partition("/")
        if running != wanted:
            fix = f"`docker service ps --no-trunc {service['Name']}` says why"
            wrong.append(broken(f"{service['Name']}: {running} of {wanted} run", fix))
    yield from wrong or [ok(f"{len(nodes)} nodes are ready, {len(services)} services are whole")]


def version(text: str) -> tuple[int, ...]:
    """Its first two numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _rows(said: Said) -> list[dict[str, str]]:
    return [json.loads(line) for line in said.out.splitlines()]


def _is_gpu(card: Path) -> bool:
    vendor, kind = ((card / name).read_text().strip() for name in ("vendor", "class"))
    return vendor == _NVIDIA and kind.startswith(_DISPLAY)
