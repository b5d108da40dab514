"""The log of lives in whole runs: training, evaluation in pieces, streams, several processes of the kit on one table."""
import copy
import pandas as pd, pytest, torch
from memnet.analysis.event_log import EventLog, compare_lives, label_lives, slot_lifetimes, median_life, occupancy_over_time, read_log, reuse, survival, utilisation, log_events
from memnet.memory.bank import MultiHeadMemoryBank
from memnet.memory.config import MemoryConfig
from memnet.dreaming.synthesizer import MemorySynthesizer
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.tasks.successor import SuccessorRecall
from memnet.training.evaluate import evaluate
from memnet.training.fit import fit
from memnet.training.schedule import TrainConfig, generator_for

torch.set_num_threads(1)
def gen(seed): return torch.Generator().manual_seed(seed)
TASK = SuccessorRecall()
CFG = dict(vocab_size=TASK.vocab_size, dim=16, n_layers=0, n_heads=2, n_slots=12, d_key=8, d_value=8, chunk_size=16, topk=4)

def trained(log=None):
    model = MemNet(MemNetConfig(**CFG), gen(0))
    run = lambda: fit(model, TASK, TrainConfig(steps=4, batch_size=6, seed=0), progress=False)
    if log is None: return model, run()
    with log_events(model, log): return model, run()

def test_training_is_the_same_under_watch_and_all_of_it_is_on_record():
    log = EventLog(rows=3, every=1); (a, plain), (b, seen) = trained(), trained(log)
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
    pd.testing.assert_frame_equal(plain.metrics, seen.metrics)
    table = slot_lifetimes(log.frame())
    assert table.groupby("training").stream.nunique()[True] == 4*3 and table.groupby("training").stream.nunique()[False] > 0
    assert set(table.cause) <= {"evicted", "alive"} and (table.duration > 0).all() and (table.writes >= 1).all()
    assert b.controller.bank.observer is None and copy.deepcopy(b) is not None

def test_one_training_batch_in_so_many_is_on_record():
    log = EventLog(rows=3, every=3); trained(log); table = slot_lifetimes(log.frame())
    assert table[table.training].stream.nunique() == 2*3                                 # batches 0 and 3 of four
    with pytest.raises(ValueError, match="every=0"): EventLog(every=0)

def test_the_compiled_scan_is_watched_too():
    model = MemNet(MemNetConfig(**CFG), gen(0)); tokens = torch.randint(0, TASK.vocab_size, (3, 32), generator=gen(1))
    with log_events(model, EventLog(rows=2, every=4)) as log:
        for _ in range(5): out = model(tokens)                                            # no generator: nothing is drawn, the scan runs
        model(tokens, state=out.state)                                                   # and goes on with the streams of the fifth
    with torch.no_grad(), log_events(model, rows=2) as chunks: model(tokens, record=True)      # a record is made by chunks
    fast, slow = (slot_lifetimes(x.frame()) for x in (log, chunks))
    assert sorted(fast.groupby("stream").ended.max()) == [32, 32, 64, 64] and fast.training.all()
    one = fast[fast.stream.isin(fast.stream.unique()[:2])]
    pd.testing.assert_frame_equal(one.drop(columns=["training", "weight"]).reset_index(drop=True), slow.drop(columns=["training", "weight"]))

