"""The package as somebody gets it who installs it alone: no extras, a quick import that compiles nothing."""
import subprocess, sys, textwrap
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = [   # networkx is not among them: torch itself asks for it
    "pandas", "sklearn", "matplotlib", "lifelines", "pyarrow", "rich", "papermill", "nbformat", "psutil", "ipykernel", "ipywidgets", "jupyterlab", "PIL", "einops", "fastcore", "nbdev", "yaml", "IPython"]
NAMES = "MemNet, MemNetConfig, MemoryLayer, MemoryState, MultiHeadMemoryBank, MemorySynthesizer, TransformerController, fit"

def bare(code):
    "Run code where only what the bare package asks for can be imported."
    block = f"""
        import sys
        class Bare:
            def __init__(self, finder): self.finder = finder
            def find_spec(self, name, path=None, target=None): return None if name.split(".")[0] in {EXTRAS!r} else self.finder.find_spec(name, path, target)
        sys.meta_path[:] = map(Bare, sys.meta_path)
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(block) + textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)

def test_the_import_itself_loads_nothing():
    done = bare("import memnet; assert not {'torch', 'numba', 'numpy'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr

def test_the_core_needs_no_extras_and_its_import_compiles_nothing():
    done = bare(f"""
        import numba.core.dispatcher as d
        def refuse(self, *a, **k): raise AssertionError(f"compiled at import: {{self.py_func.__name__}}")
        d.Dispatcher.compile = refuse
        from memnet import {NAMES}
        import memnet
        for name in memnet.__all__: assert getattr(memnet, name).__name__ == name
    """)
    assert done.returncode == 0, done.stderr

def test_what_starts_a_run_loads_no_torch():
    "A worker and a kernel load it only where the notebook does: it takes seconds of a processor."
    code = """
        import sys, memnet.runs.processes, memnet.runs.records, memnet.text.store
        assert "torch" not in sys.modules
        from memnet.foundations.validation import require_kind, validated
        @validated(n="≥ 1")
        def double(n:int)->int: return 2*n
        assert double(2) == 4
        for wrong in (0, "2"):
            try: double(wrong)
            except ValueError as e: assert "n must be" in str(e)
            else: raise AssertionError(wrong)
        assert "torch" not in sys.modules
        import torch
        for kind, name in ((torch.Tensor, "a torch.Tensor"), (torch.Generator, "a torch.Generator, such as")):
            try: require_kind("x", 5, kind)
            except ValueError as e: assert f"x must be {name}" in str(e), e
            else: raise AssertionError(kind)
        require_kind("x", torch.zeros(2), torch.Tensor), require_kind("x", torch.nn.Parameter(torch.zeros(2)), torch.Tensor)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

def test_the_core_learns_without_extras():
    done = bare("""
        import torch
        from memnet import MemNet, MemNetConfig
        model = MemNet(MemNetConfig(vocab_size=16, dim=16, n_layers=2, n_heads=2, n_slots=8, window=8))
        tokens = torch.arange(24).remainder(16).view(2, 12)
        out = model(tokens[:, :6])
        out = model(tokens[:, 6:], state=out.state)
        model.objective(out, tokens[:, 6:])["total"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    """)
    assert done.returncode == 0, done.stderr

def test_an_unknown_name_is_refused_with_those_there_are():
    import memnet
    with pytest.raises(AttributeError, match="MemNett.*MemoryLayer"): memnet.MemNett
    assert "MemoryLayer" in dir(memnet)

def test_the_bare_package_asks_for_little_and_bounds_numba():
    tomllib = pytest.importorskip("tomllib")   # Python 3.11
    needs = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]["dependencies"]
    assert {n.split(">")[0].split("<")[0] for n in needs} == {"torch", "filelock", "numpy", "numba", "safetensors", "tqdm"}
    assert "<" in next(n for n in needs if n.startswith("numba"))
