"""The smallest complete experiment, a coin that is thrown, in a checkout of its own: what the chapters and the tests of `runs` are tried on."""
from pathlib import Path
import nbformat

RUN = '''#| default_exp experiments.coin
import csv, os, random, time
from dataclasses import dataclass
from pathlib import Path
---
#| exporti
@dataclass(frozen=True)
class Config:
    throws: int = 50   # coins thrown
    bias: float = 0.5  # probability of heads
    seed: int = 0      # of the throws
    fail: str = ""     # "raise" or "die" breaks the run on purpose
---
#| exporti
ARTIFACTS = ("sides.csv",)  # what `collect` keeps beside the metrics
---
#| exporti
def settings(profile, seeds):
    throws = {"smoke": [20], "quick": [20, 200], "full": [20, 200, 2000]}[profile]
    return [dict(throws=n, seed=s) for n in throws for s in range(seeds)]
---
#| exporti
def run(cfg, out_dir):
    rng = random.Random(cfg.seed)
    heads = sum(rng.random() < cfg.bias for _ in range(cfg.throws)) / cfg.throws
    with open(Path(out_dir)/"metrics.csv", "w", newline="") as f:
        csv.writer(f).writerows([["run", "seed", "step", "metric", "value", "slice"],
                                 ["coin", cfg.seed, cfg.throws, "heads", heads, "all"]])
    Path(out_dir, "sides.csv").write_text(f"side,count\\nheads,{round(heads*cfg.throws)}\\ntails,{cfg.throws - round(heads*cfg.throws)}\\n")
---
time.sleep(100)  # stands for the checks of a chapter
---
params = {}
out_dir = None
---
cfg = Config(**params)
---
if cfg.fail: Path(out_dir, "before.txt").write_text("kept")
if cfg.fail == "raise": raise RuntimeError("a coin on its edge")
if cfg.fail == "die": os._exit(1)
---
if out_dir: run(cfg, out_dir)'''

READ = '''import pandas as pd
from memnet.runs.planning import results_folder
from memnet.runs.tables import load_metrics, load_tables
---
folder = results_folder("coin")
heads = load_metrics("coin").groupby("throws")["value"].agg(["mean", "count"]).round(3)
heads.to_csv(folder/"summary.csv")
assert len(load_tables("coin", "sides.csv")) == 2*load_metrics("coin")["run"].nunique()
(folder/"figures").mkdir(exist_ok=True)
(folder/"figures"/"heads.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>");'''

def notebook(text, title):
    "A notebook from plain text, cells divided by lines of three dashes; the cell that begins with `params` gets papermill's tag."
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(title)])
    nb.metadata["kernelspec"] = dict(name="python3", display_name="python3", language="python")
    for source in text.split("\n---\n"):
        cell = nbformat.v4.new_code_cell(source)
        if source.startswith("params"): cell.metadata["tags"] = ["parameters"]
        nb.cells.append(cell)
    return nb

def write_coin(root):
    "Write the experiment `coin` into a new folder that the package takes for a checkout."
    root, title = Path(root), "# Coin\n\n> Does the share of heads settle?"
    notebooks, modules = root/"nbs"/"experiments", root/"memnet"/"experiments"
    for folder in (notebooks, modules): folder.mkdir(parents=True)
    (root/"settings.ini").write_text("[DEFAULT]\nlib_name = memnet\n")
    nbformat.write(notebook(RUN, title), notebooks/"coin_run.ipynb")
    nbformat.write(notebook(READ, title), notebooks/"coin.ipynb")
    exported = [c for c in RUN.split("\n---\n") if c.startswith("#|")]
    (modules/"coin.py").write_text("\n\n".join(exported))
    return root
