"""The book without Quarto: every reference has its label, every link and anchor its target, every figure its words, every notebook its place in the sidebar, and no cell leaves the process changed."""
import ast, importlib.util, re, subprocess, sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote
import nbformat, pytest, yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = [nb for folder in ("nbs", "papers") for nb in sorted((ROOT/folder).glob("**/[!_.]*.ipynb")) if not any(p.startswith((".", "_")) for p in nb.relative_to(ROOT).parts)]
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

def slug(heading):
    "The anchor that Pandoc gives to a heading."
    plain = re.sub(r"\{[^}]*\}\s*$", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", plain.lower()).strip()))

def anchors(path):
    "What a link into a page can name."
    text = "\n\n".join(cells(path, "markdown")) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    own = re.findall(r"\{#([\w-]+)", plain) + re.findall(r"<a (?:id|name)=[\"']([^\"']+)", plain)
    return {slug(h) for h in re.findall(r"^#+ (.+)", plain, re.M)} | set(own) | (set(labels(path)) if path.suffix == ".ipynb" else set())

PAGES = (".ipynb", ".md")                                                  # what the site makes a page of
FILES = (".svg", ".png", ".cff", ".html")                                  # what it copies, see `resources` in _quarto.yml

def missing(text, path):
    "Relative links of a page whose target is not there, is a folder (the site has no page for one), is not copied to the site, or has no such anchor."
    found = []
    for link in links(text):
        if re.match(r"[a-z]+:", link): continue
        file, _, anchor = link.partition("#")
        target = path.parent/unquote(file) if file else path
        if not target.is_file() or target.suffix not in PAGES + FILES or anchor and anchor not in anchors(target): found.append(link)
    return found

@pytest.mark.parametrize("path", ALL, ids=name)
def test_references_have_labels(path):
    assert not references(path) - set(labels(path)), "referred to, but not labelled in this notebook"
    double = {l for l in labels(path) if labels(path).count(l) > 1}
    assert not double, "labelled twice"

ENTRIES = set(re.findall(r"^@\w+\{([\w-]+)", (ROOT/"papers"/"references.bib").read_text(encoding="utf-8"), re.M))

def citations(path): return {key for key in re.findall(r"(?<![\w/.@])@([A-Za-z]\w*(?:-\w+)*)", prose(path)) if not key.startswith(("eq-", "fig-", "tbl-", "sec-"))}

def code_references(path):
    "References in docstrings, which the site prints as prose."
    found = [ast.get_docstring(n) or "" for source in cells(path, "code") if not source.lstrip().startswith(("%", "!")) for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    return set(re.findall(r"(?<![\w/])@((?:eq|fig|tbl|sec)-[\w-]*\w)", "\n".join(found)))

@pytest.mark.parametrize("path", ALL, ids=name)
def test_citations_have_entries(path):
    assert not citations(path) - ENTRIES, "cited, but not in papers/references.bib"
    assert not code_references(path) - set(labels(path)), "a docstring refers to what is not labelled in this notebook"

def test_the_site_knows_the_bibliography():
    assert (ROOT/yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))["bibliography"]).name == "references.bib" and len(ENTRIES) >= 46

def test_inline_code_breaks_on_a_narrow_screen():
    assert re.search(r"^main :not\(pre\) > code \{[^}]*white-space: pre-wrap", (ROOT/"site"/"style.css").read_text(encoding="utf-8"), re.M), "Quarto keeps code in a sentence on one line, and the page scrolls sideways"

@pytest.mark.parametrize("path", ALL, ids=name)
def test_figures_are_described(path):
    for source in cells(path, "code"):
        if re.search(r"^#\| *label: *fig-", source, re.M):
            for key in ("fig-cap", "fig-alt"): assert re.search(rf"^#\| *{key}: *\S", source, re.M), f"{key} is missing in:\n{source[:200]}"

@pytest.mark.parametrize("path", ALL, ids=name)
def test_links_of_notebooks(path): assert not missing(prose(path), path)

@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=name)
def test_links_of_pages(path): assert not missing(re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S), path)

def undescribed(text):
    "Pictures in prose without a text for those who do not see them."
    return re.findall(r"!\[\s*\]\([^)]*\)", text) + [tag for tag in re.findall(r"<img\b[^>]*>", text) if not re.search(r"alt=[\"'][^\"']", tag)]

