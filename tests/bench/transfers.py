"""Bytes in and out: through gateway and core into Redis and back, against the bare chain of three hops.

A zip of one stored entry that doesn't compress. The control puts the file's bytes into the same Redis, in chunks of the
same size, and fetches them.
"""

import hashlib
import json
import random
import statistics
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from core.store.blobs import CHUNK_BYTES
from tests.bench.controls.chain import PREFIX, Chain
from tests.bench.processes import TICK_SECONDS, Processes
from tests.bench.rig import FORM, MODEL, NAME, Client, Rig, form_around
from tests.bench.scale import Scale
from tests.bench.table import Limit, Row, at_least, at_most
from tests.bench.transfer import Clients, Order, Receipt

MiB = 2**20
MB, GB = 10**6, 10**9
RATE = at_least(0.6)
CPU = at_most(2.0)
MEMORY_MIB = at_most(24, of_figure=True)
SPREAD = at_most(1.5, of_figure=True)
"""Of the times of transfers of the same size that began together: the longest to the shortest."""

RANGES = 4
CUT_AT = 0.37
"""Where in the file a download breaks off."""


@dataclass
class Runs:
    """What transfers of one kind took, a value for each round."""

    bytes: int
    at_once: int = 1
    seconds: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    growth: list[dict[str, float]] = field(default_factory=list)
    """MiB by which a process's peak rose over what it held when it was fresh, for each transfer at once."""
    spread: list[float] = field(default_factory=list)

    def run(
        self, processes: Processes, orders: Sequence[Order], held_mib: Mapping[str, float] | None = None
    ) -> list[Receipt]:
        """`held_mib`: what each held when it was fresh."""
        with Clients(orders) as clients:
            processes.forget_peaks()
            used = processes.cpu_seconds()
            seconds, receipts = clients.go()
            total = {name: after - used[name] for name, after in processes.cpu_seconds().items()}
            peaks = processes.peak_mib()
        assert all(receipt.status.endswith(("OK", "200 ", "206 ")) for receipt in receipts), receipts
        self.seconds.append(seconds)
        self.cpu.append(total)
        if held_mib:
            self.growth.append({name: (peak - held_mib[name]) / self.at_once for name, peak in peaks.items()})
        took = [receipt.seconds for receipt in receipts]
        self.spread.append(max(took) / min(took))
        return receipts

    @property
    def megabytes_per_second(self) -> list[float]:
        return [self.bytes / MB / seconds for seconds in self.seconds]

    @property
    def cpu_seconds_per_gigabyte(self) -> list[float]:
        return [max(sum(used.values()), TICK_SECONDS) * GB / self.bytes for used in self.cpu]

    def of_process(self, values: Sequence[dict[str, float]]) -> dict[str, float]:
        return {name: statistics.median(value[name] for value in values) for name in values[0]}


def rows(rig: Rig, scale: Scale) -> list[Row]:
    small, large = (_zip_file(rig.folder / f"{size}.zip", size) for size in (scale.small_bytes, scale.large_bytes))
    rig.without_agent()
    with Chain.up(rig.stack) as chain:
        return [*_uploads(rig, chain, scale, small, large), *_downloads(rig, chain, scale, small, large)]


def _uploads(rig: Rig, chain: Chain, scale: Scale, small: Path, large: Path) -> Iterator[Row]:
    size = large.stat().st_size
    control, raw, multipart, little = Runs(size), Runs(size), Runs(size), Runs(small.stat().st_size)
    together, control_together = (Runs(small.stat().st_size * scale.at_once, scale.at_once) for _ in range(2))
    for _ in range(scale.rounds):
        held = rig.refresh()
        ours, theirs = _processes(rig, chain)
        control.run(theirs, [chain.put("large", str(large), size)])
        rig.compact(PREFIX)
        for runs, orders in (
            (little, [_raw(rig, small)]),
            (raw, [_raw(rig, large)]),
            (multipart, [_multipart(rig, large)]),
            (together, [_raw(rig, small)] * scale.at_once),
        ):
            _delete(rig, runs.run(ours, orders, held))
            rig.compact()
        puts = [chain.put(f"small-{number}", str(small), small.stat().st_size) for number in range(scale.at_once)]
        control_together.run(theirs, puts)
        rig.compact(PREFIX)
    yield from _rates(f"upload of {_size(large)}, raw body", raw, control)
    yield from _rates(f"upload of {_size(large)}, form", multipart, control)
    yield _memory(f"upload of {_size(small)}: peak over fresh", little)
    yield _memory(f"upload of {_size(large)}: peak over fresh", raw, little)
    yield from _rates(f"{scale.at_once} uploads of {_size(small)} at once", together, control_together, limit=None)
    yield Row(
        f"{scale.at_once} uploads at once: longest to shortest",
        "",
        together.spread,
        control_together.spread,
        limit=SPREAD,
    )
    yield _memory(f"{scale.at_once} uploads at once: peak over fresh, each", together)


