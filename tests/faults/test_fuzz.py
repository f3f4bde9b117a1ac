"""Damaged and hostile files: every reader gives the documented error in one line, or a right reading."""

import csv
import gzip
import io
import json
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from debias_ssae.core.config import BenchmarkConfig, DebiasConfig, load_config
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import (
    parse_json,
    parse_yaml,
    read_arrays,
    read_manifest,
    sealed_arrays,
    write_arrays,
    write_bytes,
    write_json,
    write_manifest,
)
from debias_ssae.text import load_corpus, load_table
from debias_ssae.text.tables import stream_texts

TEXTS = ["he operates", "she cares", 'a "quoted", text', "two\nlines", "é 漢字", "=1+1", "007"]
TABLE = pd.DataFrame({"text": TEXTS, "y": [0, 1] * 3 + [0], "g": ["m", None, "f", "m", "f", "m", "f"]})
SECONDS = 20
"""More than any reading of a small file may take."""


def bytes_of(kind: str) -> bytes:
    if kind.startswith("parquet"):
        return TABLE.to_parquet(index=False)
    if kind.startswith("jsonl"):
        text = TABLE.to_json(orient="records", lines=True, force_ascii=False)
    elif kind.startswith("json"):
        text = TABLE.to_json(orient="records", force_ascii=False)
    elif kind.startswith("txt"):
        text = "\n".join(t.replace("\n", " ") for t in TEXTS)
    else:
        text = TABLE.to_csv(index=False, sep="\t" if kind.startswith("tsv") else ",")
    data = text.encode()
    return gzip.compress(data, mtime=0) if kind.endswith(".gz") else data


