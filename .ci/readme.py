"""README.md from index.ipynb without Quarto, the same bytes on every machine. (`nbdev_readme` does it where Quarto is installed.)"""
import re
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent

def code(cell):
    "A code cell and its text output as fenced blocks; directive lines and hidden cells are left out, of `echo: false` only the output is shown, as prose."
    if re.search(r"^#\|\s*hide\s*$", cell.source, re.M): return ""
    source = "\n".join(l for l in cell.source.splitlines() if not l.startswith("#|")).strip()
    texts = [o.get("text") or o.get("data", {}).get("text/markdown") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    shown = "".join(t if isinstance(t, str) else "".join(t) for t in texts).strip()
    if re.search(r"^#\|\s*echo:\s*false\s*$", cell.source, re.M): return shown
    return f"``` python\n{source}\n```" + (f"\n\n```\n{shown}\n```" if shown else "")

def markdown(nb):
    "The whole notebook as GitHub markdown."
    cells = [c.source.strip().replace("```{mermaid}", "``` mermaid") if c.cell_type == "markdown" else code(c) for c in nb.cells]
    head = "<!-- Made from index.ipynb by `make readme`: edit that instead. -->"
    return "\n\n".join([head, *filter(None, cells)]) + "\n"

if __name__ == "__main__":
    (ROOT/"README.md").write_text(markdown(nbformat.read(ROOT/"index.ipynb", 4)), encoding="utf-8")
