"""The Python in the documentation runs, with limits that make it take seconds."""

import contextlib
import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.capped import STEPS
from helpers.pages import PAGES, blocks, name_of

import loraft

BY_OTHERS = {"own-data.md": "tests/test_own_data.py", "export.md": "tests/test_export_page.py"}
PYTHON = {
    name_of(page): [block.text for block in blocks(page) if block.language == "python" and ">>> " not in block.text]
    for page in PAGES
}


@pytest.mark.integration
@pytest.mark.parametrize("page", [name for name, found in PYTHON.items() if found and name not in BY_OTHERS])
def test_the_python_of_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resolve = loraft.resolve

    def limited(*, overrides: Any = (), **given: Any) -> loraft.Config:
        return resolve(overrides=[*overrides, *STEPS], **given)

    monkeypatch.setattr(loraft, "resolve", limited, raising=False)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for code in PYTHON[page]:
            exec(compile(code, page, "exec"), names)
    assert said.getvalue()
    shutil.rmtree(tmp_path / "runs")


def test_the_readme_has_python_of_some_ten_lines() -> None:
    (code,) = PYTHON["README.md"]
    assert 8 <= len([line for line in code.splitlines() if line.strip()]) <= 12
    assert set(BY_OTHERS) <= set(PYTHON)