@pytest.mark.parametrize("path", [*ALL, *sorted(ROOT.glob("*.md"))], ids=name)
def test_pictures_in_prose_are_described(path): assert not undescribed(prose(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8"))

def nameless(path):
    "Cells that show a figure without a label; caption and alt text are looked at where there is one."
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code" and not re.search(r"^#\| *hide\b", c.source, re.M)]
    return [c.id for c in code if any(k.startswith("image/") for o in c.outputs for k in o.get("data", {})) and not re.search(r"^#\| *label: *fig-", c.source, re.M)]

@pytest.mark.parametrize("path", ALL, ids=name)
def test_figures_have_a_name(path): assert not nameless(path)

def unread(path):
    "Figures after which no paragraph says how to read them, before the next heading or figure."
    lost, waiting = [], None
    for c in nbformat.read(path, 4).cells:
        label = re.search(r"^#\| *label: *(fig-\S+)", c.source, re.M) if c.cell_type == "code" else None
        if label or c.cell_type == "markdown" and c.source.lstrip().startswith("#") and waiting:
            if waiting: lost.append(waiting)
            waiting = None
        if label: waiting = label[1]
        elif c.cell_type == "markdown" and re.search(r"\*\*Reading th(?:is figure|ese figures)\.\*\*", c.source): waiting = None
    return lost + ([waiting] if waiting else [])

READ = [p for p in BOOK if p.parent.name in ("experiments", "analysis") and p.stem not in ("long_range", "continual") or p.stem == "tour"]

@pytest.mark.parametrize("path", READ, ids=name)
def test_figures_say_how_they_are_read(path): assert not unread(path), "a paragraph that begins **Reading this figure.** is missing below"

LONGEST = 100   # characters of a printed line: more is cut on the page, or broken in the middle of a word

def long_lines(path):
    "Stored lines of plain text that are too long; a sentence that stands for prose (`echo: false`) may be."
    found = []
    for c in nbformat.read(path, 4).cells:
        if c.cell_type != "code" or re.search(r"^#\| *echo: *false", c.source, re.M): continue
        for o in c.outputs:
            text = o.get("text", "") or (o.data.get("text/plain", "") if set(o.get("data", {})) == {"text/plain"} else "")
            found += [f"{c.id}: {l[:60]}…" for l in text.splitlines() if len(l) > LONGEST and not re.match(r"\w*Config\(", l)]   # settings as their class shows them; the page wraps them
    return found

@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_printed_line_is_too_long(path): assert not long_lines(path)

GLOBAL_CALLS = ("os.chdir", "os.putenv", "torch.manual_seed", "torch.set_default_dtype", "torch.use_deterministic_algorithms", "np.random.seed", "random.seed", "sys.setrecursionlimit", "locale.setlocale")

def left_behind(path):
    "What the cells of a notebook change for good: attributes of modules, the environment, patches that are never undone, global seeds, registered policies."
    code = "\n".join(re.sub(r"^\s*[%!].*$", "", s, flags=re.M) for s in cells(path, "code") if not re.search(r"^#\| *exports?\b|^#\|\s*eval: *false", s, re.M))
    tree = ast.parse(code)
    modules = {(a.asname or a.name).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    root = lambda n: root(n.value) if isinstance(n, (ast.Attribute, ast.Subscript)) else getattr(n, "id", "")
    flat = lambda ts: [x for t in ts for x in (flat(t.elts) if isinstance(t, ast.Tuple) else [t])]
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.With) for n in ast.walk(f)}   # in a `with`, what manages the context undoes it
    calls = Counter(ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call) and not (id(n) in inside and ast.unparse(n.func) == "torch.manual_seed"))   # in a `fork_rng`
    targets = Counter(ast.unparse(t) for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.AugAssign)) and id(n) not in inside
                      for t in flat(n.targets if isinstance(n, ast.Assign) else [n.target]) if isinstance(t, (ast.Attribute, ast.Subscript)) and root(t) in modules)
    undone = {ast.unparse(t) for n in ast.walk(tree) if isinstance(n, ast.Delete) for t in n.targets}
    found = [f"{t} is changed and not put back" for t, n in targets.items() if n < 2 and t not in undone and not t.startswith("plt.rcParams")]
    found += [f"{c} acts on the whole process" for c in GLOBAL_CALLS if c in calls]
    if sum(n for c, n in calls.items() if c.endswith(".start")) > sum(n for c, n in calls.items() if c.endswith((".stop", ".join", ".wait", ".terminate", ".cancel"))): found.append("something is started and not stopped")
    if calls["register_policy"] and not any(t.startswith("POLICIES[") for t in undone): found.append("a policy stays registered")
    if any(isinstance(n, ast.Call) and ast.unparse(n.func) == "warnings.simplefilter" and id(n) not in inside for n in ast.walk(tree)): found.append("a filter of warnings stays: use warnings.catch_warnings")
    return found

