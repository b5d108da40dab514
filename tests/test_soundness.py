"""One function many ways, invariants of a stream, finite numbers under stress: the short form of `memnet soak`; and the table of promises."""
import ast, csv, random, re
from itertools import islice
from pathlib import Path
import nbformat, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memnet.memory.bank import MultiHeadMemoryBank
from memnet.memory.config import MemoryConfig
from memnet.runs.command_line import main
from memnet.soundness.equivalences import EQUIVALENCE_TOLERANCE, EQUIVALENCES, largest_difference
from memnet.soundness.file_damage import file_mutations
from memnet.soundness.file_readers import FILE_READERS, try_reader
from memnet.soundness.invariants import OPERATIONS, MemoryStream
from memnet.soundness.random_cases import CASE_VALUES, random_case, simplest_case
from memnet.soundness.soak import repeat_case, package_digest, read_units, run_soak, soak_units
from memnet.soundness.stress import STRESSES, stress_mixed_precision

ROOT = Path(__file__).resolve().parent.parent
CASES = st.fixed_dictionaries({name: st.sampled_from(list(dict.fromkeys(values))) for name, values in CASE_VALUES.items()})
QUICK = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))   # the same cases each time, on any machine

@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

# --- one function many ways: 16 checks of 20 cases
@pytest.mark.parametrize("name", [n for n in EQUIVALENCES if n != "device_round_trip" or torch.cuda.is_available()])
def test_one_function_many_ways(name):
    for i in range(10): assert EQUIVALENCES[name](case := random_case(random.Random(f"test {name} {i}"))) < EQUIVALENCE_TOLERANCE, case
    @settings(QUICK, max_examples=10)
    @given(CASES)
    def holds(case): assert EQUIVALENCES[name](case) < EQUIVALENCE_TOLERANCE
    holds()

# --- invariants: about 150 operations
class StreamMachine(RuleBasedStateMachine):
    @initialize(case=CASES)
    def start(self, case): self.stream = MemoryStream(case)

    @rule(name=st.sampled_from(["read"]*6 + sorted(OPERATIONS)), number=st.integers(0, 999))
    def operate(self, name, number): OPERATIONS[name](self.stream, random.Random(number))

    @invariant()
    def is_a_valid_memory(self): assert not hasattr(self, "stream") or not self.stream.broken()

TestStream = StreamMachine.TestCase
TestStream.settings = settings(QUICK, max_examples=10, stateful_step_count=15)

# --- finite numbers
@pytest.mark.parametrize("name", ["stress_train", "stress_stream"])
@pytest.mark.parametrize("seed", range(3))
def test_numbers_stay_finite(name, seed): assert STRESSES[name](random_case(random.Random(f"test {name} {seed}")), 20).refused == 0

# --- damaged files: the long form is `memnet soak --only files`
@pytest.mark.parametrize("name", FILE_READERS)
def test_a_damaged_file_is_refused_by_name_or_read_as_it_was(name):
    trial = try_reader(name, 46)   # the other files first, then what fits the format
    assert trial.tried == 46 and trial.refused >= 25 and not trial.faults, trial

MENDED_FILES = {"settings of a run": ("run_settings", "config='\\x00'"), "record of a run": ("run_record", "versions='nan'"), "digests": ("result_digests", "runs.csv='0'"), "notebook": ("notebook", "without cells/1"), "tags": ("notebook", "cells/1/metadata/tags='nan'")}

@pytest.mark.parametrize("fault", MENDED_FILES)
def test_damage_that_was_mended_stays_mended(fault, tmp_path):
    name, damage = MENDED_FILES[fault]
    file = FILE_READERS[name](tmp_path)
    mutation = next(m for m in islice(file_mutations(file.path), 3000) if m.name == damage)
    mutation.apply(file.path)
    with pytest.raises(ValueError, match=re.escape(file.path.name)): file.read()

# --- what is known not to hold: strict, so that a mended rule is noticed
def holds(name, **over):
    assert EQUIVALENCES[name](simplest_case() | over) < EQUIVALENCE_TOLERANCE

def equal_gates_choose_alike():
    "Of tokens that are equal up to rounding, the budget takes the first, whatever the last bit says."
    bank = MultiHeadMemoryBank(MemoryConfig.tiny(chunk_size=4, n_writes=1)).double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 12, generator=g, dtype=torch.float64).expand(1, 4, 12)
    for _ in range(20):
        with torch.no_grad(): a, b = (bank(y)[1] for y in (x, x + 1e-13*torch.randn(x.shape, generator=g, dtype=torch.float64)))
        assert (a.age == b.age).all() and largest_difference(a.values, b.values) < EQUIVALENCE_TOLERANCE

def extreme(parameter, value):
    "A learned number far out of its range: finite, or refused when it is used."
    from memnet.soundness.random_cases import case_model, random_inputs
    from memnet.soundness.stress import require_finite
    for seed in range(4):
        model = case_model(simplest_case() | dict(graph=True, seed=seed), torch.float32)
        with torch.no_grad(): dict(model.named_parameters())[parameter].fill_(value)
        x = random_inputs(model.config, 2, 8, torch.Generator().manual_seed(seed), torch.float32)
        try: out = model(x)
        except ValueError: return
        model.objective(out, torch.zeros(2, 8, dtype=torch.long))["total"].backward()
        require_finite("step", [("logits", out.logits), *((n, p.grad) for n, p in model.named_parameters())])

