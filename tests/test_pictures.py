"""What a figure shows is what the numbers say: positions, heights and counts of drawn things, for every plot that carries a claim; and one look for each series."""
from collections import namedtuple
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch
from memnet.analysis.consolidation_plots import show_merge, show_walks
from memnet.analysis.figure_style import CYCLE, MODEL_STYLES, VARIANT_STYLES, condition_styles, model_style, policy_colour
from memnet.analysis.graph_plots import adjacency, graph_plot, spread_plot
from memnet.analysis.result_plots import accuracy_by_distance, interval_plot, learning_curves, seed_band, value_by_distance
from memnet.analysis.slot_plots import policy_plot, show_memory, slot_heatmap
from memnet.analysis.statistics import student_interval
from memnet.analysis.stream_plots import accuracy_by_bytes, forgetting_curves, show_accuracy_matrix, show_slots, stability_gap
from memnet.analysis.timelines import memory_raster, slot_reuse_plot, survival_curve

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")

VALUES = {("memnet", 16): (.9, .8, 1.), ("memnet", 64): (.7, .5, .6), ("lstm", 16): (.2, .3, .4), ("lstm", 64): (.1, .1, .1)}
ROWS = pd.DataFrame([dict(model=m, seed=s, distance=d, bytes=100*d, after=d, step=d, metric="loss", name=f"at {d}", value=v) for (m, d), each in VALUES.items() for s, v in enumerate(each)]).sample(frac=1, random_state=0)
def curve(ax, label): return next(l for l in ax.lines if l.get_label().startswith(label))
def means(model): return [np.mean(VALUES[model, d]) for d in (16, 64)]
def band(ax, index): return sorted(set(np.round(ax.collections[index].get_paths()[0].vertices[:, 1], 9)))

# --- means over seeds
def test_accuracy_by_distance():
    ax = accuracy_by_distance(ROWS, chance=.125, trained=32)
    for model, label in (("memnet", "MemNet"), ("lstm", "LSTM")):
        assert list(curve(ax, label).get_xdata()) == [16, 64] and np.allclose(curve(ax, label).get_ydata(), means(model))
    assert list(curve(ax, "chance").get_ydata()) == [.125]*2 and list(curve(ax, "trained").get_xdata()) == [32]*2
    low = student_interval(VALUES["lstm", 16])
    drawn = ax.collections[[l.get_label() for l in ax.lines].index("LSTM")].get_paths()[0].vertices
    assert np.isclose(drawn[np.isclose(drawn[:, 0], 16), 1], low["low"]).any() and np.isclose(drawn[np.isclose(drawn[:, 0], 16), 1], low["high"]).any()
    assert "3 seeds" in ax.get_legend().get_title().get_text()

def test_value_by_distance():
    ax = value_by_distance(ROWS, "gain", dict(window=20))
    assert np.allclose(curve(ax, "MemNet").get_ydata(), means("memnet")) and list(curve(ax, "window").get_xdata()) == [20, 20]

