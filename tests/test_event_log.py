"""The event log in whole runs: training, evaluation in pieces, streams, all measures on one table."""
import copy
import pandas as pd, pytest, torch
from memnet.analysis.event_log import EventLog, log_events
from memnet.analysis.event_table import read_events
from memnet.analysis.slot_lifetimes import label_entries, occupancy_over_time, read_ages, slot_lifetimes, slot_utilisation
from memnet.analysis.survival import compare_lifetimes, median_lifetime, survival_table
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

def test_training_is_the_same_with_a_log_and_all_of_it_is_on_record():
    log = EventLog(n_rows=3, record_every=1); (a, plain), (b, logged) = trained(), trained(log)
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
    pd.testing.assert_frame_equal(plain.metrics, logged.metrics)
    table = slot_lifetimes(log.frame())
    assert table.groupby("training").stream.nunique()[True] == 4*3 and table.groupby("training").stream.nunique()[False] > 0
    assert set(table.cause) <= {"evicted", "censored"} and (table.duration > 0).all() and (table.writes >= 1).all()
    assert b.controller.bank.observer is None and copy.deepcopy(b) is not None

def test_one_training_batch_in_so_many_is_on_record():
    log = EventLog(n_rows=3, record_every=3); trained(log); table = slot_lifetimes(log.frame())
    assert table[table.training].stream.nunique() == 2*3                                 # batches 0 and 3 of four
    with pytest.raises(ValueError, match="record_every=0"): EventLog(record_every=0)

def test_the_compiled_scan_is_observed_too():
    model = MemNet(MemNetConfig(**CFG), gen(0)); tokens = torch.randint(0, TASK.vocab_size, (3, 32), generator=gen(1))
    with log_events(model, EventLog(n_rows=2, record_every=4)) as log:
        for _ in range(5): out = model(tokens)                                            # no generator: nothing is drawn, the scan runs
        model(tokens, state=out.state)                                                   # and goes on with the streams of the fifth
    with torch.no_grad(), log_events(model, n_rows=2) as chunks: model(tokens, record=True)      # a record is made by chunks
    fast, slow = (slot_lifetimes(x.frame()) for x in (log, chunks))
    assert sorted(fast.groupby("stream").ended_at.max()) == [32, 32, 64, 64] and fast.training.all()
    one = fast[fast.stream.isin(fast.stream.unique()[:2])]
    pd.testing.assert_frame_equal(one.drop(columns=["training", "weight"]).reset_index(drop=True), slow.drop(columns=["training", "weight"]))

@pytest.mark.parametrize("over", [dict(), dict(n_writes=0), dict(n_writes=3, forgetting=True, graph=False), dict(policies=("random",), topk=2)])
def test_scan_and_chunks_give_the_same_events(over, monkeypatch):
    monkeypatch.setattr("memnet.memory.bank.MAX_OBSERVED_CHUNKS", 3)                                         # so that a stream of 7 chunks is reported in three parts
    bank = MultiHeadMemoryBank(MemoryConfig.tiny(**dict(n_slots=4, match=.9) | over), gen(0)).double()
    words = torch.randn(9, 12, generator=gen(1)).double(); x = words[torch.randint(0, 9, (3, 53), generator=gen(2))]
    if bank.config.forgetting: torch.nn.init.constant_(bank.decay.bias, -3.)
    mask, dreamer = torch.arange(53) < torch.tensor([[53], [20], [41]]), MemorySynthesizer(3, 2, gen(3), bank.config.graph).double()
    logs = {}
    for how in ("reference_path", "fused_path"):
        with torch.no_grad(), log_events(bank, n_rows=2, floor=.3) as logs[how]:
            _, state, _ = bank(x, None, mask, gen(4), record=how == "reference_path", dream=dreamer, dream_every=2)
            bank.commit(bank(x, state, None, gen(5), record=how == "reference_path")[1])
    slow, fast = (log.frame() for log in logs.values())
    assert len(slow) > 200
    pd.testing.assert_frame_equal(slow, fast, atol=1e-6)

