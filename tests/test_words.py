"""The field's words: no home-made word in an exported name or in prose, and one meaning for each symbol."""
import ast, re
from pathlib import Path
import nbformat, pytest
from test_layout import CHAPTERS, MODULES, ROOT, exported, name

# what stands on the right is what to write instead
IN_NAMES = {
    "night": "consolidation", "nights": "consolidation", "nap": "consolidation", "sleep": "consolidation", "sleeping": "consolidation", "awake": "before consolidation", "wake": "restart",
    "lived": "observed", "lawful": "valid", "diary": "record, timeline", "diaries": "timelines", "page": "saved chunk", "book": "planner state", "watcher": "observer", "watch": "observe, log",
    "tell": "emit, observe", "told": "observed", "moment": "snapshot", "land": "scatter", "fold": "segment reduce", "born": "allocated", "birth": "allocation", "births": "allocations",
    "tenant": "occupant", "tenants": "occupants", "lineage": "version chain", "lineages": "version chains", "dead": "masked", "death": "eviction", "facet": "augmented key", "warmth": "logit scale",
    "temperature": "logit_scale", "echo": "eligibility trace", "rivalry": "competition", "need": "require", "twin": "reference", "turned": "transposed", "lanes": "simd", "weave": "", "relink": "",
    "pressure": "memory load", "outsider": "baseline", "outside": "baseline", "stranger": "unseen key", "strangers": "unseen keys", "asked": "labelled", "course": "result", "follow": "run stream",
    "say": "encode", "hear": "decode", "says": "", "said": "", "day": "session", "city": "", "who": "", "imagine": "reconstruct", "imagined": "reconstructed", "aims": "preregistered targets", "bars": "",
    "room": "capacity", "house": "", "housed": "", "door": "input validation", "nightly": "", "lives": "lifetimes",
}
IN_PROSE = ["nights?", "naps?", "diary", "diaries", "watchers?", "tenants?", "warmth", "told twice", "told apart", "the way back", "scratch paper", "strangers?", "outsiders?", "slow twin", "to the bit",
            "measuring kit", "what breaks", "can(?:not| not|'t) be meant", "knows? the future", "lived or lawful", "lawful shortcuts?", "rivalry", "facets?", "echo(?:es|ed)?", "lineages?", "at the door", "nobody looks",
            "whoever watches", "single looks?", "falls? asleep", "puts? to sleep", "asleep", "before sleep", "after sleep", "while asleep", "turned round", "what stands? beside", "tight room"]
PROSE = re.compile(r"\b(?:" + "|".join(IN_PROSE) + r")\b", re.I)
KEPT = {"bars": {"error_bars"}}   # matplotlib's word

def parts_of(identifier): return [w.lower() for w in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", identifier)]
def home_made(names): return {n: w for n in sorted(names) for w in parts_of(n) if w in IN_NAMES and n not in KEPT.get(w, ())}

def prose_of(path):
    "What a reader reads of a chapter: markdown, comments and docstrings; code in backticks and fenced blocks is left out."
    cells = nbformat.read(path, 4).cells
    text = [c.source for c in cells if c.cell_type == "markdown"]
    for c in cells:
        if c.cell_type != "code": continue
        found = re.findall(r"(?:^|\s)#(?!\|)([^\n]*)$|(\"\"\".*?\"\"\"|\"[^\"\n]*\")|^#\| fig-(?:cap|alt):([^\n]*)$", c.source, re.M | re.S)
        text += [comment or caption or string for comment, string, caption in found if comment or caption or len(string.split()) > 2]   # a string of one or two words is a name
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", "\n".join(text), flags=re.M | re.S))

def odd_words(text): return sorted({m.group(0).lower() for m in PROSE.finditer(re.sub(r"\s+", " ", text))})

@pytest.mark.parametrize("path", MODULES, ids=name)
def test_names_are_in_the_words_of_the_field(path): assert not home_made(exported(path))

@pytest.mark.parametrize("path", [*CHAPTERS, ROOT/"index.ipynb"], ids=name)
def test_prose_is_in_the_words_of_the_field(path): assert not odd_words(prose_of(path))

@pytest.mark.parametrize("path", [p for p in sorted(ROOT.glob("*.md")) if p.name != "CHANGELOG.md"], ids=name)
def test_pages_are_in_the_words_of_the_field(path): assert not odd_words(re.sub(r"`[^`\n]*`|<!--.*?-->", "", path.read_text(encoding="utf-8")))

# --- identifiers that are not exported
IN_CODE = {"night", "nights", "nap", "naps", "asleep", "awake", "lived", "lawful", "diary", "diaries", "watcher", "watchers", "tenant", "tenants", "lineage", "lineages", "facet", "facets", "warmth", "rivalry", "twin", "twins", "outsider", "stranger", "strangers"}
RECORDED = {"memnet/experiments/dreaming.py": {"night", "lived"}}   # a field and a label of recorded tables, whose digests bind them; renamed when the runs are made again

def identifiers(source):
    "Every name of a function, class, parameter, variable and attribute."
    found = set()
    for n in ast.walk(ast.parse(source)):
        found |= {getattr(n, k) for k in ("id", "arg", "attr", "name") if isinstance(getattr(n, k, None), str)}
    return found

@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT/"tests").glob("*.py"))], ids=name)
def test_code_is_in_the_words_of_the_field(path):
    odd = {w for i in identifiers(path.read_text(encoding="utf-8")) for w in parts_of(i) if w in IN_CODE}
    assert odd <= RECORDED.get(name(path), set())