def test_interval_plot_puts_each_mean_in_the_row_of_its_name():
    ax = interval_plot(ROWS, "name", "accuracy", ["at 64", "at 16"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["at 64", "at 16"]
    for container in ax.containers:
        model = {"MemNet": "memnet", "LSTM": "lstm"}[container.get_label()]
        drawn = {round(y): x for x, y in zip(*container.lines[0].get_data())}
        assert np.isclose(drawn[0], np.mean(VALUES[model, 64])) and np.isclose(drawn[1], np.mean(VALUES[model, 16]))

def test_learning_curves_and_their_smoothing():
    ax = learning_curves(ROWS, "loss")
    assert list(curve(ax, "LSTM").get_xdata()) == [16, 64] and np.allclose(curve(ax, "LSTM").get_ydata(), means("lstm"))
    smooth = learning_curves(ROWS, "loss", smooth=2, ax=plt.subplots()[1])
    assert np.allclose(curve(smooth, "LSTM").get_ydata(), [means("lstm")[0], np.mean(means("lstm"))])

def test_accuracy_by_bytes():
    ax = accuracy_by_bytes(ROWS, target=.95)
    for container in ax.containers:
        x, y = container.lines[0].get_data()
        assert list(x) == [1600, 6400] and np.allclose(y, means({"MemNet": "memnet", "LSTM": "lstm"}[container.get_label()]))

def test_stability_gap_averages_a_seed_first():
    twice = pd.concat([ROWS, ROWS[ROWS.seed == 0].assign(value=0.)])    # seed 0 has two rows: it still counts once
    y = curve(stability_gap(twice), "MemNet").get_ydata()
    assert np.allclose(y, [np.mean([.45, .8, 1.]), np.mean([.35, .5, .6])])

# --- reserved and doubled names of columns
@pytest.mark.parametrize("name", ["n", "mean", "low", "high"])
def test_a_column_that_the_result_would_overwrite_is_refused(name):
    rows = ROWS.rename(columns=dict(distance=name))
    with pytest.raises(ValueError, match=f"rename the column {name}"): seed_band(rows, ["model", name])
    with pytest.raises(ValueError, match=f"rename the column {name}"): interval_plot(rows, name, "accuracy")

@pytest.mark.parametrize("by", [["seed"], ["value"], ["model", "model"]])
def test_a_column_named_twice_is_refused(by):
    with pytest.raises(ValueError, match="different columns"): seed_band(ROWS, by)
def test_the_models_cannot_be_their_own_rows():
    with pytest.raises(ValueError, match="different columns"): interval_plot(ROWS, "model", "accuracy")

# --- streams
Result = namedtuple("Result", "steps evaluations")
def stream_table(model): return pd.DataFrame([dict(model=model, step=s, task=t, value=.1*s + t/100, seed=0) for s in range(3) for t in (4, 7)])

def test_a_panel_is_named_after_what_it_shows():
    axes = forgetting_curves({"mine": stream_table("mine"), "memnet": Result(torch.arange(2), torch.tensor([[.5, .25], [.75, 0.]]))})
    assert [ax.get_title() for ax in axes.flat] == ["mine", "MemNet"]
    assert np.allclose(axes.flat[0].lines[1].get_ydata(), [.07, .17, .27]) and np.allclose(axes.flat[1].lines[0].get_ydata(), [.5, .75])
    assert axes.flat[0].lines[0].get_color() != axes.flat[0].lines[1].get_color()
    with pytest.raises(ValueError, match="'MemNet' would show the rows of 'prototypes'"): forgetting_curves({"MemNet": stream_table("prototypes")})

def test_borders_stand_where_an_experience_ends():
    ax = forgetting_curves({"a": Result(torch.arange(11), torch.zeros(11, 1))}, borders=[30, 70]).flat[0]
    assert [list(l.get_xdata()) for l in ax.lines[1:]] == [[3, 3]]

def test_accuracy_matrix_and_slots():
    ax = show_accuracy_matrix(torch.tensor([[1., 0.], [.5, .25]]), "mine")
    assert [t.get_text() for t in ax.texts] == ["100", "0", "50", "25"] and np.allclose(ax.images[0].get_array(), [[1, 0], [.5, .25]]) and ax.get_title() == "mine"
    images = torch.arange(8.).view(2, 4)/8
    axes = show_slots(images, torch.tensor([3, 5]), columns=2)
    assert np.allclose(axes[0, 1].images[0].get_array(), images[1].view(2, 2)) and [a.get_title() for a in axes.flat] == ["3", "5"]

# --- slots
def test_slot_heatmap_and_its_rings():
    x, writes = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([2, -1, 0, -1])
    ax = slot_heatmap(x, writes=writes, step=8)
    assert np.allclose(ax.images[0].get_array(), x.T) and list(ax.images[0].get_extent()) == [0, 32, 2.5, -.5]
    assert [list(v) for v in ax.lines[0].get_data()] == [[4, 20], [2, 0]]

def test_show_memory_greys_empty_slots():
    drawn = show_memory(torch.ones(3, 2), torch.tensor([1., 0., .5])).images[0].get_array()
    assert np.isnan(np.ma.filled(drawn, np.nan)[1]).all() and np.isfinite(np.ma.filled(drawn, np.nan)[[0, 2]]).all()

def test_policy_plot_stacks_the_shares():
    ax = policy_plot(torch.tensor([[.5, .25, .25], [.2, .3, .5]]))
    tops = [max(v[1] for v in c.get_paths()[0].vertices if .1 < v[0] < .9 or v[0] == 0) for c in ax.collections]
    assert np.allclose(tops, [.5, .75, 1.]) and [t.get_text() for t in ax.get_legend().get_texts()] == ["topk", "uniform", "random"]

def test_slot_reuse_counts_writes():
    ax = slot_reuse_plot(torch.tensor([1, 1, -1, 0, 1]), 3, torch.tensor([1, 0, 0, 1, 0]))
    new, back = ax.containers
    assert [b.get_height() for b in new] == [1, 1, 0] and [b.get_height() for b in back] == [2, 0, 0] and ax.get_title() == "50% of 4 writes came back"

# --- graph
EDGES = torch.tensor([[0., .8, 0.], [0., 0., .4], [.01, 0., 0.]])
def test_adjacency_has_sources_as_rows(): assert np.allclose(adjacency(EDGES).images[0].get_array(), EDGES)

def test_graph_plot_draws_an_arrow_for_each_strong_edge():
    ax = graph_plot(EDGES, labels=["a", "b", "c"])
    arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == 2 and arrows[0].get_linewidth() > arrows[1].get_linewidth()
    at = {t.get_text(): np.array(t.get_position()) for t in ax.texts}
    start, end = (np.array(arrows[0]._posA_posB[i]) for i in (0, 1))
    assert np.allclose(start, at["a"], atol=1e-6) and np.allclose(end, at["b"], atol=1e-6)

def test_spread_plot():
    x = torch.tensor([[1., 0., 0.], [0., .75, .25]])
    ax = spread_plot(x)
    values = np.concatenate([np.ravel(i.get_array()) for i in ax.images]) if ax.images else np.concatenate([l.get_ydata() for l in ax.lines])
    assert np.allclose(np.sort(values)[-3:], [.25, .75, 1.])

# --- consolidation
def test_show_merge_counts_and_joins():
    keys = torch.tensor([[1., 0.], [.9, .1], [0., 1.], [0., 0.]])
    ax = show_merge(keys, torch.tensor([0, 0, 2, -1]))
    assert [len(c.get_offsets()) for c in ax.collections] == [2, 1] and len(ax.lines) == 1
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["stays (2)", "merged away (1)"]
    kept, gone = (c.get_offsets() for c in ax.collections)
    assert np.allclose(ax.lines[0].get_xydata(), [gone[0], kept[0]])

def test_show_walks_writes_each_step():
    ax = show_walks(torch.tensor([[0, 1, 2], [2, 0, -1]]), labels=["a", "b", "c"])
    assert [(t.get_text(), t.get_position()) for t in ax.texts] == [("a", (0, 0)), ("b", (1, 0)), ("c", (2, 0)), ("c", (0, 1)), ("a", (1, 1))]

# --- timelines
EVENTS = pd.DataFrame([("start", -1, -1, 0, "none"), ("allocation", 0, 0, 1, "none"), ("read", 0, 0, 3, "none"), ("removal", 0, 0, 5, "decayed"), ("allocation", 1, 1, 4, "none"), ("end", -1, -1, 9, "none")],
                      columns=["kind", "slot", "entry", "time", "cause"]).assign(stream=0, head=lambda d: np.where(d.entry < 0, -1, 0))
def test_memory_raster_draws_each_entry_from_allocation_to_end():
    ax = memory_raster(EVENTS)
    assert sorted((round(p.get_x(), 6), round(p.get_width(), 6), round(p.get_y() + p.get_height()/2)) for p in ax.patches) == [(1, 4, 0), (4, 5, 1)]
    assert list(curve(ax, "read").get_xdata()) == [3.5] and list(curve(ax, "decayed").get_xdata()) == [5] and sorted(curve(ax, "write").get_xdata()) == [1.5, 4.5]

def test_survival_curve_draws_the_table():
    table = pd.DataFrame(dict(condition="memnet", age=[0, 2, 5], survival=[1., .5, .25], low=[1., .3, .1], high=[1., .7, .5], at_risk=[8, 4, 2]))
    ax = survival_curve(table)
    assert [list(v) for v in ax.lines[0].get_data()] == [[0, 2, 5], [1., .5, .25]] and "8 entries" in ax.lines[0].get_label()

# --- one look for each series
def looks(ax): return {l.get_label(): (to_hex(l.get_color()), l.get_marker()) for l in ax.lines if not l.get_label().startswith(("_", "chance"))}

@pytest.mark.parametrize("n", [2, 7, 12, 20])
def test_unlisted_series_of_a_figure_never_look_alike(n):
    rows = pd.concat([ROWS[ROWS.model == "lstm"].assign(model=f"series {i}") for i in range(n)] + [ROWS[ROWS.model == "memnet"]])
    for ax in (accuracy_by_distance(rows, .1), learning_curves(rows, "loss", ax=plt.subplots()[1]), value_by_distance(rows, "gain"), stability_gap(rows)):
        assert len(set(looks(ax).values())) == n + 1 and looks(ax)["MemNet"] == (MODEL_STYLES["memnet"].colour.lower(), "o")

def test_a_series_looks_the_same_whatever_the_order_of_the_rows():
    rows = pd.concat([ROWS.assign(model=m) for m in ("zeta", "alpha", "beta", "lstm")])
    assert looks(accuracy_by_distance(rows, .1)) == looks(accuracy_by_distance(rows[::-1], .1)) == looks(value_by_distance(rows, "gain"))

def test_listed_series_keep_their_look_everywhere():
    assert condition_styles(["fifo", "mine", "memnet"])["fifo"] == VARIANT_STYLES["fifo"] == model_style("FIFO")
    every = [s[1:] for s in (*MODEL_STYLES.values(), *VARIANT_STYLES.values())]
    assert len(set(every)) == len(every)
    own = ("topk", "mine", "yours", "random")
    assert len({policy_colour(n, own) for n in own}) == 4 and policy_colour("topk", own) == policy_colour("topk")
