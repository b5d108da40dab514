"""Bad calls, over every public function and method of the package: a wrong kind, range, shape or dtype is a ValueError that names the parameter."""
import collections.abc, importlib, inspect, math, pkgutil, types, typing
from pathlib import Path
from types import NoneType, UnionType
import hypothesis.strategies as st
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor
import memnet
from memnet.foundations.validation import annotations_of, number_test, protocol_members

torch.set_num_threads(1)
PARTS = ("foundations", "memory", "dreaming", "kernels", "models", "tasks", "training", "analysis", "runs", "text", "soundness", "scorecard", "papers")

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
         torch.Generator: (5, "x", None, [1]), collections.abc.Callable: ("no function", 3, None), list: ("text", 3, None), tuple: ("text", 3, None), collections.abc.Sequence: ("text", 3, None), collections.abc.Iterable: ("text", 3, None), collections.abc.Container: (3, None),
         dict: ("x", [1], 3, None), collections.abc.Mapping: ("x", [1], 3, None), NoneType: ("x", 3, 2.5, [1])}

def wrong(kind):
    "Values of another kind; none where the annotation asks for nothing."
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, UnionType):
        each = [wrong(k) for k in typing.get_args(kind)]
        if () in each: return ()
        return tuple(w for w in each[0] if all(any(type(w) is type(v) for v in e) for e in each))
    if origin in WRONG: return WRONG[origin]
    if origin is typing.Literal: return (None, "no such choice", [1])
    if origin in (typing.Any, object, type) or not isinstance(origin, type): return ()
    return ("x", 3, None)

def right(kind, rule="", sizes=None):
    "A value of the kind that also keeps the rule: good enough to come to the next argument."
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Any, object, type): return object
    if origin is typing.Literal: return typing.get_args(kind)[0]
    if origin in (typing.Union, UnionType):
        kinds = typing.get_args(kind)
        return None if NoneType in kinds and not rule else right(next(k for k in kinds if k is not NoneType), rule, sizes)
    if rule.startswith("at "): return 0
    if rule.startswith("one of "): return rule[7:].split(" | ")[0]
    if rule and number_test(rule): return next(v for v in (1, 2, 0, .5) if number_test(rule)(v) and (kind is float or isinstance(v, int)))
    if origin is Tensor: return tensor(rule, sizes)
    if origin is np.ndarray and rule: return tensor(rule, sizes).numpy()
    if rule.startswith("columns "): return pd.DataFrame({c: [0] for c in rule.split()[1:]})
    made = {int: 1, float: .5, bool: True, str: "x", list: [], tuple: (), dict: {}, collections.abc.Sequence: [], collections.abc.Iterable: [], collections.abc.Mapping: {}, set: set(), collections.abc.Container: [], Path: Path("x"), torch.dtype: torch.float32, torch.device: torch.device("cpu"),
            np.ndarray: np.zeros((2, 2, 2, 2)), pd.DataFrame: pd.DataFrame()}
    if origin in made: return made[origin]
    if origin is collections.abc.Callable: return lambda *a: None
    if origin is torch.Generator: return torch.Generator()
    if getattr(origin, "_is_protocol", False): return type("Made", (), {n: np.zeros((2, 2)) for n in protocol_members(origin)} | ({"__call__": lambda *a: None} if "__call__" in protocol_members(origin) else {}))()
    if isinstance(origin, type) and issubclass(origin, tuple): return tuple.__new__(origin, [right(h) for n, h in annotations_of(origin).items() if n in getattr(origin, "_fields", ())])
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
    if rule.startswith("at "): return (-1, 99)
    if rule.startswith("one of "): return ("no such name",)
    if rule.startswith("columns "): return (pd.DataFrame(), pd.DataFrame({c: [0] for c in rule.split()[2:]}))
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
       ("require", "require_known", "is_kind", "kind_name", "describe_value", "require_kind", "require_fields", "number_test", "require_shape", "require_columns", "require_position", "fit_shape", "validated")},
    "training.prototype_memory.require_width": "is itself a check", **{f"dreaming.arguments.{n}": "is itself a check" for n in ("require_memory_state", "require_between", "require_tensor", "require_generator", "require_slots")},
    "training.memnet_learner.MemNetLearner.tokens": "is called by `observe` and `predict`, which check", **{f"training.slot_learners.{n}": "is called by the learners, which check" for n in ("even", "slots_in", "place_in_slots")},
    **{f"models.layer_interface.LayerCall.{n}": "is compiled with the layer, which gives it a tensor of its own" for n in ("output", "restore")},
    "models.layer_interface.MemoryLayerState.from_banks": "is compiled with the layer, and refuses an empty list",
    **{f"memory.state.MemoryState.{n}": "is a method of a NamedTuple, compiled with the model; the function that it calls checks" for n in ("select", "stack", "to", "save", "load")},
    **{f"models.controller.ControllerState.{n}": "is a method of a NamedTuple, compiled with the model; the function that it calls checks" for n in ("select", "stack", "to", "save", "load")},
    "training.fit.TrainingInterrupted.__init__": "is raised by `fit` alone", "training.fit.FitResult.last": "is a method of a NamedTuple; a metric that is not in the log is refused",
    "memory.allocation.plan_row": "is compiled; `plan_writes` checks",
    "memory.chunk_borders.CallPart.samples": "is a method of a NamedTuple, compiled with the model, and called by the bank alone",
    "foundations.trees.tree_leaves": "calls itself at every branch, and refuses what is not a branch", "foundations.trees.tree_map": "calls itself at every branch"}
