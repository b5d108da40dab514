"""What Quarto runs before it renders: mends the pages that nbdev has made. Links of code names become relative, lead to what is there, and stay out of code blocks; signatures show full types, and classes their fields; `exporti` cells, which nbdev takes out, are put back; what was written to the error stream goes."""
import ast, json, os, re, sys
from functools import lru_cache
from pathlib import Path

HOST = "https://memnet.github.io/memnet/"   # what nbdev puts before every link to the book
LINK = re.compile(r"\[(`[^`\n]+`)\]\(" + re.escape(HOST) + r"([^)#\s]+)#([^)\s]+)\)")
OUTER = re.compile(r"\[(?:[^\[\]]|\[`[^`\n]+`\]\([^)\s]+\))*\](?=\()")   # the text of a link, which may hold such links
GENERIC = "Union|Optional|Callable|Sequence|Iterable|Iterator|Mapping|tuple|list|dict|Literal"
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)

def text_of(cell): return "".join(cell.get("source", ""))
def lines(text): return text.splitlines(keepends=True)   # Quarto takes a list of lines, and loses the line ends of a text
def shown(cell): return ["".join(o["data"]["text/markdown"]) for o in cell.get("outputs", []) if "text/markdown" in o.get("data", {})]

def address(path, cells):
    "Where the page of a notebook is, from the folder of the site."
    own = re.search(r"^output-file: (\S+)", "\n".join(text_of(c) for c in cells if c["cell_type"] == "raw"), re.M)
    return (path.parent/(own[1] if own else path.stem + ".html")).as_posix()

def documented(cells):
    "Anchors of the names that a page documents."
    return {h.lower() for c in cells for text in shown(c) for h in re.findall(r"^#+ ([\w.]+)$", text, re.M)}

def mend_links(text, page, names):
    "Text of a page with links of names in code type made relative, and removed where they are inside a code block or another link, or lead nowhere; `names`: address -> documented names."
    def link(found):
        word, target, anchor = found.groups()
        if anchor not in names.get(target, ()): return word
        return f"[{word}]({'' if target == page else os.path.relpath(target, os.path.dirname(page) or '.')}#{anchor})"
    plain = FENCE.sub(lambda block: LINK.sub(r"\1", block[0]), text)
    return LINK.sub(link, OUTER.sub(lambda outer: LINK.sub(r"\1", outer[0]), plain))

def class_block(node, source):
    "A class as its fields show it, each with its comment."
    fields = [source[n.lineno - 1].rstrip() for n in node.body if isinstance(n, ast.AnnAssign)]
    head = f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    return "\n".join([head + ":" if fields else head, *fields])

def of_fields(node): return any("dataclass" in ast.unparse(d) for d in node.decorator_list) and any(isinstance(n, ast.AnnAssign) for n in node.body)

def annotations(node):
    "Types of the parameters as the source states them, and `return`."
    call = node if isinstance(node, ast.FunctionDef) else next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    found = [(n.target.id, n.annotation) for n in node.body if isinstance(node, ast.ClassDef) and isinstance(n, ast.AnnAssign)]
    if call: found += [(a.arg, a.annotation) for a in (*call.args.posonlyargs, *call.args.args, *call.args.kwonlyargs)] + [("return", call.returns)]
    return {name: ast.unparse(what) for name, what in found if what is not None}

def mend_signature(block, node, source):
    "What nbdev shows of a call, with the parameters that it leaves out: those of types (`Union` alone says nothing), and the fields of a class that is made of fields."
    if isinstance(node, ast.ClassDef) and (re.fullmatch(r"def \w+\(\n +\*args, \*\*kwargs\n\):", block) or of_fields(node)): return class_block(node, source)
    types = annotations(node)
    full = lambda name, short: types[name] if name in types and (short in ("Union", "Optional") or re.match(rf"{short}\b|.*\|", types[name])) else short
    block = re.sub(rf"\b(\w+):({GENERIC})\b(?!\[)", lambda m: f"{m[1]}:{full(m[1], m[2])}", block)
    return re.sub(rf"\)->({GENERIC})\b(?!\[)", lambda m: f")->{full('return', m[1])}", block)

@lru_cache(None)
def parsed(path):
    "Lines of a module, and the nodes of its body."
    code = path.read_text(encoding="utf-8")
    return code.splitlines(), ast.parse(code).body

def mend_call(text, root):
    "Documentation of a name, with its signature completed from the source in `root`."
    source, name, block = re.search(r"/blob/main/(\S+?\.py)#L", text), re.search(r"^#+ ([\w.]+)$", text, re.M), re.search(r"```python\n(.*?)\n```", text, re.S)
    if not (source and name and block and (root/source[1]).is_file()): return text
    code, nodes = parsed(root/source[1])
    for part in name[1].split("."):
        node = next((n for n in nodes if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == part), None)
        if node is None: return text
        nodes = node.body
    return text.replace(block[1], mend_signature(block[1], node, code))

def with_internal(cells, chapter):
    "Cells of a page with the `exporti` cells of its chapter back in their places: they explain, whoever imports them."
    made, kept = list(cells), {c.get("id") for c in cells}
    place = next((i for i, c in enumerate(made) if c.get("id") in {c.get("id") for c in chapter}), len(made))
    for cell in chapter:
        code = re.sub(r"^#\| *exporti *\n", "", text_of(cell))
        if cell.get("id") in kept: place = next(i for i, c in enumerate(made) if c.get("id") == cell["id"]) + 1
        elif cell["cell_type"] == "code" and code != text_of(cell) and any(not isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(code).body):
            made.insert(place, {**cell, "source": lines(code), "outputs": []})
            place += 1
    return made

def mend_page(cells, page, names, root):
    "Cells of a page, mended in place."
    for cell in cells:
        if cell["cell_type"] == "code": cell["outputs"] = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        if cell["cell_type"] == "markdown": cell["source"] = lines(mend_links(text_of(cell), page, names))
        for output in cell.get("outputs", []):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            if text: output["data"]["text/markdown"] = lines(re.sub(r" at 0x[0-9a-f]+", "", mend_links(mend_call(text, root), page, names)))

def main(pages, root):
    "Mend every page below `pages`, the folder that Quarto renders; `root` holds the package."
    books = {p: json.loads(p.read_text(encoding="utf-8")) for p in sorted(pages.rglob("*.ipynb")) if not any(s.startswith((".", "_")) for s in p.relative_to(pages).parts)}
    places = {p: address(p.relative_to(pages), book["cells"]) for p, book in books.items()}
    names = {places[p]: documented(book["cells"]) for p, book in books.items()}
    for path, book in books.items():
        chapter = root/path.relative_to(pages)
        if chapter.is_file(): book["cells"] = with_internal(book["cells"], json.loads(chapter.read_text(encoding="utf-8"))["cells"])
        mend_page(book["cells"], places[path], names, root)
        path.write_text(json.dumps(book, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

if __name__ == "__main__":
    if Path.cwd().name != "_proc": sys.exit("Quarto calls this in _proc, where nbdev has put the pages: use make docs")
    main(Path.cwd(), Path(__file__).resolve().parent.parent)
