"""Fixtures for tests against a real Kubernetes control plane, loaded by the root conftest through pytest_plugins."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator

import pytest
from kubernetes.client import CoreV1Api, V1Namespace

from tests.controlplane import fleet
from tests.controlplane.binaries import Binaries, find_binaries
from tests.controlplane.controlplane import ControlPlane


@pytest.fixture(scope="session")
def kubernetes_binaries() -> Binaries:
    """Skips the test where a program is missing, or fails it if HEALER_TEST_REQUIRE says that none may be."""
    found = find_binaries()
    if isinstance(found, Binaries):
        return found
    if "kubernetes" in re.split(r"[,\s]+", os.environ.get("HEALER_TEST_REQUIRE", "")):
        pytest.fail(str(found), pytrace=False)
    pytest.skip(str(found))


@pytest.fixture(scope="session")
def control_plane(kubernetes_binaries: Binaries) -> Iterator[ControlPlane]:
    """One control plane for all tests. The users healer and reader have their roles; there is no node yet."""
    with ControlPlane(kubernetes_binaries) as started:
        fleet.grant_roles(started)
        yield started


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    with own_namespace(control_plane) as name:
        yield name


@contextlib.contextmanager
def own_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own; whatever is in it goes with it."""
    name = f"test-{secrets.token_hex(4)}"
    with control_plane.client("admin") as api:
        core = CoreV1Api(api)
        core.create_namespace(V1Namespace.model_validate({"metadata": {"name": name}}))
        try:
            yield name
        finally:
            control_plane.check()
            core.delete_namespace(name)
            # Its controllers can make no pod in a namespace that ends, so these were the last.
            core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
