"""The tiny benchmark: a random model on disk, so that other processes can load it, and its protocol."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_benchmark import TINY, tiny_split, tiny_table

from debias_ssae.benchmark.protocol import Protocol, prepare

sys.path.append(str(Path(__file__).parents[1] / "model"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_models import small_model

    model, folder = small_model("bert"), tmp_path_factory.mktemp("model")
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pool() -> list[str]:
    from small_models import sentences

    return sentences(60, seed=5)


@pytest.fixture(scope="session")
def make_protocol(
    model_folder: Path, pool: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Protocol]:
    """Build the protocol of one seed: ``make_protocol(table, split, extra=texts of the pool, **config)``."""

    def make(table: pd.DataFrame | None = None, split: Any = None, **options: Any) -> Protocol:
        table = tiny_table() if table is None else table
        given = {name: options.pop(name) for name in ("attribute_data", "cache_dir") if name in options}
        corpus = [*pool, *options.pop("extra", ())] if options.pop("with_corpus", True) else None
        config = TINY.updated(encoder=str(model_folder), seeds=1, **options)
        return prepare(
            table,
            config,
            corpus=corpus,
            splits=[split or tiny_split(table, config.setting)],
            **{"cache_dir": tmp_path_factory.mktemp("cache"), **given},
        )

    return make
