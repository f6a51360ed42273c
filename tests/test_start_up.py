"""A cold `loraft predict`: what it imports, and that it answers a pipe that stays open."""

import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.evaluation.predict import predict
from loraft.models import manifest
from loraft.models.adapter import add_adapter
from loraft.models.load import build
from loraft.runs.atomic_files import write_text
from loraft.runs.run import Run

PATIENT = 120  # seconds; nothing below waits for them unless the code is broken
SCRIPT = """
import sys
from loraft.cli.app import main
try:
    main(sys.argv[1].split())
except SystemExit as end:
    print(end.code, sorted(set(sys.argv[2:]) & set(sys.modules)), file=sys.stderr)
"""
# Of training, studies and reports; networkx and inductor belong to torch's compiler.
UNUSED = ["trl", "datasets", "openpyxl", "evaluate", "sklearn", "pandas", "matplotlib", "pyarrow", "ray", "peft",
          "networkx", "torch._inductor.compile_fx", "transformers.trainer"]  # fmt: skip


@pytest.fixture(params=[("none", {}), ("none", {"lora.use_dora": True}), ("nf4", {})], ids=["none", "dora", "nf4"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Run, str]:
    """A finished run of the bundled backbone that never trained, and its kind."""
    quant, more = request.param
    config = resolve(flags={"quant.method": quant, "output": str(tmp_path / "runs"), "lora.r": 2, **more})
    found = Run.create(tmp_path / "runs", "của em", force=False, resume=False)
    encoder, base = build(config)
    identity = manifest.identify(config, base, found.path)
    model = add_adapter(base, config.lora, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(str(found.adapter))
    data = manifest.DataIdentity("feedback", {})
    manifest.write(found.adapter, manifest.describe(config, encoder, identity, data, {}))
    write_text(found.config_path, dump_config(config))
    found.finish({})
    return found, "dora" if more else quant


def test_predict_imports_what_it_uses_and_answers_an_open_pipe(run: tuple[Run, str]) -> None:
    finished, kind = run
    unused = [*UNUSED, *(["bitsandbytes"] if kind == "none" else [])]
    command = [sys.executable, "-X", "utf8", "-c", SCRIPT, "predict", *unused]
    with subprocess.Popen(
        command, cwd=finished.path.parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        answers = []
        for line in ("thầy giảng bài rất dễ hiểu", "phòng học nóng quá"):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            if not select.select([process.stdout], [], [], PATIENT)[0]:
                process.kill()
            answers.append(process.stdout.readline().decode().strip())
        process.stdin.close()
        last = process.stderr.read().decode().strip().splitlines()[-1]
    expected = predict(["thầy giảng bài rất dễ hiểu", "phòng học nóng quá"], run=finished.path)
    assert answers == [row.label for row in expected]
    assert last == ("0 ['peft']" if kind == "dora" else "0 []")
