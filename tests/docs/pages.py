"""The documents' examples, run as they stand there."""

import ast
import inspect
import re
from typing import Any

from tests.processes import CHECKOUT


class Page:
    """One document of `docs/`."""

    def __init__(self, name: str) -> None:
        self.name = f"docs/{name}"
        self.text = (CHECKOUT / self.name).read_text(encoding="utf-8")

    def anchors(self) -> set[str]:
        """Returns what a link inside the page can lead to."""
        titles = re.findall(r"^#+ (.+)$", self.text, flags=re.MULTILINE)
        return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}

    def links(self) -> set[str]:
        """Returns where links inside the page lead to."""
        return set(re.findall(r"\]\(#([^)]+)\)", self.text))

    def pages(self) -> set[tuple[str, str]]:
        """Returns the other pages that this one leads to, each with the place in it, which may be empty."""
        return set(re.findall(r"\]\(([\w-]+\.md)#?([^)]*)\)", self.text))

    def rows(self, title: str) -> list[list[str]]:
        """Returns the cells of the table below a heading, without its head."""
        section = re.split(rf"^#+ {re.escape(title)}$", self.text, flags=re.MULTILINE)[1]
        section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]

    async def run(self, language: str = "python") -> dict[str, Any]:
        """Runs every fenced block of the language from top to bottom, as one program; returns its names.

        A failure's traceback shows the line of the document.
        """
        names: dict[str, Any] = {"__name__": self.name}
        for block in re.finditer(rf"^```{language}\n(.*?)^```$", self.text, flags=re.MULTILINE | re.DOTALL):
            padding = "\n" * self.text.count("\n", 0, block.start(1))  # so that its lines have the document's numbers
            file = str(CHECKOUT / self.name)
            code = compile(padding + block[1], file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)  # noqa: S307 - our own page
            if inspect.isawaitable(running):
                await running
        return names