@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_cell_leaves_the_process_changed(path): assert not left_behind(path)

@pytest.mark.parametrize("path", BOOK, ids=name)
def test_opens_with_title_and_question(path):
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown" and re.fullmatch(r"# .+\n+(?:> .+\n?)+", first.source.strip()), "first cell: `# Title` and `> question` only"

def listed(node):
    "Every notebook a part of _quarto.yml names."
    if isinstance(node, str): return [node] if node.endswith((".ipynb", ".md")) else []
    return [n for part in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else []) for n in listed(part)]

def test_sidebar_and_map_are_made_from_the_folders():
    done = subprocess.run([sys.executable, ROOT/".ci"/"sidebar.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

def test_sidebar_lists_every_notebook_once():
    site = yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]
    inside = listed(site["sidebar"])
    assert {name(p) for p in ALL} == {n for n in inside if n.endswith(".ipynb")} and len(inside) == len(set(inside))
    assert [n for n in listed(site) if not (ROOT/n).exists()] == [], "in _quarto.yml, but not there"

def test_what_the_site_names_is_there():
    "Styles, icon, card and pages of _quarto.yml; every page that a reader may be sent to is rendered."
    quarto = yaml.safe_load((ROOT/"_quarto.yml").read_text())
    site, page = quarto["website"], quarto["format"]["html"]
    assert site["image"] == quarto["image"] and site["image"].startswith("/"), "the card of every page, from the root of the site"
    assert [f for f in (site["favicon"], site["image"][1:], page["css"], page["include-after-body"], quarto["bibliography"], quarto["project"]["pre-render"].removeprefix("python ../")) if not (ROOT/f).is_file()] == []
    rendered = {name(p) for pattern in quarto["project"]["render"] for p in ROOT.glob(pattern)}
    assert set(listed(site)) - rendered == set()

def test_no_two_entries_of_the_sidebar_are_called_alike():
    parts = [e["section"] for e in yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]["sidebar"]["contents"] if isinstance(e, dict)]
    alone = [re.match(r"# (.+)", cells(ROOT/e, "markdown")[0])[1] for e in yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]["sidebar"]["contents"] if isinstance(e, str)]
    assert [n for n, k in Counter(parts + alone).items() if k > 1] == []

def test_every_entry_of_the_log_has_one_title_and_says_whether_it_stands():
    entries = re.split(r"^## ", (ROOT/"LOG.md").read_text(encoding="utf-8"), flags=re.M)[1:]
    titles = Counter(e.split("\n")[0] for e in entries)
    assert [t for t, n in titles.items() if n > 1] == []
    assert [e.split("\n")[0] for e in entries if not re.match(r".+\n\n\*(Stands|Superseded|Withdrawn)", e)] == []

def test_no_two_pages_of_one_title_or_address():
    titles = Counter(re.match(r"# (.+)", cells(p, "markdown")[0])[1] for p in ALL)
    places = Counter(f"{p.parent}/{re.sub(r'^[0-9]+_', '', p.stem)}" for p in ALL)   # nbdev drops the number
    assert [t for t, n in (titles + places).items() if n > 1] == []

def test_a_name_in_code_type_leads_to_one_page():
    "What nbdev makes of a name between backticks: the page that exports it, of this book alone."
    from nbdev.doclinks import NbdevLookup
    look, wrong = NbdevLookup(), []
    for path in ALL:
        for word in set(re.findall(r"(?<!\[)`([A-Za-z_][\w.]*)`", re.sub(r"^ *```.*?^ *```", "", "\n\n".join(cells(path, "markdown")), flags=re.M | re.S))):
            made = re.search(r"\]\(https://memnet\.github\.io/memnet/(\S+?)\.html#(\S+)\)$", look.linkify(f"`{word}`"))
            if made is None:
                if "](" in look.linkify(f"`{word}`"): wrong.append(f"{name(path)}: {word} leads to another package")
                continue
            page = next((p for p in ALL if name(p.with_name(re.sub(r"^[0-9]+_", "", p.stem))) == made[1]), None)
            if page is None: wrong.append(f"{name(path)}: {word} leads to {made[1]}, which is not there")
            elif not re.search(rf"(?:def|class) {word.split('.')[-1]}\b|\b{word.split('.')[-1]}\b *(?::[^=]+)?=", "\n".join(cells(page, "code"))): wrong.append(f"{name(path)}: {word} leads to {name(page)}, which does not define it")
    assert wrong == []

