"""Names of files cannot control a terminal, and a stream that fails stops nothing."""

import io
import json
import sys

import pytest

from densemble.commands.output import print_json
from densemble.messages import shown
from densemble.terminal import json_text, lost_output, print_line, print_result, visible


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("a\x1b[31m.png", r"a\x1b[31m.png"),
        ("a\x1b]0;title\x07", r"a\x1b]0;title\x07"),
        ("a\rb", r"a\rb".replace(r"\r", r"\x0d")),
        ("\x9b31m", r"\x9b31m"),
        ("gnp.\u202efdp", r"gnp.\u202efdp"),
        ("a\u2066b\u2028c", r"a\u2066b\u2028c"),
        ("\udcff.png", r"\udcff.png"),
        ("a\tb\nc é 日本 👍", "a\tb\nc é 日本 👍"),
    ],
)
def test_hidden_characters_are_visible(text: str, shown_as: str) -> None:
    assert visible(text) == shown_as
    assert json.loads(json_text(json.dumps(text, ensure_ascii=False))) == text


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_stream_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    print_line("a", Full())
    print_line("a", None)
    closed = io.StringIO()
    closed.close()
    print_line("a", closed)
    for stream, reason in ((Full(), "No space left on device"), (None, "it is closed")):
        monkeypatch.setattr(sys, "stdout", stream)
        print_result("a")
        assert lost_output() == reason


def test_a_reader_that_has_read_enough_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Broken())
    print_result("a")
    assert lost_output() is None


def test_the_encoding_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"name": "é\u202e"})
    assert lost_output() is None
    assert stream.buffer.getvalue() == b'{\n  "name": "\\xe9\\u202e"\n}\n'  # type: ignore[attr-defined]


def test_a_listener_whose_stream_is_full_stops_nothing() -> None:
    import logging

    def write(line: str) -> None:
        raise OSError(28, "No space left on device")

    with shown(write):
        logging.getLogger("densemble.test").info("a\x1b[31m")
