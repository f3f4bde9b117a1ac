"""The neuron skyline: the coordinates that differ are set to their mean, and no others."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from debias_ssae.baselines import NeuronAblation, ablate_neurons
from debias_ssae.core.errors import InputError
from debias_ssae.model import harvest

sys.path.append(str(Path(__file__).parents[1] / "model"))


def test_edit_sets_its_neurons_and_leaves_the_rest() -> None:
    x = torch.arange(12.0).reshape(3, 4)
    edit = NeuronAblation((1, 3), torch.tensor([-1.0, -2.0]))
    y = edit(x)
    assert (y[:, 1] == -1).all()
    assert (y[:, 3] == -2).all()
    assert torch.equal(y[:, [0, 2]], x[:, [0, 2]])
    assert x[0, 1] == 1, "the input is left alone"
    assert edit.fingerprint != NeuronAblation((1, 2), torch.tensor([-1.0, -2.0])).fingerprint


def test_the_neurons_that_tell_the_attribute_are_chosen() -> None:
    from small_models import D_MODEL, small_model

    model = small_model("bert")
    texts = ["she works in the city"] * 8 + ["he works in the city"] * 8
    texts = [f"{text} {word}" for text, word in zip(texts, ["and", "of", "with", "was"] * 4, strict=True)]
    z = ["F"] * 8 + ["M"] * 8
    edit = ablate_neurons(model, texts, z, n_neurons=4)
    rows = harvest(model, texts)
    pooled = rows.pool().numpy()
    gap = np.abs(pooled[:8].mean(axis=0) - pooled[8:].mean(axis=0)) / pooled.std(axis=0)
    assert gap[list(edit.neurons)].mean() > gap.mean()
    assert torch.allclose(edit.means, rows.x.mean(0)[list(edit.neurons)])
    with pytest.raises(InputError, match="n_neurons is 99"):
        ablate_neurons(model, texts, z, n_neurons=99)
    assert len(ablate_neurons(model, texts, z, n_neurons=D_MODEL).neurons) == D_MODEL
