"""SSAEDebiaser on texts: laws, regimes, errors, pipelines, and what is cached."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from small_debiaser import CONFIG as SMALL

from debias_ssae import NothingRemovedWarning, SSAEDebiaser, worst_group_accuracy
from debias_ssae.core.config import dump_config
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import training
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.selection.attribute import AnnotatedTexts
from debias_ssae.text.concept import Concept


def gender_gap(X: np.ndarray, bios: pd.DataFrame) -> float:
    """Distance between the groups' means inside a profession, in units of the spread."""
    gaps = []
    for profession in bios.profession.unique():
        rows = (bios.profession == profession).to_numpy()
        female = (bios.gender == "female").to_numpy()
        gaps.append(np.linalg.norm(X[rows & female].mean(0) - X[rows & ~female].mean(0)))
    return float(np.mean(gaps) / X.std())


@pytest.mark.parametrize("fixture", ["labelled", "from_concept"])
def test_both_regimes_shrink_the_gap(fixture: str, request, encoder, bios) -> None:  # type: ignore[no-untyped-def]
    debiaser = request.getfixturevalue(fixture)
    X = debiaser.transform(bios.text)
    assert X.shape == (len(bios), 384)
    assert X.dtype == np.float32
    assert 0 < len(debiaser.intervention_.selection.ids) <= 30
    assert gender_gap(X, bios) < 0.8 * gender_gap(encoder.transform(bios.text), bios)


@pytest.fixture(scope="module")
def edit_alone(bios, make):  # type: ignore[no-untyped-def]
    debiaser = make(output_eraser=None)
    return debiaser.fit(bios.text, bios.profession, sensitive_features=bios.gender)


def test_training_mean_stays_in_place(edit_alone, encoder, bios) -> None:  # type: ignore[no-untyped-def]
    order = np.random.default_rng(0).permutation(len(bios))[:100]
    X, plain = edit_alone.transform(bios.text.iloc[order]), encoder.transform(bios.text.iloc[order])
    assert np.allclose(X.mean(0), plain.mean(0), atol=1e-4)
    assert not np.allclose(X, plain, atol=1e-2)


def test_counterfactuals_agree_along_the_direction_that_tells_them_apart(from_concept, encoder, bios) -> None:  # type: ignore[no-untyped-def]
    counterfactuals = Concept.load("gender").counterfactual_pairs(bios.text, limit=60)
    a, b = [t.text_a for t in counterfactuals], [t.text_b for t in counterfactuals]
    direction = (encoder.transform(b) - encoder.transform(a)).mean(axis=0)
    left = (from_concept.transform(b) - from_concept.transform(a)) @ direction
    assert from_concept.output_eraser_ is not None
    assert from_concept.shift_ is None
    assert np.abs(left).mean() < 0.05 * direction @ direction


@pytest.mark.parametrize("change", [{"alpha": 0.0}, {"n_latents": 0}])
def test_nothing_to_remove_is_the_plain_representation(change, encoder, bios, make) -> None:  # type: ignore[no-untyped-def]
    debiaser = make(encoder=encoder, **change)
    X = debiaser.fit(bios.text, bios.profession, sensitive_features=bios.gender).transform(bios.text[:20])
    assert np.array_equal(X, encoder.transform(bios.text[:20]))


def test_same_seed_same_bytes(small_encoder, texts) -> None:  # type: ignore[no-untyped-def]
    z = np.array(["f" if " she " in f" {text} " else "m" for text in texts])
    y = np.arange(len(texts)) % 2
    options = {"config": SMALL, "output_eraser": "mean_difference"}
    one = SSAEDebiaser(str(small_encoder), random_state=0, **options).fit(texts, y, sensitive_features=z)
    again = SSAEDebiaser(str(small_encoder), random_state=0, **options)
    again.fit(pd.Series(texts), y.tolist(), sensitive_features=z.tolist())
    assert again.intervention_.selection.ids.tolist() == one.intervention_.selection.ids.tolist()
    assert np.array_equal(again.transform(texts), one.transform(texts))
    other = clone(again).set_params(random_state=np.random.RandomState(5)).fit(texts, y, sensitive_features=z)
    assert other.intervention_.sae.fingerprint() != again.intervention_.sae.fingerprint()


