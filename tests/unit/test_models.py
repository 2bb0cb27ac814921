"""Models: a version is loaded only if it is the file that was sealed, and only if loading it can run no code."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from healer.content.models import Manifest, load_code, load_models, save_version
from healer.domain.finding import FailureMode
from healer.domain.signal import Signal
from healer.errors import InvalidDocument
from healer.sim.training import OPERATING_POINT, measured_at_operating_point

REFERENCE = Path(__file__).parents[2] / "models"
GPU_ANOMALY = REFERENCE / "gpu_anomaly"

# scikit-learn's Pipeline hands its parts out as they are, which these checks do not expect of an estimator.
PIPELINE_ITSELF = {
    "check_estimators_overwrite_params": "the steps are fitted in place",
    "check_dont_overwrite_parameters": "the steps are fitted in place",
    "check_outliers_train": "offset_ belongs to the last step",
}


def hostile(x: Any) -> Any:
    return x


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the reference model that a test may spoil."""
    shutil.copytree(GPU_ANOMALY, tmp_path / "gpu_anomaly", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _version(folder: Path) -> Path:
    model = folder / "gpu_anomaly"
    return model / (model / "CURRENT").read_text().strip()


def _problems(folder: Path, **settings: object) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        load_models(folder, **{"settings": {}, **settings})  # type: ignore[arg-type]
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def _reseal(version: Path, **changes: object) -> None:
    path = version / "manifest.json"
    digest = sha256((version / "model.skops").read_bytes()).hexdigest()
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": digest, **changes}))


def _fitted() -> Any:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    return load_code(GPU_ANOMALY).build().fit(rows)


def test_the_current_version_is_loaded_with_its_card(folder: Path) -> None:
    (model,) = load_models(folder, settings={})
    assert (model.name, model.manifest.version) == ("gpu_anomaly", _version(folder).name)
    assert set(model.reads) == {Signal.GPU_TEMPERATURE, Signal.MEMORY_TEMPERATURE, Signal.POWER}
    assert model.card == (GPU_ANOMALY / "card.md").read_text()


def test_a_version_that_is_saved_is_sealed_and_loaded_again(folder: Path) -> None:
    manifest = Manifest("v99", datetime(2026, 3, 14, tzinfo=UTC), "", "", "200 random rows", {"recall": 0.5})
    written = save_version(folder / "gpu_anomaly", _fitted(), manifest)
    (folder / "gpu_anomaly" / "CURRENT").write_text("v99\n")
    (model,) = load_models(folder, settings={})
    assert model.manifest == replace(
        manifest,
        sha256=sha256((written / "model.skops").read_bytes()).hexdigest(),
        scikit_learn=model.manifest.scikit_learn,
    )
    with pytest.raises(FileExistsError):
        save_version(folder / "gpu_anomaly", _fitted(), manifest)


def test_a_file_that_is_not_the_one_that_was_sealed_is_refused(folder: Path) -> None:
    path = _version(folder) / "model.skops"
    path.write_bytes(path.read_bytes() + b"\0")
    version = _version(folder).name
    assert _problems(folder) == [f"gpu_anomaly/{version}/model.skops: does not match the sha256 in its manifest.json"]


def test_a_file_that_would_run_code_is_refused_although_it_is_sealed(folder: Path) -> None:
    skops.io.dump(Pipeline([("hostile", FunctionTransformer(hostile))]), _version(folder) / "model.skops")
    _reseal(_version(folder))
    (problem,) = _problems(folder)
    assert "model.skops: holds types that are not allowed: " in problem
    assert "hostile" in problem


def test_a_file_that_is_no_model_at_all_is_refused_although_it_is_sealed(folder: Path) -> None:
    (_version(folder) / "model.skops").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    _reseal(_version(folder))
    (problem,) = _problems(folder)
    assert "model.skops: is not a skops file" in problem


def test_a_version_of_another_scikit_learn_minor_is_refused_with_what_to_do(folder: Path) -> None:
    _reseal(_version(folder), scikit_learn="1.2.3")
    (problem,) = _problems(folder)
    assert "was saved by scikit-learn 1.2.3, this is" in problem
    assert problem.endswith("(train it again: healer model train)")


@pytest.mark.parametrize("name", ["card.md", "CURRENT"])
def test_a_model_needs_its_card_and_a_version(folder: Path, name: str) -> None:
    (folder / "gpu_anomaly" / name).unlink()
    assert _problems(folder) == [f"gpu_anomaly/{name}: is missing (a model needs its card and a version)"]


@pytest.mark.parametrize(
    ("current", "problem"),
    [
        ("v0", "gpu_anomaly/v0/manifest.json: no such file (see CURRENT)"),
        ("", "gpu_anomaly/manifest.json: no such file (see CURRENT)"),
    ],
    ids=["a version that is not there", "none"],
)
def test_the_current_version_must_be_there(folder: Path, current: str, problem: str) -> None:
    (folder / "gpu_anomaly" / "CURRENT").write_text(current)
    assert _problems(folder) == [problem]


@pytest.mark.parametrize("text", ["{", "{}", '{"version": 5}', "\xff"])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (_version(folder) / "manifest.json").write_bytes(text.encode("latin-1"))
    (problem,) = _problems(folder)
    assert "manifest.json:1: not a manifest: " in problem


def test_a_version_without_its_file_is_refused(folder: Path) -> None:
    (_version(folder) / "model.skops").unlink()
    assert _problems(folder) == [f"gpu_anomaly/{_version(folder).name}/model.skops: no such file"]


def test_the_code_must_keep_the_contract(folder: Path) -> None:
    (folder / "gpu_anomaly" / "model.py").write_text("READS = ()\n")
    problems = _problems(folder)
    assert [problem.split(": ")[1] for problem in problems] == ["Settings", "features", "build", "score", "judge"]


def test_the_configuration_can_only_name_models_that_there_are(folder: Path) -> None:
    assert _problems(folder, settings={"gpu_anomly": {}}) == [
        "config.yaml: models.gpu_anomly: no such model (known: gpu_anomaly)"
    ]
    assert _problems(folder, settings={"gpu_anomaly": {"treshold": 0.5}}) == [
        "config.yaml: models.settings.gpu_anomaly.treshold: model.py has no such setting (did you mean 'threshold'?)"
    ]


def test_a_disabled_model_is_not_loaded(folder: Path) -> None:
    (folder / "gpu_anomaly" / "CURRENT").unlink()
    assert load_models(folder, settings={}, disabled=("gpu_anomaly",)) == ()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert _problems(tmp_path / "gone") == [f"{tmp_path}/gone: models.path: no such folder"]


# The reference model as an estimator


def test_every_part_of_the_estimator_keeps_the_contract_of_scikit_learn() -> None:
    for part in load_code(GPU_ANOMALY).build().named_steps.values():
        check_estimator(part, on_skip=None)


def test_the_estimator_as_a_whole_keeps_it_as_far_as_a_pipeline_can() -> None:
    results = check_estimator(load_code(GPU_ANOMALY).build(), expected_failed_checks=PIPELINE_ITSELF, on_skip=None)
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(PIPELINE_ITSELF)


def test_hyper_parameters_are_keywords_and_reach_the_estimator_unchanged() -> None:
    built = load_code(GPU_ANOMALY).build(contamination=0.01, random_state=7)
    assert (built.get_params()["envelope__contamination"], built.get_params()["envelope__random_state"]) == (0.01, 7)
    with pytest.raises(TypeError):
        load_code(GPU_ANOMALY).build(0.01)


def test_a_score_is_half_at_the_envelope_grows_with_the_distance_and_is_unknown_where_a_feature_is() -> None:
    code, estimator = load_code(GPU_ANOMALY), _fitted()
    rows = np.array([[0.0, 0.0], [3.0, 3.0], [30.0, 30.0], [np.nan, 0.0]])
    scores = code.score(estimator, rows)
    assert np.all(np.diff(scores[:3]) > 0)
    assert np.all((scores[:3] >= 0) & (scores[:3] < 1))
    assert np.isnan(scores[3])
    inside = estimator.predict(rows[:3]) == 1
    np.testing.assert_array_equal(scores[:3] <= 0.5, inside)


def test_the_reference_model_finds_what_its_name_says() -> None:
    assert load_code(GPU_ANOMALY).MODES == (FailureMode.GPU_ANOMALY,)


# What a version is worth


def test_recall_is_measured_at_a_named_score_whatever_the_default_threshold_is() -> None:
    assert load_code(GPU_ANOMALY).Settings().threshold > OPERATING_POINT
    healthy, sick = np.array([0.1, 0.2, 0.3, 0.95]), np.array([0.89, 0.9, 0.91, 0.99])
    measured = measured_at_operating_point(healthy, sick, gpus=48)
    assert measured == {
        "recall_at_0.9": 0.5,
        "recall_at_0.9_half_interval_95": pytest.approx(1.96 * (0.25 / 48) ** 0.5),
        "roc_auc": 13 / 16,
        "false_at_0.9_per_1000_healthy_rows": 250.0,
    }


def test_the_current_version_says_at_which_score_it_was_measured() -> None:
    (model,) = load_models(REFERENCE, settings={})
    names = measured_at_operating_point(np.zeros(1), np.ones(1), gpus=1)
    severities = ("30_percent", "60_percent", "100_percent")
    assert set(model.manifest.metrics) == {f"cooling_loss_{each}_{name}" for each in severities for name in names}
    assert f"recall at {OPERATING_POINT}" in model.card
