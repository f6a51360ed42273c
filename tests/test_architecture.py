"""The rule between packages: imports go down only, heavy libraries are imported late, files stay short."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import loraft
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config

PACKAGE = Path(loraft.__file__).parent
TESTS = Path(__file__).parent

# Bottom to top. A package imports those to its left, and none of its own floor.
ORDER = (
    "errors distributed bundled visible progress < config engine hub ray_cluster < data runs < models display"
    " < evaluation < training < studies < delivery < cli"
)
FLOOR = {package: floor for floor, packages in enumerate(ORDER.split(" < ")) for package in packages.split()}

HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "safetensors", "huggingface_hub"}
LATE = {"datasets", "evaluate", "matplotlib", "openpyxl", "pandas", "pyarrow", "scipy", "sklearn"}
# What the files of a package may import at their top, beside the standard library.
AT_THE_TOP = {
    "config": {"pydantic", "yaml"},
    "engine": {"numpy", "triton"} | HEAVY,  # triton in files that are imported where there is a GPU
    "data": {"numpy"},
    "runs": {"numpy", "pydantic"},
    "models": {"jinja2", "numpy", "regex"} | HEAVY,
    "display": {"jinja2", "rich"},
    "evaluation": {"numpy", "pydantic", "rich"},
    "training": {"datasets", "numpy", "psutil", "rich"} | HEAVY,
    "studies": {"numpy", "rich", "yaml", "pydantic"},
    "delivery": {"gguf", "jinja2", "numpy", "psutil", "rich"} | HEAVY,  # not the server and onnx, which are extras
    "cli": {"typer", "rich"},
}
EXTRAS = {
    "ray_cluster": {"ray"},
    "studies": {"optuna", "ray"},
    "delivery": {"onnx", "onnxruntime", "onnxscript", "ray", "starlette", "uvicorn"},
    "cli": {"uvicorn"},
}
MODELS_LOADED_HERE = {
    "evaluation.classifier", "evaluation.evaluate", "evaluation.predict", "evaluation.label_sets",
    "evaluation.validation",
    "studies.sweep.runner", "studies.sweep.local_engine",
    "studies.sweep.joint_pass", "studies.sweep.shared_backbone", "studies.fewshot.study",
    "studies.fewshot.context", "studies.sweep.curve", "studies.audit.fold_adapters",
}  # fmt: skip
AN_ESTIMATOR = {"evaluation.sklearn_classifier"}  # is imported by `Classifier.as_sklearn` only
SEES_SEVERAL_STUDIES = {"studies.report", "studies.run_report", "studies.report_sections"}

LONGEST_FILE = 330


@dataclass(frozen=True)
class Import:
    """One import of one file; modules are dotted and without the leading `loraft.`."""

    importer: str
    imported: str  # a module of the package, or another package's top level
    ours: bool
    at_the_top: bool


def modules(root: Path) -> dict[str, Path]:
    """Every file of the package by its dotted name; `__init__` files bear their folder's name."""
    files = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            files[name] = path
    return files


