"""The bundled adapter: it answers before anything was trained, and holds nothing of the machine that made it."""

import re
import shutil
from pathlib import Path

import pytest

import loraft
from loraft.bundled import bundled_adapters
from loraft.errors import RunError
from loraft.models import manifest
from loraft.runs.hashes import hashes_of
from loraft.runs.run import Bundle, find_run, newest_finished

DEMO = bundled_adapters()["demo"]


def test_its_files_have_the_hashes_that_its_manifest_names() -> None:
    files = manifest.read(DEMO).files
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors", "validation_scores.json"}
    assert hashes_of(DEMO, files) == files


def test_its_files_name_no_folder_of_a_machine_and_no_user() -> None:
    texts = [path.read_text(encoding="utf-8") for path in DEMO.iterdir() if path.suffix in (".json", ".md")]
    assert len(texts) == 4
    assert [found for text in texts for found in re.findall(r"""["'\s](/[\w.]+/\S*|~/\S*|[A-Z]:\\\S*)""", text)] == []


def test_its_card_has_the_command_that_made_it_and_the_licences() -> None:
    card = (DEMO / "README.md").read_text(encoding="utf-8")
    assert "loraft train --quant nf4 --rank 16 --set name=demo\n" in card
    assert "| backbone | loraft-vi-tiny | cc-by-sa-4.0 |\n| data | feedback | cc-by-4.0 |" in card


def test_its_name_means_it_unless_a_run_has_that_name(tmp_path: Path) -> None:
    found = find_run("demo", tmp_path)
    assert (type(found), found.path) == (Bundle, DEMO)
    shutil.copytree(DEMO, tmp_path / "demo")
    assert find_run("demo", tmp_path).path == tmp_path / "demo"


def test_without_a_run_the_message_names_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--run demo is one that is bundled"):
        newest_finished(tmp_path)


def test_python_loads_it_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loraft.load("demo").predict("cô nhiệt tình")[0].label == "positive"
