"""A library leaves its host as it found it: global generators, plot settings, warnings, dtypes and threads are the same after an import and after typical calls."""
import subprocess, sys, textwrap
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ("numba", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.datasets", "sklearn.model_selection", "sklearn.pipeline", "sklearn.preprocessing", "networkx", "lifelines", "lifelines.statistics", "papermill", "nbformat",
          "nbclient", "ipywidgets", "rich.console", "psutil", "tqdm.auto", "safetensors.torch", "pyarrow.parquet", "PIL.Image", "matplotlib.animation", "torch.optim", "torch._dynamo")
SNAPSHOT = f"OTHERS = {OTHERS!r}" + '''
import importlib, locale, logging, os, pkgutil, random, signal, sys, warnings
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt, numpy as np, pandas as pd, torch
from IPython import get_ipython
plt.figure(); plt.close("all")
for name in OTHERS: importlib.import_module(name)   # what these change at their import is theirs
def snapshot():
    return dict(rc=dict(matplotlib.rcParams), backend=matplotlib.get_backend(), figures=plt.get_fignums(), warnings=list(warnings.filters), numpy=np.random.get_state()[1].tolist(), torch=torch.get_rng_state().tolist(),
                random=random.getstate(), dtype=torch.get_default_dtype(), threads=torch.get_num_threads(), deterministic=torch.are_deterministic_algorithms_enabled(), grad=torch.is_grad_enabled(),
                precision=torch.get_float32_matmul_precision(), numpy_errors=np.geterr(), printing=np.get_printoptions(), pandas={k: pd.get_option(k) for k in ("display.max_rows", "display.width", "mode.chained_assignment")},
                environment=dict(os.environ), folder=os.getcwd(), path=list(sys.path), hooks=(sys.excepthook, sys.displayhook), signals={s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
                level=(logging.root.level, list(logging.root.handlers)), locale=locale.setlocale(locale.LC_ALL), recursion=sys.getrecursionlimit(), anomaly=torch.is_anomaly_enabled())
def changed(a, b): return sorted(k for k in a if a[k] != b[k])
before = snapshot()
'''

def run(code):
    done = subprocess.run([sys.executable, "-W", "default", "-c", SNAPSHOT + textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()

IMPORTS = '''
import memnet
for part in pkgutil.iter_modules(memnet.__path__):
    if not part.ispkg: continue
    for m in pkgutil.iter_modules(importlib.import_module(f"memnet.{part.name}").__path__): importlib.import_module(f"memnet.{part.name}.{m.name}")
'''

def test_importing_every_module_changes_nothing(): assert run(IMPORTS + "print(changed(before, snapshot()))") == "[]"

CALLS = {
    "model": """
        from memnet import MemNet, MemNetConfig
        model = MemNet(MemNetConfig.tiny(dream_every=1))
        out = model(torch.zeros(2, 12, dtype=torch.long))
        model.objective(out, torch.zeros(2, 12, dtype=torch.long))["total"].backward()
        model.dream(out.state)
    """,
    "baselines": """
        from memnet.models.recurrent import LSTMConfig, LSTMModel
        from memnet.models.registry import make_baseline
        from memnet import MemNetConfig
        LSTMModel(LSTMConfig.tiny())(torch.zeros(2, 5, dtype=torch.long))
        make_baseline("lstm", MemNetConfig(vocab_size=11, dim=16, n_layers=1, n_heads=2, n_slots=8, window=4), torch.Generator())
    """,
    "tasks": """
        from memnet.tasks.long_range import LongRangeRecall
        from memnet.tasks.context_facts import SplitFacts
        from memnet.tasks.streams import STREAM_MAKERS
        for task in (LongRangeRecall(), SplitFacts()): task.sample(2, torch.Generator())
        for make in STREAM_MAKERS.values(): make(0)
    """,
    "learners": """
        from memnet.tasks.streams import shifting_recall
        from memnet.training.learners import BankLearner, BankLearnerConfig, MergeConfig, MergeLearner, NetConfig, NetLearner
        from memnet.training.prototype_memory import PrototypeConfig, PrototypeMemory
        from memnet.training.run_stream import run_stream
        stream = shifting_recall(0, n_repeats=1, epochs=1)
        sizes = dict(n_inputs=64, n_classes=16)
        for learner, config in ((NetLearner, NetConfig), (MergeLearner, MergeConfig), (BankLearner, BankLearnerConfig), (PrototypeMemory, PrototypeConfig)):
            run_stream(learner(config(**sizes), torch.Generator()), stream, torch.Generator())
    """,
    "fit": """
        import tempfile
        from memnet import MemNet, MemNetConfig, fit
        from memnet.tasks.long_range import LongRangeRecall
        from memnet.training.schedule import TrainConfig
        task = LongRangeRecall(seq_len=32, n_pairs=2)
        with tempfile.TemporaryDirectory() as folder: fit(MemNet(MemNetConfig.tiny(vocab_size=task.vocab_size)), task, TrainConfig(steps=2, batch_size=2), folder, progress=False)
    """,
    "plots": """
        from memnet.analysis.result_plots import accuracy_by_distance, interval_plot, learning_curves
        from memnet.analysis.slot_plots import policy_plot, show_memory, slot_heatmap
        from memnet.analysis.graph_plots import adjacency, graph_plot, spread_plot
        from memnet.analysis.figure_style import save_figure
        import tempfile
        rows = pd.DataFrame([dict(model=m, seed=s, distance=d, value=.5, step=d, metric="loss") for m in ("memnet", "mine") for s in range(2) for d in (1, 2)])
        fig, ax = plt.subplots()
        for draw in (lambda: accuracy_by_distance(rows, .1, ax=ax), lambda: learning_curves(rows, "loss", ax=ax), lambda: slot_heatmap(torch.ones(5, 3), ax=ax), lambda: show_memory(torch.ones(5, 3), ax=ax),
                     lambda: policy_plot(torch.full((4, 3), 1/3), ax=ax), lambda: adjacency(torch.ones(3, 3), ax=ax), lambda: graph_plot(torch.ones(3, 3), ax=ax), lambda: spread_plot(torch.eye(3), ax=ax)): draw()
        with tempfile.TemporaryDirectory() as folder: save_figure(ax, folder + "/x.svg")
        plt.close("all")
    """,
}

@pytest.mark.parametrize("name", CALLS)
def test_typical_calls_change_nothing(name): assert run(IMPORTS + "before = snapshot()\n" + textwrap.dedent(CALLS[name]) + "\nprint(changed(before, snapshot()))") == "[]"

def test_the_snapshot_sees_a_change():
    assert run("plt.rcParams['font.size'] = 3; torch.manual_seed(1); np.random.rand(); warnings.simplefilter('ignore')\nprint(changed(before, snapshot()))") == "['numpy', 'rc', 'torch', 'warnings']"
