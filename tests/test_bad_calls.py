"""Bad calls, over every public function and method of the package: a wrong kind, range, shape or dtype is a ValueError that names the parameter."""
import collections.abc, importlib, inspect, math, pkgutil, typing
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
import hypothesis.strategies as st
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor
import memnet
from memnet.foundations.validation import annotations_of, number_test, protocol_members

torch.set_num_threads(1)
PARTS = ("foundations", "memory", "dreaming", "models", "tasks", "training", "analysis", "runs")

def modules():
    for part in PARTS:
        package = importlib.import_module(f"memnet.{part}")
        for m in pkgutil.iter_modules(package.__path__): yield importlib.import_module(f"memnet.{part}.{m.name}")

def is_record(c): return issubclass(c, tuple) or getattr(c, "_is_protocol", False)

def public_calls():
    "Qualified name -> function, of every exported function and every public method that an exported class defines itself."
    found = {}
    for module in modules():
        short = module.__name__.removeprefix("memnet.")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isfunction(thing): found[f"{short}.{name}"] = thing
            if not inspect.isclass(thing) or getattr(thing, "_is_protocol", False): continue
            for method, f in vars(thing).items():
                f = getattr(f, "__func__", f)
                if method.startswith("_") and method != "__init__" or not inspect.isfunction(f): continue
                if method == "__init__" and (is_record(thing) or f.__qualname__.startswith("__create_fn__") or hasattr(thing, "__dataclass_fields__")): continue
                found[f"{short}.{name}.{method}"] = f
    return found

def arguments(f):
    "Parameter -> annotation, of those whose annotation can be tested."
    own = inspect.signature(f).parameters
    hints = {n: h for n, h in annotations_of(inspect.unwrap(f)).items() if n != "return"}
    return {n: h for n, h in hints.items() if n in own and not any(wrong(h) is x for x in ((), None)) and own[n].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)}

# --- what is wrong for an annotation, said once more by hand: the test must not ask the code that it tests
WRONG = {int: ("x", 2.5, None, [1], True), float: ("x", None, [1.], 1j), bool: ("x", None, 2, [True]), str: (3, None, ["x"], 2.5), Tensor: ([1.], "x", 3., None, np.ones(2)),
         torch.Generator: (5, "x", None, [1]), collections.abc.Callable: ("no function", 3, None), list: ("text", 3, None), tuple: ("text", 3, None), collections.abc.Sequence: ("text", 3, None),
         dict: ("x", [1], 3, None), collections.abc.Mapping: ("x", [1], 3, None), NoneType: ("x", 3, 2.5, [1])}

def wrong(kind):
    "Values of another kind; none where the annotation asks for nothing."
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, UnionType):
        each = [wrong(k) for k in typing.get_args(kind)]
        if () in each: return ()
        return tuple(w for w in each[0] if all(any(type(w) is type(v) for v in e) for e in each))
    if origin in WRONG: return WRONG[origin]
    if origin in (typing.Any, object, type) or not isinstance(origin, type): return ()
    return ("x", 3, None)

def right(kind, rule="", sizes=None):
    "A value of the kind that also keeps the rule: good enough to come to the next argument."
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Any, object, type): return object
    if origin in (typing.Union, UnionType):
        kinds = typing.get_args(kind)
        return None if NoneType in kinds and not rule else right(next(k for k in kinds if k is not NoneType), rule, sizes)
    if rule and number_test(rule): return next(v for v in (1, 2, 0, .5) if number_test(rule)(v) and (kind is float or isinstance(v, int)))
    if origin is Tensor: return tensor(rule, sizes)
    made = {int: 1, float: .5, bool: True, str: "x", list: [], tuple: (), dict: {}, collections.abc.Sequence: [], collections.abc.Mapping: {}, set: set(), Path: Path("x"), torch.dtype: torch.float32,
            np.ndarray: np.zeros(2), pd.DataFrame: pd.DataFrame()}
    if origin in made: return made[origin]
    if origin is collections.abc.Callable: return lambda *a: None
    if origin is torch.Generator: return torch.Generator()
    if getattr(origin, "_is_protocol", False): return SimpleNamespace(**{n: None for n in protocol_members(origin)}) if "__call__" not in protocol_members(origin) else None
    if isinstance(origin, type) and issubclass(origin, tuple): return tuple.__new__(origin, [None]*len(getattr(origin, "_fields", ())))
    return origin.__new__(origin) if isinstance(origin, type) else None

def tensor(rule, sizes=None, more=0, dtype=None):
    words = (rule or "...").split("|")[0].split()
    kind = words.pop(0) if words[0] in ("bool", "whole", "float") else ""
    axes = [w for w in words or ["..."] if w != "..."]
    shape = [int(a) if a.isdigit() else 2 + (ord(a) % 3) for a in axes]
    return torch.ones([2]*more + shape, dtype=dtype or dict(bool=torch.bool, whole=torch.long).get(kind, torch.float32))

