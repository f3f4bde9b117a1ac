"""The one writer leaves the old file or the whole new one; the one reader refuses what it cannot be sure of."""

import json
import math
import os
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from debias_ssae.core import io
from debias_ssae.core.config import TrainConfig
from debias_ssae.core.errors import InputError, brief
from debias_ssae.core.io import (
    mapped_tensors,
    parse_json,
    parse_yaml,
    read_arrays,
    read_bytes,
    read_json,
    read_manifest,
    replace_directory,
    write_bytes,
    write_json,
    write_manifest,
    write_text,
    writing,
)

DEAD = 2**22 + 1
"""A process number that Linux does not give out."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_by(folder: Path, name: str, kind: str, *, pid: int = DEAD, node: str = "") -> Path:
    node = node or io._temporary(folder / "x", "tmp").name.split(".")[-4]
    return folder / f".{name}.{node}.{pid}.0123456789ab.{kind}"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "f", b"old")

    def half() -> None:
        with writing(tmp_path / "f") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        half()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(tmp_path):
    mine, dead, alive = (tmp_path / name for name in ("a", "b", "c"))
    left_by(tmp_path, "a", "tmp").write_bytes(b"half")
    left_by(tmp_path, "b", "partial").mkdir()
    (left_by(tmp_path, "b", "partial") / "inner").write_text("half")
    running = left_by(tmp_path, "c", "tmp", pid=1)
    running.write_bytes(b"of a living process")
    elsewhere = left_by(tmp_path, "d", "tmp", node="0" * 8)
    elsewhere.write_bytes(b"of another machine")
    (tmp_path / ".mine.tmp").write_text("no name of ours")
    with writing(mine) as temporary:
        temporary.write_bytes(b"x")
        write_bytes(dead, b"y")  # does not sweep what this process is writing
    write_bytes(alive, b"z")
    assert names(tmp_path) == sorted(["a", "b", "c", ".mine.tmp", running.name, elsewhere.name])
    os.utime(elsewhere, (0, 0))
    write_bytes(alive, b"z")
    assert elsewhere.name not in names(tmp_path)


@pytest.mark.parametrize("in_one_step", [True, False])
def test_directories_are_replaced_whole(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(io, "_exchange", lambda one, other: False)
    goal = tmp_path / "model"
    for content in ("one", "two"):
        replace_directory(goal, lambda folder, text=content: write_text(folder / text, text))
        assert names(goal) == [content]
        assert names(tmp_path) == ["model"]
    with pytest.raises(RuntimeError, match="boom"):
        replace_directory(goal, lambda folder: (_ for _ in ()).throw(RuntimeError("boom")))
    assert names(goal) == ["two"]
    assert names(tmp_path) == ["model"]


def test_an_old_directory_comes_back_after_a_kill_between_two_steps(tmp_path):
    old = left_by(tmp_path, "model", "old")
    old.mkdir()
    write_manifest(old, "kind 1", {"a": 1})
    assert read_manifest(tmp_path / "model", "kind 1").about == {"a": 1}
    assert names(tmp_path) == ["model"]


def test_many_writers_of_one_directory_leave_one_whole(tmp_path):
    def fill(folder: Path, mark: str) -> None:
        for name in ("a", "b"):
            write_text(folder / name, mark)

    threads = [
        threading.Thread(target=lambda m=str(i): replace_directory(tmp_path / "g", lambda f: fill(f, m)))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "g" / "a").read_text() == (tmp_path / "g" / "b").read_text()
    assert names(tmp_path) == ["g"]


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ("none/f", "there is no folder"),
        ("file/f", "is not a folder"),
        ("folder", "it is a folder"),
        ("n" * 300, "shorter|File name too long"),
    ],
)
def test_places_that_cannot_be_written_are_named_with_the_cure(tmp_path, goal, said):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=said) as error:
        write_bytes(tmp_path / goal, b"x")
    assert "\n" not in str(error.value)


def test_json_is_plain_sorted_and_strict(tmp_path):
    write_json(tmp_path / "a.json", {"b": (1, 2.5), "a": math.nan, "c": np.float32(1), "d": np.arange(2)})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [1, 2.5], "c": 1.0, "d": [0, 1]}
    write_json(tmp_path / "b.json", {"d": [0, 1], "c": 1.0, "a": None, "b": [1, 2.5]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "not a number"),
        ('{"a": 1e999}', "beyond the range"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('"\\ud800"', "surrogates"),
        ("[" * 100_000, "levels deep"),
        ("[" * 70 + "]" * 70, "levels deep"),
        ("9" * 5000, "digits"),
        ('{"a": 1', "as JSON"),
        ("", "as JSON"),
    ],
)
def test_json_that_is_not_sure_is_refused_in_one_short_line(text, said):
    with pytest.raises(InputError, match=said) as error:
        parse_json(text, "f.json")
    assert str(error.value).count("\n") == 0
    assert len(str(error.value)) < 300


def test_yaml_words_mean_what_they_look_like():
    text = "a: no\nb: 010\nc: 1e-3\nd: -1.5\ne: ~\nf:\ng: 2020-01-01\nh: .5\nj: 0\nk: 12:30\nl: true\nm: +7\nn: on"
    assert parse_yaml(text, "f") == {
        "a": "no", "b": "010", "c": 1e-3, "d": -1.5, "e": None, "f": None, "g": "2020-01-01", "h": 0.5, "j": 0,
        "k": "12:30", "l": True, "m": 7, "n": "on",
    }  # fmt: skip


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "alias"),
        (
            BOMB.replace("[*", "{<<: [*").replace("]\n", "]}\n").replace("[x,x,x,x,x,x,x,x,x]}", "{k: 1}"),
            "alias",
        ),
        (f"a: &a {'x' * 100_000}\nb: [{'*a,' * 100}]", "alias"),
        ("a: &a [*a]", "alias"),
        ("a: 1\na: 2", "given twice"),
        ("!!python/object:os.system x", "constructor"),
        ("a: [1", "line 1"),
        ("[" * 50_000, "levels deep"),
        ("- " * 50_000, "levels deep"),
        ("a: 1e999", "beyond the range"),
        ("a\0b", "special characters"),
        ("{a: 1}: 2", "unhashable"),
    ],
)
def test_yaml_that_is_not_sure_is_refused_in_one_short_line(text, said):
    with pytest.raises(InputError, match=said) as error:
        parse_yaml(text, "f.yaml")
    assert str(error.value).count("\n") == 0
    assert len(str(error.value)) < 400


def test_files_that_are_none(tmp_path):
    (tmp_path / "latin.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf{}")
    os.mkfifo(tmp_path / "pipe")
    assert read_json(tmp_path / "bom.json") == {}
    for name, said in {
        "latin.json": "is not UTF-8 .*0xe9",
        "none.json": "There is no file",
        "pipe": "a device or pipe",
        ".": "is a folder",
    }.items():
        with pytest.raises(InputError, match=said):
            read_json(tmp_path / name)
    with pytest.raises(InputError, match="has 10 bytes; such a file has at most 5"):
        read_bytes(tmp_path / "latin.json", 5)


def test_brief_is_short_whatever_comes():
    deep = [0]
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, 10**5000, {i: [i] * 1000 for i in range(1000)}, "a\nb"):
        assert len(brief(value)) < 400
        assert "\n" not in brief(value)


def claim(**changes):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    header = json.dumps({"a": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        claim(shape=[2**60]),
        claim(shape=[-2]),
        claim(shape=[2.0]),
        claim(shape=[True, True]),
        claim(shape="22"),
        claim(data_offsets=[0, 2**50]),
        claim(data_offsets=[8, 16]),
        claim(data_offsets=[0]),
        claim(dtype="F3"),
        claim(dtype=["F32"]),
        claim() + b"more",
        claim()[:-1],
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        save({"a": np.array([1, np.nan])}),
    ],
)
def test_arrays_that_claim_what_they_do_not_hold(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged|Git LFS"):
        read_arrays(tmp_path / "a.safetensors")
    if b"NaN" not in data and b"F64" not in data:
        with pytest.raises(InputError, match="damaged"):
            mapped_tensors(tmp_path / "a.safetensors")


def test_arrays_come_back_and_are_read_where_they_are_looked_at(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.zeros((0, 3), np.int64),
        "c": np.ones(3, bool),
    }
    write_bytes(tmp_path / "a.safetensors", save(arrays))
    found, mapped = read_arrays(tmp_path / "a.safetensors"), mapped_tensors(tmp_path / "a.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(mapped[name].numpy(), array)


def made(folder: Path) -> Path:
    folder.mkdir()
    write_bytes(folder / "a.safetensors", save({"x": np.ones(3)}))
    (folder / "sae").mkdir()
    write_json(folder / "sae" / "cfg.json", {"d": 1})
    write_manifest(folder, "thing 1", {"words": ["é", 1.5]})
    return folder


def test_what_utf8_and_json_cannot_hold_is_still_read_back(tmp_path):
    about = {"caf\udce9": "caf\udce9", "day": date(2026, 1, 2), "set": {1}, "nan": math.nan}
    write_manifest(tmp_path, "thing 1", about, {})
    found = read_manifest(tmp_path, "thing 1").about
    assert found == {"caf?": "caf?", "day": "2026-01-02", "set": "{1}", "nan": None}


def test_a_name_may_fill_what_the_file_system_allows(tmp_path):
    for name in ("文" * 85, "n" * 255):
        write_bytes(tmp_path / name, b"x")
        assert names(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_manifests_hold_every_file(tmp_path):
    manifest = read_manifest(made(tmp_path / "m"), "thing 1").check()
    assert set(manifest.files) == {"a.safetensors", "sae/cfg.json"}
    assert manifest.about == {"words": ["é", 1.5]}
    assert manifest.arrays("a.safetensors")["x"].tolist() == [1, 1, 1]
    assert parse_json(manifest.bytes("sae/cfg.json"), "cfg") == {"d": 1}
    with pytest.raises(InputError, match="expected 'thing 2'"):
        read_manifest(tmp_path / "m", "thing 2")
    with pytest.raises(InputError, match="names no file 'b'"):
        manifest.file("b")


def test_every_flipped_bit_of_an_artefact_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    folder = made(tmp_path / "m")
    for name in ("a.safetensors", "sae/cfg.json", "manifest.json"):
        whole = (folder / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            (folder / name).write_bytes(damaged)
            try:
                about = read_manifest(folder, "thing 1").check().about
            except InputError:
                continue
            else:  # a space of the manifest's layout
                assert about == {"words": ["é", 1.5]}
                assert name == "manifest.json"
        (folder / name).write_bytes(whole)
    read_manifest(folder, "thing 1").check()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..", "", "a\\..\\b"])
def test_manifests_do_not_lead_out_of_their_folder(tmp_path, name):
    folder = made(tmp_path / "m")
    body = {"kind": "thing 1", "about": {}, "files": {name: {"n_bytes": 1, "sha256": "0" * 64}}}
    write_json(folder / "manifest.json", {**body, "sha256": io.seal(body)})
    with pytest.raises(InputError, match="outside of its folder"):
        read_manifest(folder, "thing 1")


def test_one_writer_at_a_time(tmp_path):
    code = (
        "import sys; from pathlib import Path; from debias_ssae.core.io import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="Another process is writing"), io.only_writer(tmp_path / "d"):
            pass
        other.kill()
    with io.only_writer(tmp_path / "d"):
        pass


def test_what_is_kept_is_made_once_and_again_when_it_is_damaged(tmp_path):
    file, made = tmp_path / "kept" / "numbers.safetensors", []

    def make():
        made.append(1)
        return {"x": np.arange(3)}, {"share": np.float64(0.5), "none": float("nan")}

    for n in (1, 1, 2):
        if n == 2:
            file.write_bytes(file.read_bytes()[:-1])
        arrays, about = io.kept(file, make)
        assert len(made) == n
        assert list(arrays["x"]) == [0, 1, 2]
        assert about == {"share": 0.5, "none": None}
    assert io.kept(None, make)[0].keys() == {"x"}
    assert len(made) == 3


def test_fingerprints_differ_where_values_do():
    same = io.fingerprint("a", TrainConfig(lr=0.5), (1, 2)), io.fingerprint("a", TrainConfig(lr=0.5), [1, 2])
    others = [("b", TrainConfig(lr=0.5), (1, 2)), ("a", TrainConfig(lr=0.25), (1, 2)), ("a", (1, 2))]
    assert len({*same, *(io.fingerprint(*other) for other in others)}) == 4


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / ".hidden").touch()
    for path in (tmp_path, tmp_path / "not there"):
        io.check_folder(path, "store", lambda held: False)
    (tmp_path / "notes.txt").touch()
    io.check_folder(tmp_path, "store", lambda held: held == {"notes.txt"})
    with pytest.raises(InputError, match="no store; give another"):
        io.check_folder(tmp_path, "store", lambda held: False)
    with pytest.raises(InputError, match="is a file"):
        io.check_folder(tmp_path / "notes.txt", "store", lambda held: True)
