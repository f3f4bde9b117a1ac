"""The benchmark: every method on every seed, resumable, to results.json, predictions.parquet and table.md."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from debias_ssae.benchmark.evaluation import Plain, plain_of, run_method
from debias_ssae.benchmark.methods import METHODS, Method, as_method, methods_of
from debias_ssae.benchmark.protocol import Protocol, Split, prepare
from debias_ssae.benchmark.summary import Answers, compare_with_family, head_kind, markdown_table, summarise
from debias_ssae.core import io
from debias_ssae.core.config import BenchmarkConfig, dump_config, make_config
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import bar
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text.tables import write_table

_PACKAGES = (
    "debias-ssae",
    "torch",
    "transformers",
    "scikit-learn",
    "fairlearn",
    "sentence-transformers",
    "numpy",
)


def run_benchmark(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    out: str | Path,
    *,
    corpus: Sequence[str] | None = None,
    data: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    splits: Sequence[Split] | None = None,
    attribute_data: pd.DataFrame | None = None,
    jobs: int | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Run the protocol on ``table`` with columns text, target and sensitive; return what results.json holds.

    ``corpus`` is the pool for retrieval and the general SAE, ``data`` describes where the table came from
    (path, sha256). ``splits`` are row numbers of the table, one a seed; by default the protocol's are drawn.
    ``attribute_data`` (text, sensitive) serves the regime labelled_gap. ``jobs``: processes over seeds and methods,
    one thread each; None leaves it to ``joblib.parallel_config``. Finished (seed, method) records are kept under
    ``cache_dir``, by default OUT/cache, and not made again with the same settings and data. ``made`` in the results
    holds what differs between two runs of the same seed: date, seconds, the command given.
    Raises InputError for unknown methods, cells that are too small, or a directory that cannot be written.
    """
    started = time.monotonic()
    methods = methods_of(config)
    io.check_writable(out)
    out = Path(out)
    protocol = prepare(
        table,
        config,
        corpus=corpus,
        splits=splits,
        attribute_data=attribute_data,
        cache_dir=cache_dir or out / "cache",
    )
    io.writable_directory(out)
    records = measure(protocol, methods, jobs=jobs)
    runs, predictions, answers = _joined(protocol, records)
    summary = summarise(runs, answers)
    results = {
        **_provenance(protocol, data, command, records, started),
        "runs": runs,
        "summary": summary,
        "comparisons_of_default": compare_with_family(summary, answers),
        "skipped": _skipped(records),
    }
    results = io.as_json(results)
    io.write_json(out / "results.json", results)
    io.write_text(out / "config.yaml", dump_config(config))
    write_table(predictions, out / "predictions.parquet")
    io.write_text(out / "table.md", markdown_table(results))
    return results