@pytest.mark.parametrize("over", [dict(), dict(n_writes=0), dict(n_writes=3, forgetting=True, graph=False), dict(policies=("random",), topk=2)])
def test_scan_and_chunks_tell_the_same(over, monkeypatch):
    monkeypatch.setattr("memnet.memory.bank.MAX_OBSERVED_CHUNKS", 3)                                         # so that a stream of 7 chunks is told in three parts
    bank = MultiHeadMemoryBank(MemoryConfig.tiny(**dict(n_slots=4, match=.9) | over), gen(0)).double()
    words = torch.randn(9, 12, generator=gen(1)).double(); x = words[torch.randint(0, 9, (3, 53), generator=gen(2))]
    if bank.config.forgetting: torch.nn.init.constant_(bank.decay.bias, -3.)
    mask, dreamer = torch.arange(53) < torch.tensor([[53], [20], [41]]), MemorySynthesizer(3, 2, gen(3), bank.config.graph).double()
    logs = {}
    for how in ("reference_path", "fused_path"):
        with torch.no_grad(), log_events(bank, rows=2, floor=.3) as logs[how]:
            _, state, *_ = getattr(bank, how)(bank.features(x, mask), bank.empty_state(3), mask, gen(4), dream=dreamer, dream_every=2)
            getattr(bank, how)(bank.features(x), state, None, gen(5))
    slow, fast = (log.frame() for log in logs.values())
    assert len(slow) > 200
    pd.testing.assert_frame_equal(slow, fast, atol=1e-6)

def test_a_stream_in_pieces_is_one_stream():
    model = MemNet(MemNetConfig(**CFG), gen(0)); tokens = torch.randint(0, TASK.vocab_size, (3, 96), generator=gen(1))
    with torch.no_grad():
        with log_events(model, rows=3) as whole: model(tokens)
        with log_events(model, rows=3) as pieces:
            state = None
            for x in tokens.split(32, 1): state = model(x, state=state).state
        with log_events(model, EventLog(rows=3)) as first: state = model(tokens[:, :48]).state
        with log_events(model, first): model(tokens[:, 48:], state=state)
    pd.testing.assert_frame_equal(whole.frame(), pieces.frame()); pd.testing.assert_frame_equal(whole.frame(), first.frame())

def test_reset_begins_a_new_stream_and_a_strange_state_is_found_not_born():
    model = MemNet(MemNetConfig(**CFG), gen(0)); tokens = torch.randint(0, TASK.vocab_size, (2, 32), generator=gen(1))
    with torch.no_grad():
        state = model(tokens).state
        with log_events(model, rows=2) as log:
            out = model(tokens, state=state); model(tokens, state=out.state, reset=torch.tensor([True, False])); model(tokens, state=state)
    table = slot_lifetimes(log.frame()); per = table.groupby("stream").known.agg(["size", "sum"])
    # two rows begin with strangers; one is reset, and afterwards its state is the one that the last call goes on from; the other is thrown back
    assert (per["sum"] < per["size"]).tolist() == [True, True, False, True]
    assert (table[~table.known].born == 31).all()

def test_evaluation_in_pieces_and_every_measure(tmp_path):
    model = MemNet(MemNetConfig(**CFG, n_writes=4), gen(0))
    with log_events(model, rows=4) as log: evaluate(model, TASK, 4, 2, generator_for("valid", 0), chunk_size=32)
    events = read_log(log.save(tmp_path/"a"/"log.parquet")); table = slot_lifetimes(events)
    T = int(events[events.kind == "end"].time.max())
    table = label_lives(table, torch.arange(T).expand(8, T) % 2, "parity"); assert (table.parity == table.born % 2).all()
    curve = survival(table, "parity"); assert curve.survival.between(0, 1).all() and len(median_life(curve)) == 2
    assert 0 < compare_lives(table, "parity", draws=20)["p_dealt"] <= 1
    assert len(reuse(events)) == (table.set_index("life").reads[table.known.to_numpy()]).sum()
    assert utilisation(events, "write").effective.between(1, 12).all()
    use = occupancy_over_time(events, 16); assert (use.living <= 2*12).all() and (use[["birth", "update"]].sum(axis=1) <= 2*4/16 + 1e-9).all()   # the budget holds

def test_nothing_was_logged():
    log = EventLog(); assert log.frame().empty and slot_lifetimes(log.frame()).empty
    with pytest.raises(ValueError, match="no life"): survival(slot_lifetimes(log.frame()))