def test_partly_labelled_rows_never_reach_selection(labelled, bios, make) -> None:  # type: ignore[no-untyped-def]
    """The labels of the known rows decide alone: poison in the target of unknown rows changes nothing."""
    known = np.arange(len(bios)) < 100
    z = bios.gender.where(known, None)
    fits = []
    for poison in (bios.profession, bios.profession.where(known, "poison")):
        debiaser = make()
        fits.append(debiaser.fit(bios.text, poison, sensitive_features=z))
    assert fits[0].intervention_.selection.ids.tolist() == fits[1].intervention_.selection.ids.tolist()
    assert fits[0].intervention_.sae.fingerprint() == labelled.intervention_.sae.fingerprint()


def test_concept_regime_reads_no_attribute_labels(bios, make) -> None:  # type: ignore[no-untyped-def]
    chosen = []
    for labels in (None, bios.profession, bios.gender.sample(frac=1, random_state=0).to_numpy()):
        debiaser = make(attribute=Concept.load("gender"))
        debiaser.fit(bios.text, bios.profession, sensitive_features=labels)
        chosen.append(debiaser.intervention_.selection.ids.tolist())
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({}, {}, "nothing says what to remove"),
        ({}, {"z": "profession"}, "name a concept"),
        ({"n_latents": -1}, {"z": "gender"}, 'expected "auto" or a whole number'),
        ({"n_latents": True}, {"z": "gender"}, 'expected "auto" or a whole number'),
        ({"output_eraser": "magic"}, {"z": "gender"}, "expected"),
        ({"output_eraser": "counterfactual"}, {"z": "gender"}, "needs a concept"),
        ({"output_eraser": "leace", "attribute": "gender"}, {}, "needs labels"),
        ({"corpus": iter(["a"])}, {"z": "gender"}, "one-shot iterator"),
        ({"hookpoint": "blocks.99"}, {"z": "gender"}, "blocks.99"),
        ({"attribute": "no-such-concept"}, {}, "no-such-concept"),
    ],
)
def test_errors_name_the_cure(parameters, arguments, message, bios, make) -> None:  # type: ignore[no-untyped-def]
    z = None if "z" not in arguments else bios[arguments["z"]]
    with pytest.raises(InputError, match=message):
        make(**parameters).fit(bios.text, bios.profession, sensitive_features=z)


def test_lengths_must_agree(encoder, bios) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="sensitive_features has 3"):
        SSAEDebiaser(encoder).fit(bios.text, sensitive_features=["a", "b", "a"])
    with pytest.raises(InputError, match="y has 3"):
        SSAEDebiaser(encoder).fit(bios.text, [1, 2, 3], sensitive_features=bios.gender)


def test_an_sae_of_another_width_is_refused(bios, make) -> None:  # type: ignore[no-untyped-def]
    from debias_ssae import SAEConfig, SparseAutoencoder

    strange = SparseAutoencoder(SAEConfig(d_in=5, d_sae=8, k=2))
    with pytest.raises(InputError, match="width 5"):
        make(sae=strange).fit(bios.text, sensitive_features=bios.gender)


@pytest.mark.parametrize("regime", ["labelled", "concept"])
def test_an_sae_in_double_precision(regime, small_encoder, texts, concept) -> None:  # type: ignore[no-untyped-def]
    """The same as the same SAE in single precision, within its rounding."""
    from debias_ssae import SAEConfig, SparseAutoencoder

    z = np.array([" she " in f" {t} " for t in texts])
    told = {"attribute": concept} if regime == "concept" else {}
    # no optimiser steps to speak of: rounding must not grow
    config = SMALL.updated(special=SMALL.special.updated(n_steps=1, lr=1e-9))
    scores = []
    for dtype in ("float32", "float64"):
        sae = SparseAutoencoder(SAEConfig(d_in=32, d_sae=64, k=8, architecture="relu"), random_state=0)
        double = SparseAutoencoder(sae.cfg.updated(dtype=dtype), random_state=0)
        double.load_state_dict(sae.state_dict())
        made = SSAEDebiaser(
            ActivationEncoder(str(small_encoder), dtype="float32"), sae=double, config=config, **told
        )
        made.fit(texts, sensitive_features=None if told else z)
        assert made.transform(texts[:3]).dtype == np.float32
        assert made.intervention_.sae.W_enc.dtype == getattr(torch, dtype)
        scores.append(made.intervention_.selection.scores.mass)
    assert np.allclose(*scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["mean_difference", "leace"])
