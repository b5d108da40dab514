"""The chapters on papers: front matter, citations, the overview, and verdicts that follow from what was measured."""
import json, re, shutil
from pathlib import Path
import nbformat, pandas as pd, pytest
from memnet.papers.common import check_paper, check_papers, describe_claim, load_measurements, paper_chapters, paper_folder, papers_code, read_claim, record_paper
from memnet.papers.index import papers_table, read_references

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = paper_chapters(ROOT)
BIB = read_references(ROOT/"papers"/"references.bib")
BOOK = [p for folder in ("nbs", "papers") for p in sorted((ROOT/folder).rglob("*.ipynb")) if not any(s.startswith((".", "_")) for s in p.relative_to(ROOT).parts)]
SECTIONS = ["Question", "Intuition", "Derivation", "Smallest code", "Checks", "Experiment", "Picture of the result", "What carries over to MemNet", "What does not hold at this scale", "Knobs", "In short", "References"]
stem = lambda path: path.stem

def prose(path): return "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")

def test_the_bibliography_has_all_papers_and_every_field():
    assert len(BIB) == 46
    for key, entry in BIB.items(): assert {"title", "author", "year", "eprint", "annote"} <= set(entry) and re.fullmatch(r"\d{4}\.\d{5}", entry["eprint"]), key
    assert len({e["eprint"] for e in BIB.values()}) == 46

@pytest.mark.parametrize("path", BOOK, ids=stem)
def test_citations_are_in_the_bibliography(path):
    text = re.sub(r"`[^`\n]*`|```.*?```", "", prose(path), flags=re.S)
    cited = {c for c in re.findall(r"(?<![\w/.])@([a-z][\w]*)", text) if not re.match(r"(?:eq|fig|tbl|sec)$", c)}
    assert cited <= set(BIB), f"{sorted(cited - set(BIB))} not in references.bib"

@pytest.mark.parametrize("path", CHAPTERS, ids=stem)
def test_a_chapter_states_its_claim_and_has_every_section(path):
    assert path.stem in BIB and describe_claim(read_claim(path))
    found = re.findall(r"^## (.+)$", prose(path), re.M)
    assert [s for s in found if s in SECTIONS] == SECTIONS, f"sections: {found}"
    assert f"@{path.stem}" in prose(path)

@pytest.mark.parametrize("path", CHAPTERS, ids=stem)
def test_a_verdict_follows_from_what_was_measured(path): assert check_paper(path, ROOT) == []

def test_the_overview_is_made_from_the_chapters():
    assert papers_table(ROOT) in prose(ROOT/"papers"/"index.ipynb"), "call make papers and commit"

def test_a_changed_record_is_named(tmp_path):
    "One measurement, the verdict, and the code: each is seen."
    chapter = next(p for p in CHAPTERS if p.stem == "hipporag")      # its last number is no part of a criterion
    for folder in (paper_folder(chapter.stem, ROOT), ROOT/"memnet"/"papers"): shutil.copytree(folder, tmp_path/folder.relative_to(ROOT))
    (tmp_path/"papers").mkdir()
    shutil.copy(chapter, tmp_path/"papers")
    place, module = paper_folder(chapter.stem, tmp_path), tmp_path/"memnet"/"papers"/f"{chapter.stem}.py"
    assert check_papers(tmp_path) == []
    whole = {f: f.read_text() for f in (place/"metrics.csv", place/"run.json", module)}
    table = pd.read_csv(place/"metrics.csv")
    table.assign(value=table["value"] + 1e-4*(table.index == len(table) - 1)).to_csv(place/"metrics.csv", index=False)
    assert "not the numbers" in check_papers(tmp_path)[0]
    table.assign(value=table["value"]/9).to_csv(place/"metrics.csv", index=False)
    assert "does not follow" in check_papers(tmp_path)[0]
    (place/"metrics.csv").write_text(whole[place/"metrics.csv"])
    (place/"run.json").write_text(json.dumps(json.loads(whole[place/"run.json"]) | dict(verdict="splendid")))
    assert "the verdict is" in check_papers(tmp_path)[0]
    (place/"run.json").write_text(whole[place/"run.json"])
    module.write_text(whole[module] + "\nEXTRA = 1\n")
    assert "other code" in check_papers(tmp_path)[0]
    module.write_text("# a comment\n" + whole[module])
    assert check_papers(tmp_path) == []
    (place/"verdict.csv").unlink()
    assert "verdict.csv missing" in check_papers(tmp_path)[0]

def test_checks_of_arguments_are_no_part_of_the_digest(tmp_path):
    "So the digests that were recorded before calls were checked hold; any other decorator, and a check in the body, is seen."
    for path in sorted((ROOT/"memnet"/"papers").glob("[!_]*.py")):
        source = path.read_text()
        assert "@validated(" in source or path.stem in ("index",), path
        bare, without = tmp_path/path.name, re.sub(r"^ *@validated\(.*\)\n", "", source, flags=re.M)
        bare.write_text(without)
        assert "@validated(" not in without and papers_code(bare) == papers_code(path), path
        bare.write_text(source.replace("@validated(", "@checked(", 1))
        assert "@validated(" not in source or papers_code(bare) != papers_code(path), path

def test_a_record_is_made_again_with_the_same_numbers(tmp_path):
    "What `make papers` calls, of the quickest chapter, into another folder, which is given as text."
    verdict = record_paper("sdr", str(tmp_path))
    old, new = (load_measurements("sdr", root) for root in (ROOT, tmp_path))
    pd.testing.assert_frame_equal(old, new)
    assert json.loads((paper_folder("sdr", tmp_path)/"run.json").read_text())["verdict"] == verdict == json.loads((paper_folder("sdr", ROOT)/"run.json").read_text())["verdict"]