def compare(
    estimators: Mapping[str, Any],
    texts: Sequence[str],
    y: Any,
    sensitive_features: Any,
    *,
    encoder: str | ActivationEncoder = "minilm",
    corpus: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    jobs: int | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Compare estimators of your own on your texts, under the benchmark's protocol.

    Parameters
    ----------
    estimators : mapping of name to estimator
        Each is copied for every seed and fitted on the head's texts ``fit(texts, y)``, or, where its fit takes
        ``sensitive_features`` and it has no ``attribute`` of its own, on the group-annotated set. What has
        ``transform`` is judged by heads on what it returns, a classifier by its own predictions. Names of the
        package's methods may stand for them: ``{"leace": "leace"}``. A function of a ``Context``, or a ``Method``,
        serves what an estimator cannot say.
    texts, y, sensitive_features : sequences ``(n,)``
    encoder : str or ActivationEncoder
        Gives the plain representations of the rows ``erm`` and ``oracle``, and of the frozen head.
    jobs : int, optional
        Processes; None leaves it to ``joblib.parallel_config``.
    settings :
        Those of ``BenchmarkConfig``: seeds, n_test, n_attribute, max_head, setting, ...; by default without a concept.

    Returns
    -------
    DataFrame with a row for each method and kind of head: worst-group accuracy with its 95% interval, balanced
    accuracy, leakage of the attribute given y, the share of the gap between erm and oracle that is closed, and the
    number of seeds. Logistic heads, C by cross-validation.

    Raises InputError for unknown settings, cells that are too small, and when no method could be run, with the reasons.
    """
    name = encoder if isinstance(encoder, str) else str(encoder.model)
    config = make_config(BenchmarkConfig, {"concept": None, **settings, "encoder": name}, "compare")
    table = pd.DataFrame({"text": list(texts), "target": list(y), "sensitive": list(sensitive_features)})
    methods = {name: METHODS[name] for name in ("erm", "oracle")}
    methods |= {
        name: METHODS[one] if isinstance(one, str) and one in METHODS else as_method(one)
        for name, one in estimators.items()
    }
    with tempfile.TemporaryDirectory() if cache_dir is None else nullcontext(cache_dir) as directory:
        protocol = prepare(
            table,
            config,
            encoder=encoder if isinstance(encoder, ActivationEncoder) else None,
            corpus=corpus,
            cache_dir=directory,
        )
        records = measure(protocol, methods, jobs=jobs, keep=False)
    runs, _, answers = _joined(protocol, records)
    shown = [
        {
            "method": row["method"],
            "head": head_kind(row),
            **{name: row[f"worst_group_accuracy{name_end}"] for name, name_end in _INTERVAL.items()},
            **{name: row.get(name) for name in ("balanced_accuracy", "leakage_given_y", "gap_closed")},
            "n_seeds": row["n_seeds"],
        }
        for row in summarise(runs, answers)
    ]
    frame = pd.DataFrame(shown)
    frame.attrs["skipped"] = _skipped(records)
    return frame


_INTERVAL = {"worst_group_accuracy": "", "ci_low": "_ci_low", "ci_high": "_ci_high"}


def measure(
    protocol: Protocol,
    methods: Mapping[str, Method],
    *,
    jobs: int | None = None,
    keep: bool = True,
) -> list[dict[str, Any]]:
    """Return a record for each seed and method.

    With ``keep`` records lie under the cache directory by fingerprint, atomically, and are not made again.
    """
    numbers = range(len(protocol.splits))
    # what trains SAEs comes first, so that a run does not end with one long task; the methods of one seed wait for the
    # same SAEs, so neighbours in the list are of different seeds
    order = sorted(methods, key=lambda name: not name.startswith(("ssae", "gsae", "random_latents")))
    tasks = [(number, name) for name in order for number in numbers]
    files = {task: _record_file(protocol, *task) for task in tasks} if keep else {}
    found = {task: _read(files.get(task)) for task in tasks}
    left = [task for task in tasks if found[task] is None]
    todo = sorted({number for number, _ in left})
    plains = _parallel(
        jobs,
        [delayed(_plain)(protocol, n, dict(methods)) for n in todo],
        "seeds prepared",
    )
    plain = dict(zip(todo, plains, strict=True))
    made = _parallel(
        jobs,
        [
            delayed(_task)(protocol, plain[number], number, name, methods[name], files.get((number, name)))
            for number, name in left
        ],
        "methods measured",
    )
    found |= dict(zip(left, made, strict=True))
    return [found[number, name] or {} for name in methods for number in numbers]


def _parallel(jobs: int | None, calls: list[Any], done: str) -> list[Any]:
    """Run the calls and return what they give, in order; a bar counts what is ``done``.

    Raises InputError where a process dies, mostly for want of memory.
    """
    options: dict[str, Any] = {"n_jobs": jobs, "max_nbytes": None}
    try:
        parallel = Parallel(**options, return_as="generator")
    except ValueError:  # some backends, such as Ray's, hand over their results at the end
        parallel = Parallel(**options)
    try:
        with bar(done, parallel(calls), unit="task", total=len(calls)) as drawn:
            return list(drawn)
    except TerminatedWorkerError as error:
        raise InputError(
            "a process of the benchmark died, mostly for want of memory; run the same command again with "
            "fewer --jobs: what was finished is kept"
        ) from error


def _plain(protocol: Protocol, number: int, methods: dict[str, Method]) -> Plain:
    with one_thread():
        return plain_of(protocol, number, methods)


def _task(
    protocol: Protocol, plain: Plain, number: int, name: str, method: Method, file: Path | None
) -> dict[str, Any]:
    with one_thread():
        record = {**io.as_json(run_method(protocol, plain, number, name, method)), "number": number}
    if file is not None:
        io.writable_directory(file.parent)
        io.write_arrays(file, {}, record)
    return record


def _record_file(protocol: Protocol, number: int, name: str) -> Path:
    regimes = io.fingerprint(protocol.regimes)[:8]
    folder = Path(str(protocol.cache_dir)) / "records"
    return folder / f"{name}-{protocol.seed_key(number)}-{regimes}.safetensors"


def _read(file: Path | None) -> dict[str, Any] | None:
    if file is not None and file.exists():
        with suppress(InputError):  # a damaged one is made again
            return io.sealed_arrays(file)[1]
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS, OpenMP and torch to one thread, so that results do not depend on where they are made."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _joined(
    protocol: Protocol, records: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], pd.DataFrame, Answers]:
    """All rows, all predictions beside what they should be, and these for the statistics.

    Raises InputError where nothing could be run, with the reasons.
    """
    runs = [row for record in records for row in record["rows"]]
    if not runs:
        reasons = "; ".join(
            dict.fromkeys(f"{note['method']}: {note['reason']}" for r in records for note in r["skipped"])
        )
        raise InputError(f"no method could be run ({reasons})")
    frames = []
    for record in records:
        rows = protocol.splits[record["number"]].test
        known = {"text_id": protocol.text_ids[rows], "y": protocol.y[rows], "z": protocol.z[rows]}
        frames += [
            # sorted: keys that were kept come back in that order
            pd.DataFrame({**dict(sorted(keys.items())), **known, "y_pred": y_pred})
            for keys, y_pred in record["predictions"]
        ]
    predictions = pd.concat(frames, ignore_index=True)
    return runs, predictions, Answers(predictions)


def _skipped(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return list({tuple(note.items()): note for record in records for note in record["skipped"]}.values())


def _provenance(
    protocol: Protocol,
    data: dict[str, Any] | None,
    command: str | None,
    records: Sequence[dict[str, Any]],
    started: float,
) -> dict[str, Any]:
    """What stands at the head of results.json. Processor seconds are those of the records, whichever run and process
    made them; not counted are the preparation and the statistics at the end.
    """
    config, concept, model = protocol.config, protocol.concept, protocol.encoder.language_model
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seconds": round(time.monotonic() - started),
        "processor_seconds": round(sum(record["processor_seconds"] for record in records)),
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    return {
        "quick": config.quick,
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in _PACKAGES},
        "data": {**(data or {}), "n": protocol.n_texts},
        "concept": None if concept is None else {"name": concept.name, "sha256": concept.sha256},
        "made": made,
    }
