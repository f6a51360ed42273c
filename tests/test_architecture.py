"""Imports go down only, heavy packages are imported late, and files stay short (docs: section 3 of the design)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import loraft

PACKAGE = Path(loraft.__file__).parent

LAYERS = {
    0: "config errors mistakes resolving",
    1: """answers arriving baselines bundled comparing data demonstrations machine metrics overlap pages plots
        processes progressions prompts reading reports resuming runs spreads standings studies studyplots studytables
        sweeping sweepplots sweeptables tables talking""",
    2: """backbone batching bundle encoding fused interrupting joint layouts lowrank memory plain_lora planning
        prefix_attention progress sampling scoring sharing stepping suffixes training""",
    3: "api datastats fewshots fitting jointly sweeps workbench",
    4: "cli cli_reports cli_studies options",
}
LAYER = {module: layer for layer, modules in LAYERS.items() for module in modules.split()}

HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "safetensors", "huggingface_hub"}
LATE = {"datasets", "evaluate", "matplotlib", "pyarrow", "ray", "scipy", "sklearn"}
FRAMEWORKS = {"jinja2", "numpy", "yaml", "rich", "pydantic", "datasets"} | HEAVY  # trl imports datasets anyway
AT_THE_TOP = {0: {"pydantic", "yaml"}, 1: {"numpy", "pydantic", "rich", "yaml"}, 2: FRAMEWORKS, 3: FRAMEWORKS,
              4: {"typer", "rich", "yaml"}}  # fmt: skip
INSIDE_FUNCTIONS = {0: set(), 1: LATE, 2: LATE, 3: LATE, 4: set()}

LONGEST_FILE = 330


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str  # module of loraft, or another package's top level
    ours: bool
    at_the_top: bool
    line: int


def modules() -> dict[str, Path]:
    files = {path.stem: path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    return files | {path.parent.name: path for path in PACKAGE.glob("*/__init__.py")}


def imports_of(name: str, path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, at_the_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_the_top = False
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}: write loraft.<module>"
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"loraft.{n}" for n in names] if node.module == "loraft" else [str(node.module)]
            for full in names:
                first, _, rest = full.partition(".")
                imported = rest.partition(".")[0] if first == "loraft" else first
                yield Import(name, imported, first == "loraft", at_the_top, node.lineno)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_the_top)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


PLACED = {name: path for name, path in modules().items() if name in LAYER}
ALL = [found for name, path in PLACED.items() for found in imports_of(name, path)]
OURS = [found for found in ALL if found.ours and found.imported in PLACED]
OTHERS = [found for found in ALL if not found.ours and found.imported not in sys.stdlib_module_names]


def test_every_module_has_a_layer() -> None:
    assert set(modules()) - set(LAYER) == set(), "give the new module a place in LAYERS"


def test_the_imports_are_seen() -> None:
    assert ("api", "scoring") in {(found.importer, found.imported) for found in OURS}
    assert ("scoring", "torch") in {(found.importer, found.imported) for found in OTHERS}
    assert any(not found.at_the_top for found in OURS)


def test_imports_go_down_only() -> None:
    assert [found for found in OURS if LAYER[found.imported] > LAYER[found.importer]] == []


def test_imports_within_a_layer_make_no_circle() -> None:
    below = {name: {found.imported for found in OURS if found.importer == name} for name in modules()}
    while leaves := {name for name, imported in below.items() if not imported}:
        below = {name: imported - leaves for name, imported in below.items() if name not in leaves}
    assert below == {}


def test_each_layer_imports_only_its_packages() -> None:
    def allowed(found: Import) -> set[str]:
        layer = LAYER[found.importer]
        return AT_THE_TOP[layer] if found.at_the_top else AT_THE_TOP[layer] | INSIDE_FUNCTIONS[layer]

    assert [found for found in OTHERS if found.imported not in allowed(found)] == []


def test_the_command_line_imports_the_heavy_layers_inside_commands_only() -> None:
    climbing = [found for found in OURS if LAYER[found.importer] == 4 and LAYER[found.imported] in (2, 3)]
    assert climbing != []
    assert [found for found in climbing if found.at_the_top or LAYER[found.imported] != 3] == []


def test_no_module_bears_the_name_of_a_public_function() -> None:
    assert set(modules()) & set(loraft.__all__) == set()


def test_files_stay_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def imported(lines: list[str], asked: set[str], folder: Path) -> list[tuple[str, str]]:
    """Exit code of each command line, one after the other in one process, and which of the packages are there then."""
    script = """
import sys
from loraft.cli import main
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
    asked = HEAVY | LATE | {"pandas", "numpy", "pydantic", "yaml", "jinja2", "loraft.config"}
    assert imported(["--help"], asked, tmp_path) == [("0", "")]


def test_what_reads_the_config_only_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = ["train --help", "predict --help", "config", "models --json", "models", "sweep --ranks 1,2 --dry-run"]
    found = imported(lines, HEAVY | LATE | {"pandas", "numpy"}, tmp_path)
    assert found == [("0", "")] * len(lines)


def test_mistakes_come_back_without_anything_heavy(tmp_path: Path) -> None:
    lines = [
        "train --set lora.rank=8",
        "train --config none.yaml",
        "predict câu --run none",
        "eval --zero-shot --run x",
    ]
    assert imported(lines, HEAVY | LATE | {"pandas"}, tmp_path) == [("2", ""), ("2", ""), ("1", ""), ("2", "")]
