"""The codec of old Vietnamese files, against the table of iconv."""

import shutil
import subprocess

import pytest

from loraft.data.tcvn3 import TABLE, register


@pytest.mark.skipif(shutil.which("iconv") is None, reason="no iconv")
def test_every_byte_means_what_iconv_says() -> None:
    register()
    given = b"".join(b"x" + bytes([byte]) for byte in range(0x80, 0x100))  # x keeps tone marks by themselves
    answer = subprocess.run(["iconv", "-f", "TCVN", "-t", "UTF-8"], input=given, capture_output=True, check=False)
    if answer.returncode:
        pytest.skip("this iconv does not know TCVN")
    assert given.decode("tcvn3") == answer.stdout.decode()


def test_text_survives_the_trip() -> None:
    register()
    text = "thầy dạy rất dễ hiểu, Đ"
    assert text.encode("TCVN3").decode("tcvn3") == text
    assert len(TABLE) == 256
