"""Bad inputs through Python and the command line: one line each that says what came, what was expected and the cure.

``docs/errors.md`` is this table; ``python tests/faults/test_bad_inputs.py`` writes it.
"""

import gzip
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.numpy import save

from debias_ssae import SSAEDebiaser
from debias_ssae.audit import audit
from debias_ssae.cli import main
from debias_ssae.core.config import (
    BenchmarkConfig,
    DebiasConfig,
    SAEConfig,
    TrainConfig,
    load_config,
    parse_overrides,
)
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_arrays, read_json, read_manifest, write_bytes, write_json, write_manifest
from debias_ssae.model.store import ActivationStore, EmbeddingCache
from debias_ssae.retrieval import CorpusIndex, embed_texts, retrieve
from debias_ssae.sae.formats import load_sae
from debias_ssae.text import load_bias_in_bios, load_corpus, load_table, synthetic_biographies
from debias_ssae.text.checks import check_texts, named_columns
from debias_ssae.text.tables import stream_texts

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123456\n"


def parquet(**columns: Any) -> bytes:
    return pd.DataFrame(columns).to_parquet(index=False)


FILES = {
    "good.csv": b"text,y,g\nhe operates,0,m\nshe cares,1,f\n",
    "good.yaml": b"d_sae: 64\n",
    "empty.csv": b"",
    "header.csv": b"text,y\n",
    "ragged.csv": b"text,y\na,1\nb\n",
    "long.csv": b"text,y\na,1\nb,2,3\n",
    "twice.csv": b"text,text\na,b\n",
    "semicolons.csv": b"text;y\na;1\n",
    "commas.csv": b"text;y\na, b;1\n",
    "return.csv": b"text,y\ra,1\r",
    "measured.csv": b"text,y\n" + b"".join(b"a,%d.5\n" % i for i in range(30)),
    "spaced.csv": b" text,y\na,1\n",
    "quote.csv": b'text,y\n"a,1\n',
    "latin.csv": "text\nélan\n".encode("latin-1"),
    "nul.csv": b"text\na\0b\n",
    "line.csv": b"text\n" + b"x" * (2**24 + 1),
    "blank.csv": b"text,y\na,1\n  ,2\n",
    "notarget.csv": b"text,y\na,1\nb,\n",
    "noattribute.csv": b"text,g\na,\nb,\n",
    "zip.csv.gz": b"no gzip",
    "cut.csv.gz": gzip.compress(b"text\n" + b"abc\n" * 999, mtime=0)[:40],
    "numbers.parquet": parquet(text=[1, 2]),
    "missing.parquet": parquet(text=["a", None]),
    "none.parquet": parquet(text=[None, None]),
    "text.parquet": b"no parquet",
    "nan.jsonl": b'{"text": "a"}\n{"text": NaN}\n',
    "double.jsonl": b'{"text": "a", "text": "b"}\n',
    "list.jsonl": b'{"text": "a"}\n[1]\n',
    "kinds.jsonl": b'{"text": "a", "y": 1, "z": [1]}\n{"text": "b", "y": "1", "z": [2]}\n',
    "kinds.json": b'[{"text": "a", "y": 1, "g": "m"}]',
    "far.parquet": parquet(text=["a"], t=np.array([10**15], "datetime64[s]")),
    "number.jsonl": b'{"text": "a"}\n{"text": 12}\n',
    "half.jsonl": b'{"text": "\\ud800"}\n',
    "deep.json": b"[" * 100_000,
    "table.xlsx": b"PK",
    "spaces.txt": b"\n \n",
    "good.txt": b"he operates\nshe cares\n",
    "bomb.yaml": BOMB.encode(),
    "long.yaml": f"a: &a {'x' * 100_000}\nb: [{'*a,' * 100}]\n".encode(),
    "deep.yaml": b"- " * 10_000,
    "latin.yaml": "k: é".encode("latin-1"),
    "list.yaml": b"[1, 2]",
    "key.yaml": b"1: 2",
    "dup.yaml": b"k: 1\nk: 2",
    "tag.yaml": b"k: !!python/object:os.system x",
    "broken.yaml": b"k: [1",
    "typo.yaml": b"d_sea: 64",
    "group.yaml": b"general: 5",
    "huge.yaml": b"d_sae: 2000000000",
    "nan.yaml": b"special: {lr: nan}",
    "big.yaml": b"k: " + b"x" * 2**20,
    "cut.safetensors": save({"x": np.ones(9)})[:-5],
    "nan.safetensors": save({"x": np.array([np.nan])}),
    "lfs.safetensors": LFS,
    "claims.safetensors": (2**60).to_bytes(8, "little") + b"{}",
    "damaged.json": b'{"a": 1',
    "inf.json": b'{"a": 1e999}',
}


