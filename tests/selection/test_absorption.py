"""Holes and fillers on planted tokens: a concept that three latents share between them."""

from collections.abc import Iterator

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection.absorption import AbsorptionReport, TokenProbe, fill_holes, fit_token_probe, holes

D = 16
N_LATENTS = 20
AXIS = np.eye(D)[0]
PROBE = TokenProbe(AXIS, np.zeros(D), (-0.5, 0.5))


def planted(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, latents, decoder, kind of token: 0 and 1 carry value b by latents 0 and 1 (absorbed), 2 carries
    value a by latent 2, the others carry nothing and have latent 3, which leans on the concept."""
    rng = np.random.default_rng(seed)
    W_dec = np.linalg.qr(rng.normal(size=(D, D)))[0][:, :D].T
    W_dec = np.concatenate([W_dec, rng.normal(size=(N_LATENTS - D, D))])
    W_dec[:, 0] = 0
    W_dec[:4, 0] = [2.0, 2.0, -2.0, 0.6]
    kind = rng.choice(4, size=n, p=[0.1, 0.1, 0.1, 0.7])
    latents = np.where(rng.random((n, N_LATENTS)) < 0.1, rng.random((n, N_LATENTS)), 0.0)
    latents[:, :4] = 0
    latents[np.arange(n), kind] = np.where(kind < 3, 1.0, 0.5)
    x = latents @ W_dec
    return x, latents, W_dec, kind


def blocks(x: np.ndarray, latents: np.ndarray, size: int = 64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(x), size):
        yield x[start : start + size], latents[start : start + size]


def run(chosen: list[int], size: int = 64, **limits: float) -> AbsorptionReport:
    x, latents, W_dec, _ = planted()
    return fill_holes(blocks(x, latents, size), W_dec, PROBE, chosen, **limits)


def test_fillers_are_the_latents_that_absorbed_the_concept() -> None:
    *_, kind = planted()
    report = run([0])
    assert set(report.latents) == {1, 2}
    assert report.n_fires == (kind < 3).sum()
    assert report.n_holes == np.isin(kind, (1, 2)).sum() == report.n_silent
    assert report.hole_rate_before == pytest.approx(report.n_holes / report.n_fires)
    assert report.hole_rate_after == 0
    assert report.fillers[0].n_holes >= report.fillers[1].n_holes
    assert {f.latent: np.sign(f.cosine) for f in report.fillers} == {1: 1.0, 2: -1.0}
    assert all(f.precision == 1.0 for f in report.fillers)


def test_tokens_that_do_not_fire_may_be_counted_beforehand() -> None:
    x, latents, W_dec, _ = planted()
    whole = run([0])
    fires = PROBE.fires(PROBE.project(x))
    assert 0 < fires.sum() < len(x)
    counted = (len(x), (latents > 0).sum(axis=0))
    assert fill_holes(blocks(x[fires], latents[fires]), W_dec, PROBE, [0], tokens=counted) == whole
    alone = fill_holes(blocks(x[fires], latents[fires]), W_dec, PROBE, [0])
    assert alone.n_tokens < whole.n_tokens, "without the counts they are the only tokens"


def test_the_rate_after_is_the_rate_before_of_the_joined_set() -> None:
    first = run([0], min_holes=3)
    again = run([0, *first.latents])
    assert again.hole_rate_before == first.hole_rate_after
    assert not again.fillers
    # control: any other latent fills nothing
    assert run([0, 10, 11]).hole_rate_before == first.hole_rate_before


def test_blocks_do_not_matter() -> None:
    assert run([0], size=7) == run([0], size=600)


def test_limits_on_fillers() -> None:
    n = run([0]).fillers[0].n_holes
    assert not run([0], min_holes=n + 1).fillers
    assert not run([0], cosine=1.1).fillers
    assert run([0], cosine=1.1).hole_rate_after == run([0]).hole_rate_before
    assert not run([0], share=1.5).fillers


def test_a_common_latent_that_leans_on_the_concept_stays_out() -> None:
    """Latent 3 is active on common tokens; on a few firing ones it is strong enough to carry the share."""
    x, latents, W_dec, kind = planted()
    few = np.flatnonzero(kind == 3)[:20]
    latents[few, 3] = 3.0
    x = latents @ W_dec
    low = fill_holes(blocks(x, latents), W_dec, PROBE, [0, 1, 2], precision=0.0)
    assert low.latents.tolist() == [3]
    assert low.fillers[0].precision == pytest.approx(20 / (kind == 3).sum())
    assert not fill_holes(blocks(x, latents), W_dec, PROBE, [0, 1, 2]).fillers


def test_a_weakly_active_chosen_latent_leaves_a_hole() -> None:
    x, latents, W_dec, kind = planted()
    latents[:, 0] = np.maximum(latents[:, 0], 0.01)
    report = fill_holes(blocks(x, latents), W_dec, PROBE, [0])
    assert report.n_silent == 0
    assert report.n_holes == np.isin(kind, (1, 2)).sum()


def test_holes_by_hand() -> None:
    fires = np.array([True, True, True, False])
    projection = np.array([1.0, 1.0, -1.0, 0.0])
    chosen = np.array([[0.5], [0.3], [0.5], [0.0]])
    assert holes(fires, projection, chosen, np.array([1.0])).tolist() == [False, True, True, False]
    assert holes(fires, projection, chosen, np.array([-1.0])).tolist() == [True, True, False, False]
    assert holes(fires, projection, np.zeros((4, 0)), np.zeros(0)).tolist() == fires.tolist()


def test_no_tokens_no_fire_no_choice() -> None:
    x, latents, W_dec, _ = planted()
    empty = fill_holes([], W_dec, PROBE, [0])
    assert (empty.n_tokens, empty.hole_rate_before, empty.hole_rate_after) == (0, 0.0, 0.0)
    silent = fill_holes(blocks(x * 0, latents), W_dec, PROBE, [0])
    assert silent.n_fires == 0
    assert silent.hole_rate_before == 0
    assert set(fill_holes(blocks(x, latents), W_dec, PROBE, []).latents) == {0, 1, 2}


def test_what_does_not_fit_is_refused() -> None:
    x, latents, W_dec, _ = planted()
    with pytest.raises(InputError, match="0 to 19"):
        fill_holes(blocks(x, latents), W_dec, PROBE, [20])
    with pytest.raises(InputError, match="needs latents"):
        fill_holes([(x, latents[:, :3])], W_dec, PROBE, [0])


def test_report_is_plain_data() -> None:
    plain = run([0]).to_dict()
    assert plain["fillers"][0]["latent"] in (1, 2)
    assert plain["hole_rate_after"] == 0


def counterfactuals(n: int = 200, k: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The concept moves axis 0; axis 1 varies a lot and is no part of it."""
    rng = np.random.default_rng(seed)
    spread = np.array([0.2, 3.0, *np.full(D - 2, 0.5)])
    a, b, neutral = (rng.normal(size=(m, D)) * spread for m in (n, n, k))
    a[:, 0] -= 2
    b[:, 0] += 3
    return a, b, neutral


def test_token_probe_finds_the_axis_and_tells_words_from_others() -> None:
    a, b, neutral = counterfactuals()
    probe = fit_token_probe(a, b, neutral)
    assert probe.direction[0] > 0.95
    assert np.linalg.norm(probe.direction) == pytest.approx(1)
    at_a, at_b, at_neutral = (probe.project(x) for x in (a, b, neutral))
    assert probe.fires(at_a).mean() > 0.95
    assert (at_a < 0).mean() > 0.95
    assert probe.fires(at_b).mean() > 0.95
    assert (at_b > 0).mean() > 0.95
    assert probe.fires(at_neutral).mean() < 0.01


def test_token_probe_does_not_depend_on_how_many_tokens_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit_token_probe(*counterfactuals())
    monkeypatch.setattr("debias_ssae.selection.absorption.CHUNK", 7)
    pieces = fit_token_probe(*counterfactuals())
    assert np.allclose(whole.direction, pieces.direction)
    assert np.allclose(whole.limits, pieces.limits)
    x = counterfactuals()[0]
    assert np.allclose(whole.project(x), (x - whole.center) @ whole.direction)
    assert whole.project(x[:0]).shape == (0,)


def test_token_probe_mirrors_when_the_values_change_places() -> None:
    a, b, neutral = counterfactuals()
    one, other = fit_token_probe(a, b, neutral), fit_token_probe(b, a, neutral)
    assert np.allclose(one.direction, -other.direction)
    assert np.allclose(one.limits, (-other.limits[1], -other.limits[0]))


def test_words_that_barely_move_do_not_fire() -> None:
    a, b, neutral = counterfactuals()
    a[:, 0] += 2 - 0.01
    b[:, 0] -= 3 - 0.01
    probe = fit_token_probe(a, b, neutral)
    assert probe.fires(probe.project(neutral)).mean() < 0.01
    assert probe.fires(probe.project(b)).mean() < 0.05


def test_token_probe_refuses_what_it_cannot_use() -> None:
    a, b, neutral = counterfactuals()
    for bad in ((a[:5], b, neutral), (a, b, neutral[:, :3]), (a, b, neutral[:1]), (a[:0], b[:0], neutral)):
        with pytest.raises(InputError, match="token probe needs pairs"):
            fit_token_probe(*bad)
    with pytest.raises(InputError, match="change nothing"):
        fit_token_probe(a, a, neutral)