def test_labels_take_a_direction_after_the_edit(kind, edit_alone, bios, make) -> None:  # type: ignore[no-untyped-def]
    debiaser = make(output_eraser=kind)
    X = debiaser.fit(bios.text, bios.profession, sensitive_features=bios.gender).transform(bios.text)
    assert debiaser.output_kind_ == kind
    assert (debiaser.shift_ is None) == (kind == "mean_difference")
    assert debiaser.intervention_.selection.ids.tolist() == edit_alone.intervention_.selection.ids.tolist()
    assert gender_gap(X, bios) < 0.9 * gender_gap(edit_alone.transform(bios.text), bios)


def test_corpus_is_retrieved_from(bios, tmp_path, make) -> None:  # type: ignore[no-untyped-def]
    from debias_ssae.text import synthetic_corpus

    corpus = synthetic_corpus(300, random_state=0)
    pd.DataFrame({"text": corpus}).to_parquet(tmp_path / "pool.parquet")
    fits = [
        make(corpus=c).fit(bios.text, bios.profession, sensitive_features=bios.gender)
        for c in (corpus, tmp_path / "pool.parquet")
    ]
    assert fits[0].intervention_.record["retrieval"]["n_retrieved"] == 50
    assert fits[0].intervention_.selection.ids.tolist() == fits[1].intervention_.selection.ids.tolist()


def test_matrix_without_attribute_warns_and_changes_nothing(small_config) -> None:  # type: ignore[no-untyped-def]
    X = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    with pytest.warns(NothingRemovedWarning, match="pass sensitive_features"):
        debiaser = SSAEDebiaser(config=small_config).fit(X)
    assert np.array_equal(debiaser.transform(X), X)