class Bad(NamedTuple):
    came: str
    expected: str
    cure: str
    call: Callable[[Path], Any] | str
    """A function of the folder, or arguments of the command line in which {p} is the folder."""
    said: str
    """A pattern that the line holds."""


def table(name: str, **columns: Any) -> Callable[[Path], Any]:
    return lambda p: load_table(p / name, **{"text": "text", **columns})


def corpus(name: str) -> Callable[[Path], Any]:
    return lambda p: load_corpus(p / name)


def config(name: str) -> Callable[[Path], Any]:
    return lambda p: load_config(DebiasConfig, p / name)


def manifest(**changes: Any) -> Callable[[Path], Any]:
    def call(p: Path) -> Any:
        folder = p / "artefact"
        folder.mkdir(exist_ok=True)
        write_bytes(folder / "a", b"abc")
        write_manifest(folder, "thing 1", {})
        if "file" in changes:
            (folder / "a").write_bytes(changes["file"])
        if changes.get("gone"):
            (folder / "a").unlink()
        if "seal" in changes:
            write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"sha256": "0"})
        return read_manifest(folder, changes.get("kind", "thing 1")).check()

    return call


PART = "part-00000.parquet"


def index(p: Path, **about: Any) -> Any:
    folder = p / "index"
    settings = {"embedder": "minilm", "max_length": 128, "n_texts": 1}
    folder.mkdir(exist_ok=True)
    write_manifest(folder, "debias-ssae index 3", settings | about, {PART: {"n_bytes": 9, "sha256": ""}})
    return CorpusIndex(folder)


def store(p: Path) -> Any:
    (p / "store").mkdir(exist_ok=True)
    (p / "store" / "settings.json").write_text("{}")
    return ActivationStore(p / "store")


Y, P, G = [0, 1] * 20, [0, 1, 1, 0] * 10, ["f", "m"] * 20
FIT = "fit --quiet --out {p}/new --data {p}/"
SELECT = "retrieve select --corpus {p}/good.txt --query nurse --out {p}/s.parquet "

