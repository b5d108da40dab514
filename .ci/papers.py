"""Measure the chapters on papers whose record is missing or was made by other code (`--again`: all of them), execute them, and write the overview. `--overview` only writes the overview."""
import argparse, subprocess, sys
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OVERVIEW = ROOT/"papers"/"index.ipynb"
BEGIN, END = "<!-- papers -->\n", "\n<!-- end of papers -->"

def overview():
    "What `papers/index.ipynb` should hold."
    from memnet.papers.index import papers_table
    nb = nbformat.read(OVERVIEW, 4)
    for cell in nb.cells:
        if BEGIN in cell.source: cell.source = cell.source[:cell.source.index(BEGIN)] + BEGIN + papers_table(ROOT) + cell.source[cell.source.index(END):]
    return nbformat.writes(nb, ensure_ascii=False) + "\n"

def measure(notebook, again):
    "Make the record of a chapter, in a process of its own."
    from memnet.papers.common import check_paper
    wrong = check_paper(notebook, ROOT)
    if not (wrong or again): return print(f"{notebook.stem}: up to date")
    code = f"import torch; torch.set_num_threads(1); from memnet.papers.common import record_paper; print({notebook.stem!r}, record_paper({notebook.stem!r}, {str(ROOT)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

def execute(notebook):
    "Run a chapter in place, with its figures, and clean it."
    subprocess.run([BIN/"jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", "--log-level=WARN", notebook], cwd=ROOT, check=True)
    subprocess.run([BIN/"nbdev_clean", "--fname", notebook], cwd=ROOT, check=True)

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slugs", nargs="*", help="chapters (default: all)")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--overview", action="store_true")
    args = parser.parse_args()
    from memnet.papers.common import paper_chapters
    chapters = {p.stem: p for p in paper_chapters(ROOT)}
    if unknown := set(args.slugs) - set(chapters): sys.exit(f"no chapter {sorted(unknown)[0]!r}; there are: {', '.join(chapters)}")
    for slug in [] if args.overview else args.slugs or chapters:
        measure(chapters[slug], args.again)
        execute(chapters[slug])
    OVERVIEW.write_text(overview(), encoding="utf-8")

if __name__ == "__main__": main()