OF_OTHERS = {"StateContainer", "TestStream"}   # classes of other packages that prose names and no code does

def test_a_class_that_prose_names_exists():
    known = set(re.findall(r"\w+", "\n".join(f.read_text(encoding="utf-8") for f in (ROOT/"memnet").glob("**/*.py")))) | OF_OTHERS
    missing = {}
    for path in ALL:
        named = {w for span in re.findall(r"`([^`\n]+)`", "\n".join(cells(path, "markdown"))) for w in re.findall(r"\b[A-Z][a-z]+[A-Z]\w+\b", span)}
        own = set(re.findall(r"\w+", "\n".join(cells(path, "code"))))
        if named - known - own: missing[name(path)] = sorted(named - known - own)
    assert not missing, "renamed or gone"

def test_every_module_is_exported_from_a_notebook_that_is_there():
    for path in sorted((ROOT/"memnet").rglob("[!_]*.py")):
        source = re.search(r"^# AUTOGENERATED! .* File to edit: (\S+\.ipynb)", path.read_text(encoding="utf-8"), re.M)
        assert source and (path.parent/source[1]).exists(), f"{name(path)} has no notebook: export it from one or remove it"

def written_to_stderr(path):
    "Cells whose stored output has what went to the error stream: warnings, bars of progress, paths of a machine."
    return [c.id for c in nbformat.read(path, 4).cells if c.cell_type == "code" and any(o.get("name") == "stderr" for o in c.outputs)]

@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_output_comes_from_the_error_stream(path): assert not written_to_stderr(path)

def printed_prose(path):
    "Cells that print markdown without saying so: the site would show it as plain text."
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code" and not re.search(r"^#\| *output: *asis", c.source, re.M)]
    return [c.id for c in code if any(re.search(r"^- \w.{30}|\*\*\w|\]\(\w", o.get("text", ""), re.M) for o in c.outputs)]

@pytest.mark.parametrize("path", ALL, ids=name)
def test_printed_markdown_is_shown_as_such(path): assert not printed_prose(path)

def wide_diagrams(text):
    "Diagrams from left to right with more steps than a column has room for: their letters shrink until nobody can read them."
    return [d for d in re.findall(r"^ *```\s*\{mermaid\}\n(.*?)```", text, re.M | re.S) if re.match(r"\s*(?:flowchart|graph) LR", d) and d.count("-->") > 5]

@pytest.mark.parametrize("path", ALL, ids=name)
def test_diagrams_can_be_read(path): assert not wide_diagrams("\n".join(cells(path, "markdown")))

def wide_formulas(text):
    "Formulas in a line of prose that are wider than a phone, by a rough count of their letters: nothing breaks or scrolls them."
    plain = lambda tex: re.sub(r"[{}_^ \\]", "", re.sub(r"\\[A-Za-z]+", "x", re.sub(r"\\(?:mathcal|mathrm|text|mathbf|operatorname|bar|hat|left|right|bigl?r?|Big|,|;|quad)\b", "", tex)))
    return [tex for tex in re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", re.sub(r"\$\$.*?\$\$|`[^`]*`", "", text, flags=re.S)) if len(plain(tex)) > 30]

@pytest.mark.parametrize("path", ALL, ids=name)
def test_formulas_in_prose_fit_a_phone(path): assert not wide_formulas("\n\n".join(cells(path, "markdown"))), "put it on a line of its own: $$ … $$"

def site_pages():
    "The script that mends what nbdev makes."
    spec = importlib.util.spec_from_file_location("site_pages", ROOT/".ci"/"pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def test_links_of_names_are_mended():
    mend, names = site_pages().mend_links, {"nbs/memory/bank.html": {"bank", "bank.read"}, "nbs/tour.html": set()}
    own = lambda word, place: f"[`{word}`](https://memnet.github.io/memnet/{place})"
    bank, gone = own("Bank", "nbs/memory/bank.html#bank"), own("read", "nbs/tour.html#read")
    assert mend(f"a {bank} b", "papers/x.html", names) == "a [`Bank`](../nbs/memory/bank.html#bank) b"
    assert mend(f"a {bank} b", "index.html", names) == "a [`Bank`](nbs/memory/bank.html#bank) b" and mend(bank, "nbs/memory/bank.html", names) == "[`Bank`](#bank)"
    assert mend(f"a {gone} b", "index.html", names) == "a `read` b", "a name that no page documents has no link"
    assert mend(f"```python\nx # {bank}\n```\n{bank}", "nbs/memory/bank.html", names) == "```python\nx # `Bank`\n```\n[`Bank`](#bank)"
    assert mend(f"[the {bank} here](../a.ipynb), [x](y.md)", "index.html", names) == "[the `Bank` here](../a.ipynb), [x](y.md)"
    assert mend(f"[{bank}, {bank}](../a.ipynb), {bank}", "index.html", names) == "[`Bank`, `Bank`](../a.ipynb), [`Bank`](nbs/memory/bank.html#bank)"