def _downloads(rig: Rig, chain: Chain, scale: Scale, small: Path, large: Path) -> Iterator[Row]:
    size = large.stat().st_size
    little_uid, uid = (_finished(rig, path) for path in (small, large))
    control, whole, little = Runs(size), Runs(size), Runs(small.stat().st_size)
    in_ranges, control_in_ranges = Runs(size), Runs(size)
    bounds = _bounds(size)
    Runs(size).run(chain.processes, [chain.put("large", str(large), size)])
    for _ in range(scale.rounds):
        held = rig.refresh()
        ours, theirs = _processes(rig, chain)
        control.run(theirs, [chain.get("large", 0, size)])
        little.run(ours, [_get(rig, little_uid)], held)
        whole.run(ours, [_get(rig, uid)], held)
        control_in_ranges.run(theirs, [chain.get("large", first, last - first) for first, last in bounds])
        in_ranges.run(ours, [_get(rig, uid, first, last) for first, last in bounds])
    rig.compact(PREFIX)
    yield from _rates(f"download of {_size(large)}", whole, control)
    yield _memory(f"download of {_size(small)}: peak over fresh", little)
    yield _memory(f"download of {_size(large)}: peak over fresh", whole, little)
    yield from _rates(f"download of {_size(large)} in {RANGES} ranges at once", in_ranges, control_in_ranges)
    is_same = _resumed(rig, uid, size) == hashlib.sha256(large.read_bytes()).hexdigest()
    yield Row(
        "download cut and resumed: 1 when the bytes are the same",
        "",
        [float(is_same)],
        limit=at_least(1, of_figure=True),
    )


def _rates(name: str, ours: Runs, control: Runs, *, limit: Limit | None = RATE) -> Iterator[Row]:
    """The rate, and the CPU time."""
    yield Row(name, "MB/s", ours.megabytes_per_second, control.megabytes_per_second, limit=limit)
    per_gigabyte = GB / ours.bytes
    yield Row(
        f"{name}: CPU time",
        "s/GB",
        ours.cpu_seconds_per_gigabyte,
        control.cpu_seconds_per_gigabyte,
        limit=CPU if limit else None,
        cpu={name: used * per_gigabyte for name, used in ours.of_process(ours.cpu).items()},
        control_cpu={name: used * per_gigabyte for name, used in control.of_process(control.cpu).items()},
        cpu_unit="s/GB",
    )


def _memory(name: str, ours: Runs, smaller: Runs | None = None) -> Row:
    """Of whichever of gateway and core needs more. The control is the smaller transfer: memory is flat."""
    return Row(
        name,
        "MiB",
        _larger(ours),
        control=[max(value, 1.0) for value in _larger(smaller)] if smaller else (),
        limit=MEMORY_MIB,
        memory={name: f"+{growth:.1f} MiB" for name, growth in ours.of_process(ours.growth).items() if name != "redis"},
    )


def _larger(runs: Runs) -> list[float]:
    return [max(growth["gateway"], growth["core"]) for growth in runs.growth]


def _processes(rig: Rig, chain: Chain) -> tuple[Processes, Processes]:
    ours = rig.processes().only("gateway", "core", "redis")
    return ours, Processes({**chain.processes.pids, **ours.only("redis").pids})


def _zip_file(path: Path, content_bytes: int) -> Path:
    """A zip of one stored entry; the same bytes in each run."""
    chance = random.Random(content_bytes)
    with zipfile.ZipFile(path, "w") as archive, archive.open(NAME, "w", force_zip64=True) as entry:
        for _ in range(content_bytes // MiB):
            entry.write(chance.randbytes(MiB))
    return path


def _raw(rig: Rig, path: Path) -> Order:
    return _post(rig, path, "application/zip", b"", b"")


def _multipart(rig: Rig, path: Path) -> Order:
    return _post(rig, path, FORM, *form_around())


def _post(rig: Rig, path: Path, content_type: str, before: bytes, after: bytes) -> Order:
    length = path.stat().st_size + len(before) + len(after)
    head = _head("POST", f"/api/tasks/?model_human_readable_id={MODEL}", type=content_type, length=str(length))
    return _order(rig, head + before.decode(), file=str(path), tail=after.decode())


def _get(rig: Rig, uid: str, first: int = 0, last: int | None = None) -> Order:
    range = {"range": f"bytes={first}-{last - 1}"} if last is not None else {}
    return _order(rig, _head("GET", f"/api/tasks/{uid}", **range))


def _head(method: str, path: str, **headers: str) -> str:
    names = {"type": "Content-Type", "length": "Content-Length", "range": "Range"}
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{names[key]}: {headers[key]}" for key in headers)]
    return "\r\n".join(lines) + "\r\n\r\n"


def _order(rig: Rig, head: str, *, file: str | None = None, tail: str = "") -> Order:
    return Order(rig.stack.ports.gateway, str(rig.stack.certificates.ca_cert), head, file, tail)


def _delete(rig: Rig, receipts: Sequence[Receipt]) -> None:
    core = rig.core()
    with core.session:
        for receipt in receipts:
            core.delete(json.loads(receipt.body)).raise_for_status()


def _finished(rig: Rig, output: Path) -> str:
    with output.open("rb") as file:
        return rig.finished(file)


def _bounds(size: int) -> list[tuple[int, int]]:
    """Ranges that begin with a chunk, as the control's have to."""
    chunks = -(-size // CHUNK_BYTES)
    cuts = [min(size, chunks * number // RANGES * CHUNK_BYTES) for number in range(RANGES + 1)]
    return list(pairwise(cuts))


def _resumed(rig: Rig, uid: str, size: int) -> str:
    """The digest of what two connections got, the first of which was closed in the middle."""
    digest, cut = hashlib.sha256(), int(size * CUT_AT)
    for headers, count in (({}, cut), ({"Range": f"bytes={cut}-"}, size - cut)):
        with Client.public(rig.stack) as client, client.answer("GET", f"/api/tasks/{uid}", headers=headers) as answer:
            while count:
                piece = answer.read(min(MiB, count))
                assert piece, f"the answer ended {count} bytes early"
                digest.update(piece)
                count -= len(piece)
    return digest.hexdigest()


def _size(path: Path) -> str:
    mib = path.stat().st_size // MiB
    return f"{mib // 1024} GiB" if mib >= 1024 else f"{mib} MiB"
