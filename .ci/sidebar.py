"""The reading order, from the folders: the sidebar of _quarto.yml and the map of parts in index.ipynb. `--check` changes nothing and exits 1 where they differ."""
import re, sys
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent
PARTS = {   # folder -> title, what a reader finds there; in reading order
    "foundations": ("Foundations", "letters, validation, configs, trees of tensors"),
    "memory":      ("Memory", "slots, addressing, plasticity of the graph, spreading activation, eviction, the bank"),
    "kernels":     ("Kernels", "the same computation, compiled: only speed, never needed to understand the rest"),
    "dreaming":    ("Dreaming", "offline consolidation: refinement, merging, replay"),
    "models":      ("Models", "the interface of a model, MemNet, the memory as a layer, baselines"),
    "tasks":       ("Tasks", "sequences with a known answer, and streams for continual learning"),
    "training":    ("Training", "schedule, checkpoints, the training loop, continual learners"),
    "analysis":    ("Analysis", "measures, the event log, survival of slots, plots, the explorer"),
    "runs":        ("Runs", "experiments as runs: plan, run, collect, verify; the command line"),
    "soundness":   ("Soundness", "random cases: one function many ways, invariants, stress, damaged files; what is promised and which test shows it"),
    "scorecard":   ("Scoring", "one page about the memory of any network: abilities, recipe, known networks, the command"),
    "experiments": ("Experiments", "one question each: `<name>_run` makes the runs, `<name>` reads them and concludes"),
    "text":        ("Text memory", "a memory of text in one file, for people and agents: write, recall by spreading activation, consolidate, forget"),
    "howto":       ("How-to", "one short page a job"),
    "papers":      ("Papers", "one executable chapter a paper"),
}

FIRST, LAST = ("index.ipynb", "nbs/tour.ipynb", "nbs/score.ipynb"), ("LOG.md", "CHANGELOG.md", "CONTRIBUTING.md")   # pages of no part: before and after the parts

def folder(part): return ROOT/part if part == "papers" else ROOT/"nbs"/part
def shown(path): return not any(s.startswith((".", "_")) for s in path.relative_to(ROOT).parts)

def chapters(part):
    "Notebooks of a part by name; of an experiment the page that reads its runs comes first, of the papers the overview and what they share."
    found = [p for p in folder(part).glob("*.ipynb") if shown(p)]
    return sorted(found, key=lambda p: (part != "papers" or p.stem not in ("index", "common"), part == "papers" and p.stem == "common", p.stem.removesuffix("_run"), p.stem))

def title(path): return re.match(r"# (.+)", nbformat.read(path, 4).cells[0].source)[1]

def sidebar():
    "The lines below `contents:`."
    lines = [f"      - {page}" for page in FIRST]
    for part, (name, _) in PARTS.items():
        if chapters(part): lines += [f"      - section: {name}", "        contents:", *(f"          - {p.relative_to(ROOT).as_posix()}" for p in chapters(part))]
    return "\n".join([*lines, "      - section: The project", "        contents:", *(f"          - {page}" for page in LAST)]) + "\n"

def parts_map():
    "A table of the parts, each with links to its chapters in reading order."
    rows = ["| part | what is there | chapters, in reading order |", "|---|---|---|"]
    for part, (name, what) in PARTS.items():
        pages = [p for p in chapters(part) if part != "experiments" or not p.stem.endswith("_run")]
        if pages: rows.append(f"| {name} | {what} | {' · '.join(f'[{title(p)}]({p.relative_to(ROOT).as_posix()})' for p in pages)} |")
    return "\n".join(rows)

def between(text, begin, end, new):
    "`text` with what stands between two markers replaced."
    a, z = text.index(begin) + len(begin), text.index(end)
    return text[:a] + new + text[z:]

def made():
    "File -> what it should hold."
    quarto, index = ROOT/"_quarto.yml", ROOT/"index.ipynb"
    nb = nbformat.read(index, 4)
    for cell in nb.cells:
        if "<!-- parts -->" in cell.source: cell.source = between(cell.source, "<!-- parts -->\n", "\n<!-- end of parts -->", parts_map())
    text = quarto.read_text(encoding="utf-8")
    return {quarto: between(text, "    contents:\n", "\nmetadata-files:", sidebar()), index: nbformat.writes(nb, ensure_ascii=False) + "\n"}

def main(check=False):
    stray = sorted({p.parent.name for p in (ROOT/"nbs").rglob("*.ipynb") if shown(p) and p.relative_to(ROOT).as_posix() not in FIRST} - set(PARTS))
    if stray: sys.exit(f"nbs/{stray[0]} is no part of the book: add it to PARTS in .ci/sidebar.py")
    differs = [f for f, text in made().items() if f.read_text(encoding="utf-8") != text]
    if check and differs: sys.exit(f"{', '.join(f.name for f in differs)} does not agree with the folders: run make readme and commit")
    for f, text in made().items(): f.write_text(text, encoding="utf-8")

if __name__ == "__main__": main("--check" in sys.argv[1:])