def huge_inputs():
    from memnet.soundness.random_cases import case_model
    model = case_model(simplest_case() | dict(input_dim=3), torch.float32)
    try: out = model(torch.full((1, 3, 3), 1e30))
    except ValueError: return
    terms = model.objective(out, torch.zeros(1, 3, dtype=torch.long))
    assert all(t.isfinite() for t in terms.values())

def operations_hold(text):
    "A stream of operations that once broke an invariant."
    found = repeat_case("operations", text)
    assert not found.failure, found.failure

MENDED_FAULTS = {
    "opposite keys are merged": lambda: operations_hold('{"d_key": 1, "chunk_size": 2, "n_writes": 1, "count_writes": true, "seed": 1, "operations": ["read:330", "compress:409"]}'),
    "opposite keys are merged, two rows": lambda: operations_hold('{"d_key": 1, "dream_stages": ["compress"], "n_layers": 1, "rows": 2, "seed": 1, "operations": ["read:860", "read:230", "read:210", "compress:976"]}'),
    "match=1 and a repeated token": lambda: holds("record_changes_nothing", match=1., tokens=3, seed=1),
    "equal gates": equal_gates_choose_alike,
    "bfloat16 autocast takes its own state": lambda: stress_mixed_precision(simplest_case() | dict(graph=True, seed=0, chunk_size=3, tokens=8), 6),
    "float16 autocast": lambda: stress_mixed_precision(simplest_case() | dict(graph=True, seed=1), 6),
    "float16 as a whole": lambda: stress_mixed_precision(simplest_case() | dict(graph=True, seed=3), 6),
    "logit_scale": lambda: extreme("controller.bank.log_logit_scale", 1e4),
    "lam": lambda: extreme("controller.bank.lam_logit", -1e4),
    "inputs of 1e30": huge_inputs,
}

@pytest.mark.parametrize("name", MENDED_FAULTS)
def test_faults_that_were_mended_stay_mended(name): MENDED_FAULTS[name]()

# --- the command
def test_a_soak_goes_on_where_it_stopped(tmp_path):
    units = soak_units(("equivalences",), 1/320)[:4]
    assert run_soak(tmp_path, units[:3], progress=False).missing == 0
    table = tmp_path/"units.csv"
    table.write_bytes(table.read_bytes()[:-9])
    assert len(read_units(table)) == 2
    result = run_soak(tmp_path, units, progress=False)
    assert result.missing == 0 and [u.check for u in units] == sorted(result.units["check"], key=[u.check for u in units].index) and len(read_units(table)) == 4

def test_a_failing_case_is_printed_as_a_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("memnet.soundness.soak.CASES_PER_EQUIVALENCE", 1)
    monkeypatch.setattr("memnet.soundness.soak.EQUIVALENCES", {"too_many_rows": lambda case: float(case["rows"] > 0)})
    assert main(["soak", "--only", "equivalences", "--record"], tmp_path) == 1
    (row,) = csv.DictReader((tmp_path/"results"/"reliability"/"soak.csv").open())
    assert (row["check"], row["units"], row["failures"], row["code"]) == ("too_many_rows", "1", "1", package_digest())
    printed = capsys.readouterr().out
    assert "memnet soak --check too_many_rows --case '{}'" in printed.replace("\n", " ")
    assert main(["soak", "--check", "too_many_rows", "--case", "{}"], tmp_path) == 1
    assert main(["soak", "--check", "too_many_rows"], tmp_path) == 2 and main(["soak", "--check", "no_such", "--case", "{}"], tmp_path) == 2

def test_a_case_that_holds_ends_with_zero(tmp_path, capsys):
    assert main(["soak", "--check", "fused_is_reference", "--case", '{"graph": true}'], tmp_path) == 0
    assert "fused_is_reference holds" in capsys.readouterr().out
    assert main(["soak", "--minutes", "1e-9"], tmp_path) == 0 and "units are not done" in capsys.readouterr().out

# --- the table of promises
def named_tests(text): return re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
def names_in(path):
    "Names of a test file that pytest collects at the top level, also those that are assigned."
    tree = ast.parse((ROOT/path).read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))} | {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}

def test_every_promise_names_a_test_that_exists():
    page = "\n".join(c.source for c in nbformat.read(ROOT/"nbs"/"soundness"/"reliability.ipynb", 4).cells if c.cell_type == "markdown")
    rows = [r for r in page.splitlines() if r.startswith("| ") and not r.startswith(("| promise", "| what"))]
    assert len(rows) >= 15 and all(named_tests(r) for r in rows), "a promise without a test"
    assert [f"{path}::{test}" for path, test in named_tests(page) if not (ROOT/path).exists() or test not in names_in(path)] == []
    assert named_tests("`tests/test_soundness.py::test_gone`") == [("tests/test_soundness.py", "test_gone")] and "test_gone" not in names_in("tests/test_soundness.py")
