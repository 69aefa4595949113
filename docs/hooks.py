"""What the site takes from outside `docs/`: pages of the repository, and every file of it that a page links to."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "recipes/README.md": "recipes.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".csv": "text"}
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add those pages, and a page with the content of each file that is linked."""
    sources = {file.src_uri: Path(file.abs_src_path) for file in files.documentation_pages()}
    sources |= {uri: ROOT / path for path, uri in PAGES.items()}
    for uri, path in list(sources.items()):
        text, linked = relinked(path.read_text("utf-8"), path, uri)
        if uri in PAGES.values():
            files.append(File.generated(config, uri, content=text))
        for file in linked:
            target = page_of(file)
            if files.get_file_from_path(target) is None:
                fence = f"```{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text('utf-8')}\n```\n"
                content = file.read_text("utf-8") if file.suffix == ".md" else fence
                heading = f"# {file.relative_to(ROOT).as_posix()}\n\n"
                files.append(File.generated(config, target, content=heading + relinked(content, file, target)[0]))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links out of `docs/` become links to those pages."""
    if page.file.generated_by:
        return markdown
    return relinked(markdown, Path(page.file.abs_src_path), page.file.src_uri)[0]


def page_of(file: Path) -> str:
    """The page that shows a file of the repository."""
    name = file.relative_to(ROOT).as_posix()
    return PAGES.get(name, f"repository/{name.removesuffix('.md')}.md")


def relinked(text: str, path: Path, uri: str) -> tuple[str, list[Path]]:
    """The text of a file as a page `uri`: its links lead to pages; and the files outside `docs/` that it links to."""
    found: list[Path] = []
    up = "../" * (len(PurePosixPath(uri).parts) - 1)

    def replace(match: re.Match[str]) -> str:
        target, anchor = (path.parent / match[1]).resolve(), match[2] or ""
        if not target.is_file() or not target.is_relative_to(ROOT):
            return match[0]
        if target.is_relative_to(ROOT / "docs"):
            return f"]({up}{target.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        if page_of(target) not in PAGES.values():
            found.append(target)
        return f"]({up}{page_of(target)}{anchor})"

    return LINK.sub(replace, text), found
