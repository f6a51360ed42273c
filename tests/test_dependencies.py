"""The ranges of pyproject.toml and the pinned versions of constraints.txt belong together."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def test_every_dependency_has_an_upper_bound_and_the_tested_version_lies_in_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    versions = {name.lower().replace("_", "-"): version for name, version in pinned}
    for text in project["dependencies"]:
        requirement = Requirement(text)
        assert any(part.operator == "<" for part in requirement.specifier), text
        assert requirement.specifier.contains(versions[requirement.name]), text