def reason(name): return EXEMPT.get(name)

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
    if "self" in own: given["self"] = types.SimpleNamespace(**{r.split()[1].removeprefix("self."): torch.zeros(2, 2) for r in rules.values() if r.startswith("at self.")})
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

# --- what no annotation and no rule expresses: names, duplicates, positions, sums, relations between arguments
from memnet.analysis import continual_metrics as cm, event_table as et, figure_style as fs, graph_plots as gp, memory_metrics as mm, result_plots as rp, slot_plots as sp, statistics as ss, stream_plots as tp, survival as sv, timelines as tl
from memnet.analysis import consolidation_plots as cp, example_trace as ex, linear_probe as lp, probes as pb, row_text as rt, slot_lifetimes as sl, small_models as sm, switches as sw
from memnet.analysis import event_log as el
from memnet.memory import addressing as ad, chunk_borders as cb, config as mc, fused_path as fp, spreading as sg, state as ms
from memnet.models import eviction_rules as er, objective as ob, recurrent as rc, registry as rg
from memnet.models.attention_baselines import FullAttentionTransformer, WindowedTransformer
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.tasks import base as tb, context_facts as tc, streams as ts
from memnet.tasks.long_range import LongRangeRecall
from memnet.tasks.memory_load import MemoryLoadRecall, oracle_eviction
from memnet.tasks.mixed_questions import MixedQuestions
from memnet.tasks.multi_query import MQAR, sample_excluding
from memnet.tasks.rebinding import Rebinding
from memnet.tasks.successor import PairedAssociates, SuccessorRecall
from memnet.papers import agentfly, arcmemo, common as pc, halumem, hcam, hlop, mem_alpha, reality_check, spatially_aware
from memnet.training import learners as le, prototype_edges as pe, prototype_memory as pm, prototype_slots as ps

gen = lambda: torch.Generator().manual_seed(0)
nan, inf = math.nan, math.inf
acc = torch.rand(3, 3)
TASKS = (LongRangeRecall, SuccessorRecall, PairedAssociates, MQAR, tc.SplitFacts, tc.RepeatedFacts, MemoryLoadRecall, Rebinding, MixedQuestions)
def fields_of(c): return {f: t for f, t in annotations_of(c).items() if f in c.__dataclass_fields__}
stream = lambda: ts.shifting_recall(0, n_repeats=1)
learner = lambda **over: pm.PrototypeMemory(pm.PrototypeConfig(**(dict(n_inputs=64, n_classes=16) | over)), gen())
def logged(*a):
    with el.log_events(*a) as log: return log
bank = lambda: MemNet(MemNetConfig.tiny()).controller.bank
rows = pd.DataFrame([dict(model=m, seed=s, distance=d, value=.5, step=d, metric="loss") for m in "ab" for s in range(2) for d in (1, 2)])

