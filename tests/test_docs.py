"""The book without Quarto: every reference has its label, every link its target, every notebook its place in the sidebar."""
import re, subprocess, sys
from pathlib import Path
from urllib.parse import unquote
import nbformat, pytest, yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = [nb for folder in ("nbs", "nbs/experiments", "papers") for nb in sorted((ROOT/folder).glob("[!_.]*.ipynb"))]
ALL = [ROOT/"index.ipynb", *BOOK]
name = lambda path: str(path.relative_to(ROOT))

def cells(path, kind): return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == kind]

def prose(path):
    "Markdown without code: fenced blocks and inline code spans are not references."
    text = "\n\n".join(cells(path, "markdown"))
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))

def labels(path):
    "What can be referred to: equations, headings and tables in prose, figures and tables in code."
    found = re.findall(r"\{#((?:eq|fig|tbl|sec)-[\w-]+)", "\n".join(cells(path, "markdown")))
    return found + re.findall(r"^#\| *label: *((?:fig|tbl)-[\w-]+)", "\n".join(cells(path, "code")), re.M)

def references(path): return set(re.findall(r"(?<![\w/])@((?:eq|fig|tbl|sec)-[\w-]*\w)", prose(path)))
def links(text): return re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r"(?:src|href)=[\"']([^\"']+)", text)

def missing(text, folder):
    "Relative links whose target is not there."
    local = [l for l in links(text) if not re.match(r"(?:[a-z]+:|#)", l)]
    return [l for l in local if not (folder/unquote(l.split("#")[0])).exists()]

@pytest.mark.parametrize("path", ALL, ids=name)
def test_references_have_labels(path):
    assert not references(path) - set(labels(path)), "referred to, but not labelled in this notebook"
    double = {l for l in labels(path) if labels(path).count(l) > 1}
    assert not double, "labelled twice"

@pytest.mark.parametrize("path", ALL, ids=name)
def test_figures_are_described(path):
    for source in cells(path, "code"):
        if re.search(r"^#\| *label: *fig-", source, re.M):
            for key in ("fig-cap", "fig-alt"): assert re.search(rf"^#\| *{key}: *\S", source, re.M), f"{key} is missing in:\n{source[:200]}"

@pytest.mark.parametrize("path", ALL, ids=name)
def test_links_of_notebooks(path): assert not missing(prose(path), path.parent)

@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=name)
def test_links_of_pages(path): assert not missing(path.read_text(encoding="utf-8"), ROOT)

@pytest.mark.parametrize("path", BOOK, ids=name)
def test_opens_with_title_and_question(path):
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown" and re.fullmatch(r"# .+\n+(?:> .+\n?)+", first.source.strip()), "first cell: `# Title` and `> question` only"

def listed(node):
    "Every notebook a part of _quarto.yml names."
    if isinstance(node, str): return [node] if node.endswith(".ipynb") else []
    return [n for part in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else []) for n in listed(part)]

def test_sidebar_lists_every_notebook_once():
    sidebar = listed(yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"])
    inside = listed(yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]["sidebar"])
    assert {name(p) for p in ALL} - set(inside) == set(), "not in the sidebar"
    assert [n for n in sidebar if not (ROOT/n).exists()] == [], "in _quarto.yml, but not there"
    assert len(inside) == len(set(inside)), "listed twice"

def test_chapters_are_small_enough(): assert [name(p) for p in ALL if p.stat().st_size > 300_000] == []

def test_pages_can_be_made():
    "What nbdev hands to Quarto, without Quarto: `nbdev_proc_nbs` would try to install it."
    pages = ROOT/"_proc"
    made = subprocess.run([sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0 and "Traceback" not in made.stderr, made.stderr[-2000:]
    assert [n for p in ALL if not (pages/(n := name(p))).exists()] == []

def test_the_checks_of_this_file_can_fail(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("see @eq-one, `@eq-code`, [x](gone.md), [y](here.md#z) and <https://a.b>"),
                                         nbformat.v4.new_code_cell("#| label: fig-two\n1")])
    nbformat.write(nb, tmp_path/"x.ipynb")
    (tmp_path/"here.md").touch()
    assert references(tmp_path/"x.ipynb") == {"eq-one"} and labels(tmp_path/"x.ipynb") == ["fig-two"]
    assert missing(prose(tmp_path/"x.ipynb"), tmp_path) == ["gone.md"]
