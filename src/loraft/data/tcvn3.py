"""The codec "tcvn3" (TCVN 5712-1, "ABC"), which Python lacks: old Vietnamese files in the fonts .VnTime.

Capitals of the fonts .VnTimeH are the bytes of small letters there, so they come out as small letters.

Source: TCVN 5712:1993, VN1; the bytes below 0x20 keep their ASCII meaning, as in the fonts.
"""

import codecs
from functools import cache
from typing import Any

NAME = "tcvn3"
# The characters of the bytes 0x80 to 0xFF; those of 0xB0 to 0xB4 are combining tone marks.
UPPER = (
    "ÀẢÃÁẠẶẬÈẺẼÉẸỆÌỈĨÍỊÒỎÕÓỌỘỜỞỠỚỢÙỦŨ"
    "\u00a0ĂÂÊÔƠƯĐăâêôơưđẰ\u0300\u0309\u0303\u0301\u0323àảãáạẲằẳẵắẴ"
    "ẮẦẨẪẤỀặầẩẫấậèỂẻẽéẹềểễếệìỉỄẾỒĩíịò"
    "ỔỏõóọồổỗốộờởỡớợùỖủũúụừửữứựỳỷỹýỵỐ"
)
TABLE = bytes(range(128)).decode("ascii") + UPPER


class _Decoder(codecs.IncrementalDecoder):
    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        return codecs.charmap_decode(data, self.errors, TABLE)[0]


def _encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    return codecs.charmap_encode(text, errors, codecs.charmap_build(TABLE))


def _decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
    return codecs.charmap_decode(data, errors, TABLE)


@cache
def register() -> None:
    """Makes the codec known to Python by its name."""
    decode: Any = _decode  # the stub asks for a buffer
    encoded = codecs.CodecInfo(_encode, decode, incrementaldecoder=_Decoder, name=NAME)
    codecs.register(lambda name: encoded if name == NAME else None)