def imports(root: Path) -> list[Import]:
    """All imports in the package, but for those that only a type checker reads."""
    files = modules(root)

    def visit(name: str, node: ast.AST, at_the_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_the_top = False
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}, line {node.lineno}: write loraft.<package>.<module>"
                # `from loraft.a import b` imports the module a.b where there is one, else a name out of a.
                inside = [f"{node.module}.{alias}" for alias in names]
                names = [one if one.removeprefix("loraft.") in files else str(node.module) for one in inside]
            for full in dict.fromkeys(names):
                first, _, rest = full.partition(".")
                yield Import(name, rest if first == "loraft" else first, first == "loraft", at_the_top)
        for child in ast.iter_child_nodes(node):
            yield from visit(name, child, at_the_top)

    found: list[Import] = []
    for name, path in files.items():
        found += visit(name, ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def package_of(module: str) -> str:
    return module.partition(".")[0]


def study_of(module: str) -> str | None:
    """The study package that a module belongs to: sweep, fewshot, compare or dataset."""
    parts = module.split(".")
    return parts[1] if parts[0] == "studies" and (PACKAGE / "studies" / parts[1]).is_dir() else None


def upward(found: list[Import]) -> list[tuple[str, str]]:
    """Imports that do not go down, between packages."""
    return [
        (one.importer, one.imported)
        for one in found
        if one.ours and package_of(one.importer) != package_of(one.imported)
        if FLOOR[package_of(one.imported)] >= FLOOR[package_of(one.importer)]
    ]


def between_studies(found: list[Import]) -> list[tuple[str, str]]:
    """Imports of one study package by another."""
    return [
        (one.importer, one.imported)
        for one in found
        if one.ours and study_of(one.imported) and one.importer not in SEES_SEVERAL_STUDIES
        if package_of(one.importer) == "studies" and study_of(one.importer) != study_of(one.imported)
    ]


def in_a_circle(found: list[Import]) -> set[str]:
    """Modules that import each other, directly or through others."""
    below: dict[str, set[str]] = {}
    for one in found:
        if one.ours:
            below.setdefault(one.importer, set()).add(one.imported)
            below.setdefault(one.imported, set())
    while leaves := {name for name, imported in below.items() if not imported}:
        below = {name: imported - leaves for name, imported in below.items() if name not in leaves}
    return set(below)


def at_a_wrong_top(found: list[Import]) -> list[tuple[str, str]]:
    """Other people's packages that are imported where they do not belong."""
    wrong = []
    for one in found:
        if one.ours or one.imported in sys.stdlib_module_names:
            continue
        allowed = AT_THE_TOP.get(package_of(one.importer), set())
        if one.importer in MODELS_LOADED_HERE:
            allowed = allowed | HEAVY
        if one.importer in AN_ESTIMATOR:
            allowed = allowed | {"sklearn"}
        if not one.at_the_top:
            allowed = allowed | LATE | HEAVY | {"psutil", "yaml"} | EXTRAS.get(package_of(one.importer), set())
        if one.imported not in allowed:
            wrong.append((one.importer, one.imported))
    return wrong


FOUND = imports(PACKAGE)


def test_every_module_has_a_floor() -> None:
    assert {package_of(name) for name in modules(PACKAGE)} - set(FLOOR) == set()


def test_imports_between_packages_go_down_only() -> None:
    assert upward(FOUND) == []


def test_no_module_imports_itself_through_others() -> None:
    assert in_a_circle(FOUND) == set()


def test_the_studies_do_not_import_each_other() -> None:
    assert between_studies(FOUND) == []


def test_each_package_imports_only_its_libraries() -> None:
    assert at_a_wrong_top(FOUND) == []


def test_the_command_line_imports_what_loads_models_inside_commands_only() -> None:
    late = {"engine", "models", "evaluation", "training"}
    climbing = [one for one in FOUND if package_of(one.importer) == "cli" and package_of(one.imported) in late]
    assert climbing != []
    assert [one for one in climbing if one.at_the_top] == []


def test_packages_only_hand_names_on() -> None:
    for path in PACKAGE.rglob("*/__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            assert names or isinstance(node, ast.ImportFrom | ast.Expr), f"{path}: line {node.lineno}"


def test_no_module_at_the_root_bears_the_name_of_a_public_function() -> None:
    assert {package_of(name) for name in modules(PACKAGE)} & set(loraft.__all__) == set()


def test_files_stay_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(PACKAGE).items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_tests_lie_where_the_files_lie_that_they_test() -> None:
    files = modules(PACKAGE)
    found = [path.relative_to(TESTS).with_suffix("").parts for path in TESTS.glob("*/**/test_*.py")]
    # bad_input has one file for each kind of input, docs one for each kind of statement
    tested = [parts for parts in found if parts[0] not in ("bad_input", "docs")]
    assert [parts for parts in tested if ".".join([*parts[:-1], parts[-1].removeprefix("test_")]) not in files] == []


# --- the rule sees what it forbids ------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A small package that breaks every rule once."""
    files = {
        "engine/layout.py": "from loraft.data import records\n",
        "data/records.py": "def read():\n    from loraft.data.readers import rows\n",
        "data/readers.py": "import torch\nfrom loraft.data.records import Example\n",
        "studies/sweep/runner.py": "def show():\n    from loraft.studies.fewshot.tables import fewshot\n",
        "studies/fewshot/tables.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_an_upward_import_is_seen(broken: Path) -> None:
    assert upward(imports(broken)) == [("engine.layout", "data.records")]


def test_a_circle_is_seen_also_through_a_late_import(broken: Path) -> None:
    assert in_a_circle(imports(broken)) == {"data.records", "data.readers", "engine.layout"}


def test_a_study_that_imports_another_is_seen(broken: Path) -> None:
    assert between_studies(imports(broken)) == [("studies.sweep.runner", "studies.fewshot.tables")]


def test_torch_where_it_does_not_belong_is_seen(broken: Path) -> None:
    assert at_a_wrong_top(imports(broken)) == [("data.readers", "torch")]


# --- what is loaded when ----------------------------------------------------------------------------------------------


def imported(lines: list[str], asked: set[str], folder: Path) -> list[tuple[str, str]]:
    """Exit code of each command line, one after the other in one process, and which of the packages are there then."""
    script = """
import sys
from loraft.cli.app import main
for line in sys.argv[1].splitlines():
    try:
        main(line.split())
    except SystemExit as end:
        print("\\nIMPORTED", end.code, " ".join(sorted(set(sys.argv[2:]) & set(sys.modules))))
"""
    command = [sys.executable, "-X", "utf8", "-c", script, "\n".join(lines), *asked]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True)
    reports = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    return [(code, rest) for _, code, rest in reports]


def test_help_reads_neither_config_nor_arrays(tmp_path: Path) -> None:
    asked = HEAVY | LATE | {"pandas", "numpy", "pydantic", "yaml", "jinja2", "loraft.config.schema"}
    assert imported(["--help"], asked, tmp_path) == [("0", "")]


def test_what_reads_the_config_only_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = ["train --help", "predict --help", "--version", "config", "models --json", "models"]
    lines += ["sweep --ranks 1,2 --dry-run"]
    found = imported(lines, HEAVY | LATE | {"pandas", "numpy"}, tmp_path)
    assert found == [("0", "")] * len(lines)


def test_mistakes_come_back_without_anything_heavy(tmp_path: Path) -> None:
    for name, text in (
        ("config.yaml", dump_config(resolve(overrides=["name=cũ"]))),
        ("rows.json", "{}"),
        ("metrics.json", "{}"),
    ):  # a finished run
        (tmp_path / "runs" / "cũ").mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / "cũ" / name).write_text(text, encoding="utf-8")
    lines = [
        "train --set name=cũ",  # reads the rows, to compare them
        "train --set lora.rank=8",
        "train --config none.yaml",
        "predict câu --run none",
        "eval --zero-shot --run x",
        "runs show none",
        "runs list --output .",
    ]
    found = imported(lines, HEAVY | LATE | {"pandas"}, tmp_path)
    assert found == [(code, "") for code in ("1", "2", "2", "1", "2", "1", "0")]
