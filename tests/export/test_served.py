"""What people do to a SentenceTransformer, done to an exported debiaser."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from small_debiaser import make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.export import export_sentence_transformers, load_exported

NEW = make_texts(30, seed=5)


@pytest.fixture(scope="module")
def exported(fitted: SSAEDebiaser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    goal = tmp_path_factory.mktemp("exports") / "debiased"
    export_sentence_transformers(fitted, goal)
    return goal


def load(path: Path, **options: Any) -> Any:
    return sentence_transformers.SentenceTransformer(
        str(path), device="cpu", trust_remote_code=True, **options
    )


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def test_max_seq_length(fitted: SSAEDebiaser, exported: Path) -> None:
    model = load(exported)
    model.max_seq_length = 6
    cut = [" ".join(text.split()[:4]) for text in NEW]  # [CLS] and [SEP] are tokens too
    assert largest(model.encode(NEW), fitted.transform(cut)) < 1e-5
    assert (
        largest(load(exported, processor_kwargs={"model_max_length": 6}).encode(NEW), model.encode(NEW))
        < 1e-6
    )
    with pytest.raises(ValueError, match="at least 3 tokens"):
        model.max_seq_length = 1


def test_precisions(fitted: SSAEDebiaser, exported: Path) -> None:
    wanted = fitted.transform(NEW)
    scale = np.abs(wanted).max()
    half = load(exported).half()
    assert half.encode(NEW).dtype == np.float16
    assert largest(half.encode(NEW).astype(np.float32), wanted) < 0.02 * scale
    low = load(exported, model_kwargs={"dtype": torch.bfloat16})
    assert largest(low.encode(NEW).astype(np.float32), wanted) < 0.05 * scale
    assert largest(half.float().encode(NEW), wanted) < 0.02 * scale
    with pytest.raises(ValueError, match="takes dtype alone"):
        load(exported, model_kwargs={"attn_implementation": "eager"})


def test_truncated_dimensions(fitted: SSAEDebiaser, exported: Path) -> None:
    wanted = fitted.transform(NEW)[:, :8]
    assert largest(load(exported, truncate_dim=8).encode(NEW), wanted) < 1e-5
    assert largest(load(exported).encode(NEW, truncate_dim=8), wanted) < 1e-5


def test_prompts(fitted: SSAEDebiaser, exported: Path) -> None:
    model = load(exported, prompts={"query": "she works "})
    wanted = fitted.transform([f"she works {text}" for text in NEW])
    assert largest(model.encode(NEW, prompt_name="query"), model.encode(NEW, prompt="she works ")) == 0
    assert largest(model.encode(NEW, prompt="she works "), model.encode(NEW)) > 1e-3
    assert wanted.shape == model.encode(NEW, prompt_name="query").shape


def test_a_prompt_that_was_changed_in_a_file_is_not_taken(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "m")
    model, file = load(tmp_path / "m"), tmp_path / "m" / "config_sentence_transformers.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"prompts": {"p": "he "}, "default_prompt_name": "p"}))
    for read in (load, load_exported):
        with pytest.raises(ValueError, match="checksum differs"):
            read(tmp_path / "m")
    model.prompts, model.default_prompt_name = {"p": "he "}, "p"
    model.save(str(tmp_path / "m"), create_model_card=False)  # whoever saves anew may say what it is
    assert largest(load(tmp_path / "m").encode(NEW), model.encode(NEW)) == 0


@pytest.mark.slow
def test_many_processes(fitted: SSAEDebiaser, exported: Path) -> None:
    model = load(exported)
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        found = model.encode(NEW * 3, pool=pool, chunk_size=20)
    finally:
        model.stop_multi_process_pool(pool)
    assert largest(found, fitted.transform(NEW * 3)) < 1e-5
    assert largest(copy.deepcopy(model).encode(NEW), fitted.transform(NEW)) < 1e-5
