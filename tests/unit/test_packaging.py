"""What is shipped: locks, images and versions agree with each other and with pyproject.toml."""

import ast
import fnmatch
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import taskmaster
from images import IMAGES, Image
from testtiers import Result, summary

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "requirements"
PYPROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCKS = ("build", "dev", "operator", "worker")


def wanted(name: str) -> set[str]:
    """Return the requirements of an .in file, with those that it includes."""
    lines = (REQUIREMENTS / f"{name}.in").read_text().splitlines()
    result: set[str] = set()
    for line in (line.strip() for line in lines):
        if line.startswith("-r "):
            result |= wanted(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            result.add(line)
    return result


def locked(name: str) -> dict[str, str]:
    """Return the versions in a lock."""
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", (REQUIREMENTS / f"{name}.txt").read_text(), re.MULTILINE)
    return dict(pins)


def copied(image: Image) -> list[str]:
    """Return what a Dockerfile copies from the build context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", (REPOSITORY / image.dockerfile).read_text(), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


class TestRequirements:
    def test_the_worker_image_gets_the_projects_dependencies(self) -> None:
        assert wanted("worker") == set(PYPROJECT["project"]["dependencies"])

    def test_the_operator_image_gets_its_extra_too(self) -> None:
        extra = set(PYPROJECT["project"]["optional-dependencies"]["operator"])
        assert wanted("operator") == wanted("worker") | extra

    def test_the_development_environment_has_everything_and_uv(self) -> None:
        group = set(PYPROJECT["dependency-groups"]["dev"])
        assert wanted("dev") == wanted("operator") | wanted("build") | group | {"uv"}

    def test_the_build_backend_is_that_of_the_project(self) -> None:
        assert wanted("build") == set(PYPROJECT["build-system"]["requires"])

    @pytest.mark.parametrize("name", LOCKS)
    def test_a_lock_satisfies_what_it_was_made_from(self, name: str) -> None:
        names = {re.split(r"[<>=!~ ;\[]", line)[0].lower().replace("_", "-") for line in wanted(name)}
        assert names - set(locked(name)) == set()

    @pytest.mark.parametrize("name", LOCKS)
    def test_a_lock_has_a_hash_for_every_package_and_names_no_index(self, name: str) -> None:
        text = (REQUIREMENTS / f"{name}.txt").read_text()
        blocks = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
        assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
        assert re.findall(r"://|--(?:extra-)?index|--find-links", text) == []

    @pytest.mark.parametrize("name", ["build", "operator", "worker"])
    def test_what_is_shipped_is_what_is_tested(self, name: str) -> None:
        assert locked(name).items() <= locked("dev").items()

    def test_the_worker_image_has_no_kubernetes_client_and_no_kopf(self) -> None:
        assert {"kopf", "kubernetes"} & set(locked("worker")) == set()


class TestVersions:
    def test_package_and_chart_have_one_version(self) -> None:
        chart = yaml.safe_load((REPOSITORY / "charts" / "taskmaster" / "Chart.yaml").read_text())
        project = PYPROJECT["project"]["version"]
        assert (taskmaster.__version__, chart["version"], chart["appVersion"]) == (project, project, project)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
class TestImages:
    def test_the_tag_covers_all_that_the_dockerfile_copies(self, image: Image) -> None:
        assert set(copied(image)) == set(image.inputs)

    def test_the_dockerfile_copies_what_is_there(self, image: Image) -> None:
        assert [source for source in copied(image) if not (REPOSITORY / source).exists()] == []

    def test_dockerignore_lets_through_what_is_copied(self, image: Image) -> None:
        lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
        kept = [line.removeprefix("!") for line in lines if line.startswith("!")]

        def passes(path: str) -> bool:
            return any(
                path == pattern or path.startswith(f"{pattern}/") or fnmatch.fnmatch(path, pattern) for pattern in kept
            )

        files = [path.relative_to(REPOSITORY).as_posix() for path in image.files()]
        assert [path for path in files if not passes(path) and path not in (image.dockerfile, ".dockerignore")] == []

    def test_it_runs_as_a_numbered_user_that_is_not_root(self, image: Image) -> None:
        users = re.findall(r"^USER (\S+)$", (REPOSITORY / image.dockerfile).read_text(), re.MULTILINE)
        assert users
        assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)

    def test_the_base_can_be_replaced(self, image: Image) -> None:
        text = (REPOSITORY / image.dockerfile).read_text()
        assert re.search(r"^ARG BASE_IMAGE=\S+$", text, re.MULTILINE)
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE_IMAGE}"}


def test_the_runner_needs_nothing_but_the_standard_library() -> None:
    package = REPOSITORY / "worker-image" / "taskmaster_worker"
    own = {"runner": ("taskmaster_worker.runner", "taskmaster_worker.sdk"), "sdk": ("taskmaster_worker.sdk",)}
    # The SDK validates arguments where the user's image has pydantic.
    allowed = {"runner": sys.stdlib_module_names, "sdk": sys.stdlib_module_names | {"pydantic"}}
    foreign = [
        f"{path.relative_to(package)}: {name}"
        for part, modules in allowed.items()
        for path in (package / part).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] not in modules and not f"{name}.".startswith(tuple(f"{module}." for module in own[part]))
    ]
    assert foreign == []


class TestCommands:
    def test_help_lists_every_target(self) -> None:
        text = (REPOSITORY / "Makefile").read_text()
        targets = set(re.findall(r"^\.PHONY: (\S+)", text, re.MULTILINE))
        assert targets == set(re.findall(r"^([a-z0-9-]+):.* ## \S", text, re.MULTILINE))
        assert targets >= {"help", "venv", "demo", "test", "up", "down", "kubeconfig", "check", "crds", "bench", "lock"}

    def test_continuous_integration_runs_the_same_tests(self) -> None:
        assert (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1] == "make test"


class TestSummaryOfTiers:
    def test_the_last_line_holds_the_totals(self) -> None:
        rows = [("unit", Result(passed=3), 1.0), ("end to end", Result(passed=2, failed=1, skipped=1), 2.0)]
        assert summary(rows).splitlines()[-1] == "5 passed, 1 failed, 1 skipped"

    def test_a_tier_that_could_not_run_counts_as_a_failure(self) -> None:
        rows = [("unit", Result(passed=3), 1.0), ("end to end", Result(detail="not run: the set-up failed"), 0.0)]
        text = summary(rows)
        assert text.splitlines()[-1] == "3 passed, 1 failed"
        assert "not run: the set-up failed" in text
