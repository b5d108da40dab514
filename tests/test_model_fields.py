"""A field of the model can be set in every experiment that builds a `MemNet`, is part of the run, and cannot hide what an experiment compares."""
import json, re
from dataclasses import replace
import nbformat, pytest, torch
from coin_experiment import write_coin
from memnet.models.model_fields import TASK_FIELDS, SetsModelFields
from memnet.models.memnet import MemNet
from memnet.models.memnet_config import MemNetConfig
from memnet.runs import command_line
from memnet.runs.experiments import find_root, list_experiments, load_module
from memnet.runs.parameters import as_setting, config_hash, parse_overrides, resolved_config
from memnet.runs.planning import plan_runs, recorded_configs
from memnet.runs.reports import figure_note

ROOT = find_root()
EXPERIMENTS = list_experiments(ROOT)
MODULES = {name: load_module(exp) for name, exp in EXPERIMENTS.items()}
SETTING = {name: m for name, m in MODULES.items() if issubclass(m.Config, SetsModelFields)}

def test_every_experiment_that_builds_a_memnet_sets_its_fields():
    builds = {name for name, exp in EXPERIMENTS.items() if "MemNetConfig" in (ROOT/"memnet"/"experiments"/f"{name}.py").read_text()}
    assert builds and set(SETTING) == builds
    rivals = dict(foreign=1, card_games=1)   # a Transformer without a memory, sized by the experiment
    for name in SETTING:
        source = (ROOT/"memnet"/"experiments"/f"{name}.py").read_text()
        assert len(re.findall(r"\bMemNetConfig\(", source)) == rivals.get(name, 0), f"{name} builds a MemNetConfig by itself: use cfg.memnet_config(…), so that -p can set its fields"

@pytest.mark.parametrize("name", SETTING)
def test_a_field_of_the_model_reaches_the_model(name):
    module, cfg = SETTING[name], SETTING[name].Config()
    plain, changed = module.model_config(cfg), module.model_config(replace(cfg, model_fields=dict(lam=.123, bottleneck=7)))
    assert changed == replace(plain, lam=.123, bottleneck=7) != plain
    for field in {*TASK_FIELDS, *cfg.decided}:
        with pytest.raises(ValueError, match=f"{field} (follows from the task|is decided)"): module.model_config(replace(cfg, model_fields={field: getattr(plain, field)}))

@pytest.mark.parametrize("name", SETTING)
def test_it_is_a_part_of_the_run_and_is_refused_before_anything_runs(name):
    exp = EXPERIMENTS[name]
    plain, same, changed, other = (plan_runs(exp, [s], "custom")[0] for s in ({}, dict(model_fields={}), dict(model_fields=dict(lam=.1)), dict(model_fields=dict(lam=.2))))
    assert plain.folder == same.folder and "model_fields" not in plain.config and len({plain.folder, changed.folder, other.folder}) == 3
    assert changed.config["model_fields"] == dict(lam=.1) and changed.setting == dict(model_fields=dict(lam=.1))
    for wrong, said in (dict(lamb=.1), "did you mean 'lam'"), (dict(lam=7.), "lam must lie"), (dict(vocab_size=9), "follows from the task"):
        with pytest.raises(ValueError, match=said): plan_runs(exp, [dict(model_fields=wrong)], "custom")

def test_runs_that_were_recorded_keep_their_identity():
    for name, module in MODULES.items():
        configs = recorded_configs(ROOT/"results"/name)
        assert all(run.endswith(config_hash(resolved_config(module.Config(**c)))) for run, c in configs.items()), name

def test_an_experiment_without_a_memnet_of_its_own_says_so():
    with pytest.raises(ValueError, match="fields of a model cannot be set in this experiment"): parse_overrides(MODULES["continual"], [("n_slots", "8")])
    assert as_setting(MODULES["long_range"].Config, parse_overrides(MODULES["long_range"], [("n_slots", "8"), ("rows", "3")])) == dict(rows=3, model_fields=dict(n_slots=8))

