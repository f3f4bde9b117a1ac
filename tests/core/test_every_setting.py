"""No setting is decoration: each is read by the package, and each setting of training changes what is trained."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch

import debias_ssae
from debias_ssae.core import config
from debias_ssae.core.config import SAEConfig, Settings, TrainConfig
from debias_ssae.sae.training import shuffled_batches, train_sae

SOURCE = Path(debias_ssae.__file__).parent
CLASSES = [
    one
    for one in vars(config).values()
    if isinstance(one, type) and issubclass(one, Settings) and one is not Settings
]


def attributes_read() -> set[str]:
    """Names of all attributes that the package reads, and of all parameters: retrieval's settings come as keywords."""
    nodes = [
        node
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    ]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.arg for node in nodes if isinstance(node, ast.arg)
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_read(cls: type[Settings]) -> None:
    assert not set(cls.model_fields) - attributes_read()


ROWS = torch.randn(1_500, 8, generator=torch.Generator().manual_seed(0)).abs() * torch.linspace(1, 3, 8)
SIZE: dict[str, Any] = {"d_in": 8, "d_sae": 32, "k": 3}
TRAIN: dict[str, Any] = {"n_steps": 20, "batch_size": 128, "init_batches": 2, "k_aux": 4}
JUMP, FEW, DEAD = (
    {"architecture": "jumprelu"},
    {"k": 1},
    {"dead_steps": 1, "batch_size": 16, "init_batches": 20},
)
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    # field: settings of the SAE and of training in which it matters, and its other value
    "n_steps": ({}, {}, 21),
    "batch_size": ({}, {}, 120),
    "lr": ({}, {}, 0.01),
    "warmup_fraction": ({}, {}, 0.5),
    "decay_fraction": ({}, {}, 0.9),
    "clip_norm": ({}, {"clip_norm": 1e-3}, None),
    "tilt": ({}, {}, 2.0),
    "tilt_ess": ({}, {"tilt": "auto"}, 0.1),
    "tilt_warmup_fraction": ({}, {"tilt": 2.0}, 0.9),
    "sparsity": (JUMP, {}, 3.0),
    "sparsity_warmup_fraction": (JUMP, {}, 0.9),
    "bandwidth": (JUMP, {}, 0.5),
    "aux_coefficient": (FEW, DEAD, 0.9),
    "k_aux": (FEW, DEAD, 1),
    "dead_steps": (FEW, DEAD, 19),
    "start": ({}, {}, "random"),
    "start_cosine": ({}, {}, 0.05),
    "init_batches": ({}, {}, 1),
}
SAE_CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "d_sae": ({}, 24), "architecture": ({}, "topk"), "k": ({}, 2), "dtype": ({}, "float64"),
    "widths": ({"architecture": "matryoshka", "widths": (8, 32)}, (16, 32)),
}  # fmt: skip
ELSEWHERE = {
    "matmul_dtype",  # tests/sae/test_fast.py
    "device",  # tests/core/test_device.py
    "log_every", "checkpoint_steps", "checkpoint_minutes",  # tests/sae/test_checkpoints.py, test_trainer.py
    "d_in",
}  # fmt: skip


def trained(sae: dict[str, Any], train: dict[str, Any]) -> torch.Tensor:
    settings = TrainConfig(**{**TRAIN, **train})
    stream = shuffled_batches(ROWS, settings.batch_size, 0)
    return train_sae(stream, SAEConfig(**{**SIZE, **sae}), settings, random_state=0).sae.W_dec.detach()


def test_the_lists_hold_every_field() -> None:
    named = {*CHANGES, *SAE_CHANGES, *ELSEWHERE}
    assert named == {*TrainConfig.model_fields, *SAEConfig.model_fields}


@pytest.mark.parametrize("field", CHANGES)
def test_every_setting_of_training_changes_what_is_trained(field: str) -> None:
    sae, train, other = CHANGES[field]
    assert not torch.equal(trained(sae, train), trained(sae, {**train, field: other}))


@pytest.mark.parametrize("field", SAE_CHANGES)
def test_every_setting_of_an_sae_changes_it(field: str) -> None:
    sae, other = SAE_CHANGES[field]
    one, changed = trained(sae, {}), trained({**sae, field: other}, {})
    assert one.shape != changed.shape or one.dtype != changed.dtype or not torch.equal(one, changed)


def test_the_same_settings_train_the_same() -> None:
    """The control: without a change nothing differs."""
    assert torch.equal(trained({}, {}), trained({}, {}))
