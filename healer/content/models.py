"""Models: a folder each, with the code, the card, and versions trained earlier. Loading a model runs no code of its
file.

models/NAME/model.py        features, build, score, judge (see healer.sdk)
models/NAME/card.md         data, split, metrics with intervals, limits
models/NAME/CURRENT         the version in use
models/NAME/VERSION/        model.skops, manifest.json
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from healer.content.modules import load_each, load_module, require, settings_of
from healer.decoding import decode
from healer.domain.finding import Findings
from healer.domain.frame import Floats, Frame
from healer.domain.playbook import Scalar
from healer.domain.signal import Signal
from healer.errors import InvalidDocument, Problem


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known about one trained version.

    Attributes:
        sha256: of model.skops; a file that does not match is refused.
        metrics: name -> value, as measured when it was trained.
    """

    version: str
    trained_at: datetime
    sha256: str
    scikit_learn: str
    data: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Attributes:
    score: Frame -> (n_gpus,) in 0 to 1, NaN where the model cannot say.
    judge: (Frame, scores) -> Findings.
    """

    name: str
    reads: tuple[Signal, ...]
    manifest: Manifest
    card: str
    score: Callable[[Frame], Floats]
    judge: Callable[[Frame, Floats], Findings]


def load_models(
    folder: Path, *, settings: Mapping[str, Mapping[str, Scalar]], disabled: Sequence[str] = ()
) -> tuple[Model, ...]:
    """Every model in the folder in its current version. Raises InvalidDocument with the problems of all of them."""
    if not folder.is_dir():
        raise InvalidDocument(Problem(str(folder), 0, "models.path", "no such folder"))
    paths = {path.parent.name: path for path in sorted(folder.glob("*/model.py"))}
    strangers = [name for name in (*settings, *disabled) if name not in paths]
    if strangers:
        known = f"known: {', '.join(paths)}"
        raise InvalidDocument(*(Problem("config.yaml", 0, f"models.{n}", "no such model", known) for n in strangers))
    wanted = (path for name, path in paths.items() if name not in disabled)
    return load_each(wanted, lambda path: _load(path, settings.get(path.parent.name, {})))


def load_code(folder: Path) -> ModuleType:
    """The model's code without any trained version. Raises InvalidDocument."""
    path = folder / "model.py"
    module = load_module(path, prefix="model")
    require(module, path, "READS", "Settings", "features", "build", "score", "judge")
    return module


def save_version(folder: Path, estimator: Any, manifest: Manifest) -> Path:
    """Write a trained estimator as a new version, sealed by its hash, and return its folder."""
    import sklearn  # noqa: PLC0415 - takes a second, and most commands have no model to read or write
    import skops.io  # noqa: PLC0415

    target = folder / manifest.version
    target.mkdir()
    path = target / "model.skops"
    skops.io.dump(estimator, path)
    sealed = replace(manifest, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), scikit_learn=sklearn.__version__)
    (target / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n")
    return target


def _load(path: Path, overrides: Mapping[str, Scalar]) -> Model:
    folder = path.parent
    module = load_code(folder)
    settings = settings_of(module, overrides, path=path, key=f"models.settings.{folder.name}")
    card = folder / "card.md"
    current = folder / "CURRENT"
    for needed in (card, current):
        if not needed.is_file():
            raise InvalidDocument(Problem(str(needed), 0, "", "is missing", "a model needs its card and a version"))
    version = folder / current.read_text(encoding="utf-8").strip()
    manifest = _manifest(version / "manifest.json")
    estimator = _estimator(version / "model.skops", manifest)
    return Model(
        name=folder.name,
        reads=tuple(module.READS),
        manifest=manifest,
        card=card.read_text(encoding="utf-8"),
        score=lambda frame: module.score(estimator, module.features(frame)),
        judge=partial(module.judge, settings=settings),
    )


def _manifest(path: Path) -> Manifest:
    try:
        return decode(path.read_bytes(), Manifest)
    except FileNotFoundError:
        raise InvalidDocument(Problem(str(path), 0, "", "no such file", "see CURRENT")) from None
    except msgspec.DecodeError as error:
        raise InvalidDocument(Problem(str(path), 1, "", f"not a manifest: {error}")) from error


def _estimator(path: Path, manifest: Manifest) -> Any:
    import sklearn  # noqa: PLC0415 - as above
    import skops.io  # noqa: PLC0415

    if not path.is_file():
        raise InvalidDocument(Problem(str(path), 0, "", "no such file"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.sha256:
        raise InvalidDocument(Problem(str(path), 0, "", "does not match the sha256 in its manifest.json"))
    if _minor(manifest.scikit_learn) != _minor(sklearn.__version__):
        text = f"was saved by scikit-learn {manifest.scikit_learn}, this is {sklearn.__version__}"
        raise InvalidDocument(Problem(str(path), 0, "", text, "train it again: healer model train"))
    try:
        unknown = set(skops.io.get_untrusted_types(file=path))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InvalidDocument(Problem(str(path), 0, "", f"is not a skops file: {error}")) from error
    if unknown:
        raise InvalidDocument(
            Problem(str(path), 0, "", f"holds types that are not allowed: {', '.join(sorted(unknown))}")
        )
    return skops.io.load(path, trusted=[])


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
