"""make fuzz: looks for inputs that break a property of tests/test_properties.py, for so many minutes (10).

Guided by the coverage of loraft's code where `pip install atheris` has been done, one property after the other; else by
new random examples of hypothesis, round after round. Both keep the smallest input that fails in .hypothesis, from which
`pytest tests/test_properties.py --hypothesis-profile=fuzz` starts.
"""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"


def names() -> list[str]:
    """The properties: the tests of the file."""
    lines = (TESTS / "test_properties.py").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("def ").partition("(")[0] for line in lines if line.startswith("def test_")]


def guided(name: str, seconds: float) -> None:
    """Fuzzes one property in this process, which atheris ends."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["loraft"]):
        import test_properties
    property = getattr(test_properties, name).hypothesis.fuzz_one_input
    atheris.Setup(
        [name, f"-max_total_time={max(1, int(seconds))}", "-max_len=8192", "-len_control=0", "-timeout=60"], property
    )
    atheris.Fuzz()


def main() -> int:
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    if len(sys.argv) == 3:
        guided(sys.argv[1], float(sys.argv[2]))
    seconds, failed, end = 60 * float(sys.argv[1]) if len(sys.argv) == 2 else 600.0, [], time.monotonic()
    end += seconds
    if importlib.util.find_spec("atheris") is not None:
        for name in names():
            print(f"{name}: {seconds / len(names()):.0f} s, guided by coverage", flush=True)
            ended = subprocess.run([sys.executable, __file__, name, str(seconds / len(names()))], cwd=ROOT, check=False)
            failed += [name] if ended.returncode else []
        print(f"failed: {', '.join(failed)}" if failed else "no property failed")
        return bool(failed)
    while time.monotonic() < end:
        print(f"a round of random examples; {(end - time.monotonic()) / 60:.1f} minutes are left", flush=True)
        tested = ["tests/test_properties.py", "-q", "--hypothesis-profile=fuzz", "--hypothesis-seed=random"]
        if subprocess.run([sys.executable, "-m", "pytest", *tested], cwd=ROOT, check=False).returncode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
