"""Consolidation: wrong calls are refused in words, and only ratios of strengths and edges count."""
import math
import pytest, torch
from memnet.dreaming.merging import leader_order, merge_edges, merge_map, merge_slots, segment_reduce
from memnet.dreaming.refinement import SlotRefinement, partner_prior, rms_unit, slot_attention
from memnet.dreaming.replay import (add_shortcuts, read_along_walks, replay_edges, sample_walk_starts, sample_walks, scaled_edges, successor_matrix,
                                    transition_probabilities, walk_traces)
from memnet.dreaming.synthesizer import ConsolidationConfig, MemorySynthesizer
from memnet.models.memnet import MemNet, MemNetConfig

NAN, INF = math.nan, math.inf
def gen(seed=0): return torch.Generator().manual_seed(seed)
torch_long = lambda *shape, value=0: torch.full(shape, value, dtype=torch.long)

@pytest.fixture(scope="module")
def world():
    model = MemNet(MemNetConfig.tiny(dream_every=1))
    state = model(torch.randint(0, 11, (2, 16), generator=gen())).state
    s = state.memory
    P = transition_probabilities(s)
    return dict(model=model, state=state, s=s, P=P, W=sample_walks(P, sample_walk_starts(s, 3, gen()), 4, gen()))

# (what is wrong, the call, what the message says); s = a memory of 2 rows, 2 heads, 5 slots, keys of 4, contents of 3
CALLS = [
    ("merge: tau above one", lambda w: merge_slots(w["s"], 2.), "tau_merge=2.0"), ("merge: tau not a number", lambda w: merge_slots(w["s"], NAN), "tau_merge=nan"),
    ("merge: tau as text", lambda w: merge_slots(w["s"], "x"), "tau_merge='x'"), ("merge: state of a model", lambda w: merge_slots(w["state"]), "pass state.memory"),
    ("merge: nothing", lambda w: merge_slots(None), "got state=None"), ("merge: rate is a number", lambda w: merge_slots(w["s"], 0., 5), "rate_of must be a function"),
    ("merge map: state of a model", lambda w: merge_map(w["state"]), "got state=ControllerState"), ("leader order: state of a model", lambda w: leader_order(w["state"]), "got state=ControllerState"),
    ("segment reduce: unknown", lambda w: segment_reduce(w["s"].usage, torch_long(2, 2, 5), "mean"), "got 'mean'"), ("segment reduce: floats", lambda w: segment_reduce(w["s"].usage, w["s"].usage), "target must be a long tensor"),
    ("segment reduce: no such slot", lambda w: segment_reduce(w["s"].usage, torch_long(2, 2, 5, value=9)), "target must lie in 0 … 4, got 9"), ("segment reduce: shape", lambda w: segment_reduce(w["s"].usage, torch_long(2, 2, 4)), "(2, 2, 4)"),
    ("segment reduce: a list", lambda w: segment_reduce([1.], torch_long(2, 2, 4)), "got x=[1.0]"),
    ("merge edges: floats", lambda w: merge_edges(w["s"].edges, w["s"].usage), "target must be a long tensor"), ("merge edges: shape", lambda w: merge_edges(w["s"].edges, torch_long(2, 2, 4)), "(2, 2, 4)"),
    ("rms: a list", lambda w: rms_unit([1.]), "got x=[1.0]"), ("rms: negative eps", lambda w: rms_unit(w["s"].values, -1.), "eps=-1.0"), ("rms: whole numbers", lambda w: rms_unit(torch_long(2, 2)), "torch.int64"),
    ("prior: three directions", lambda w: partner_prior(w["s"].edges, torch.ones(3, 2)), "kappa must be a floating tensor of shape (2, 2)"), ("prior: negative odds", lambda w: partner_prior(w["s"].edges, -torch.ones(2, 2)), "kappa must be ≥ 0, got -1"),
    ("prior: not square", lambda w: partner_prior(w["s"].edges[..., :3], torch.ones(2, 2)), "edges must be"),
    ("attention: widths differ", lambda w: slot_attention(w["s"].values, w["s"].keys, w["s"].strength, 0.), "key must be a floating tensor of shape (2, 2, any, 3)"),
    ("refinement: other dtype", lambda w: SlotRefinement(3, 2)(w["s"]._replace(values=w["s"].values.double())), "the state must be torch.float32"), ("refinement: width as text", lambda w: SlotRefinement("3", 2), "d_value='3'"),
    ("refinement: generator", lambda w: SlotRefinement(3, 2, 5), "got generator=5"), ("refinement: other heads", lambda w: SlotRefinement(3, 3)(w["s"]), "n_heads=3"),
    ("refinement: a broken state", lambda w: SlotRefinement(3, 2)(w["s"]._replace(edges=w["s"].edges[..., :3])), "edges of a state"),
    *[(f"replay: {m}", lambda w, a=a: replay_edges(w["s"], *a), m) for a, m in (((-1,), "steps=-1"), ((0,), "steps=0"), ((1.5,), "steps=1.5"), ((2, 2.), "lam=2.0"), ((2, 0.), "lam=0.0"), ((2, NAN), "lam=nan"), ((2, .5, -1.), "eta=-1.0"), ((2, .5, 9.), "eta=9.0"),
                                                                               ((2, .5, 1., -1.), "floor=-1.0"), ((2, .5, 1., .1, 0.), "sharpness=0.0"), ((2, .5, 1., .1, INF), "sharpness=inf"))],
    ("replay: state of a model", lambda w: replay_edges(w["state"]), "got state=ControllerState"), ("replay: no graph", lambda w: transition_probabilities(w["s"]._replace(edges=w["s"].edges[..., :0])), "graph=False"),
    ("transitions: sharpness", lambda w: transition_probabilities(w["s"], -1.), "sharpness=-1.0"), ("scaled edges: nothing", lambda w: scaled_edges(None), "got state=None"),
    ("successors: no steps", lambda w: successor_matrix(w["P"], 0), "steps=0"), ("successors: lam", lambda w: successor_matrix(w["P"], 2, 0.), "lam=0.0"), ("successors: not square", lambda w: successor_matrix(w["P"][..., :2]), "(2, 2, 5, 2)"),
    ("shortcuts: shape", lambda w: add_shortcuts(w["s"], w["P"][..., :2]), "(2, 2, 5, 2)"), ("shortcuts: eta", lambda w: add_shortcuts(w["s"], w["P"], 2.), "eta=2.0"),
    ("walks: no length", lambda w: sample_walks(w["P"], w["W"][..., 0], 0, gen()), "length=0"), ("walks: generator", lambda w: sample_walks(w["P"], w["W"][..., 0], 2, 5), "got generator=5"), ("walks: no such start", lambda w: sample_walks(w["P"], torch_long(2, 2, 3, value=9), 2, gen()), "start must lie in -1 … 4, got 9"),
    ("walks: start of floats", lambda w: sample_walks(w["P"], torch.zeros(2, 2, 3), 2, gen()), "torch.float32"), ("walks: start shape", lambda w: sample_walks(w["P"], torch_long(2, 3), 2, gen()), "(2, 3)"), ("walks: not square", lambda w: sample_walks(w["P"][..., :2], w["W"][..., 0], 2, gen()), "transitions must be"),
    ("walks: no probabilities", lambda w: sample_walks(w["P"] + 1, w["W"][..., 0], 2, gen()), "sum to at most 1"), ("starts: none", lambda w: sample_walk_starts(w["s"], 0, gen()), "n_walks=0"), ("starts: generator", lambda w: sample_walk_starts(w["s"], 2, None), "got generator=None"),
    ("traces: slots", lambda w: walk_traces(w["W"] + 99, 5), "walks must lie in -1 … 4"), ("traces: lam", lambda w: walk_traces(w["W"], 5, 2.), "lam=2.0"), ("traces: floats", lambda w: walk_traces(w["W"].float(), 5), "torch.float32"), ("traces: dtype", lambda w: walk_traces(w["W"], 5, .5, torch.long), "torch.int64"),
    ("traces: no slots", lambda w: walk_traces(w["W"], 0), "n_slots=0"), ("read: rows", lambda w: read_along_walks(w["s"], w["W"][:1]), "(1, 2, 3, 4)"), ("read: slots", lambda w: read_along_walks(w["s"], w["W"] + 99), "walks must lie in -1 … 4"), ("read: state of a model", lambda w: read_along_walks(w["state"], w["W"]), "got state=ControllerState"),
    ("read: floats", lambda w: read_along_walks(w["s"], w["W"].float()), "torch.float32"), ("synthesizer: config", lambda w: MemorySynthesizer(3, 2, None, True, {}), "config must be a ConsolidationConfig or None, got config={}"), ("synthesizer: state of a model", lambda w: MemorySynthesizer(3, 2)(w["state"]), "pass state.memory"),
    ("synthesizer: rate", lambda w: MemorySynthesizer(3, 2)(w["s"], 5), "rate_of must be a function"), ("synthesizer: no walks", lambda w: MemorySynthesizer(3, 2).random_walks(w["s"], 0, 2, gen()), "n_walks=0"), ("synthesizer: generator", lambda w: MemorySynthesizer(3, 2).random_walks(w["s"], 1, 2, 7), "got generator=7"),
    *[(f"config: {m}", lambda w, o=o: ConsolidationConfig(**o), m) for o, m in ((dict(tau_merge="x"), "tau_merge='x'"), (dict(tau_merge=NAN), "tau_merge=nan"), (dict(dream_stages=3), "dream_stages must be a list, got dream_stages=3"), (dict(dream_stages=("merge", "merge")), "each stage once"),
                                                                               (dict(replay_sharpness=INF), "replay_sharpness=inf"), (dict(replay_steps=1.5), "replay_steps=1.5"), (dict(replay_lam=0.), "replay_lam=0.0"), (dict(replay_eta=True), "replay_eta=True"))],
    ("model: walks", lambda w: w["model"].replay(w["state"], -1, 2, gen()), "n_walks=-1"), ("model: length", lambda w: w["model"].replay(w["state"], 1, 0, gen()), "length=0"), ("model: generator", lambda w: w["model"].replay(w["state"], 1, 2, None), "got generator=None"),
]

@pytest.mark.parametrize("call, message", [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_a_wrong_call_is_refused(call, message, world):
    with pytest.raises(ValueError) as caught: call(world)
    assert message in str(caught.value), str(caught.value)

def test_only_ratios_of_strengths_and_edges_count(world):
    s = world["s"]
    s = s._replace(**{n: getattr(s, n).double() for n in ("keys", "values", "strength", "edges", "trace", "usage")})
    strong, weak = (merge_slots(s._replace(strength=s.strength*scale), .0) for scale in (1e-2, 1e-20))
    assert (strong.strength > 0).equal(weak.strength > 0) and not (strong.strength > 0).equal(s.strength > 0)
    for a, b in ((strong.keys, weak.keys), (strong.values, weak.values)): torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    small = s._replace(edges=s.edges*1e-6/s.edges.max())
    torch.testing.assert_close(transition_probabilities(small).sum(-1), scaled_edges(small).sum(-1), rtol=1e-9, atol=0)