def confounded_rows(n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows whose first directions write the target and the attribute; the last column hardly varies."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    z = np.where(rng.random(n) < 0.7, y, rng.integers(0, 2, n))
    X = rng.normal(size=(n, 24))
    X[:, 0] += 3 * y
    X[:, 1] += 3 * z
    X[:, -1] = 1e-20 + 1e-33 * X[:, -1]
    return X, y, z


def test_columns_that_hardly_vary_stay_small_in_a_matrix(small_config) -> None:  # type: ignore[no-untyped-def]
    """A head that standardises would else see nothing but rounding there."""
    X, y, z = confounded_rows()
    debiaser = SSAEDebiaser(config=small_config, output_eraser="mean_difference", random_state=0)
    debiaser.fit(X, y, sensitive_features=z)
    assert debiaser.edits
    moved = (debiaser.transform(X) - X) / X.std(axis=0)
    assert np.abs(moved).max() > 0.1
    assert np.abs(moved[:, -1]).max() < 20


@pytest.mark.parametrize("kind", ["auto", None])
def test_a_matrix_may_have_columns_of_any_scale(small_config, kind) -> None:  # type: ignore[no-untyped-def]
    X, y, z = confounded_rows()
    scale = 2.0 ** np.arange(-36, 36, 3)  # powers of two, so that every bit agrees
    plain, scaled = (
        SSAEDebiaser(config=small_config, output_eraser=kind, random_state=0)
        .fit(rows, y, sensitive_features=z)
        .transform(rows)
        for rows in (X, X * scale)
    )
    assert np.allclose(plain[:, :-1], (scaled / scale)[:, :-1], rtol=1e-9, atol=1e-9)
    assert np.abs(plain - X).max() > 0.1


@pytest.mark.parametrize("kind", ["mean_difference", "leace", None])
def test_in_a_matrix_the_output_eraser_takes_what_is_linear(small_config, kind) -> None:  # type: ignore[no-untyped-def]
    X, y, z = confounded_rows()
    many = small_config.updated(selection={"most_latents": 200})
    debiaser = SSAEDebiaser(config=many, output_eraser=kind, random_state=0).fit(X, y, sensitive_features=z)
    assert (len(debiaser.intervention_.selection.ids) == 1) == (kind is not None)
    out = debiaser.transform(X)
    apart = [out[(y == c) & (z == 1)].mean(axis=0) - out[(y == c) & (z == 0)].mean(axis=0) for c in (0, 1)]
    if kind is not None:
        assert np.abs(np.mean(apart, axis=0)).max() < 0.2


def test_pickle_and_output(labelled, bios) -> None:  # type: ignore[no-untyped-def]
    again = pickle.loads(pickle.dumps(labelled))
    assert np.array_equal(again.intervention_.eraser.latents, labelled.intervention_.eraser.latents)
    frame = pickle.loads(pickle.dumps(labelled)).set_output(transform="pandas")
    frame.encoder_.__dict__["loaded"] = labelled.encoder_.loaded
    out = frame.transform(bios.text[:3])
    assert list(out.columns[:2]) == ["ssaedebiaser0", "ssaedebiaser1"]


def test_transform_takes_no_attribute(labelled) -> None:  # type: ignore[no-untyped-def]
    with sklearn.config_context(enable_metadata_routing=True):
        assert not labelled.get_metadata_routing().transform.requests
    with pytest.raises(TypeError):
        labelled.transform(["a"], sensitive_features=["b"])


def test_pipeline_without_routing(bios, make) -> None:  # type: ignore[no-untyped-def]
    pipe = make_pipeline(make(), LogisticRegression(max_iter=1000))
    pipe.fit(bios.text, bios.profession, ssaedebiaser__sensitive_features=bios.gender)
    assert pipe.score(bios.text, bios.profession) > 0.8


@pytest.mark.slow
def test_grid_search_trains_one_sae_a_fold(encoder, bios, small_config, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    trained = []
    real = training.train_sae

    def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
        trained.append(kwargs.get("init") is not None)
        return real(*args, **kwargs)

    monkeypatch.setattr(training, "train_sae", counted)
    cached = ActivationEncoder(dtype="float32", cache_dir=tmp_path)
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        debiaser = SSAEDebiaser(cached, config=small_config, random_state=0, cache_dir=tmp_path)
        pipe = make_pipeline(
            debiaser.set_fit_request(sensitive_features=True), LogisticRegression(max_iter=1000)
        )
        scorer = make_scorer(worst_group_accuracy).set_score_request(sensitive_features=True)
        folds = StratifiedKFold(2)
        grid = {"ssaedebiaser__n_latents": [0, 5, 30]}
        search = GridSearchCV(pipe, grid, scoring=scorer, cv=folds, refit=False)
        search.fit(
            bios.text.to_numpy(dtype=object),
            bios.profession.to_numpy(),
            sensitive_features=bios.gender.to_numpy(),
        )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert sum(trained) == 2, "one specialised SAE for each of two folds"
    assert len(trained) == 4, "and one general SAE each"


def test_labels_of_other_texts_select_and_train_nothing(small_encoder, texts) -> None:  # type: ignore[no-untyped-def]
    """The SAE is that of the texts given to fit, whatever the annotated ones are."""
    others = [f"{text} old city" for text in texts]
    z = np.array(["f" if " she " in f" {text} " else "m" for text in others])
    made = [
        SSAEDebiaser(
            str(small_encoder), attribute=AnnotatedTexts(others[:n], z[:n]), config=SMALL, random_state=0
        )
        for n in (200, 120)
    ]
    for one in made:
        one.fit(texts, np.arange(len(texts)) % 2)
        assert len(one.intervention_.selection.ids)
        assert one.output_kind_ == "mean_difference"
    assert made[0].intervention_.sae.fingerprint() == made[1].intervention_.sae.fingerprint()


def test_excluded_texts_change_nothing_whatever_they_hold(small_encoder, texts, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Poison in X, in the corpus and among annotated texts, all of it excluded."""
    poison = [f"{word} she nurse he surgeon" for word in ("city", "clinic", "hospital", "old")]
    corpus = texts[::-1]
    z = np.array(["f" if " she " in f" {text} " else "m" for text in texts])
    y = np.arange(len(texts)) % 2

    def fitted(attribute, X, y, z, corpus, exclude):  # type: ignore[no-untyped-def]
        made = SSAEDebiaser(
            ActivationEncoder(str(small_encoder), dtype="float32"),
            attribute=attribute,
            corpus=corpus,
            config=SMALL,
            random_state=0,
        )
        return made.fit(X, y, sensitive_features=z, exclude=exclude).transform(texts[:9])

    wrong = np.array(["m", "f", "m", "f"])
    for attribute, poisoned, labels in (
        (None, None, z),
        (AnnotatedTexts(texts, z), AnnotatedTexts([*texts, *poison], [*z, *wrong]), None),
    ):
        clean = fitted(attribute, texts, y, labels, corpus, poison)
        shouted = [text.upper() + "!" for text in poison]
        more = None if labels is None else np.array([*labels, *wrong])
        again = fitted(
            poisoned, [*texts, *shouted], np.array([*y, 0, 1, 0, 1]), more, [*corpus, *poison], poison
        )
        assert np.array_equal(clean, again)
    with pytest.raises(InputError, match="every text of X"):
        fitted(None, texts, y, z, None, texts)


def test_several_attributes_are_removed_together(small_encoder, texts) -> None:  # type: ignore[no-untyped-def]
    gender, place = Concept.from_words(["he", "she"]), Concept.from_words(["city", "clinic"])
    options = {"config": SMALL, "random_state": 0}
    alone = [SSAEDebiaser(str(small_encoder), attribute=one, **options).fit(texts) for one in (gender, place)]
    both = SSAEDebiaser(str(small_encoder), attribute=[gender, place], **options).fit(texts)
    ids = [set(one.intervention_.selection.ids.tolist()) for one in alone]
    assert set(both.intervention_.selection.ids.tolist()) == ids[0] | ids[1]
    for one in alone:
        a, b = (
            both.transform([getattr(pair, side) for pair in one.concept_.counterfactual_pairs(texts)])
            for side in ("text_a", "text_b")
        )
        direction = one.output_eraser_.read[0]
        assert np.abs(((b - a) @ direction).mean()) < 1e-3 * np.abs(both.transform(texts) @ direction).mean()


class EverySecond:
    """An attribute of the user's own."""

    def select(self, model, hookpoint, sae, data):  # type: ignore[no-untyped-def]
        return np.arange(0, 10, 2)


def test_an_own_attribute_and_an_own_output_eraser(small_encoder, texts, tmp_path) -> None:  # type: ignore[no-untyped-def]
    debiaser = SSAEDebiaser(str(small_encoder), attribute=EverySecond(), config=SMALL, random_state=0).fit(
        texts
    )
    assert debiaser.intervention_.selection.ids.tolist() == [0, 2, 4, 6, 8]
    assert debiaser.output_kind_ == "displacement"
    debiaser.save(tmp_path / "model")
    assert np.array_equal(
        SSAEDebiaser.load(tmp_path / "model").transform(texts[:9]), debiaser.transform(texts[:9])
    )
    own = clone(debiaser).set_params(output_eraser=PCA(4)).fit(texts)
    assert own.transform(texts[:9]).shape == (9, 4)
    with pytest.raises(InputError, match="PCA of your own, which cannot be saved"):
        own.save(tmp_path / "own")
    for found, message in (([99999], "but the SAE has"), ([1, 1], "twice"), ("x", "ids of latents")):
        wrong = EverySecond()
        wrong.select = lambda *a, found=found: found  # type: ignore[method-assign]
        with pytest.raises(InputError, match=message):
            SSAEDebiaser(str(small_encoder), attribute=wrong, config=SMALL).fit(texts)


def test_settings_come_as_an_object_a_mapping_or_a_file(small_encoder, texts, concept, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "settings.yaml"
    file.write_text(dump_config(SMALL), encoding="utf-8")
    made = [
        SSAEDebiaser(str(small_encoder), attribute=concept, config=config, random_state=0).fit(texts)
        for config in (SMALL, SMALL.model_dump(), file, str(file))
    ]
    assert len({one.intervention_.sae.fingerprint() for one in made}) == 1


def test_other_latents_are_removed_without_training(small_encoder, texts, concept) -> None:  # type: ignore[no-untyped-def]
    debiaser = SSAEDebiaser(
        str(small_encoder), attribute=concept, output_eraser=None, config=SMALL, random_state=0
    )
    debiaser.fit(texts)
    ids = debiaser.intervention_.selection.ids
    same = debiaser.with_latents({"embeddings": ids})
    assert np.array_equal(same.transform(texts[:9]), debiaser.transform(texts[:9]))
    fewer = debiaser.with_latents({"embeddings": ids[:1]}, texts)
    assert fewer.intervention_.eraser.latents == (int(ids[0]),)
    assert np.array_equal(debiaser.intervention_.selection.ids, ids)
    again = clone(debiaser).set_params(n_latents=1).fit(texts)
    assert np.array_equal(fewer.transform(texts[:9]), again.transform(texts[:9]))
    with pytest.raises(InputError, match="give the training texts"):
        debiaser.with_latents({"embeddings": ids[:1]})
    with pytest.raises(InputError, match="is not edited"):
        debiaser.with_latents({"final": ids})
