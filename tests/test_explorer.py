"""The explorer: its callbacks without a browser, then the panel in JupyterLab in a real one."""
import html, importlib.util, json, os, re, shutil, socket, subprocess, sys, time, urllib.request
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
import nbformat, numpy as np, pandas as pd, pytest, torch
from memnet.experiments import continual
from memnet.analysis.explorer import explorer
from memnet.analysis.replay import replay_frame, replay_html, replay_steps, save_replay
from memnet.analysis.row_session import start_row_session
from memnet.analysis.row_text import TokenRow, format_row, parse_row
from memnet.analysis.row_trace import trace_row
from memnet.analysis.saved_runs import open_run, saved_runs
from memnet.analysis.small_models import train_small_model
from memnet.analysis.switches import MechanismSwitches
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.foundations.validation import IGNORE_INDEX
from memnet.tasks.context_facts import RepeatedFacts, SplitFacts
from memnet.training.schedule import generator_for

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope="module")
def session(): return start_row_session(*train_small_model(steps=50))

@pytest.fixture
def panel(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return explorer(session, root=tmp_path)

def checkout(home):
    "A folder that has this book's experiments, and results of its own."
    (home/"nbs").mkdir(); (home/"nbs"/"experiments").symlink_to(ROOT/"nbs"/"experiments")
    for name in ("settings.ini", "memnet"): (home/name).symlink_to(ROOT/name)
    return home

def continual_run(folder, **over):
    "A smoke run of the continual experiment, as the runner leaves it."
    cfg = continual.Config(**(dict(epochs=1, watch=20) | over))
    continual.run(cfg, folder)
    (folder/"params.json").write_text(json.dumps(dict(experiment="continual", config=asdict(cfg))))
    return folder

@pytest.fixture(scope="module")
def results(tmp_path_factory):
    "A folder with two runs of the continual experiment: one of a learner with slots, one of nets without."
    home = checkout(tmp_path_factory.mktemp("continual"))
    for i, group in enumerate(("memnet", "nets")): continual_run(home/"_runs"/"continual"/f"{i}-s0-x", group=group)
    return home

@pytest.fixture
def learner_panel(results):
    panel = explorer(root=results)
    panel.runs.value = str(saved_runs(results)["continual/0-s0-x"]); panel.open_button.click()
    assert not message(panel)
    return panel

def questions(session): return [t for t, y in enumerate(session.row.targets) if y != IGNORE_INDEX]
def message(panel): return html.unescape(re.sub("<.*?>", "", panel.message.value))

# ---------------------------------------------------------------- without a browser

def test_a_question_is_answered_from_its_successors_slot(session):
    "At a question the read is one hop from the slot of the item, in the slot of the answer."
    trace = trace_row(session.model, session.row)
    for t in questions(session):
        right = session.row.targets[t]
        assert trace.probs[t].argmax() == right
        head = trace.hop_weights[t, :, 1].argmax()
        writer = trace.writer[t, head, trace.hop_reads[t, head, 1].argmax()]
        assert session.row.tokens[writer] == right

def test_slider_shows_another_token(panel, session):
    t = questions(session)[-1]
    panel.slider.value = t + 1
    assert f"token {t + 1} of 64" in panel.figure_view.value and "✓" in panel.answers_view.value and not message(panel)

def test_switch_changes_the_answer_beside_the_original(panel, session):
    panel.slider.value = questions(session)[-1] + 1
    panel.switch_boxes["spreading"].value = False
    assert panel.answers_view.value.count("<caption") == 2 and "as switched: 0 of 4" in panel.answers_view.value and "all on: 4 of 4" in panel.answers_view.value
    panel.switch_boxes["spreading"].value = True
    assert panel.answers_view.value.count("<caption") == 1

def test_all_policies_off_is_refused_in_words(panel):
    for name in ("policy topk", "policy uniform", "policy random"): panel.switch_boxes[name].value = False
    assert "one policy must stay on" in message(panel)
    assert [panel.switch_boxes[f"policy {p}"].value for p in ("topk", "uniform", "random")] == [False, False, True], "a switch that cannot be off goes back on"
    assert panel.session.switches == MechanismSwitches(disabled_policies=("topk", "uniform"))

def test_a_session_that_comes_with_switches(session):
    "All on is shown as all on, and the boxes are as the session is."
    panel = explorer(session.with_disabled(("spreading", "policy random")))
    assert [name for name, box in panel.switch_boxes.items() if not box.value] == ["spreading", "policy random"] == list(panel.session.disabled())
    assert "all on: 4 of 4" in panel.answers_view.value and "as switched: 0 of 4" in panel.answers_view.value and not message(panel)
    for name in ("spreading", "policy random"): panel.switch_boxes[name].value = True
    assert panel.answers_view.value.count("<caption") == 1 and np.array_equal(panel.baseline_trace.probs, trace_row(session.model, session.row).probs)

def test_consolidate_clear_and_undo(panel):
    before = panel.baseline_trace
    panel.slider.value = 31
    panel.consolidate_button.click()
    assert "after token 31: slots in use (all heads)" in message(panel) and list(panel.baseline_trace.before_events) == [30]
    panel.clear_button.click()
    assert "→ 0, edges" in message(panel) and not panel.baseline_trace.strength[30].any()
    panel.undo_button.click()
    assert panel.baseline_trace.before_events == {} and np.allclose(panel.baseline_trace.probs, before.probs, atol=1e-6)

@pytest.mark.parametrize("text,says", [("", "empty"), ("A B Z", "'Z'"), ("A ·9999·", "9999"), ("A? B?!", "'!'"), ("A "*1100, "1100")])
def test_bad_sequences_become_messages(panel, text, says):
    panel.text.value = text
    panel.read_button.click()
    assert says in message(panel) and len(panel.session.row.tokens) == 64, "the old row stays"

def test_shorter_row_while_the_slider_is_at_the_end(panel):
    panel.slider.value = 64
    panel.text.value = "A B ·5· C D ·8· A? C?"
    panel.read_button.click()
    assert not message(panel) and panel.slider.value == panel.slider.max == 19 and "of 2 questions" in panel.answers_view.value

@pytest.mark.parametrize("folder,says", [("", "no folder"), ("nowhere", "nowhere")])
def test_bad_folders_become_messages(panel, folder, says):
    panel.folder.value = folder
    panel.open_button.click()
    assert says in message(panel)

def test_a_saved_run_opens(session, tmp_path):
    run = tmp_path/"_runs"/"associative"/"0-s0-x"
    session.model.save(run/"model")
    (run/"params.json").write_text(json.dumps(dict(experiment="unheard_of", config={})))
    panel = explorer(root=tmp_path)
    panel.runs.value = str(saved_runs(tmp_path)["associative/0-s0-x"])
    panel.open_button.click()
    assert not message(panel) and panel.session.task is None and panel.main_box.layout.display == ""

@pytest.mark.parametrize("task", [SplitFacts(), RepeatedFacts()], ids=["split", "repeated"])
def test_a_row_whose_tokens_have_contexts_is_read_as_it_was_drawn(task):
    s = start_row_session(MemNet(MemNetConfig(input_dim=task.dim, n_outputs=task.n_items, dim=16, n_layers=0, n_heads=2, n_slots=8, topk=4), torch.Generator().manual_seed(0)), task)
    row = task.sample(1, generator_for("test", 0))
    assert torch.equal(torch.tensor([s.vocabulary.vectors[i] for i in s.row.tokens]), row.inputs[0]) and list(s.row.targets) == row.targets[0].tolist()
    assert len(s.trace().probs) == len(s.row.tokens)

# ---------------------------------------------------------------- a learner of a stream, example by example

def test_only_the_continual_run_with_slots_is_listed(results):
    assert list(saved_runs(results)) == ["continual/0-s0-x"]
    assert open_run("continual/0-s0-x", results).row == open_run(saved_runs(results)["continual/0-s0-x"], results).row, "its name opens it"
    assert sum(f.stat().st_size for f in (results/"_runs"/"continual"/"0-s0-x"/"model").iterdir()) < 300_000
    with pytest.raises(ValueError, match="no saved model: runs that can be opened are continual/0-s0-x"): open_run(results/"_runs"/"continual"/"1-s0-x", results)

def test_a_continual_run_answers_as_it_did(results):
    "What is opened is the learner of the run: on all tests it has the accuracy that the run wrote down."
    folder = results/"_runs"/"continual"/"0-s0-x"
    s, table = open_run(folder), pd.read_csv(folder/"metrics.csv")
    right = (s.learner.predict(s.vocabulary.inputs).argmax(-1) == s.vocabulary.targets).float()
    found = [right[s.vocabulary.task == t].mean().item() for t in s.vocabulary.task.unique()]
    assert np.mean(found) == pytest.approx(table[(table.metric == "average_accuracy") & (table.slice == "memnet50/split")].value.item(), abs=1e-6)

def test_a_continual_run_is_stepped_and_questioned(learner_panel):
    panel = learner_panel; s = panel.session
    written = [t for t, y in enumerate(s.row.targets) if y == IGNORE_INDEX]
    assert panel.slider.description == "example" and panel.slider.max == 24 and panel.head.layout.display == panel.tau_merge.layout.display == panel.replay.layout.display == "none"
    for t in (0, written[0], 23):
        panel.slider.value = t + 1
        assert f"example {t + 1} of 24, {s.row.words[t]}" in panel.figure_view.value and not message(panel)
    assert (panel.baseline_trace.write_slot[written] >= 0).all() and panel.baseline_trace.strength[-1].sum() == panel.baseline_trace.strength[0].sum() + len(written)
    panel.text.value = "3 5 3? 5?"; panel.read_button.click()
    assert not message(panel) and "of 2 questions" in panel.answers_view.value and "<b>5</b>" in panel.answers_view.value
    panel.text.value = "3a 4zz?"; panel.read_button.click()
    assert "'4zz' is no example" in message(panel) and len(panel.session.row.words) == 4

def test_a_continual_run_is_consolidated_cleared_and_taught(learner_panel):
    panel = learner_panel
    panel.text.value = "3 " + " ".join(map(str, range(10))) + " 8? 8?"; panel.read_button.click(); panel.slider.value = 1
    before = panel.baseline_trace.probs
    panel.consolidate_button.click(); assert "slots in use 361 → 361, their reconstructions have moved by" in message(panel)
    panel.undo_button.click(); assert np.array_equal(panel.baseline_trace.probs, before)
    panel.clear_button.click(); assert "361 → 0" in message(panel) and panel.baseline_trace.strength[-1].sum() == 10
    right = sum(int(panel.baseline_trace.probs[t].argmax()) == 8 for t in (11, 12))
    panel.slider.value = 12; assert f"{right} of 2 questions right" in panel.answers_view.value
    panel.switch_boxes["memory"].value = False; assert panel.answers_view.value.count("<caption") == 2
    panel.ablation_button.click(); assert [m for m in panel.session.mechanisms() if m not in panel.table_view.value] == []
    assert not message(panel)
    panel.draw_button.click(); assert panel.slider.max == 24 and panel.session.switches.memory is False

def test_consolidation_after_clearing_works_under_every_switch(learner_panel):
    "With memory off nothing is written, but consolidation sees the same examples."
    panel = learner_panel
    panel.slider.value = 1; panel.clear_button.click()
    panel.slider.value = 20; panel.consolidate_button.click(); assert not re.search("role=.alert", panel.message.value)
    for name in panel.session.mechanisms():
        panel.switch_boxes[name].value = False
        assert not re.search("role=.alert", panel.message.value) and panel.session.disabled() == (name,) and panel.answers_view.value.count("<caption") == 2
        panel.switch_boxes[name].value = True
    panel.ablation_button.click(); assert all(m in panel.table_view.value for m in panel.session.mechanisms()) and not message(panel)

def test_a_learner_that_comes_with_switches(learner_panel):
    learner_panel.show_session(learner_panel.session.with_disabled(("merging",)))
    assert [name for name, box in learner_panel.switch_boxes.items() if not box.value] == ["merging"] and not message(learner_panel)
    assert any(learner_panel.baseline_trace.merged) and not any(learner_panel.current_trace.merged), "all on merges, as switched does not"

@pytest.mark.parametrize("kind", [["MemNet"], dict(name="MemNet"), 7])
def test_a_model_of_no_name_does_not_hide_the_others(results, tmp_path, kind):
    home = shutil.copytree(results/"_runs"/"continual"/"0-s0-x", tmp_path/"_runs"/"continual"/"good").parent
    (home/"odd").mkdir(); (home/"odd"/"model.json").write_text(json.dumps(dict(model=kind, config=dict(memory=True))))
    assert list(saved_runs(tmp_path)) == ["continual/good"]
    with pytest.raises(ValueError, match="no slots to show: runs that can be opened are continual/good"): open_run(home/"odd", tmp_path)

def test_a_net_is_opened_after_a_learner(learner_panel, session):
    learner_panel.show_session(session)
    assert learner_panel.slider.description == "token" and learner_panel.tau_merge.layout.display == "" and "token" in learner_panel.figure_view.value and not message(learner_panel)

@pytest.mark.parametrize("damage,says", [(lambda m: (m/"model.safetensors").write_bytes(b"x"), "model.safetensors is damaged"), (lambda m: (m/"model.safetensors").unlink(), "missing, damaged"),
    (lambda m: (m/"model.json").write_text("{"), "not json"), (lambda m: (m/"model.json").write_text((m/"model.json").read_text().replace('"version": 2', '"version": 7')), "version 7"),
    (lambda m: (m/"model.json").write_text((m/"model.json").read_text().replace('"budget": 12800', '"budget": 25600')), "model.json is damaged"),
    (lambda m: (m.parent/"params.json").unlink(), "which examples")], ids=["tensors", "no tensors", "json", "version", "another size", "no run"])
def test_a_broken_continual_run_is_refused_and_the_old_one_stays(learner_panel, results, tmp_path, damage, says):
    folder = shutil.copytree(results/"_runs"/"continual"/"0-s0-x", tmp_path/"_runs"/"continual"/"broken")
    damage(folder/"model")
    assert "continual/broken" in saved_runs(tmp_path), "it is listed, so that opening it says what is wrong"
    row = learner_panel.session.row
    learner_panel.folder.value = str(folder); learner_panel.open_button.click()
    assert says in message(learner_panel) and learner_panel.session.row == row

# ---------------------------------------------------------------- files

def test_views_are_saved_and_never_overwritten(panel, tmp_path):
    for name in ("a.svg", "b.png"):
        panel.export_name.value = name; panel.export_button.click()
        assert f"saved {name}" in message(panel) and (tmp_path/name).stat().st_size > 10_000
    panel.export_button.click(); assert "already" in message(panel)
    panel.export_name.value = "c.doc"; panel.export_button.click(); assert ".svg, .png or .gif" in message(panel)

def test_a_short_row_as_gif(panel, tmp_path):
    panel.text.value = "A B · A?"; panel.read_button.click()
    panel.export_name.value = "row.gif"; panel.export_button.click()
    from PIL import Image
    assert Image.open(tmp_path/"row.gif").n_frames == 4

def test_words_survive_the_panel(session):
    assert parse_row(format_row(session.row, session.vocabulary), session.vocabulary, session.task).targets == session.row.targets
    assert isinstance(session.row, TokenRow) and MechanismSwitches() == MechanismSwitches(disabled_policies=())

# ---------------------------------------------------------------- in a browser

INSTALL = "MEMNET_BROWSER_INSTALL"

def chromium():
    "A browser of the system, or None."
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

def install():
    "What the browser test needs, where the reader asks for it."
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "playwright"], check=True)
    if not chromium(): subprocess.run([sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"], check=True)

@pytest.fixture(scope="module")
def browser():
    if os.environ.get(INSTALL): install()
    how = f"install it with `pip install 'memnet[browser]'` and a Chromium (`playwright install --with-deps chromium`, or apt-get install chromium), or set {INSTALL}=1"
    if not importlib.util.find_spec("playwright"): pytest.skip(f"playwright is not installed: {how}")
    from playwright.sync_api import Error, sync_playwright
    with sync_playwright() as p:
        try: found = p.chromium.launch(executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else [])
        except Error as e: pytest.skip(f"no Chromium starts ({str(e).splitlines()[0]}): {how}")
        yield found
        found.close()

@pytest.fixture(scope="module")
def lab(tmp_path_factory, session, results):
    "A JupyterLab of its own, on a folder with one notebook and two saved runs."
    home = checkout(tmp_path_factory.mktemp("lab"))
    shutil.copytree(results/"_runs", home/"_runs")
    session.model.save(home/"_runs"/"forgetting"/"1-s0-x"/"model")
    cell = "from memnet.analysis.explorer import explorer\npanel = explorer(root='.')\npanel"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=dict(kernelspec=dict(name="python3", display_name="python3"))), home/"try.ipynb")
    news = home/"settings"/"@jupyterlab"/"apputils-extension"/"notification.jupyterlab-settings"
    news.parent.mkdir(parents=True); news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    env = os.environ | dict(PYTHONPATH=str(ROOT), JUPYTER_CONFIG_DIR=str(home/"config"), JUPYTER_DATA_DIR=str(home/"data"), JUPYTER_RUNTIME_DIR=str(home/"runtime"),
                            IPYTHONDIR=str(home/"ipython"), JUPYTERLAB_SETTINGS_DIR=str(home/"settings"), JUPYTERLAB_WORKSPACES_DIR=str(home/"spaces"), OMP_NUM_THREADS="1")
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token=",
                               "--ServerApp.password="], cwd=home, env=env, stdout=open(home/"log", "w"), stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            if server.poll() is not None: pytest.fail("JupyterLab stopped: " + (home/"log").read_text()[-800:])
            try: urllib.request.urlopen(f"{url}/api/status", timeout=2); break
            except OSError: time.sleep(.5)
        else: pytest.fail("JupyterLab does not answer: " + (home/"log").read_text()[-800:])
        yield url, home
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()

