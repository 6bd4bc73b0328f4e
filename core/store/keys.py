"""Every key in Redis, what it holds, and how it goes away.

A task's own keys carry its uid as a hash tag, so that one script may touch them all in a cluster. Chunks carry none:
a zip spreads over the slots. An index is only ever a superset of what it lists. It is written before what it points to
and cleaned after, so that a crash between leaves an entry to look at, never something that nobody looks at.
"""

import re
from typing import Final

DUE: Final = "due"
"""Sorted set: uid of each task → epoch second at which the reaper looks at it next: before its end, whether it was rung
and whether its lease has run out; after, whether its output and then the task itself were kept for long enough.
Leaves with the task."""

TASKS: Final = "tasks"
"""Sorted set: uid of each task → epoch second of its creation, for lists. Leaves with the task."""

LOOSE: Final = "loose"
"""Sorted set: id of each blob that may have no owner (being written, being removed) → epoch second until which whoever
works on it is believed to be alive. The reaper removes those past it, unless their owner names them after all."""

INCOMING: Final = "incoming"
"""Hash: ticket of each upload that was given room → bytes still to come and the epoch second until which they count.
Leaves with the upload; what doesn't come, or a crash leaves, runs out and is swept."""

MODELS: Final = "models"
"""Hash: human_readable_id → the model (msgpack). Models stay until they are deleted."""

MODEL_ID: Final = "models:last_id"
"""Counter behind a model's number. Stays."""

AGENTS: Final = "agents"
"""Hash: name of each agent → what it said of itself last, and when (msgpack). Who has said nothing for a day is removed
when another one says something."""

GATEWAYS: Final = "gateways"
"""As AGENTS, of gateways."""

KEYS: Final = "keys"
"""Hash: id of each API key → what it may do, and its digest (msgpack). Stays, also when it is revoked or expires."""

KEYS_USED: Final = "keys:used"
"""Hash: id of each API key that was used → the day on which it was last. Stays."""

REAPER: Final = "reaper"
"""Which core sweeps just now. Expires by itself."""


ENDED: Final = "ended"
"""Channel: uid of each task that ends or is deleted, for whoever waits for it. Who doesn't listen just then misses it.
"""

NEWS: Final = "news"
"""Channel: uid of each task that changes, ends, is deleted or has more in its log, as ENDED."""


WEBHOOKS: Final = "webhooks"
"""Sorted set: uid of each task whose end is to be told to its client's server → epoch second of the next try. Leaves
when it was told, or given up, or the task is gone.
"""


AUDIT: Final = "audit"
"""Stream: who did what (msgpack in `entry`). Bounded: the oldest go."""

ERASURES: Final = "erasures"
"""Hash: uid of each task and model that is being deleted → what there was of it (msgpack), until it was shown that
nothing is left.
"""


def kept(number: int) -> str:
    """Written behind other writes, so that a replica that has it has them; each shard has one such key. Expires by
    itself.
    """
    return f"kept:{number}"


def kept_beside(key: str | bytes) -> bytes:
    """As `kept`, in the slot of that key."""
    name = key.encode() if isinstance(key, str) else key
    tag = re.search(rb"{([^}]+)}", name)
    return b"kept:{%b}" % (tag[1] if tag else name)


def waiting(priority: str, need: str) -> str:
    """Sorted set: uid of each task that waits for agents which meet that need → epoch second since when. A task leaves
    when it is claimed or ends; what a crash left is taken out by the sweep when it comes to the head.
    """
    return f"waiting:{priority}:{need}"


def pace(key_id: str) -> str:
    """Epoch second from which on that API key could post evenly, were it to use up its posts. Expires by itself."""
    return f"pace:{key_id}"


def living(key_id: str) -> str:
    """Sorted set: uid of each task that counts for that API key's tasks at once → epoch second of its entry. Ended ones
    leave when there seem to be too many, all of them when the key is revoked, or long after its last post.
    """
    return f"living:{key_id}"


def task(uid: str) -> str:
    """Hash: the task's fields as the scripts know them. Leaves when it is deleted, or was kept for long enough."""
    return f"task:{{{uid}}}"


def log(uid: str) -> str:
    """Stream: what the task's containers have printed, each entry of one attempt: its number → text. Bounded in bytes:
    the oldest go. Leaves behind the task, before its entries in the indexes do.
    """
    return f"log:{{{uid}}}"


def blob(blob_id: str) -> str:
    """Hash: `owner` (a task's or model's uid), `chunks` (an upper bound while it is written), `size` when whole."""
    return f"blob:{blob_id}"


def chunk(blob_id: str, number: int) -> str:
    """Bytes number * CHUNK_BYTES and on of a blob. Leaves with the blob."""
    return f"chunk:{blob_id}:{number}"


def upload(uid: str) -> str:
    """Hash: a resumable upload that will be the task of that uid. `about` (msgpack) what its client said, and where its
    bytes are; `offset`: all before it are stored; `writer`: the number of the latest request that sends some, `writes`:
    it hasn't said that it is through. Leaves when the task is made or the upload given up; expires by itself when no
    bytes come for long.
    """
    return f"upload:{{{uid}}}"


def writer(blob_id: str, number: int) -> str:
    """In the chunk's slot: number of the youngest writer that began in the chunk, so that nothing of an older one gets
    into it any more. Only where one was cut off without a word. Expires by itself.
    """
    return f"writer:{{{chunk(blob_id, number)}}}"
