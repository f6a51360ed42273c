"""Write tests/bundled/bundled_hashes.json: the SHA-256 of every bundled file that a published figure depends on.

python tools/pretrain/hashes.py
"""

import hashlib
import json
from pathlib import Path

from loraft.bundled import HERE

OUT = Path(__file__).parents[2] / "tests" / "bundled" / "bundled_hashes.json"

if __name__ == "__main__":
    files = [
        *HERE.glob("feedback/*.jsonl"),
        *HERE.glob("loraft-vi-*/*.json"),
        *HERE.glob("loraft-vi-*/*.safetensors"),
    ]
    hashes = {str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
    OUT.write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    print(f"{len(hashes)} files in {OUT}")