def shot(page, name):
    "A screenshot, where `MEMNET_SHOTS` names a folder."
    if os.environ.get("MEMNET_SHOTS"): page.screenshot(path=Path(os.environ["MEMNET_SHOTS"])/f"{name}.png")

class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope="module")
def replay_server(session, tmp_path_factory):
    "A plain file server with a page of a row, the same page inside another one, and the steps that it should show."
    folder = tmp_path_factory.mktemp("replay")
    story = session.with_text("A · B ·· C · D ·3· A? · C?").with_event(8, "consolidate")
    save_replay(story, folder/"row.html", "A row")
    (folder/"inside.html").write_text("<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><h1>A chapter</h1>" + replay_frame((folder/"row.html").read_text(encoding="utf-8")), encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", replay_steps(story)
    server.shutdown()

@pytest.mark.parametrize("width", [1200, 390])
def test_replay_is_stepped_with_keys_buttons_and_fingers(browser, replay_server, width):
    "A page of a row, from a plain file server: every step is shown, no error, no request beyond the page, nothing wider than the screen."
    url, steps = replay_server
    context = browser.new_context(viewport=dict(width=width, height=800), has_touch=True)
    page, wrong, asked = context.new_page(), [], []
    page.on("pageerror", lambda e: wrong.append(str(e))); page.on("request", lambda r: asked.append(r.url))
    page.goto(f"{url}/row.html")
    says, count = page.locator("#sentence"), page.locator("#count")
    assert says.inner_text() == steps[0].sentence and count.inner_text() == f"1 of {len(steps)}"
    for step in steps[1:]:                                                    # keyboard: every step
        page.keyboard.press("ArrowRight")
        assert says.inner_text() == step.sentence == page.locator("#graph").get_attribute("aria-label")
        assert page.locator("#graph circle.used, #graph circle.written").count() == sum(s > 0 for s in step.strength) and page.locator("#graph path.edge").count() == len(step.edges)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("ArrowRight"); assert count.inner_text().startswith(f"{len(steps)} of")     # the end is the end
    page.keyboard.press("Home"); assert says.inner_text() == steps[0].sentence
    page.get_by_role("button", name="step on").click(); page.get_by_role("button", name="step on").click(); page.get_by_role("button", name="step back").click()
    assert says.inner_text() == steps[1].sentence                                  # buttons
    page.locator("#row button").nth(5).click(); assert says.inner_text() == steps[5].sentence            # a word of the row
    page.get_by_label("step", exact=True).focus(); page.keyboard.press("ArrowRight"); assert says.inner_text() == steps[6].sentence   # the slider, once and not twice
    box = page.locator("#graph").bounding_box()
    def swipe(a, b):
        y, x = box["y"] + box["height"]/2, lambda f: box["x"] + box["width"]*f
        touch = context.new_cdp_session(page)
        for kind, points in (("touchStart", [dict(x=x(a), y=y)]), ("touchMove", [dict(x=x((a + b)/2), y=y)]), ("touchMove", [dict(x=x(b), y=y)]), ("touchEnd", [])): touch.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=points))
    swipe(.7, .3); assert says.inner_text() == steps[7].sentence                   # a finger, on and back
    swipe(.3, .7); assert says.inner_text() == steps[6].sentence
    page.get_by_role("button", name="play").click(); page.wait_for_function(f"document.getElementById('count').textContent.startsWith('8 of')", timeout=5000)
    page.get_by_role("button", name="pause").click()
    assert wrong == [] and {u for u in asked if not u.endswith("favicon.ico")} == {f"{url}/row.html"}
    shot(page, f"replay-{width}")
    page.goto(f"{url}/inside.html")                                           # as a chapter shows it
    inside = page.frame_locator("iframe"); inside.get_by_role("button", name="step on").click()
    assert inside.locator("#sentence").inner_text() == steps[1].sentence and page.evaluate("document.documentElement.scrollWidth") <= width and wrong == []
    context.close()

