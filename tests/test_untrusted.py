"""Strict JSON and YAML: sound texts give the values of the libraries, other texts are refused with the reason."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from densemble.config import make_config, read_config
from densemble.errors import ArtifactError, ConfigError
from densemble.storage.runs import read_json
from densemble.untrusted import Unreadable, excerpt, parse_json, parse_yaml, read_regular, validated

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Billion laughs: 9^9 values in 350 bytes."""


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, null, "x"], "b": {}}', "[9223372036854775807, -9223372036854775808, 1e308]", "3",
        '["\\ud83d\\ude00", "12345678901234567890123"]', "[" * 64 + "]" * 64, '{"x": "NaN"}', '"1e999"',
    ],
)  # fmt: skip
def test_sound_json_has_the_values_of_the_library(text: str) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' occurs twice"), ("[NaN]", "NaN"), ("[-Infinity]", "Infinity"),
        ("[1e999]", "too large"), ("[9223372036854775808]", "64 bits"), (f"[{'9' * 5000}]", "64 bits"),
        (f"[-{'9' * 5000}.5]", "too large"), ("[" * 65 + "]" * 65, "64 levels"), ("[" * 10**5, "deep"),
        ('["\\ud800"]', "surrogate"), ("", "char 0"), ("{'a': 1}", "char 1"), ("[1] 2", "Extra"),
    ],
)  # fmt: skip
def test_other_json_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as refusal:
        parse_json(text)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 2.5, null, true, '3']\n", "\ufeffa: 1", "a: 2024-02-29", "a: &x {b: 1}\nc: *x",
        "a: &x {b: 1, d: 2}\nc: &y {<<: *x, b: 3}\ne: {<<: *y}\nf: *y\n", "{255: 1, 0: 0}", "a: 0x1F", "",
    ],
)  # fmt: skip
def test_sound_yaml_has_the_values_of_the_library(text: str) -> None:
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "200,000 values"), ("a: 2024-13-45", "timestamp"), ("a: !!int x", "'x' is no value of int"),
        (f"a: {'9' * 5000}", "int"), (f"a: 0x{'f' * 5000}", "64 bits"), ("[" * 3000, "64 levels"),
        ("- " * 3000, "64 levels"), ("a: 1\na: 2", "line 2, column 1: the key 'a' occurs twice"), ("a: .nan", "finite"),
        ("a: &a [*a]", "contains it"), ("a: 1.0e+999", "finite"), ("!!python/object:os.system x", "python/object"),
        ("a: !!bool q", "bool"), ("a: \0", "#x0000"), ("? [a]\n: b", "unhashable"), ("a: *x", "undefined alias"),
        ("a: b: c", "mapping"), ("x" * 2**21, "1,048,576"),
    ],
)  # fmt: skip
def test_other_yaml_is_refused_with_the_reason(text: str, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(Unreadable, match=reason) as refusal:
        parse_yaml(text)
    assert len(str(refusal.value)) < 400 and time.process_time() - started < 2


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(1001))
    cases = {
        "pipe": "a named pipe", "link": "a named pipe", ".": "a folder", "/dev/zero": "a character device",
        "large": "1,001",
    }  # fmt: skip
    for name, reason in cases.items():
        with pytest.raises((Unreadable, OSError), match=reason):
            read_regular(tmp_path / name, 1000)
        with pytest.raises(ConfigError, match=rf"cannot read config '.*{Path(name).name}'"):
            (tmp_path / "large").write_bytes(bytes(1 << 21))
            read_config(tmp_path / name)
        (tmp_path / "large").write_bytes(bytes(1001))
    with pytest.raises(ArtifactError, match=r"cannot read '.*pipe': it is a named pipe"):
        read_json(tmp_path / "pipe")
    assert read_regular(tmp_path / "large", 1001) == bytes(1001)


def test_a_quoted_text_is_short_and_visible() -> None:
    assert excerpt("a\x1b[2Jb\n\u202e") == r"a\x1b[2Jb\n\u202e"
    assert excerpt("x" * 300) == "x" * 200 + "..." and excerpt("x" * 200) == "x" * 200
    assert excerpt([1, "é"]) == "[1, 'é']"


def test_types_are_strict() -> None:
    assert validated(TypeAdapter(dict[str, float]), {"a": 1}) == {"a": 1.0}
    for value in (True, "1", [1]):
        with pytest.raises(Unreadable, match="a: "):
            validated(TypeAdapter(dict[str, float]), {"a": value})


@pytest.mark.parametrize(
    "members", [["resdeconv*3000"], ["resdeconv"] * 501, [{"backbone": "resdeconv", "copies": 10**30}]]
)
def test_too_many_members_are_refused(members: Any) -> None:
    with pytest.raises(ConfigError, match=r"members, more than 500; split") as refusal:
        make_config({"task": "saliency", "members": members})
    assert len(str(refusal.value)) < 700


def test_members_are_numbered_as_one_by_one() -> None:
    names = make_config({"task": "saliency", "members": ["resdeconv*3", "alexnet", "resdeconv"]}).member_names()
    assert names == ["resdeconv", "resdeconv-2", "resdeconv-3", "alexnet", "resdeconv-4"]
    assert len(set(make_config({"task": "saliency", "members": ["resdeconv*500"]}).member_names())) == 500
