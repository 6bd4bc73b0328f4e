"""What a container prints, before core hears of it: taken apart, bounded, and read for its progress."""

import struct

import pytest

from core.contract.live import SAID_CHARACTERS
from gpu_agent.engine import Frames
from gpu_agent.progress import WORDS_CHARACTERS, ProgressLines
from gpu_agent.telling import LEFT_OUT, Untold

STDOUT, STDERR = 1, 2


@pytest.mark.parametrize(
    ("line", "fraction", "words"),
    [
        ("progress: 42%", 0.42, ""),
        ("progress: 42.5 % reading slices", 0.425, "reading slices"),
        ("progress: 0.42 lung, left", 0.42, "lung, left"),
        ("progress: .5", 0.5, ""),
        ("progress:1", 1.0, ""),
        ("progress: 0%\t50 of 100 ", 0.0, "50 of 100"),
        ("progress: 100%", 1.0, ""),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_of_progress(line: str, fraction: float, words: str, end: str) -> None:
    """However it ends, and in whatever pieces it comes."""
    for texts in ([line + end], [*line, end], ["before\n" + line, end + "after"]):
        lines = ProgressLines()
        [found] = [progress for text in texts if (progress := lines.latest_in(text))]
        assert (found.fraction, found.message) == (fraction, words)


@pytest.mark.parametrize(
    "line",
    [
        "progress",
        "progress: much",
        "progress: 142%",
        "progress: 2",
        "progress: 42%done",
        "my progress: 42%",
        " progress: 42%",
        "Progress: 42%",
        "progress: -1%",
        "progress: 42% " + (WORDS_CHARACTERS + 1) * "x",
    ],
)
def test_other_lines_are_none(line: str) -> None:
    assert ProgressLines().latest_in(line + "\n") is None


def test_of_several_the_latest_counts() -> None:
    """And a line that hasn't ended is none yet."""
    lines = ProgressLines()
    found = lines.latest_in("progress: 1%\nprogress: 2%\nwords\nprogress: 3")
    assert found
    assert found.fraction == 0.02
    found = lines.latest_in("3%\r")
    assert found
    assert found.fraction == 0.33


def test_frames_are_cut_anywhere() -> None:
    """Characters too, and each output has its own."""
    pieces = [(STDOUT, b"Gr"), (STDOUT, "ö".encode()[:1]), (STDERR, b"\xff!"), (STDOUT, "öße".encode()[1:])]
    stream = b"".join(struct.pack(">BxxxL", output, len(piece)) + piece for output, piece in pieces)
    for size in (1, 3, len(stream)):
        frames = Frames()
        texts = [text for at in range(0, len(stream), size) for text in frames.texts(stream[at : at + size])]
        assert texts == [(STDOUT, "Gr"), (STDERR, "\ufffd!"), (STDOUT, "öße")]


def test_what_waits_is_bounded() -> None:
    """The last of it stays, in one batch that core takes; that there was more is said."""
    untold = Untold()
    assert not untold
    for number in range(100_000):
        untold.add(f"{number:05}\n", None)
    said = untold.taken(1)
    assert said.text.startswith(LEFT_OUT)
    assert said.text.endswith("99998\n99999\n")
    assert SAID_CHARACTERS - 10 <= len(said.text) <= SAID_CHARACTERS
    assert not untold
    untold.add("more\n", None)
    assert untold.taken(2).text == "more\n"