TABLE: dict[str, list[Bad]] = {
    "Tables and corpora": [
        Bad("a file that is not there", "a file", "the right path", corpus("no.csv"), "There is no file"),
        Bad("an ending that is not known", "csv, tsv, jsonl, json, parquet, txt", "save it as one of them", corpus("table.xlsx"), "known endings"),
        Bad("a folder without tables", "files of a known kind", "name the folder that holds them", lambda p: load_corpus(p / "folder"), "holds no .csv"),
        Bad("a pattern that matches nothing", "files", "the right pattern", lambda p: load_corpus(f"{p}/zz*.csv"), "No file matches"),
        Bad("an empty file", "rows", "the right file", table("empty.csv"), "holds no rows"),
        Bad("a header without rows", "rows", "the right file", table("header.csv"), "holds no rows"),
        Bad("a row shorter than the header", "as many values as names", "mend the line that is named", table("ragged.csv"), "line 3: 1 values, expected the 2"),
        Bad("a row longer than the header", "as many values as names", "put a value with a comma in quotes", table("long.csv"), "line 3: 3 values.*needs quotes"),
        Bad("two columns of one name", "each its own name", "rename one", table("twice.csv"), "give each its own name"),
        Bad("values separated by semicolons", "commas in .csv, tabs in .tsv", "save it with commas", table("semicolons.csv"), "separated by ';': save it with commas"),
        Bad("the same where texts hold commas", "commas in .csv, tabs in .tsv", "save it with commas, texts in quotes", table("commas.csv"), "line 2: 2 values.*separated by ';': save it with commas"),
        Bad("lines that end in CR alone", "LF or CR LF", "save it with LF", table("return.csv"), "outside of quotes; save the file with line feeds"),
        Bad("spaces around a column's name", "the same name", "rename the column", table("spaced.csv"), "' text' differs by spaces around it"),
        Bad("a quote that is never closed", "quotes in pairs", "mend the line that is named", table("quote.csv"), "line 2: unexpected end"),
        Bad("a file in another encoding", "UTF-8, or UTF-16 with its mark", "save it as UTF-8, for example with iconv", table("latin.csv"), "is not UTF-8.*iconv"),
        Bad("NUL bytes in a text file", "text", "save it as UTF-8", table("nul.csv"), "NUL bytes"),
        Bad("a line of more than 16 million characters", "a table", "the right file", table("line.csv"), "is longer than"),
        Bad("a file called .gz that is none", "gzip", "the right ending", table("zip.csv.gz"), "Cannot read .* as csv"),
        Bad("a .gz file that was cut off", "a whole file", "download it again", table("cut.csv.gz"), "Cannot read .* as csv"),
        Bad("a file called .parquet that is none", "parquet", "the right ending", table("text.parquet"), "Cannot read .* as parquet"),
        Bad("NaN in a line of jsonl", "null for a missing value", "write null", corpus("nan.jsonl"), "line 2 as JSON: NaN"),
        Bad("a name given twice in a line of jsonl", "each name once", "mend the line", corpus("double.jsonl"), "given twice"),
        Bad("a list in a line of jsonl", "an object of names and values", "mend the line", corpus("list.jsonl"), "line 2: .*expected an object"),
        Bad("a number where a text belongs", "a string", "put it in quotes", corpus("number.jsonl"), "line 2 holds 12"),
        Bad("half a surrogate pair", "whole characters", "mend the line", corpus("half.jsonl"), "surrogates"),
        Bad("JSON nested 100,000 levels deep", "at most 64 levels", "the right file", corpus("deep.json"), "levels deep"),
        Bad("a corpus of blank lines", "a text", "the right file", corpus("spaces.txt"), "holds no texts"),
        Bad("a corpus column without a text", "a text", "the right column", corpus("none.parquet"), "holds no texts"),
        Bad("a .txt file as a table", "columns", "a csv, jsonl or parquet file", table("good.txt"), "expected a table"),
        Bad("a column that is not there", "one of the columns that are listed", "the right name", table("good.csv", target="job"), "no column 'job' for the target; it has text, y, g"),
        Bad("one column in two roles", "different columns", "name another", table("good.csv", target="text"), "must differ"),
        Bad("numbers in the text column of a parquet file", "strings", "the right column", table("numbers.parquet"), "2 rows are no text"),
        Bad("a missing text", "a text in each row", "drop or fill the row that is named", table("missing.parquet"), "row 1"),
        Bad("a text of spaces", "a text in each row", "drop the row that is named", table("blank.csv"), "the first in row 1; drop them"),
        Bad("a missing target", "a target in each row", "drop or fill the row that is named", table("notarget.csv", target="y"), "drop those rows or fill them"),
        Bad("labels of several kinds", "strings alone, or numbers", "write them in one way", table("kinds.jsonl", target="y"), "no labels of one kind"),
        Bad("a measured number for an attribute", "labels", "bin it", table("measured.csv", sensitive="y"), "column 'y' holds 30 different numbers.*bin them"),
        Bad("a list for a label", "one value a row", "the right column", table("kinds.jsonl", target="z"), "no labels of one kind"),
        Bad("times beyond what Python holds", "dates", "leave the column out", table("far.parquet"), "column 't' holds times"),
        Bad("an attribute without any value", "a value in some rows", "the right column", table("noattribute.csv", sensitive="g"), "every value of the attribute is missing"),
        Bad("an unknown profession", "one of the 28", "a name that is listed", lambda p: load_bias_in_bios(["king"]), "Unknown professions"),
        Bad("no biographies at all", "at least one", "a larger number", lambda p: synthetic_biographies(0), "at least 1"),
        Bad("a name that is no file here and no data set of the hub", "either", "the right name", lambda p: list(stream_texts("nobody/nothing")), "no file or folder here"),
    ],
    "Texts and columns in Python": [
        Bad("one string", "a list of strings", "[text]", lambda p: check_texts("she cares"), r"pass a list of strings: \[text\]"),
        Bad("bytes", "strings", "decode them", lambda p: check_texts(b"she"), "single bytes"),
        Bad("a mapping", "a list of strings", "list(x.values())", lambda p: check_texts({"a": "she"}), r"pass list\(x.values\(\)\)"),
        Bad("a set", "texts in an order", "a list", lambda p: check_texts({"she"}), "has no order.*pass a list"),
        Bad("a generator", "texts that can be read twice", "a list", lambda p: check_texts(t for t in ["she"]), "one-shot iterator.*pass a list"),
        Bad("None", "texts", "a list", lambda p: check_texts(None), "got None.*pass a list"),
        Bad("an empty list", "at least one text", "give one", lambda p: check_texts([]), "at least one"),
        Bad("a missing text in a list", "a string in each row", 'replace it by ""', lambda p: check_texts(["a", None]), 'row 1 holds None.*replace missing texts by ""'),
        Bad("a number in a list of texts", "a string in each row", "str(x)", lambda p: check_texts(["a", 3]), "row 1 holds 3 of type int.*must be strings"),
        Bad("a table of two columns", "one column", "table['text']", lambda p: check_texts(pd.DataFrame({"a": ["x"], "b": ["y"]})), "table of 2 columns where one"),
        Bad("no sensitive features", "a column", "pass one", lambda p: named_columns(None, "sensitive_features"), "sensitive_features is needed; pass one"),
        Bad("a string for a column", "one entry a row", "a list", lambda p: named_columns("sex", "sensitive_features"), "one entry a row, got str"),
        Bad("columns of one name", "names of their own", "rename one", lambda p: named_columns(pd.DataFrame([[1, 2]], columns=["a", "a"]), "x"), "names of their own"),
        Bad("columns of unequal length", "one entry a row each", "the same rows", lambda p: audit(Y, P, sensitive_features=G[:-1]), "lengths differ"),
        Bad("scores given as predictions", "labels", "y_score=", lambda p: audit(np.arange(40) / 40, np.arange(40) / 40 + 0.001, sensitive_features=G), "pass predicted labels"),
        Bad("probabilities of few decimals given as predictions", "labels, as whole as y_true's", "threshold them; y_score=", lambda p: audit(Y, [0.1, 0.9] * 20, sensitive_features=G), "holds 0.1 where every label.*threshold"),
        Bad("labels that read alike", "one type and spelling", "write them in one way", lambda p: audit(Y, list(map(str, P)), sensitive_features=G), "type alone; spell them alike"),
        Bad("groups that read alike", "one spelling", "write them in one way", lambda p: audit(Y, P, sensitive_features=["f", "m", "F ", "m"] * 10), "alike in attribute 'group'"),
        Bad("a number with fractions for an attribute", "groups", "bin it", lambda p: audit(Y, P, sensitive_features=np.arange(40) + 0.5), "bin them first"),
        Bad("predictions in other words than the labels", "the same labels", "one spelling", lambda p: audit(Y, ["a"] * 40, sensitive_features=G), "shares no value"),
        Bad("a seed below zero", "None or 0 to 4294967295", "such a number", lambda p: audit(Y, P, sensitive_features=G, random_state=-1), "random_state is -1; expected None or"),
        Bad("a word for a seed", "None or 0 to 4294967295", "such a number", lambda p: SSAEDebiaser(random_state="a").fit(np.eye(60)[:, :6], sensitive_features=G + G[:20]), "random_state is 'a'; expected None or"),
        Bad("a weight below zero", "weights of zero or more", "leave those rows out", lambda p: audit(Y, P, sensitive_features=G, sample_weight=[-1.0] * 40), "not negative"),
    ],
    "Settings": [
        Bad("a file that is not there", "a YAML file", "the right path", config("no.yaml"), "There is no file"),
        Bad("a name that is mistyped", "a known name", "the name that is suggested", config("typo.yaml"), "did you mean d_sae?"),
        Bad("a number for a group of settings", "name: value", "for example general: {n_steps: 50}", config("group.yaml"), "expected a group of settings"),
        Bad("a list for the whole file", "names and values", "name: value", config("list.yaml"), "expected a mapping"),
        Bad("a number as a name", "a name", "the right name", config("key.yaml"), "1 is no name"),
        Bad("a name given twice", "each once", "delete one", config("dup.yaml"), "given twice"),
        Bad("aliases that stand for millions of values", "values written out", "write it out", config("bomb.yaml"), "holds an alias"),
        Bad("aliases of one long text", "values written out", "write it out", config("long.yaml"), "holds an alias"),
        Bad("nesting without end", "at most 64 levels", "the right file", config("deep.yaml"), "levels deep"),
        Bad("a file that is not UTF-8", "UTF-8", "save it as UTF-8", config("latin.yaml"), "not UTF-8.*save it as UTF-8"),
        Bad("a file that names Python objects", "plain values", "delete the tag", config("tag.yaml"), "line 1.*could not determine a constructor"),
        Bad("a bracket that is never closed", "YAML", "mend the line that is named", config("broken.yaml"), "line 1"),
        Bad("a megabyte of settings", "at most 512 kB", "the right file", config("big.yaml"), "is it the right one"),
        Bad("two billion latents", "at most 16,777,216", "fewer", config("huge.yaml"), "less than or equal to 16777216"),
        Bad("a learning rate that is no number", "a number above 0", "a number", config("nan.yaml"), "special.lr"),
        Bad("true where a number belongs", "a number", "a number", lambda p: load_config(DebiasConfig, {"k": True}), "no truth value"),
        Bad("more active latents than latents", "k at most d_sae", "a smaller k", lambda p: load_config(SAEConfig, {"d_in": 4, "d_sae": 8, "k": 9}), "k=9 is more than d_sae=8"),
        Bad("settings of another kind", "DebiasConfig", "the right object", lambda p: load_config(DebiasConfig, TrainConfig()), "expected DebiasConfig"),
        Bad("a number for config=", "an object, a dict or a path", "one of them", lambda p: load_config(DebiasConfig, 3), "is 3; expected a mapping"),
        Bad("an architecture that is not known", "one of five", "a name that is listed", lambda p: load_config(DebiasConfig, {"architecture": "vae"}), "'relu', 'topk'"),
        Bad("--set without a value", "NAME=VALUE", "special.n_steps=50", lambda p: parse_overrides(["k"]), "expected NAME=VALUE"),
        Bad("a seed that leaves no room for the next ones", "at most 2147418112", "a smaller one", lambda p: load_config(BenchmarkConfig, {"seed": 2**32 - 1}), "less than or equal to 2147418112"),
        Bad("zero seeds", "at least one", "1 or more", lambda p: load_config(BenchmarkConfig, {"seeds": 0}), "greater than or equal to 1"),
    ],
    "Files of artefacts": [
        Bad("a directory without a manifest", "an artefact of this package", "the right directory", lambda p: read_manifest(p / "folder", "thing 1"), "There is no file .*manifest.json"),
        Bad("another kind of artefact", "the kind that is named", "the right directory", manifest(kind="other 1"), "holds 'thing 1', expected 'other 1'"),
        Bad("a file that was changed", "the bytes that were written", "make or download it again", manifest(file=b"abd"), "checksum differs.*again"),
        Bad("a file that was cut off", "the bytes that were written", "make or download it again", manifest(file=b"a"), "checksum differs.*again"),
        Bad("a file that is missing", "every file", "make or download it again", manifest(gone=True), "is missing.*again"),
        Bad("a manifest that was changed", "the bytes that were written", "make or download it again", manifest(seal=True), "is damaged"),
        Bad("arrays that were cut off", "a whole file", "make or download it again", lambda p: read_arrays(p / "cut.safetensors"), "damaged.*again"),
        Bad("arrays with NaN", "finite numbers", "make it again", lambda p: read_arrays(p / "nan.safetensors"), "not finite"),
        Bad("a pointer of Git LFS", "the file itself", "git lfs pull", lambda p: read_arrays(p / "lfs.safetensors"), "run git lfs pull"),
        Bad("a header that claims more than the file holds", "what the file holds", "download it again", lambda p: read_arrays(p / "claims.safetensors"), "is damaged"),
        Bad("JSON that was cut off", "JSON", "make it again", lambda p: read_json(p / "damaged.json"), "as JSON"),
        Bad("an infinite number in JSON", "finite numbers", "make it again", lambda p: read_json(p / "inf.json"), "beyond the range"),
        Bad("a folder for a file", "a file", "the right path", lambda p: read_json(p / "folder"), "is a folder, expected a file"),
        Bad("an index that claims parts that are not there", "its parts", "make it again", lambda p: index(p).texts(), "is missing: make or download"),
        Bad("an index with strange numbers", "numbers above 0", "the number that is wrong", lambda p: index(p, n_texts=-1), "does not describe an index: n_texts"),
        Bad("a folder without an index", "an index", "retrieve index", lambda p: CorpusIndex(p / "folder"), "make one with"),
        Bad("an index made with another embedder", "the same", "the embedder that is named", lambda p: (index(p), CorpusIndex(p / "index", embedder="other")), "made with embedder='minilm', not 'other'"),
        Bad("a store whose harvest was interrupted", "a finished one", "run the same harvest again", store, "run the same harvest again"),
        Bad("a folder without an SAE", "an SAE of a known format", "the right folder", lambda p: load_sae(p / "folder"), "no sparse autoencoder"),
    ],
    "Places to write": [
        Bad("a folder that is not there", "a folder", "make it first", lambda p: write_bytes(p / "no" / "f", b""), "make it first"),
        Bad("a file where a folder belongs", "a folder", "another place", lambda p: write_bytes(p / "good.csv" / "f", b""), "is not a folder; give another place"),
        Bad("a folder where a file belongs", "a file's name", "the name of a file", lambda p: write_bytes(p / "folder", b""), "give the name of a file"),
        Bad("a name that is too long", "at most 255 bytes", "a shorter one", lambda p: write_bytes(p / ("n" * 300), b""), "give a shorter one"),
        Bad("a cache below a file", "a folder", "another place", lambda p: EmbeddingCache(p / "good.csv", "k"), "Cannot make the cache folder"),
    ],
    "Retrieval": [
        Bad("no seeds", "one text of the subdomain", "give one", lambda p: retrieve([" "], ["a"]), "at least one text"),
        Bad("a mapping for the corpus", "a list", "list(x.values())", lambda p: retrieve(["a"], {"d": "x"}), "mapping"),
        Bad("an unknown method", "dense, bm25, hybrid", "one of them", lambda p: retrieve(["a"], ["b"], method="best"), "'dense', 'bm25' or 'hybrid'"),
        Bad("zero texts", "at least 1", "a larger number", lambda p: retrieve(["a"], ["b"], n_texts=0), "greater than or equal to 1"),
        Bad("a cosine beyond 1", "(0, 1]", "0.95", lambda p: retrieve(["a"], ["b"], near_duplicate=2), "near_duplicate: .*less than or equal to 1"),
        Bad("an embedder that is not there", "a sentence-transformers id or directory", "the right name", lambda p: embed_texts(["a"], "nobody/nothing"), "Cannot load the embedder"),
    ],
    "Command line": [
        Bad("a command that is not known", "one of --help", "the right name", "fits", "No such command"),
        Bad("an option that is missing", "--out", "give it", "fit --data {p}/good.csv", "Missing option '--out'"),
        Bad("nothing to remove", "labels, words or choices", "--sensitive or --attribute", FIT + "good.csv", "nothing to remove|--attribute"),
        Bad("a table that is not there", "a table", "the right path", FIT + "no.csv --sensitive g", "There is no file"),
        Bad("a column that is not there", "one that is listed", "the right name", FIT + "good.csv --sensitive sex", "no column 'sex'.*text, y, g"),
        Bad("a ragged table", "rows as long as the header", "mend the line that is named", FIT + "ragged.csv --sensitive y", "line 3"),
        Bad("a seed below zero", "0 to 4294967295", "such a number", FIT + "good.csv --sensitive g --seed -1", "-1 is not in the range"),
        Bad("settings that are not UTF-8", "UTF-8", "save it as UTF-8", FIT + "good.csv --sensitive g --config {p}/latin.yaml", "not UTF-8"),
        Bad("a bomb of aliases", "values written out", "write it out", FIT + "good.csv --sensitive g --config {p}/bomb.yaml", "holds an alias"),
        Bad("settings nested without end", "at most 64 levels", "the right file", FIT + "good.csv --sensitive g --config {p}/deep.yaml", "levels deep"),
        Bad("a number for a group of settings", "name: value", "general: {{n_steps: 50}}", FIT + "good.csv --sensitive g --config {p}/group.yaml", "expected a group of settings"),
        Bad("a setting that is mistyped", "a known name", "the one that is suggested", FIT + "good.csv --sensitive g --set d_sea=3", "did you mean d_sae"),
        Bad("a number of latents that is none", '"auto" or a whole number', "one of them", FIT + "good.csv --sensitive g --n-latents ²", "--n-latents"),
        Bad("an option whose other one is missing", "both or neither", "give both", FIT + "good.csv --sensitive g --annotated-sensitive g", "--annotated-sensitive belongs to --annotated"),
        Bad("an empty option", "a value", "set the variable of the shell, or leave it out", FIT + "good.csv --sensitive g --hookpoint=", "--hookpoint is empty"),
        Bad("fewer than no latents", "0 or more", "a larger number", "latents {p}/folder --data {p}/good.csv --out {p}/l.html --n -1", "-1 is not in the range"),
        Bad("an SAE into a folder of other things", "a folder of its own", "another folder", "sae convert {p}/folder {p}", "holds something that is no sparse autoencoder"),
        Bad("an SAE into a part of a saved model", "a folder of its own", "another folder", "sae convert {p}/folder {p}/model/sae", "is a part of"),
        Bad("an index into a folder of other things", "a folder of its own", "another folder", "retrieve index --corpus {p}/good.txt --out {p} --embedder none", "holds something that is no index"),
        Bad("a model that is no debiaser", "a directory of fit", "the right one", "transform {p}/folder --data {p}/good.csv --out {p}/o.csv", "give a directory"),
        Bad("an output of an unknown kind", ".parquet or .csv", "such a name", "transform {p}/folder --data {p}/good.csv --out {p}/o.xls", "ends in .parquet or .csv"),
        Bad("an output that would replace the input", "another name", "another name", "transform {p}/folder --data {p}/good.csv --out {p}/good.csv", "which would be lost"),
        Bad("an audit that would replace its table", "another name", "another name", "audit --data {p}/kinds.json --target y --prediction y --sensitive g --out {p}/kinds.json", "which would be lost"),
        Bad("a report of a selection that would replace the corpus", "another name", "another name", "retrieve select --corpus {p}/kinds.json --query nurse --out {p}/kinds.parquet", "which would be lost"),
        Bad("an audit of a column that is not there", "one that is listed", "the right name", "audit --data {p}/good.csv --target job --prediction y --sensitive g", "no column 'job'"),
        Bad("a report of an unknown kind", ".html, .json, .md, .xml", "such a name", "audit --data {p}/good.csv --target y --prediction y --sensitive g --out {p}/r.doc", "unknown kind of file"),
        Bad("two million million latents", "at most 16,777,216", "fewer", "sae train --encoder minilm --corpus {p}/good.txt --out {p}/sae --d-sae 2000000000", "16777216"),
        Bad("training settings that are a list", "sae: and train:", "the two groups", "sae train --encoder minilm --corpus {p}/good.txt --out {p}/sae --config {p}/list.yaml", "sae: and train:"),
        Bad("neither corpus nor index", "one of them", "--corpus or --index", "retrieve select --query nurse --out {p}/s.parquet", "either --corpus or --index"),
        Bad("neither query nor seeds", "one of them", "--query or --seed-texts", "retrieve select --corpus {p}/good.txt --out {p}/s.parquet", "either --query or --seed-texts"),
        Bad("a selection of an unknown kind", ".parquet", "such a name", "retrieve select --corpus {p}/good.txt --query nurse --out {p}/s.csv", "ends in .parquet"),
        Bad("a cosine of zero", "above 0, at most 1", "0.95", SELECT + "--near-duplicate 0", "not in the range"),
        Bad("an index that is none", "an index", "retrieve index", "retrieve query {p}/folder --query nurse", "holds no index"),
        Bad("a corpus of a strange kind", "a known ending", "save it as one of them", "retrieve index --corpus {p}/table.xlsx --out {p}/i", "known endings"),
        Bad("a store that is none", "a store of activations harvest", "the right folder", "activations info {p}/folder", "no finished activation store"),
    ],
}  # fmt: skip
ALL = [(section, bad) for section, rows in TABLE.items() for bad in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "model").mkdir()
    (folder / "model" / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize("bad", [bad for _, bad in ALL], ids=[f"{s}: {b.came}" for s, b in ALL])
def test_one_line_says_what_came_what_was_expected_and_the_cure(place, bad):
    before = sorted(path.name for path in place.iterdir())
    if isinstance(bad.call, str):
        done = CliRunner().invoke(main, bad.call.format(p=place).split())
        assert done.exit_code == 2, done.output
        last = done.output.strip().splitlines()[-1]
        assert last.startswith("Error: ")
        assert "Traceback" not in done.output
        assert re.search(bad.said, last), last
        assert len(last) < 2500
        assert sorted(path.name for path in place.iterdir()) == before
        return
    with pytest.raises(InputError) as error:
        bad.call(place)
    assert re.search(bad.said, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2500


def page() -> str:
    lines = [
        "# Bad inputs",
        "",
        "For those who were refused an input, and for those who want to know what is refused.",
        "",
        "An input that cannot be used raises an `InputError` (a `ValueError`) in Python. On the command line it prints one",
        "line after `Error:`, ends with exit code 2, and nothing is written. The line names what came, what was expected and",
        "the cure. `tests/faults/test_bad_inputs.py` tries every case of this page, and writes the page.",
    ]
    for section, rows in TABLE.items():
        lines += ["", f"## {section}", "", "| what came | what is expected | the cure |", "|---|---|---|"]
        for bad in rows:
            cells = [cell.replace("|", "\\|").replace("{{", "{").replace("}}", "}") for cell in bad[:3]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_page_is_this_table():
    assert len(ALL) >= 120
    assert len({(section, bad.came) for section, bad in ALL}) == len(ALL)
    assert PAGE.read_text(encoding="utf-8") == page(), (
        f"run {Path(sys.argv[0]).name} tests/faults/test_bad_inputs.py"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
