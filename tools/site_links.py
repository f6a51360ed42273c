"""Hook of MkDocs (mkdocs.yml): a link that leaves docs/ becomes its text with the path in the repository beside it."""

import posixpath
import re

LINK = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page, **_: object) -> str:
    def replaced(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        return match[0] if path.startswith("docs/") else f"{text} (`{path}`)"

    return LINK.sub(replaced, markdown)