# --- symbols
NOTATION = ROOT/"nbs"/"foundations"/"00_notation.ipynb"

def base(symbol):
    "A symbol without its subscripts, superscripts and arguments."
    s = symbol.strip().strip("$").strip()
    s = re.sub(r"[_^](?:\{(?:[^{}]|\{[^{}]*\})*\}|\\[a-zA-Z]+|.)", "", s)
    return re.sub(r"\([^)]*\)", "", s).strip()

def symbol_rows(path):
    "(symbols, code names) of every row of a chapter's symbol tables."
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "markdown": continue
        for table in re.findall(r"^\| *symbol *\| *code *\|.*?(?=\n\n|\Z)", cell.source, re.M | re.S):
            for row in table.splitlines()[2:]:
                columns = [c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]]
                yield re.findall(r"\$[^$]+\$", columns[0]), re.findall(r"`([^`]+)`", columns[1])

def table(path): return {base(s): set(codes) for symbols, codes in symbol_rows(path) for s in symbols}
def split(symbol): return [base(s) for s in re.split(r",(?![^{(]*[})])", symbol.strip("$").split("=")[0])]

def disagreements(path, book):
    "Rows of a chapter whose symbol the notation chapter does not have, or has for something else."
    found = []
    for symbols, codes in symbol_rows(path):
        for s in {b for symbol in symbols for b in split(symbol)}:
            if s not in book: found.append(f"${s}$ is not in the notation chapter")
            elif codes and not set(codes) & book[s]: found.append(f"${s}$ stands for {', '.join(codes)} here, for {', '.join(sorted(book[s])) or 'nothing in code'} in the notation chapter")
    return found

@pytest.mark.parametrize("path", [p for p in CHAPTERS if p != NOTATION], ids=name)
def test_a_symbol_means_one_thing(path): assert not disagreements(path, table(NOTATION))

def test_no_symbol_is_defined_twice():
    every = [base(s) for symbols, _ in symbol_rows(NOTATION) for s in symbols]
    assert len(every) > 40 and sorted({s for s in every if every.count(s) > 1}) == []

def test_the_checks_of_this_file_can_fail(tmp_path):
    assert home_made({"sleep_report", "NIGHTS", "fine_name"}) == {"NIGHTS": "nights", "sleep_report": "sleep"}
    assert odd_words("A watcher is told\ntwice of each night.") == ["night", "told twice", "watcher"]
    assert identifiers("class Watcher:\n    def f(self, twin): self.lineage = twin") == {"Watcher", "f", "self", "twin", "lineage"}
    assert base(r"$\hat A_{ij}$") == r"\hat A" and base("$c_k$") == "c" and base(r"$w^{(p)}$") == "w" and base(r"$p_\theta(y\mid x)$") == "p"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("| symbol | code | meaning |\n|---|---|---|\n| $q_t$ | `quux` | x |\n| $\\Game$ | | y |")])
    nbformat.write(nb, tmp_path/"x.ipynb")
    assert len(disagreements(tmp_path/"x.ipynb", table(NOTATION))) == 2