def breaks(rule):
    "Values that a rule forbids."
    if rule.startswith("≥"): return (float(rule[1:]) - 1, math.nan)
    if rule.startswith(">"): return (float(rule[1:]), math.nan)
    if rule == "finite": return (math.inf, math.nan)
    if rule.startswith("in "):
        low, high = (float(x) for x in rule[4:-1].split(", "))
        return (low - 1, (high + 1 if high < math.inf else math.inf), math.nan) + ((low,) if rule[3] == "(" else ()) + ((high,) if rule[-1] == ")" else ())
    named = rule.split()[0] in ("bool", "whole", "float")
    kind, pattern = (rule.split()[0], rule.split()[1:]) if named else ("", rule.split())
    other = {"bool": torch.float32, "whole": torch.float32, "float": torch.long}.get(kind)
    shapes = () if not pattern or "..." in pattern or "|" in rule else (tensor(rule, more=1), tensor(rule, more=2))
    return shapes + ((tensor(rule, dtype=other),) if other else ())

CALLS = public_calls()
# What is not decorated, and why.
EXEMPT = {
    **{f"foundations.validation.{n}": "is itself a part of the check" for n in
       ("require", "require_known", "is_kind", "kind_name", "describe_value", "require_kind", "require_fields", "number_test", "require_shape", "fit_shape", "protocol_members", "validated")},
    "foundations.trees.tree_leaves": "calls itself at every branch, and refuses what is not a branch", "foundations.trees.tree_map": "calls itself at every branch"}
EXEMPT_PARTS = {
    "foundations.files": "written with require", "foundations.compilation": "written with require", "memory.": "conditions are checked by the bank, for all paths, before its loop", "kernels.": "called by the bank alone",
    "dreaming.": "conditions are checked by the synthesizer", "runs.": "what the command line gives is parsed and checked there", "models.base": "is the check of all models",
    **{f"models.{m}": "is checked by `SequenceModel`" for m in ("attention.", "controller", "memnet", "memory_layer", "model_files")},
    **{f"training.{m}": "is checked by `fit`" for m in ("schedule", "metric_log", "checkpoint", "evaluate", "training_run", "fit")}}

def reason(name): return EXEMPT.get(name) or next((why for part, why in EXEMPT_PARTS.items() if name.startswith(part)), None)

def test_every_public_call_is_checked_or_excused():
    left = [n for n, f in CALLS.items() if arguments(f) and not hasattr(f, "__validated__") and not reason(n)]
    assert left == []

def test_no_excuse_is_stale():
    assert [n for n in EXEMPT if n not in CALLS or hasattr(CALLS[n], "__validated__")] == []

CHECKED = {n: f for n, f in CALLS.items() if hasattr(f, "__validated__")}

def call_with(f, name, value):
    "Call with one argument replaced; the others are of the right kind."
    own, rules, hints = inspect.signature(f).parameters, f.__validated__, annotations_of(inspect.unwrap(f))
    given = {n: right(hints[n], rules.get(n, "")) if n in hints else None for n, p in own.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return f(**(given | {name: value}))

def refused(f, name, value):
    with pytest.raises(ValueError) as e: call_with(f, name, value)
    assert name in str(e.value), f"the message does not name {name}: {e.value}"

@pytest.mark.parametrize("call", CHECKED)
def test_a_wrong_kind_is_refused_by_name(call):
    f = CHECKED[call]
    for name, kind in arguments(f).items():
        for value in wrong(kind):
            if value is not inspect.signature(f).parameters[name].default: refused(f, name, value)

@pytest.mark.parametrize("call", [n for n, f in CHECKED.items() if f.__validated__])
def test_what_a_rule_forbids_is_refused_by_name(call):
    for name, rule in CHECKED[call].__validated__.items():
        for value in breaks(rule): refused(CHECKED[call], name, value)

SITES = [(n, a, k) for n, f in CHECKED.items() for a, k in arguments(f).items() if k in (int, float, Tensor, torch.Generator, str)]
THINGS = {int: st.text() | st.floats(allow_nan=True) | st.lists(st.integers()) | st.none(), float: st.text() | st.lists(st.floats()) | st.none() | st.complex_numbers(),
          str: st.integers() | st.floats() | st.lists(st.text()) | st.none(), Tensor: st.text() | st.lists(st.floats()) | st.integers() | st.none(), torch.Generator: st.integers() | st.text() | st.none()}

@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_wrong_kind_is_refused_by_name(data):
    call, name, kind = data.draw(st.sampled_from(SITES))
    value = data.draw(THINGS[kind])
    if value is not inspect.signature(CHECKED[call]).parameters[name].default: refused(CHECKED[call], name, value)