def test_a_stream_in_pieces_is_one_stream():
    model = MemNet(MemNetConfig(**CFG), gen(0)); tokens = torch.randint(0, TASK.vocab_size, (3, 96), generator=gen(1))
    with torch.no_grad():
        with log_events(model, n_rows=3) as whole: model(tokens)
        def cut(size):
            state = None
            with log_events(model, n_rows=3) as log:
                for x in tokens.split(size, 1): state = model(x, state=state, record=size == 7).state
            return log
        pieces = cut(32)
        for size in (1, 7): pd.testing.assert_frame_equal(whole.frame(), cut(size).frame(), atol=1e-5)     # a chunk is recorded once, when it is written
        with log_events(model, EventLog(n_rows=3)) as first: state = model(tokens[:, :48]).state
        with log_events(model, first): model(tokens[:, 48:], state=state)
    pd.testing.assert_frame_equal(whole.frame(), pieces.frame()); pd.testing.assert_frame_equal(whole.frame(), first.frame())

def test_reset_begins_a_new_stream_and_entries_of_a_strange_state_are_initial():
    model = MemNet(MemNetConfig(**CFG), gen(0)); tokens = torch.randint(0, TASK.vocab_size, (2, 32), generator=gen(1))
    with torch.no_grad():
        state = model(tokens).state
        with log_events(model, n_rows=2) as log:
            out = model(tokens, state=state); model(tokens, state=out.state, reset=torch.tensor([True, False])); model(tokens, state=state)
    table = slot_lifetimes(log.frame()); per = table.groupby("stream").start_observed.agg(["size", "sum"])
    # two rows begin with entries that are there; one is reset, and afterwards its state is the one that the last call goes on from; the other is set back
    assert (per["sum"] < per["size"]).tolist() == [True, True, False, True]
    assert (table[~table.start_observed].allocated_at == 31).all()

def test_evaluation_in_pieces_and_every_measure(tmp_path):
    model = MemNet(MemNetConfig(**CFG, n_writes=4), gen(0))
    with log_events(model, n_rows=4) as log: evaluate(model, TASK, 4, 2, generator_for("valid", 0), chunk_size=32)
    events = read_events(log.save(tmp_path/"a"/"log.parquet")); table = slot_lifetimes(events)
    T = int(events[events.kind == "end"].time.max())
    table = label_entries(table, torch.arange(T).expand(8, T) % 2, "parity"); assert (table.parity == table.allocated_at % 2).all()
    curve = survival_table(table, "parity"); assert curve.survival.between(0, 1).all() and len(median_lifetime(curve)) == 2
    assert 0 < compare_lifetimes(table, "parity", draws=20)["p_permutation"] <= 1
    assert len(read_ages(events)) == (table.set_index("entry").reads[table.start_observed.to_numpy()]).sum()
    assert slot_utilisation(events, "write").effective.between(1, 12).all()
    use = occupancy_over_time(events, 16); assert (use.occupied <= 2*12).all() and (use[["allocation", "update"]].sum(axis=1) <= 2*4/16 + 1e-9).all()   # the budget holds

def test_nothing_was_logged():
    log = EventLog(); assert log.frame().empty and slot_lifetimes(log.frame()).empty
    with pytest.raises(ValueError, match="no entry"): survival_table(slot_lifetimes(log.frame()))

def test_a_call_is_logged_afterwards_only_where_nothing_waits_to_be_written():
    bank = MultiHeadMemoryBank(MemoryConfig.tiny(n_writes=0), gen(0))
    with torch.no_grad(): _, state, info = bank(torch.randn(1, 13, 12, generator=gen(1)), record=True)
    with pytest.raises(ValueError, match="commit it first"): EventLog().add_call(info, None, state)
    log = EventLog().add_call(info, None, bank.commit(state))
    assert log.sync(bank.commit(state)) is log and (log.frame().kind == "allocation").any()
