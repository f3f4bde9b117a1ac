"""Shared fixtures: the real data's folder, one MiniLM for the session, few threads."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