TABLE = [
    (lambda: tb.sample_distinct(2, 5, 3, gen()), "n=5, high=3"), (lambda: tb.segment_starts(torch.rand(2, 3), torch.tensor([4]), 5), "total must be ≥ 12"),
    (lambda: tb.scatter_to_row(torch.tensor([[7]]), torch.tensor([[1]]), 5), "position must lie in 0 … 4, got [7]"), (lambda: tb.scatter_to_row(torch.tensor([[-1]]), torch.tensor([[1]]), 5), "got [-1]"),
    (lambda: tb.one_hot_tokens(4), "blocks"), (lambda: tb.one_hot_tokens(4, (2, 5)), "width=4"), (lambda: tb.token_letter(0, "AB"), "first must be one letter"),
    (lambda: sample_excluding(torch.tensor([[0, 1, 2]]), 4, 3, gen()), "high=3"),
    (lambda: tc.item_vectors(5, 3), "dim"), (lambda: ts.load_digit_split("tets"), "did you mean 'test'"), (lambda: ts.split_digits(0, classes_per_task=3), "classes_per_task=3"),
    (lambda: ts.shifting_recall(0, held="x"), "unknown held 'x'"), (lambda: ts.split_digits(0, n_visits=10_000), "n_visits"), (lambda: ts.split_digits(0, epochs=0), "epochs=0"),
    (lambda: ts.Stream("x", (), ()), "needs experiences"), (lambda: ts.Stream("x", "ab", "cd"), "experiences must be a list"), (lambda: oracle_eviction([(0, "a")], [(1, "b")], 1), "'b'"),
    *((lambda c=c: c().symbol(10**6), "1000000") for c in (LongRangeRecall, SuccessorRecall, PairedAssociates, MQAR, Rebinding)),
    *((lambda c=c: c().symbol(-1), "-1") for c in (LongRangeRecall, SuccessorRecall, PairedAssociates, MQAR, Rebinding)),
    *((lambda c=c: c().solve([0, 10**6]), "1000000") for c in (LongRangeRecall, SuccessorRecall, PairedAssociates, MQAR, Rebinding)),
    *((lambda c=c: c().solve([[0.]]), "row") for c in (tc.SplitFacts, tc.RepeatedFacts, MemoryLoadRecall, MixedQuestions)),
    (lambda: ss.student_interval(["a", "b"]), "values"), (lambda: ss.student_interval([]), "at least one"), (lambda: ss.accuracy(torch.zeros(2), torch.zeros(3)), "one shape"),
    (lambda: ss.bits_per_byte(1., 0.), "bytes_per_token"), (lambda: ss.paired_difference({0: 1.}, {1: 1.}), "same seeds"), (lambda: ss.interval_by_group(rows, ["nodel"]), "nodel"),
    (lambda: cm.learned_rows(acc, ["a", "b", "c"]), "learned"), (lambda: cm.learned_rows(acc, [0, 1, 7]), "[0, 1, 7]"), (lambda: cm.learned_rows(acc, [0, 1]), "[0, 1]"), (lambda: cm.learned_rows(acc, [.5, 1, 2]), "learned"),
    *((lambda f=f, l=l: f(acc, l), "learned") for f in (cm.min_accuracy, cm.worst_case_accuracy) for l in ([0, 1, 9], [0, 1], [-5, 0, 1], ["a", "b", "c"])),
    (lambda: cm.average_accuracy(torch.zeros(0, 3)), "accuracies"), (lambda: cm.forward_transfer(acc, torch.zeros(2)), "untrained"), (lambda: cm.windowed_forgetting(acc, 1), "window=1"),
    (lambda: mm.top_share(torch.rand(3), 4), "n_largest=4"), (lambda: mm.policy_means(torch.rand(1, 1, 2, 3), ("a",)), "names"), (lambda: mm.memory_metrics({}), "info"), (lambda: mm.memory_metrics(dict(read=3)), "info"),
    (lambda: mm.shuffled_edges(torch.rand(1, 1, 3, 3), torch.rand(1, 1, 4), gen()), "strength"), (lambda: mm.slot_reuse(torch.rand(1, 1, 4, 2), torch.zeros(1, 1, 5).long(), torch.zeros(1, 1, 5).bool()), "write_slot"),
    (lambda: sl.slot_utilisation(pd.DataFrame(dict(kind=["read"], stream=0, head=0, time=0, slot=0)), "reads"), "did you mean 'read'"),
    (lambda: et.event_frame({}, (1, 2)), "columns"), (lambda: et.event_frame(et.EventTable().columns(), (1,)), "shape"), (lambda: et.EventTable(5), "max_events=5"),
    (lambda: sv.kaplan_meier(np.zeros(3), np.zeros(4)), "one shape"), (lambda: et.read_events("/nowhere.parquet"), "/nowhere.parquet"),
    (lambda: fs.pool_axis(np.zeros(3), 2, "median"), "unknown how 'median'"), (lambda: fs.pool_axis(np.zeros(3), 2, "max", 4), "axis=4"), (lambda: fs.checked_array(["a"], "t", "x"), "x must hold numbers"),
    (lambda: fs.checked_array([[1], [1, 2]], "t n", "x"), "x must hold numbers"), (lambda: fs.condition_styles(range(99)), "draw fewer"), (lambda: fs.save_figure(plt.subplots()[1], "x.docx"), "docx"),
    (lambda: gp.adjacency(torch.rand(2, 3)), "square"), (lambda: gp.adjacency(torch.rand(2, 2), ["a"]), "labels"), (lambda: gp.graph_plot(-torch.ones(2, 2)), "≥ 0"), (lambda: gp.graph_plot(torch.ones(2, 2), floor=2.), "floor"),
    (lambda: gp.spread_plot(2*torch.ones(2, 2)), "≤ 1"), (lambda: sp.slot_heatmap(torch.rand(3, 2), "reed"), "did you mean 'read'"), (lambda: sp.slot_heatmap(torch.rand(3, 2), writes=torch.tensor([5, 0, 0])), "writes"),
    (lambda: sp.slot_heatmap(torch.rand(3, 2), cells=(0, 3)), "cells"), (lambda: sp.slot_heatmap(torch.rand(3, 2), cells=(3,)), "cells"), (lambda: sp.policy_plot(torch.rand(3, 3)), "sum to 1"),
    (lambda: sp.show_memory(torch.rand(3, 2), torch.rand(4)), "strength"), (lambda: sp.policy_plot(torch.ones(2, 7)/7, tuple("abcdefg")), "names"),
    (lambda: rp.accuracy_by_distance(rows.assign(value=2.), .1), "accuracy must lie"), (lambda: rp.accuracy_by_distance(rows, .1, base=3), "base must be 2 or 10"), (lambda: rp.learning_curves(rows, "losss"), "'losss'"),
    (lambda: rp.learning_curves(rows.drop(columns="model"), "loss"), "run"), (lambda: rp.interval_plot(rows, "nmae", "x"), "nmae"), (lambda: rp.interval_plot(rows, "distance", "x", [99]), "[99]"), (lambda: rp.seed_band(rows[:0], ["model"]), "no rows"),
    (lambda: tp.forgetting_curves({}), "results"), (lambda: tp.forgetting_curves({"a": pd.DataFrame()}), "lacks"), (lambda: tp.forgetting_curves({"a": 3}), "results"), (lambda: tp.show_slots(torch.rand(2, 5)), "square"),
    (lambda: tl.slot_reuse_plot(torch.tensor([5]), 3), "write_slot"), (lambda: tl.animate_memory(torch.rand(3, 2), "x.avi"), ".gif"), (lambda: tl.animate_memory(torch.rand(3, 2), "x.gif", tokens=["a"]), "tokens"),
    (lambda: cp.show_merge(torch.rand(3, 2), torch.tensor([0, 9, 2])), "into"), (lambda: cp.show_walks(torch.tensor([[0, 5]]), ["a"]), "labels"), (lambda: lp.linear_probe(torch.rand(4, 2), torch.zeros(3).long()), "answer"),
    (lambda: lp.linear_probe(torch.rand(4, 2), torch.zeros(4).long()), "answer"), (lambda: pb.make_probe(torch.nn.Linear(1, 1)), "no adapter for Linear"),
    (lambda: sm.train_small_model("sucessor recall"), "did you mean 'successor recall'"), (lambda: sm.train_small_model(steps=0), "steps"), (lambda: sm.require_memory_model(torch.nn.Linear(1, 1)), "Linear"),
    (lambda: sw.switches_without(["grahp"]), "did you mean 'graph'"), (lambda: rt.word_index("Z", ("A", "B")), "'Z'"),
    (lambda: ob.ObjectiveConfig(w_sparsity=inf), "w_sparsity"), (lambda: er.FixedEviction("fifi"), "fifi"), (lambda: er.FixedEviction("fifo", low=.7, high=.6), "low < high"), (lambda: er.SoftCapacity(0), "capacity=0"), (lambda: er.SoftCapacity(3, nan), "softness"),
    (lambda: rg.make_baseline("gru2", MemNetConfig.tiny(), gen()), "gru2"), (lambda: rg.match_parameters(lambda n: rc.LSTMConfig(dim=n), 10**6, 5, 4), "low"), (lambda: rc.LSTMModel(rc.GRUConfig.tiny()), "LSTMConfig"),
    (lambda: rc.LSTMModel(rc.LSTMConfig.tiny())(torch.zeros(2, 3).long(), generator=5), "generator"), (lambda: rc.LSTMModel(rc.LSTMConfig.tiny())(torch.zeros(2, 3).long(), mask=[True]), "mask"), (lambda: rc.LSTMConfig(dropout=nan), "dropout"),
    (lambda: rc.LSTMModel(rc.LSTMConfig.tiny())(torch.zeros(2, 3).long(), mask=torch.tensor([[False, True, True]]*2)), "padding to the right"), (lambda: WindowedTransformer(rc.LSTMConfig.tiny()), "cfg"),
    (lambda: FullAttentionTransformer(MemNetConfig.tiny(window=4))(torch.zeros(1, 9).long()), "window=4"),
    (lambda: le.make_net("mpl", 64, 10, gen()), "did you mean 'mlp'"), (lambda: le.NetConfig(net="mpl"), "did you mean 'mlp'"), (lambda: le.NetConfig(lr=-1.), "lr"), (lambda: le.NetConfig(lr=nan), "lr"), (lambda: le.NetConfig(capacity=-1), "capacity"), (lambda: le.NetConfig(n_inputs=0), "n_inputs"),
    (lambda: le.NetConfig(bytes_per_number=3), "bytes_per_number"), (lambda: le.NetConfig(ewc=-1.), "ewc"), (lambda: le.NetConfig(distill=nan), "distill"), (lambda: le.MergeConfig(n_slots=0), "n_slots"), (lambda: le.MergeConfig(bytes_per_number=2), "bytes_per_number"), (lambda: le.BankLearnerConfig(lr=inf), "lr"),
    (lambda: le.BankLearnerConfig(n_slots=0), "n_slots"), (lambda: le.make_net("lstm", 60, 10, gen()), "n_inputs"), (lambda: pm.PrototypeConfig(n_inputs=0), "n_inputs"),
    *((lambda f=f, v=v: pm.PrototypeConfig(**{f: v}), f) for f, kind in fields_of(pm.PrototypeConfig).items() if kind in (int, float) for v in (-1, nan) if kind is float or v == -1),
    (lambda: ps.write_prototypes(ps.empty_prototypes(4, 3), ps.build_merge_table(ps.empty_prototypes(4, 3)), torch.zeros(2, 3), torch.zeros(3).long(), gen()), "labels"),
    (lambda: ps.write_prototypes(ps.empty_prototypes(4, 3), ps.build_merge_table(ps.empty_prototypes(4, 3)), torch.zeros(2, 9), torch.zeros(2).long(), gen()), "new"),
    (lambda: pm.PrototypeMemory.load("/nowhere"), "/nowhere"), (lambda: learner().insert(torch.zeros(2, 64), torch.tensor([0, 99])), "targets"), (lambda: learner().insert(torch.zeros(2, 9), torch.tensor([0, 1])), "inputs"), (lambda: learner().predict(torch.zeros(2, 9)), "inputs"),
    *((lambda l=l: l().predict(torch.zeros(2, 9)), "inputs must have 64 numbers") for l in (lambda: le.NetLearner(le.NetConfig(), gen()), lambda: le.MergeLearner(le.MergeConfig(), gen()))),
    (lambda: ad.register_policy("topk", len), "'topk' exists already"), (lambda: ad.register_policy("", len), "name=''"), (lambda: ad.mix_policies(torch.zeros(2, 5), torch.ones(2, 2)/2, ("topk", "unifrom")), "unifrom"),
    (lambda: ad.mix_policies(torch.zeros(2, 5), torch.ones(2, 3)/3, ("topk", "uniform")), "policy_weights"), (lambda: mc.MemoryConfig(policies=(["topk"],)), "unknown policy ['topk']"),
    (lambda: fp.set_memory_path(bank(), "quick"), "'quick'"), (lambda: fp.set_memory_path(torch.nn.Linear(1, 1), "auto"), "Linear"), (lambda: bank().empty_state(2).select([5]), "5"), (lambda: bank().empty_state(2).select("x"), "rows"), (lambda: ms.MemoryState.stack([]), "states"), (lambda: ms.MemoryState.stack(5), "states"),
    (lambda: bank().empty_state(2).save(5), "path"), (lambda: ms.MemoryState.load(5, bank().empty_state()), "path"), (lambda: ms.forget(bank().empty_state(2), torch.ones(3).bool()), "which"), (lambda: ms.forget(bank().empty_state(2), 5), "which"),
    (lambda: bank()(torch.zeros(1, 8, 12), mask=torch.tensor([[False] + [True]*7])), "move the padding to the right"), (lambda: bank()(torch.zeros(1, 8, 12), asked=torch.ones(1, 8)), "asked"),
    *((lambda k=k, v=v: el.EventLog(**{k: v}), k) for k in ("n_rows", "read_threshold", "floor", "max_events", "record_every") for v in (True, -1, nan, "x", None, [1])),
    *((lambda f=f: f(el.EventLog()), m) for m, f in {"cause must": lambda l: l.sync(bank().empty_state(), "forgoten"), "state must": lambda l: l.sync(3), "clocks differ": lambda l: l.sync(bank().empty_state()), "before must": lambda l: l.add_consolidation(None, None),
        "after must": lambda l: l.add_consolidation(bank().empty_state(), 3), "info lacks": lambda l: l.add_call({}, None, bank().empty_state())}.items()), (lambda: logged(torch.nn.Linear(1, 1)), "0 in Linear"), (lambda: logged(bank(), 3), "log must be a EventLog"),
    (lambda: agentfly.play_tasks("similarty", agentfly.CaseBank(3), [], 1, np.random.default_rng(0)), "did you mean 'similarity'"), (lambda: arcmemo.solve_stream("concepts", [], 9, 0), "did you mean 'concept'"), (lambda: hcam.compared_scores("two stage", 4), "did you mean 'two stages'"),
    (lambda: halumem.gate_keeps("users", halumem.halu_user(0)[0]), "did you mean 'user'"), (lambda: mem_alpha.rule_memory([], "random"), "rule 'random'"), (lambda: mem_alpha.suits("write", mem_alpha.fact_stream(0, 3)[0], True), "op 'write'"),
    (lambda: reality_check.split_universe(0, 0, "tets"), "did you mean 'test'"), (lambda: reality_check.scenarios("digit", "test", 0, reality_check.RealityConfig()), "did you mean 'digits'"), (lambda: reality_check.learn_stream({}, stream(), "ewc", 0), "learner 'ewc'"),
    (lambda: hlop.learn_permutations(stream(), hlop.OrthogonalConfig(), 0, "hebbian"), "did you mean 'Hebbian'"), (lambda: spatially_aware.PlaceMemory(2, 1).read(2), "place must lie in 0 … 1"), (lambda: pc.seed_values(pd.DataFrame(), "m", "a"), "table lacks the column arm"),
    *((lambda c=c: c.from_dict(dict(mistyped=1)), "no field 'mistyped'") for c in TASKS), *((lambda c=c: c().sample(0, gen()), "batch_size must be ≥ 1") for c in TASKS), *((lambda c=c: c().sample(2, 5), "generator must be") for c in TASKS),
    *((lambda c=c, f=f, v=v: c(**{f: v}), f) for c in TASKS for f, kind in fields_of(c).items() if kind in (int, float) for v in (-1, "x", nan, [1], None)),
]

@pytest.mark.parametrize("i", range(len(TABLE)), ids=lambda i: TABLE[i][1])
def test_bad_values(i):
    call, message = TABLE[i]
    try:
        with pytest.raises(ValueError) as e: call()
    finally: plt.close("all")
    assert message in str(e.value)