def test_signatures_are_completed_from_the_source(tmp_path):
    pages = site_pages()
    (tmp_path/"memnet").mkdir()
    (tmp_path/"memnet"/"x.py").write_text("class Pair(NamedTuple):\n    'Two.'\n    a:int  # first\n    b:Tensor\n\n@dataclass(frozen=True)\nclass Cfg(Base):\n    n:int = 3  # how many\n\n"
                                          "class Net:\n    def __init__(self, bank:Optional[Bank]=None): pass\n    def read(self, at:Sequence[int])->tuple[int, int]: return 1, 2\n")
    def shown(name, block): return f"[source](https://github.com/memnet/memnet/blob/main/memnet/x.py#L1)\n\n### {name}\n\n```python\n{block}\n```\n\n*Doc.*"
    for name, before, after in (("Pair", "def Pair(\n    *args, **kwargs\n):", "class Pair(NamedTuple):\n    a:int  # first\n    b:Tensor"), ("Cfg", "def Cfg(\n    n:int=3\n)->None:", "class Cfg(Base):\n    n:int = 3  # how many"),
                                ("Net", "def Net(\n    bank:Optional=None,\n):", "def Net(\n    bank:Optional[Bank]=None,\n):"), ("Net.read", "def read(\n    at:Sequence\n)->tuple:", "def read(\n    at:Sequence[int]\n)->tuple[int, int]:"),
                                ("Gone", "def Gone(\n    *args, **kwargs\n):", "def Gone(\n    *args, **kwargs\n):")):
        assert pages.mend_call(shown(name, before), tmp_path) == shown(name, after), name

def test_internal_code_is_put_back_and_the_error_stream_goes():
    pages = site_pages()
    markdown, code = lambda id, text: dict(cell_type="markdown", id=id, source=[text], metadata={}), lambda id, *lines: dict(cell_type="code", id=id, source=[l + "\n" for l in lines], outputs=[], metadata={})
    chapter = [code("i", "#| exporti", "import torch"), markdown("a", "one"), code("b", "#| exporti", "def f(): pass"), code("h", "#| hide", "x = 1"), code("e", "#| exporti", "y = 2"), markdown("c", "two")]
    page = [dict(cell_type="raw", source=["---"]), markdown("a", "one"), markdown("c", "two")]
    made = pages.with_internal(page, chapter)
    assert [c.get("id") for c in made] == [None, "a", "b", "e", "c"] and made[2]["source"] == ["def f(): pass\n"]
    assert pages.with_internal(made, chapter) == made, "the script may run twice"
    page = [dict(cell_type="code", source=[], outputs=[dict(name="stderr", text=["w"]), dict(name="stdout", text=["1"]), dict(data={"text/markdown": ["# a\n", "b"]})]), markdown("a", "# one\n\ntwo")]
    pages.mend_page(page, "index.html", {}, ROOT)
    assert [o.get("name") for o in page[0]["outputs"]] == ["stdout", None]
    assert page[0]["outputs"][1]["data"]["text/markdown"] == ["# a\n", "b"] and page[1]["source"] == ["# one\n", "\n", "two"], "lines, as Quarto reads them"

