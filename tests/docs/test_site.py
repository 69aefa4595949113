"""The site: built without network, every link and anchor found, every question of users answered by a page."""

import re
import subprocess
import sys

import pytest
from docs_blocks import ROOT


@pytest.mark.slow
def test_it_builds_and_all_links_lead_somewhere(tmp_path):
    """`mkdocs build --strict` has no warning; nothing on a page is fetched from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "index.html").read_text()
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://(?!github\.com)[^"]+\.(?:js|css)', page)
    assert "<h2" in (tmp_path / "api" / "probe" / "index.html").read_text()


def test_questions_have_answers():
    """Ten or more questions of users, each with a page and, where it is named, a heading of it."""
    text = (ROOT / "docs" / "questions.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](" in line]
    assert len(rows) >= 10
    for page, anchor in re.findall(r"\]\(([\w-]+\.md)(?:#([\w-]+))?\)", text):
        source = {"benchmarks.md": ROOT / "benchmarks" / "README.md"}.get(page, ROOT / "docs" / page)
        headings = [
            re.sub(r"[^\w\s-]", "", h.lower()).strip() for h in re.findall(r"^#+ (.*)$", source.read_text(), re.M)
        ]
        assert not anchor or anchor in [re.sub(r"\s+", "-", heading) for heading in headings], (page, anchor)