def test_replay_in_a_chapter_shows_its_buttons(browser, session):
    "In the column of the site, 600 pixels wide, nobody has to scroll inside the frame to find them, below a row of two lines either."
    page = browser.new_page(viewport=dict(width=616, height=1000))
    page.set_content(replay_frame(replay_html(session.with_text("A · B ·· C · D ·4· E · F ·3· A? ·3· C? · E?"), "Three pairs, three questions")))
    frame, button = page.locator("iframe").bounding_box(), page.frame_locator("iframe").get_by_role("button", name="step on").bounding_box()
    assert button["y"] + button["height"] <= frame["y"] + frame["height"]
    page.close()

def test_panel_in_jupyterlab(browser, lab):
    "Train, move, consolidate, switch, mistype, save: with mouse and keyboard, without an error."
    url, home = lab
    page = browser.new_page(viewport=dict(width=1500, height=1500))
    wrong = []
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto(f"{url}/lab/tree/try.ipynb?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    page.locator(".jp-Notebook .jp-InputArea-editor").first.click()
    page.keyboard.press("Shift+Enter")
    status, alert = page.locator(".jp-OutputArea [role=status]"), page.locator(".jp-OutputArea [role=alert]")
    button = lambda name: page.get_by_role("button", name=name, exact=True)
    shows = lambda text: page.locator(f".jp-OutputArea img[alt*='{text}']").wait_for(timeout=20_000)
    button("Train").wait_for(timeout=60_000)
    shot(page, "0-open")

    page.get_by_label("saved run").focus()                                     # keyboard: a list; closed, JupyterLab takes the arrows for its cells
    for key in ("Space", "ArrowDown", "ArrowDown", "Enter"): page.keyboard.press(key)
    page.wait_for_function("[...document.querySelectorAll('.jp-OutputArea input')].some(i => i.value.includes('forgetting'))")
    button("Open").focus(); page.keyboard.press("Enter")
    shot(page, "0-opening")
    shows("token")
    assert alert.filter(has_text=re.compile(".")).count() == 0
    shot(page, "0-saved-run")

    page.get_by_label("saved run").select_option("continual/0-s0-x"); button("Open").click()   # a learner, example by example
    shows("example")
    assert not page.get_by_label("merge above cosine").is_visible() and page.get_by_text("3a is written with its class").is_visible()
    shot(page, "0-learner")
    page.locator(".noUi-handle").first.focus(); page.keyboard.press("Home"); shows("example 1 of 24")
    page.locator(".jp-OutputArea .widget-play button").first.click(); shows("example 3 of 24")    # mouse: play, and pause
    page.locator(".jp-OutputArea .widget-play button").first.click()
    shot(page, "0-learner-played")
    button("Clear").click(); status.filter(has_text="no slot is left").wait_for(timeout=20_000)
    page.locator("textarea:visible").last.fill("3 5 3? 5? 8?"); button("Read").click()
    page.get_by_text("of 3 questions right").first.wait_for(timeout=20_000)
    shows("example 3 of 5, 3b")
    shot(page, "0-learner-questions")

    page.get_by_label("steps").fill("50")
    button("Train").focus(); page.keyboard.press("Enter")                      # keyboard: a button
    status.filter(has_text="4 of 4 questions").wait_for(timeout=60_000)
    shows("token 53 of 64")
    shot(page, "1-trained")

    handle = page.locator(".noUi-handle").first
    handle.focus(); page.keyboard.press("ArrowRight")                          # keyboard: the slider
    shows("token 54 of 64")
    for _ in range(3): page.keyboard.press("ArrowLeft")
    shows("token 51 of 64")
    handle.focus(); page.keyboard.press("Home")
    shows("token 1 of 64")
    play = page.locator(".jp-OutputArea .widget-play button")
    play.first.focus(); page.keyboard.press("Enter")                           # keyboard: play
    shows("token 3 of 64")
    play.first.click()                                                         # mouse: pause
    at = page.locator(".jp-OutputArea img[alt^='token']").get_attribute("alt"); page.wait_for_timeout(2600)
    assert int(page.locator(".jp-OutputArea img[alt^='token']").get_attribute("alt").split()[1]) <= int(at.split()[1]) + 1, "it goes on after pause"
    shot(page, "2-played")
    bar = page.locator(".noUi-base").first.bounding_box()                       # mouse: the slider
    page.mouse.click(bar["x"] + bar["width"]/2, bar["y"] + bar["height"]/2)
    page.locator(".jp-OutputArea img[alt*='token 3']:not([alt*='token 3 '])").wait_for(timeout=20_000)
    shot(page, "2-moved")

    page.get_by_label("merge above cosine").fill("0.3"); page.keyboard.press("Tab")
    button("Consolidate").click()
    status.filter(has_text="merged: ").wait_for(timeout=20_000)
    shows("then consolidate")
    shot(page, "3-consolidated")

    page.get_by_label("spreading").focus(); page.keyboard.press("Space")       # keyboard: a switch
    page.get_by_text("as switched:").wait_for(timeout=20_000)
    button("Try each switch").click()
    page.get_by_text("policy uniform").nth(1).wait_for(timeout=30_000)
    shot(page, "4-switched")

    page.locator("textarea:visible").last.fill("A B Zebra"); button("Read").click()
    alert.filter(has_text="'Zebra' is not in the vocabulary").wait_for(timeout=20_000)
    shot(page, "5-mistyped")
    page.locator("textarea:visible").last.fill("A B · C D ·12· A? C?"); button("Read").click()
    page.get_by_text("of 2 questions right").first.wait_for(timeout=20_000)
    assert alert.count() == 0
    button("Save view").click()
    status.filter(has_text="saved explorer.svg").wait_for(timeout=20_000)
    assert (home/"explorer.svg").stat().st_size > 10_000
    shot(page, "6-own-row")

    assert page.locator(".jp-OutputArea [data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert wrong == []
    page.close()