KINDS = [f"{kind}{packed}" for kind in ("csv", "tsv", "jsonl", "json", "txt") for packed in ("", ".gz")]
KINDS.append("parquet")


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: flipped bits, cut, doubled, a hole, a foreign piece, two swapped pieces, retyped, grown, nested."""
    some, n = bytearray(data), len(data)
    a, b = sorted(rng.integers(0, n + 1, 2).tolist())
    kind = rng.integers(10)
    if kind == 0:
        for _ in range(rng.integers(1, 9)):
            some[rng.integers(n)] ^= 1 << rng.integers(8)
    elif kind == 1:
        some = some[:a]
    elif kind == 2:
        some += some[a:]
    elif kind == 3:
        some[a:b] = bytes(b - a)
    elif kind == 4:
        some[a:b] = rng.integers(0, 256, rng.integers(1, 64), np.uint8).tobytes()
    elif kind == 5:
        some = some[:a] + some[b:] + some[a:b]
    elif kind == 6:
        at = data.find(rng.choice([b"1", b'"', b",", b"\n", b"{", b":"]))
        some[at : at + 1] = rng.choice([b"NaN", b"null", b"[]", b"1e999", b"-", b"\xff", b"\0", b"\r", b"{}"])
    elif kind == 7:
        some[a:a] = b"9" * int(rng.integers(1, 6000))
    elif kind == 8:
        some[a:a] = rng.choice([b"[", b"{", b"- ", b'{"a":', b"("]) * int(rng.integers(1, 20_000))
    else:
        some[a:a] = rng.choice([b'"', b"'", b"\n\n", b"\t", b",,,,", b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n"])
    return bytes(some)


def one_line(error: InputError) -> None:
    message = str(error)
    assert message
    assert "\n" not in message
    assert len(message) < 2500


def tried(read) -> object:
    """What ``read`` returns, or the documented error; anything else fails the test, and so does a hang."""
    begin = time.process_time()
    try:
        return read()
    except InputError as error:
        one_line(error)
        return error
    finally:
        assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_corpora(tmp_path, kind, amount, counted):
    rng, path = np.random.default_rng(sum(map(ord, kind))), tmp_path / f"t.{kind}"
    whole = bytes_of(kind)
    readers = [
        lambda: load_table(path, text="text", target="y", sensitive="g"),
        lambda: load_corpus(path),
        lambda: list(stream_texts(path)),
    ]
    for i in range(amount(60, 2500)):
        path.write_bytes(damage(whole, rng))
        found = tried(readers[i % 3])
        if isinstance(found, pd.DataFrame):
            assert all(isinstance(text, str) and text.strip() for text in found["text"])
            assert len(set(map(len, (found[c] for c in found)))) == 1
        elif isinstance(found, list):
            assert all(text is None or isinstance(text, str) for text in found)
        counted["tables"] = counted.get("tables", 0) + 1


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=6),
    st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "csv.gz"]),
)
def test_what_the_standard_library_writes_is_read_as_written(tmp_path, rows, kind):
    path, buffer = tmp_path / f"t.{kind}", io.StringIO(newline="")
    records = [{"text": f"x{a}", "b": f"y{b}"} for a, b in rows]
    if kind == "parquet":
        pd.DataFrame(records).to_parquet(path)
    elif kind.startswith("json"):
        lines = [json.dumps(record) for record in records]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    else:
        writer = csv.DictWriter(buffer, ["text", "b"], delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(records)
        data = buffer.getvalue().encode()
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    assert load_table(path, text="text").to_dict("records") == records
    assert list(stream_texts(path, column="b")) == [record["b"] for record in records]


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_settings_and_json(tmp_path, kind, amount, counted):
    rng = np.random.default_rng(3)
    values = BenchmarkConfig().model_dump(mode="json")
    whole = (yaml.safe_dump(values) if kind == "yaml" else json.dumps(values)).encode()
    path = tmp_path / "c.yaml"
    for _ in range(amount(60, 1500)):
        path.write_bytes(damage(whole, rng))
        found = tried(lambda: load_config(BenchmarkConfig, path))
        assert isinstance(found, BenchmarkConfig | InputError)
        text = path.read_bytes().decode("utf-8", "replace")
        tried(lambda: parse_json(text, "f") if kind == "json" else parse_yaml(text, "f"))  # noqa: B023
        counted["settings"] = counted.get("settings", 0) + 2


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from([*DebiasConfig.model_fields, "x", ""])


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(names, nested, max_size=4) | nested)
def test_any_value_for_settings_is_settings_or_one_line(values):
    found = tried(lambda: load_config(DebiasConfig, values))
    assert isinstance(found, DebiasConfig | InputError)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(nested)
def test_json_goes_through_unchanged_but_for_what_json_lacks(tmp_path, value):
    write_json(tmp_path / "a.json", {"v": value})
    first = tried(lambda: parse_json((tmp_path / "a.json").read_text(encoding="utf-8"), "a"))
    assert not isinstance(first, InputError)
    write_json(tmp_path / "b.json", first)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_arrays(tmp_path, amount, counted):
    rng, path = np.random.default_rng(4), tmp_path / "a.safetensors"
    arrays = {"x": rng.random((5, 3)), "ids": np.arange(4), "half": rng.random(3).astype(np.float16)}
    write_arrays(path, arrays)
    sealed, plain = path.read_bytes(), save(arrays)
    for _ in range(amount(300, 20_000)):
        path.write_bytes(damage(sealed, rng))
        found = tried(lambda: sealed_arrays(path)[0])
        if isinstance(found, dict):  # the digest says that nothing has changed
            assert all((found[name] == array).all() for name, array in arrays.items())
        path.write_bytes(damage(plain, rng))
        found = tried(lambda: read_arrays(path))
        if isinstance(found, dict):
            assert all(np.isfinite(array).all() for array in found.values() if array.dtype.kind == "f")
        counted["arrays"] = counted.get("arrays", 0) + 2


def test_artefacts(tmp_path, amount, counted):
    """A directory with a manifest: damaged, mixed with another of its kind, or led out of its folder."""
    rng = np.random.default_rng(5)
    for folder, scale in (("one", 1.0), ("two", 2.0)):
        (tmp_path / folder / "sae").mkdir(parents=True)
        write_bytes(tmp_path / folder / "a.safetensors", save({"x": np.full(9, scale)}))
        write_json(tmp_path / folder / "sae" / "cfg.json", {"scale": scale})
        write_manifest(tmp_path / folder, "thing 1", {"scale": scale})
    (tmp_path / "secret").write_text("secret")
    parts = ("manifest.json", "a.safetensors", "sae/cfg.json")
    whole = {name: (tmp_path / "one" / name).read_bytes() for name in parts}
    others = {name: (tmp_path / "two" / name).read_bytes() for name in parts}

    def read():
        manifest = read_manifest(tmp_path / "one", "thing 1").check()
        return (
            manifest.about["scale"],
            manifest.arrays("a.safetensors")["x"][0],
            parse_json(manifest.bytes("sae/cfg.json"), "cfg")["scale"],
        )

    for _ in range(amount(300, 10_000)):
        name = str(rng.choice(parts))
        path = tmp_path / "one" / name
        way = rng.integers(4)
        if way == 0:
            path.write_bytes(others[name])
        elif way == 1:
            path.unlink()
            path.symlink_to(tmp_path / "secret")
        else:
            path.write_bytes(damage(whole[name], rng))
        found = tried(read)
        assert isinstance(found, InputError) or found == (1.0, 1.0, 1.0)
        path.unlink()
        path.write_bytes(whole[name])
        counted["artefacts"] = counted.get("artefacts", 0) + 1
    assert read() == (1.0, 1.0, 1.0)
