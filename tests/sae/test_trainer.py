import math

import pytest
import torch
from planted_sae import ARCHITECTURES, evaluate, planted_rows, random_sae

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import show_progress
from debias_ssae.sae import shuffled_batches, train_sae
from debias_ssae.sae.fast import Weights
from debias_ssae.sae.model import unwritten
from debias_ssae.sae.training import Adam, distinct_directions

CFG = SAEConfig(d_in=16, d_sae=48, k=4)
BRIEF = TrainConfig(n_steps=30, batch_size=64, device="cpu")


def stream(seed=0, batch_size=64, n=4000, **planted):
    return shuffled_batches(planted_rows(n, **planted), batch_size, seed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_learns_planted_directions(architecture):
    cfg = CFG.updated(architecture=architecture)
    train = TrainConfig(n_steps=400, batch_size=256, device="cpu")
    sae, history = train_sae(stream(batch_size=256), cfg, train, random_state=0)
    measured = evaluate(sae, planted_rows(2000, seed=5))
    limit = {"relu": 0.35, "matryoshka": 0.2}.get(architecture, 0.15)
    assert measured["fvu"] < limit
    # 48 latents for 32 directions: jumprelu, which has no fixed number of active ones, leaves some unused
    assert measured["dead_fraction"] < (0.3 if architecture == "jumprelu" else 0.15)
    if architecture != "relu":
        assert measured["l0"] == pytest.approx(4, rel=0.15)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    assert history[-1]["fvu"] < 0.5 * history[0]["fvu"]
    assert history[-1]["step"] == 399


def test_history_says_what_happened():
    history = train_sae(stream(), CFG, BRIEF, random_state=0).history
    assert [record["step"] for record in history] == [0, 10, 20, 29]
    wanted = {
        "step", "loss", "tilted_loss", "fvu", "l0", "dead_fraction", "ess", "max_weight", "tilt", "lr",
        "aux_loss", "penalty", "seconds", "rows_per_second",
    }  # fmt: skip
    assert all(set(record) == wanted for record in history)
    assert history[0]["ess"] == pytest.approx(64)
    assert history[0]["max_weight"] == pytest.approx(1 / 64)
    assert history[0]["loss"] == pytest.approx(history[0]["tilted_loss"], rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_seed_gives_the_same_bytes(architecture):
    cfg = CFG.updated(architecture=architecture)
    prints = [train_sae(stream(), cfg, BRIEF, random_state=s).sae.fingerprint() for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_progress_changes_nothing(terminal):
    plain = train_sae(stream(), CFG, BRIEF, random_state=0).sae.fingerprint()
    assert not terminal.getvalue()
    with show_progress():
        watched = train_sae(stream(), CFG, BRIEF, random_state=0)
    assert watched.sae.fingerprint() == plain
    shown = terminal.getvalue()
    assert all(name in shown for name in ("loss=", "fvu=", "l0=", "dead_fraction=", "rows_per_second="))


def test_the_scale_of_the_rows_does_not_matter():
    x = planted_rows(4000)
    one = train_sae(shuffled_batches(x, 64, 0), CFG, BRIEF, random_state=0).sae
    big = train_sae(shuffled_batches(1024 * x, 64, 0), CFG, BRIEF, random_state=0).sae
    assert torch.allclose(one.W_dec, big.W_dec, atol=1e-4)
    assert torch.allclose(1024 * one(x[:50]).x_hat, big(1024 * x[:50]).x_hat, rtol=1e-3)


def test_tilt_auto_holds_the_effective_sample_size():
    train = BRIEF.updated(tilt="auto", tilt_ess=0.25, tilt_warmup_fraction=0.0)
    history = train_sae(stream(), CFG, train, random_state=0).history
    assert all(record["ess"] == pytest.approx(16, rel=0.02) for record in history)
    assert all(record["tilt"] > 0 for record in history)


def test_the_tilt_rises_over_its_warmup():
    train = BRIEF.updated(tilt=8.0, tilt_warmup_fraction=0.5, log_every=1)
    history = train_sae(stream(), CFG, train, random_state=0).history
    assert [record["tilt"] for record in history[:3]] == pytest.approx([8 / 15, 16 / 15, 24 / 15])
    assert history[15]["tilt"] == history[-1]["tilt"] == 8.0
    assert history[-1]["tilted_loss"] > history[-1]["loss"]


def test_tilting_helps_rare_rows():
    common, rare = (
        planted_rows(4000, seed=1),
        4 * torch.randn(40, 16, generator=torch.Generator().manual_seed(1)),
    )
    x = torch.cat([common, rare + 5])
    train = TrainConfig(n_steps=300, batch_size=256, device="cpu")
    worst = {}
    for tilt in (0.0, 2.0):
        sae = train_sae(shuffled_batches(x, 256, 0), CFG, train.updated(tilt=tilt), random_state=0).sae
        worst[tilt] = float((sae(x[-40:]).x_hat - x[-40:]).square().sum().detach())
    assert worst[2.0] < 0.9 * worst[0.0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fine_tuning_starts_where_the_general_sae_is(architecture):
    cfg = CFG.updated(architecture=architecture)
    general = train_sae(stream(), cfg, BRIEF.updated(n_steps=200), random_state=0).sae
    before = evaluate(general, planted_rows(1000, seed=5))["fvu"]
    gentle = BRIEF.updated(n_steps=20, lr=1e-9, sparsity=0.0, aux_coefficient=0.0)
    tuned = train_sae(stream(1), cfg, gentle, init=general, random_state=0).sae
    assert evaluate(tuned, planted_rows(1000, seed=5))["fvu"] == pytest.approx(before, rel=0.05)
    assert torch.allclose(tuned.W_enc, general.W_enc, atol=1e-5)
    assert torch.allclose(tuned.b_dec, general.b_dec, atol=1e-4)


def test_fine_tuning_an_sae_whose_decoder_rows_are_not_of_norm_one():
    general = random_sae("relu", d_sae=48)
    x = planted_rows(64)
    gentle = BRIEF.updated(n_steps=1, lr=1e-9)
    tuned = train_sae(iter([x]), general.cfg, gentle, init=general).sae
    assert torch.allclose(tuned(x).x_hat, general(x).x_hat, atol=1e-3)
    assert torch.allclose(tuned.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)


def test_init_stays_as_it_was():
    init = random_sae("relu", dtype="float64")
    before, tensors = init.fingerprint(), list(init.parameters())
    cfg = CFG.updated(architecture="relu")
    sae = train_sae(stream(), cfg, BRIEF.updated(n_steps=2), init=init).sae
    assert sae.W_enc.dtype == torch.float32
    assert init.fingerprint() == before
    assert all(
        new is old and new.dtype == torch.float64 for new, old in zip(init.parameters(), tensors, strict=True)
    )


def test_init_of_another_shape():
    with pytest.raises(InputError, match="d_sae=48; the configuration asks for d_in=16, d_sae=20"):
        train_sae(stream(), CFG.updated(d_sae=20), BRIEF, init=random_sae("batchtopk"))


def test_thresholds_of_dead_jumprelu_latents_come_down():
    cfg = CFG.updated(architecture="jumprelu")
    start = train_sae(stream(batch_size=256), cfg, BRIEF.updated(n_steps=200), random_state=0).sae
    raised = (start.encode(planted_rows(4000)) > 0).sum(0).topk(12).indices
    with torch.no_grad():
        start.threshold[raised] = 40.0  # no row comes near, so that no gradient reaches these
    silent = {}
    for coefficient in (0.0, 1 / 32):
        train = TrainConfig(
            n_steps=150, batch_size=256, lr=0.02, aux_coefficient=coefficient, dead_steps=2, device="cpu"
        )
        sae = train_sae(stream(batch_size=256), cfg, train, init=start, random_state=0).sae
        silent[coefficient] = int((sae.encode(planted_rows(4000))[:, raised] == 0).all(0).sum())
    assert silent[0.0] == 12
    assert silent[1 / 32] <= 3


def test_biases_of_dead_relu_latents_rise():
    cfg = CFG.updated(architecture="relu")
    start = train_sae(stream(batch_size=256), cfg, BRIEF.updated(n_steps=200), random_state=0).sae
    with torch.no_grad():
        start.b_enc[:12] = -8.0  # below zero on every row, so that no gradient reaches these
    silent = {}
    for coefficient in (0.0, 1 / 32):
        train = TrainConfig(
            n_steps=150, batch_size=256, lr=0.02, aux_coefficient=coefficient, dead_steps=2, device="cpu"
        )
        sae = train_sae(stream(batch_size=256), cfg, train, init=start, random_state=0).sae
        silent[coefficient] = int((sae.encode(planted_rows(4000))[:, :12] == 0).all(0).sum())
    assert silent[0.0] == 12
    assert silent[1 / 32] <= 2


def test_aux_revives_dead_latents():
    dead = {}
    for coefficient in (0.0, 1 / 32):
        init = train_sae(stream(), CFG, BRIEF, random_state=0).sae
        with torch.no_grad():
            init.b_enc[:20] = -1.4
        train = TrainConfig(
            n_steps=300, batch_size=256, aux_coefficient=coefficient, dead_steps=5, device="cpu"
        )
        sae = train_sae(stream(batch_size=256), CFG, train, init=init, random_state=0).sae
        dead[coefficient] = evaluate(sae, planted_rows(4000))["dead_fraction"]
    assert dead[0.0] > 0.25
    assert dead[1 / 32] < 0.75 * dead[0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_rows_name_the_batch(bad):
    batches = [planted_rows(64, seed=i) for i in range(30)]
    batches[7][3, 5] = bad
    with pytest.raises(InputError, match="Batch 7 of the stream holds NaN or infinity in 1 of 64 rows"):
        train_sae(iter(batches), CFG, BRIEF)


def test_huge_but_finite_rows_are_no_nan():
    rows = planted_rows(64)
    rows[:, 0] = 3e38
    with pytest.raises(InputError, match=r"loss of step|do not vary"):
        train_sae(iter([rows] * 30), CFG, BRIEF)


def test_streams_that_end_or_are_empty_or_wrong():
    with pytest.raises(InputError, match="ended after 11 batches; n_steps=30"):
        train_sae(iter([planted_rows(64)] * 11), CFG, BRIEF)
    with pytest.raises(InputError, match="stream is empty"):
        train_sae(iter([]), CFG, BRIEF)
    with pytest.raises(
        InputError, match=r"Batch 2 of the stream has shape \(64, 15\); expected a tensor \[n, 16\]"
    ):
        train_sae(iter([planted_rows(64), planted_rows(64), planted_rows(64)[:, :15]]), CFG, BRIEF)
    with pytest.raises(InputError, match=r"shape \(0, 16\)"):
        train_sae(iter([planted_rows(0)]), CFG, BRIEF)
    with pytest.raises(InputError, match="type list"):
        train_sae(iter([[1.0]]), CFG, BRIEF)
    with pytest.raises(InputError, match="do not vary"):
        train_sae(iter([torch.ones(64, 16)] * 30), CFG, BRIEF)


def test_a_device_that_is_not_there():
    for name in ("tpu9000", "cuda:7"):
        with pytest.raises(InputError, match="device"):
            train_sae(stream(), CFG, BRIEF.updated(device=name))


def test_shuffled_batches_cover_each_epoch_and_seek():
    x = torch.arange(10.0).unsqueeze(1)
    batches = shuffled_batches(x, 4, 0)
    seen = [next(batches) for _ in range(5)]
    rows = torch.cat(seen).flatten()
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    batches.seek(3)
    assert torch.equal(next(batches), seen[3])
    assert next(shuffled_batches(x.half(), 25, 1)).dtype == torch.float32
    assert len({float(next(shuffled_batches(torch.arange(1e6).unsqueeze(1), 1))) for _ in range(3)}) > 1
    for bad in (torch.zeros(0, 3), torch.zeros(3)):
        with pytest.raises(InputError, match="at least one row"):
            shuffled_batches(bad, 4)
    with pytest.raises(InputError, match="batch_size=0"):
        shuffled_batches(x, 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_columns_that_hardly_vary_are_neither_read_nor_written(architecture):
    rows = planted_rows(2000)
    rows[:, 3] = 0.5 + 1e-9 * rows[:, 3]
    rows[:, 5] *= 1e-4  # small, but its own
    cfg = CFG.updated(architecture=architecture)
    general = train_sae(shuffled_batches(rows, 64, 0), cfg, BRIEF, random_state=0).sae
    tuned = train_sae(shuffled_batches(rows, 64, 1), cfg, BRIEF, random_state=0, init=general).sae
    foreign = train_sae(
        shuffled_batches(rows, 64, 1), cfg, BRIEF, random_state=0, init=random_sae(architecture)
    ).sae
    for sae in (general, tuned, foreign):
        assert unwritten(sae.W_dec).tolist() == unwritten(sae.W_enc).tolist() == [3]
        assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    assert general.b_dec[3].item() == pytest.approx(0.5)
    plain = train_sae(stream(), cfg, BRIEF, random_state=0).sae
    assert not len(unwritten(plain.W_dec))


def test_first_decoder_rows_are_the_kinds_of_rows_frequent_ones_once():
    kinds = torch.eye(6)[:4]
    rows = kinds[torch.arange(400) % 3] + 0.01 * torch.randn(
        400, 6, generator=torch.Generator().manual_seed(0)
    )
    rows[399] = kinds[3]
    found = distinct_directions(rows, 4, 0.9)
    assert torch.allclose(found.norm(dim=1), torch.ones(4))
    assert ((found @ kinds.T) > 0.99).sum(0).tolist() == [1, 1, 1, 1]
    many = distinct_directions(rows, 40, 0.9)  # beyond the kinds: what rows differ in from theirs
    assert 4 < len(many) <= 40
    assert torch.equal(many[:4], found)


@pytest.mark.parametrize("rows", [torch.ones(10, 1), torch.zeros(10, 3), torch.ones(1, 4)])
def test_rows_of_one_kind_give_as_many_directions_as_there_are(rows):
    assert len(distinct_directions(rows, 8, 0.9)) == int(rows.any())


@pytest.mark.parametrize("rows", [None, torch.arange(6)])
def test_adam_with_a_gradient_for_every_latent_is_torchs(rows):
    generator = torch.Generator().manual_seed(0)

    def drawn():
        shapes = ((6, 4), (6,), (6, 4), (4,))
        return Weights(*(torch.randn(shape, generator=generator) for shape in shapes))

    weights = drawn()
    copies = [part.clone().requires_grad_() for part in (weights.W_enc, weights.b_enc, weights.b_dec)]
    ours, theirs = Adam(weights), torch.optim.Adam(copies, lr=0.01)
    for _ in range(5):
        gradient = drawn()
        for copy, slope in zip(copies, (gradient.W_enc, gradient.b_enc, gradient.b_dec), strict=True):
            copy.grad = slope.clone()
        theirs.step()
        ours.step(weights, gradient, rows, 0.01)
    for part, copy in zip((weights.W_enc, weights.b_enc, weights.b_dec), copies, strict=True):
        assert torch.allclose(part, copy, atol=1e-6)
    assert torch.allclose(weights.W_dec.norm(dim=1), torch.ones(6))


def test_adam_leaves_latents_without_a_gradient_where_they_are():
    weights = Weights(
        torch.randn(6, 4), torch.randn(6), torch.nn.functional.normalize(torch.randn(6, 4)), torch.zeros(4)
    )
    before = {name: value.clone() for name, value in weights.tensors().items()}
    rows, optimiser = torch.tensor([1, 4]), Adam(weights)
    for _ in range(3):
        optimiser.step(
            weights, Weights(torch.ones(2, 4), torch.ones(2), torch.ones(2, 4), torch.ones(4)), rows, 0.1
        )
    others = torch.tensor([0, 2, 3, 5])
    for name in ("W_enc", "b_enc", "W_dec"):
        moved = (getattr(weights, name) - before[name]).abs().reshape(6, -1).amax(1)
        assert moved[others].max() == 0
        assert moved[rows].min() > 0
    assert torch.allclose(weights.b_enc[rows], before["b_enc"][rows] - 0.3, atol=1e-5)  # three whole steps
