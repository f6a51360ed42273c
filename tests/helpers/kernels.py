"""Where Triton's kernels run in tests: on the GPU, else in Triton's interpreter; without Triton the tests skip."""

import os
import sys

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def import_triton() -> None:
    """Imports Triton, as an interpreter where there is no GPU, or skips the tests of the calling file."""
    if DEVICE == "cpu":
        if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("Triton was imported as a compiler before", allow_module_level=True)
        os.environ["TRITON_INTERPRET"] = "1"
    interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton comes with torch for CUDA")
    patch = interpreter._patch_lang_tensor

    def patch_for_numpy(tensor, scope):  # type: ignore[no-untyped-def]
        """Loop bounds are arrays of one element, which numpy 2.4 no longer takes for numbers."""
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_for_numpy