@pytest.fixture
def root(tmp_path):
    "A coin whose model is as wide as its fields say, and whose figure has the note of the command."
    root = write_coin(tmp_path/"checkout")
    module, book = root/"memnet"/"experiments"/"coin.py", root/"nbs"/"experiments"/"coin_run.ipynb"
    edits = {"@dataclass(frozen=True)\nclass Config:": "from memnet.models.model_fields import SetsModelFields\n@dataclass(frozen=True)\nclass Config(SetsModelFields):",
             "def run(cfg, out_dir):": "def model_config(cfg): return cfg.memnet_config(vocab_size=5)\ndef run(cfg, out_dir):", "for _ in range(cfg.throws)) / cfg.throws": "for _ in range(cfg.throws)) / cfg.throws + model_config(cfg).n_slots"}
    def edited(text):
        for old, new in edits.items(): text = text.replace(old, new)
        return text
    module, books = root/"memnet"/"experiments"/"coin.py", root/"nbs"/"experiments"
    module.write_text(edited(module.read_text()))
    book = nbformat.read(books/"coin_run.ipynb", 4)
    for cell in book.cells: cell.source = edited(cell.source)
    nbformat.write(book, books/"coin_run.ipynb")
    read = nbformat.read(books/"coin.ipynb", 4)
    for cell in read.cells: cell.source = cell.source.replace("2000/svg'/>\")", "2000/svg'/>\" + os.environ['MEMNET_FIGURE_NOTE'])").replace("import pandas as pd", "import os, pandas as pd")
    nbformat.write(read, books/"coin.ipynb")
    return root

def test_a_run_and_a_sweep_with_a_field_of_the_model(root, capsys, monkeypatch):
    def call(*words):
        monkeypatch.setattr(command_line, "_console", command_line.Console(width=300, soft_wrap=True))
        return command_line.main(list(words), root), capsys.readouterr().out
    code, out = call("sweep", "coin", "-p", "n_slots", "16,32", "-p", "throws", "9", "--jobs", "2")
    assert code == 0 and "n_slots=16 in every MemNet" in out and "2 made" in out
    assert re.search(r"Last value.*?metric\W+16\W+32\W", out, re.S), out
    folders = sorted((root/"_runs"/"custom"/"coin").glob("[!_]*-s0-*"))
    values = {json.loads((f/"params.json").read_text())["config"]["model_fields"]["n_slots"]: float((f/"metrics.csv").read_text().splitlines()[1].split(",")[4]) for f in folders}
    assert 16 <= values[16] <= 17 and 32 <= values[32] <= 33
    code, out = call("report", "coin", *(f.name for f in folders))
    assert code == 2 and "n_slots=16" in out and "n_slots=32" in out and "would be drawn as one model" in out
    code, out = call("report", "coin", folders[0].name)
    (figure,) = root.glob("_runs/selection-*/coin/figures/heads.svg")
    assert code == 0 and re.search("MemNet with n_slots=(16|32)$", figure.read_text())
    assert figure_note(list_experiments(root)["coin"], "quick") == ""

RIVALS = {("long_range", "make_long_range_model"): ("windowed", "rotary", "no_positions", "lstm", "gru", "delta"), ("associative", "make_associative_model"): ("windowed", "lstm"), ("policy", "make_policy_model"): ("windowed", "lstm")}

@pytest.mark.parametrize("dim", [32, 160])
@pytest.mark.parametrize("name, make, rival", [(*k, m) for k, models in RIVALS.items() for m in models])
def test_a_rival_is_as_large_as_the_memory_whatever_its_width(name, make, rival, dim):
    "Sizes follow the width that a run sets; what cannot come within 5 % is refused and not built."
    module = MODULES[name]
    cfg = module.Config(model=rival, model_fields=dict(dim=dim))
    model, ours = getattr(module, make)(cfg, torch.Generator().manual_seed(0)), MemNet(module.model_config(cfg))
    assert abs(model.num_parameters()/ours.num_parameters() - 1) <= .05