def test_pages_can_be_made():
    "What nbdev hands to Quarto, without Quarto: `nbdev_proc_nbs` would try to install it. Then what Quarto runs first."
    pages = ROOT/"_proc"
    made = subprocess.run([sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0 and "Traceback" not in made.stderr, made.stderr[-2000:]
    assert [n for p in ALL if not (pages/(n := name(p))).exists()] == []
    subprocess.run([sys.executable, "../.ci/pages.py"], cwd=pages, check=True)
    for path in (pages/name(p) for p in ALL):
        text = path.read_text(encoding="utf-8")
        assert "https://memnet.github.io/memnet/nbs" not in text and '"name": "stderr"' not in text, path
        for cell in nbformat.read(path, 4).cells:
            for o in cell.get("outputs", []): assert not re.search(r"^def \w+\(\n +\*args, \*\*kwargs\n\):", o.get("data", {}).get("text/markdown", ""), re.M), f"{path}: {cell.id} shows no fields"

def test_the_checks_of_this_file_can_fail(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("see @eq-one, `@eq-code`, [x](gone.md), [y](here.md#z) and <https://a.b>"),
                                         nbformat.v4.new_code_cell("#| label: fig-two\n1")])
    nbformat.write(nb, tmp_path/"x.ipynb")
    (tmp_path/"here.md").touch()
    assert references(tmp_path/"x.ipynb") == {"eq-one"} and labels(tmp_path/"x.ipynb") == ["fig-two"]
    assert missing(prose(tmp_path/"x.ipynb"), tmp_path/"x.ipynb") == ["gone.md", "here.md#z"]
    (tmp_path/"here.md").write_text("## The *first* `x_y` of [all](here.md), 2 & more {.cls}\n")
    assert anchors(tmp_path/"here.md") == {"the-first-x_y-of-all-2-more"}
    assert missing("[a](.) [b](here.md#the-first-x_y-of-all-2-more) [c](data.csv)", tmp_path/"x.ipynb") == [".", "data.csv"]
    assert undescribed('![ ](a.svg) ![b](c.svg) <img src="d"> <img alt="e">') == ["![ ](a.svg)", '<img src="d">']

def test_the_checks_of_cells_can_fail(tmp_path):
    code, output = nbformat.v4.new_code_cell, nbformat.v4.new_output
    def page(*cells):
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), tmp_path/"x.ipynb")
        return tmp_path/"x.ipynb"
    picture = [output("display_data", {"image/png": "", "text/plain": "x"*200})]
    assert len(nameless(page(code("show()", outputs=picture)))) == 1 and nameless(page(code("#| label: fig-a\nshow()", outputs=picture))) == []
    assert len(long_lines(page(code("1", outputs=[output("stream", text="x"*101)])))) == 1 and long_lines(page(code("show()", outputs=picture))) == []
    a, b = code("#| label: fig-a\n1"), code("#| label: fig-b\n1")
    read = nbformat.v4.new_markdown_cell("**Reading this figure.** It is small.")
    assert unread(page(a, b, read)) == ["fig-a"] and unread(page(a, read, b)) == ["fig-b"] and unread(page(a, nbformat.v4.new_markdown_cell("# Next"), read)) == ["fig-a"]
    assert len(written_to_stderr(page(code("1", outputs=[output("stream", name="stderr", text="w")])))) == 1 and written_to_stderr(page(code("1", outputs=[output("stream", text="w")]))) == []
    said = [output("stream", text="- one thing that is long enough to be a sentence")]
    assert len(printed_prose(page(code("1", outputs=said)))) == 1 and printed_prose(page(code("#| output: asis\n1", outputs=said))) == []
    wide = "```{mermaid}\nflowchart LR\n" + "a --> b\n"*6 + "```\n"
    long = r"[\nabla L(\theta + \gamma F^{-1}g) - \nabla L(\theta)]/\gamma \to \nabla\frac12 g^\top F^{-1}g"
    assert wide_formulas(f"so ${long}$, and $a_i$") == [long] and wide_formulas(f"$$ {long} $$") == []
    assert len(wide_diagrams(wide)) == 1 and wide_diagrams(wide.replace("LR", "TB")) == []
    for source in ("import comm\ncomm.create_comm = 1", "import os\nos.environ['A'] = 'b'", "import torch\ntorch.manual_seed(0)", "p = patch('a.b')\np.start()", "register_policy('x', f)", "warnings.simplefilter('ignore')"):
        assert left_behind(page(code(source))), source
    for source in ("import comm\nold = comm.create_comm\ncomm.create_comm = 1\ncomm.create_comm = old", "import os\nos.environ['A'] = 'b'\ndel os.environ['A']", "p.start()\np.stop()", "with warnings.catch_warnings(): warnings.simplefilter('ignore')"):
        assert not left_behind(page(code(source))), source
