"""The project's documents, taken apart: blocks of code, links, anchors, scripts' commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docker" / "README.md",
             *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [path for path in DOCUMENTS if path.is_file()]
_BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>.*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n"
                    r"(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"<!-- table: \w+ -->.*?<!-- end -->", re.DOTALL)


class Block(NamedTuple):
    """A fenced block. `why_not` says why it is not run; "measured" in a generated table."""

    page: Path
    line: int
    language: str
    text: str
    why_not: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    measured = [match.span() for match in _TABLE.finditer(text)]
    found = []
    for match in _BLOCK.finditer(text):
        inside = any(start < match.start() < end for start, end in measured)
        found.append(Block(page, text.count("\n", 0, match.start("language")) + 1,
                           match["language"], match["text"],
                           "measured" if inside else match["why"]))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a bash block, one command at a time."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for number, word in enumerate(words):
            if word in ("|", "&&", ";"):
                yield words[:number]
                words = words[number + 1:]
                break
        if words:
            yield words


def script_calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """(script, arguments) of each call of one of scripts/ in a block."""
    for words in commands(text):
        for number, word in enumerate(words):
            if re.fullmatch(r"scripts/[\w/]+\.(py|sh)", word):
                yield word, words[number + 1:]
                break


def section(block: Block) -> str:
    """The heading of the second level that a block stands under."""
    before = "".join(block.page.read_text().splitlines(keepends=True)[:block.line])
    return re.findall(r"^## (.+)$", before, re.MULTILINE)[-1]


def paths(page: Path) -> set[str]:
    """The files of Python, C++ and the shell that a page names with their folder, but in diffs."""
    text = re.sub(r"^```diff.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"(?<![\w./-])[a-z_0-9]+(?:/[\w-]+)+\.(?:py|sh|cpp)(?!\w)", text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def links(page: Path) -> list[str]:
    """The targets of a page's links and images."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text,
                                                             re.MULTILINE)
