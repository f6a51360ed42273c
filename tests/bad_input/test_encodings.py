"""Files in encodings other than the one that is read, and compressed files that are damaged."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.bad_input import refusal

TEXT = "sentence,sentiment\nthầy dạy hay,positive\nphòng nóng,negative\n"
UTF8 = r"row 1: not valid UTF-8; save the file as UTF-8, or set data\.encoding"
ENCODED: dict[str, tuple[bytes, list[str], str]] = {
    "cp1258": (b"sentence,sentiment\nph\xf2ng,positive\n", [], UTF8),
    "latin-1": ("sentence,sentiment\ncaf\xe9,positive\n".encode("latin-1"), [], UTF8),
    "TCVN3": (b"sentence,sentiment\nth\xc7y d\xb9y,positive\n", [], UTF8),
    "one bad byte": (TEXT.encode().replace(b"hay", b"h\xffy"), [], UTF8),
    "half a letter": (TEXT.encode().replace("ầ".encode(), "ầ".encode()[:2]), [], UTF8),
    "bad bytes in another column": (b"id,sentence,sentiment\n\xff,hay,positive\n", [], UTF8),
    "bad bytes in the header": (b"sent\xffnce,sentiment\nhay,positive\n", [], r"no column 'sentence' \(got "),
    "a bad byte as label": (b"sentence,sentiment\nhay,positiv\xff\n", [], r"row 1: (not valid UTF-8|unknown label)"),
    "UTF-16 without mark": (TEXT.encode("utf-16-le"), [], r"a\.csv: is no text \(got b's"),
    "UTF-16 big without mark": (TEXT.encode("utf-16-be"), [], r"a\.csv: is no text \(got b'"),
    "UTF-32": (TEXT.encode("utf-32"), [], r"a\.csv: (not valid text|is no text)"),
    "UTF-16 cut off": (TEXT.encode("utf-16")[:-1], [], r"a\.csv: not valid text \(.*\); save it as UTF-8"),
    "half a pair in UTF-16": (b"\xff\xfe" + b"\x00\xd8" * 3, [], r"a\.csv: (not valid text|no column)"),
    "the mark of UTF-16 alone": (b"\xff\xfe", [], r"no column 'sentence' \(got none\)"),
    "UTF-8 read as UTF-16": (TEXT.encode(), ["data.encoding=utf-16"], r"a\.csv: (not valid text|no column)"),
    "UTF-8 read as ASCII": (TEXT.encode(), ["data.encoding=ascii"], UTF8),
    "UTF-8 read as UTF-7": (TEXT.encode(), ["data.encoding=utf-7"], r"a\.csv( row 1)?: "),
    "UTF-8 read as UTF-32": (TEXT.encode(), ["data.encoding=utf-32"], r"a\.csv: (not valid text|no column)"),
    "UTF-8 read as IDNA": (TEXT.encode(), ["data.encoding=idna"], r"a\.csv( row 1)?: |data\.encoding: "),
    "UTF-8 read as Punycode": (TEXT.encode(), ["data.encoding=punycode"], r"a\.csv( row 1)?: |data\.encoding: "),
    "an encoding of bytes": (TEXT.encode(), ["data.encoding=base64"], r"data\.encoding: is no encoding .*got 'base64'"),
    "a compression as encoding": (TEXT.encode(), ["data.encoding=zlib"], r"data\.encoding: is no encoding .*'zlib'"),
    "rot13 as encoding": (TEXT.encode(), ["data.encoding=rot13"], r"data\.encoding: is no encoding .*got 'rot13'"),
    "an unknown encoding": (TEXT.encode(), ["data.encoding=vni"], r"data\.encoding: is no encoding.*try cp1258"),
    "an encoding with a NUL": (TEXT.encode(), ['data.encoding="a\\0b"'], r"data\.encoding: holds U\+0000"),
    "a blank encoding": (TEXT.encode(), ["data.encoding=' '"], r"data\.encoding: is no encoding .*got ' '"),
    "an empty encoding": (TEXT.encode(), ["data.encoding=''"], r"data\.encoding: is no encoding"),
    "an encoding of 300 letters": (TEXT.encode(), [f"data.encoding={'ă' * 300}"], r"data\.encoding: is no encoding"),
}  # fmt: skip


def archive(kind: str) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w") as inside:
            inside.writestr("train.csv", TEXT)
    else:
        with tarfile.open(fileobj=made, mode="w:gz") as tar:
            member = tarfile.TarInfo("train.csv")
            member.size = len(TEXT.encode())
            tar.addfile(member, io.BytesIO(TEXT.encode()))
    return made.getvalue()


GZ = gzip.compress(TEXT.encode() * 50, mtime=0)
COMPRESSED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv.gz", b"", r"no column 'sentence' \(got none\)"),
    "text": ("a.csv.gz", TEXT.encode(), r"a\.csv\.gz: cannot be read \(Not a gzipped file"),
    "only the head": ("a.csv.gz", GZ[:10], r"a\.csv\.gz: cannot be read \(Compressed file ended.*\); check its perm"),
    "half": ("a.csv.gz", GZ[: len(GZ) // 2], r"a\.csv\.gz: cannot be read \(Compressed file ended"),
    "without the sum": ("a.csv.gz", GZ[:-8], r"a\.csv\.gz: cannot be read \(Compressed file ended"),
    "a wrong sum": ("a.csv.gz", GZ[:-8] + bytes(8), r"a\.csv\.gz: cannot be read \(CRC check failed"),
    "a damaged block": ("a.csv.gz", GZ[:20] + b"\xff" * 20 + GZ[40:], r"a\.csv\.gz: cannot be read \("),
    "junk after the end": ("a.csv.gz", GZ + b"hay", r"a\.csv\.gz: cannot be read \(Not a gzipped file"),
    "compressed twice": ("a.csv.gz", gzip.compress(GZ), r"a\.csv\.gz: (is no text|no column)"),
    "a binary inside": ("a.csv.gz", gzip.compress(bytes(99)), r"a\.csv\.gz: is no text \(got b'\\x00"),
    "an empty text inside": ("a.jsonl.gz", gzip.compress(b""), r"no row with text and label"),
    "a tar": ("a.csv.gz", archive("tar"), r"a\.csv\.gz: (is no text|no column)"),
    "a tar by its name": ("a.tar.gz", archive("tar"), r"a\.tar\.gz: (is no text|unknown file format)"),
    "a tgz": ("a.tgz", archive("tar"), r"a\.tgz: (is no text|unknown file format)"),
    "a zip": ("a.zip", archive("zip"), r"a\.zip: (is no text|unknown file format)"),
    "a zip by another name": ("a.csv", archive("zip"), r"a\.csv: is no text \(got b'PK"),
    "a bzip2": ("a.csv.bz2", bz2.compress(TEXT.encode()), r"a\.csv\.bz2: is no text \(got b'BZh"),
    "an xz": ("a.csv.xz", lzma.compress(TEXT.encode()), r"a\.csv\.xz: is no text \(got b'"),
    "a compressed Parquet": ("a.parquet.gz", GZ, r"a\.parquet\.gz: unknown file format \(got \.parquet\.gz\)"),
    "a gz without a second suffix": ("a.gz", GZ, r"a\.gz: unknown file format \(got \.gz\)"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sets", "says"), ENCODED.values(), ids=ENCODED)
def test_a_file_in_another_encoding_is_refused(content: bytes, sets: list[str], says: str) -> None:
    Path("a.csv").write_bytes(content)
    refusal(["train", "--data", "a.csv", *(word for one in sets for word in ("--set", one))], says)


@pytest.mark.parametrize(("name", "content", "says"), COMPRESSED.values(), ids=COMPRESSED)
def test_a_damaged_or_unknown_compression_is_refused(name: str, content: bytes, says: str) -> None:
    Path(name).write_bytes(content)
    refusal(["train", "--data", name], says)
