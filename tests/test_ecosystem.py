"""A model of ours in the loops of others, with the real packages (extra `ecosystem`); what is not installed is skipped, and says so."""
import copy, pickle, re, sys, types
import pytest, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from memnet import MemNet, MemNetConfig, fit, set_memory_path
from memnet.foundations.trees import tree_leaves
from memnet.tasks.streams import split_digits
from memnet.training.environment_policy import EnvironmentPolicy
from memnet.training.learner_adapters import avalanche_strategy
from memnet.training.learners import MergeConfig, MergeLearner
from memnet.training.loss_model import LossModel
from memnet.training.schedule import TrainConfig

torch.set_num_threads(1)
quiet = pytest.mark.filterwarnings("ignore")   # what other packages warn of is theirs

def mend_torchvision():
    "A CUDA build of torchvision beside a CPU build of torch misses a compiled operator that nothing here calls; without its entry the package imports, and with it what imports it."
    try: import torchvision
    except ImportError: return
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]: del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

def package(name):
    mend_torchvision()
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'memnet[ecosystem]'")

def gen(seed=0): return torch.Generator().manual_seed(seed)
def tokens(*shape, seed=1): return torch.randint(0, 11, shape, generator=gen(seed))
def tiny(**over): return MemNet(MemNetConfig.tiny(**over), gen(0))
def rows(n=8): return TensorDataset(tokens(n, 12), tokens(n, 12, seed=2))
def moved(model): return not torch.equal(next(model.parameters()), next(tiny().parameters()))
def weights(model): return torch.cat([p.detach().flatten() for p in model.parameters()])

# --- data-parallel training, two processes
def ddp_step(net, loss_of, state=None):
    loss, state = loss_of(net, state)
    loss.backward()
    with torch.no_grad():
        for p in net.parameters(): p.sub_(.1*p.grad if p.grad is not None else 0.)
    net.zero_grad()
    return state

def ddp_cases(rank, n):
    "Name -> model and what is learned from the rows of one process; streams go on from step to step."
    mine = lambda z: z.chunk(n)[rank]
    x, y = mine(tokens(4, 12)), mine(tokens(4, 12, seed=2))
    def bare(net, state):
        model, out = getattr(net, "module", net), net(x, state=state)
        return model.objective(out, y)["total"], model.detach_state(out.state)
    def adapted(net, state): return net(x, labels=y)["loss"], None
    no_terms = dict(w_hallucination=0., w_utilisation=0., w_sparsity=0.)
    return {"whole objective": (tiny(), bare), "task alone": (LossModel(tiny(), "task"), adapted), "task alone, by its weights": (tiny(**no_terms), bare)}

def ddp_worker(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ends = {}
    for name, (model, loss_of) in ddp_cases(rank, 2).items():
        net, state = nn.parallel.DistributedDataParallel(model), None
        for _ in range(3): state = ddp_step(net, loss_of, state)
        ends[name] = weights(model)
    torch.save(ends, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()

def test_two_processes_learn_what_one_learns(tmp_path):
    if not torch.distributed.is_available(): pytest.skip("this build of torch has no torch.distributed")
    torch.multiprocessing.spawn(ddp_worker, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path/f"{r}.pt") for r in (0, 1))
    for name, (model, loss_of) in ddp_cases(0, 1).items():
        state = None
        for _ in range(3): state = ddp_step(model, loss_of, state)
        assert torch.equal(first[name], second[name]) and torch.allclose(first[name], weights(model), atol=1e-5), name

# --- loops of others
@quiet
def test_fabric():
    package("lightning")
    from lightning.fabric import Fabric
    fabric = Fabric(accelerator="cpu", devices=1)
    model, state = tiny(), None
    net, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), .1))
    for x, y in fabric.setup_dataloaders(DataLoader(rows(), batch_size=4)):
        with torch.autocast("cpu", torch.bfloat16): out = net(x, state=state)      # the bare model, with a state that goes on
        fabric.backward(net.objective(out, y)["total"])
        optimizer.step(); optimizer.zero_grad()
        state = model.detach_state(out.state)
    casting = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed").setup_module(tiny())
    with pytest.raises(ValueError, match="rounds a memory"): casting(x, state=state)   # it casts arguments, a state too
    assert moved(model) and state.memory.clock.tolist() == [24]*4 and {z.dtype for _, z in tree_leaves(state.memory) if z.is_floating_point()} == {torch.float32}

@quiet
def test_lightning_trainer(tmp_path):
    package("lightning")
    import lightning
    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = LossModel(tiny())
        def training_step(self, batch, index):
            loss = self.net(batch[0], labels=batch[1])["loss"]
            self.log("loss", loss)
            return loss
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), .1)
    module = Training()
    trainer = lightning.Trainer(accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, DataLoader(rows(), batch_size=4))
    trainer.save_checkpoint(tmp_path/"run.ckpt")
    again = Training()
    again.load_state_dict(torch.load(tmp_path/"run.ckpt", weights_only=True)["state_dict"])
    assert moved(module.net.model) and torch.equal(weights(again), weights(module)) and trainer.callback_metrics["loss"].isfinite()

@quiet
def test_accelerate(tmp_path):
    accelerate = package("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = tiny()
    net, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), .1), DataLoader(rows(), batch_size=4))
    state = None
    for x, y in loader:
        out = net(x, state=state)
        accelerator.backward(model.objective(out, y)["total"])
        optimizer.step(); optimizer.zero_grad()
        state = model.detach_state(out.state)
    bare = accelerator.unwrap_model(net)
    bare.save(tmp_path)
    assert moved(bare) and out.logits.dtype == torch.float32 and torch.equal(weights(MemNet.load(tmp_path)), weights(bare)) and state.memory.clock.tolist() == [24]*4

@quiet
def test_hugging_face_trainer(tmp_path):
    transformers = package("transformers"); package("accelerate")
    data = [dict(input_ids=x, labels=y) for x, y in rows()]
    def trainer(steps):
        arguments = transformers.TrainingArguments(str(tmp_path), max_steps=steps, per_device_train_batch_size=4, save_steps=2, logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True)
        return transformers.Trainer(LossModel(tiny()), arguments, train_dataset=data, eval_dataset=data)
    whole = trainer(4)
    whole.train()
    model = whole.model
    assert moved(model.model) and whole.evaluate()["eval_loss"] > 0 and whole.predict(data).predictions.shape == (8, 12, 11)
    assert model.config.use_cache is not None and not hasattr(model.model.config, "use_cache")     # what it writes on the config stays outside of ours
    resumed = trainer(4)
    resumed.train(resume_from_checkpoint=str(tmp_path/"checkpoint-2"))
    assert torch.equal(weights(resumed.model), weights(model))
    from safetensors.torch import load_file
    again = LossModel(tiny())
    again.load_state_dict(load_file(tmp_path/"checkpoint-4"/"model.safetensors"))
    again.save_pretrained(tmp_path/"bare")
    assert torch.equal(weights(MemNet.load(tmp_path/"bare")), weights(model.model))

@quiet
def test_optuna_searches_over_a_config():
    optuna = package("optuna")
    from memnet.tasks.long_range import LongRangeRecall
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = LongRangeRecall(seq_len=32, n_pairs=2)
    def objective(trial):
        cfg = MemNetConfig.tiny(vocab_size=task.vocab_size, n_slots=trial.suggest_categorical("n_slots", [4, 8]), topk=trial.suggest_int("topk", 2, 6))   # more slots in a read than there are is no config
        result = fit(MemNet(cfg), task, TrainConfig(steps=1, batch_size=2, eval_batches=1, lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)), progress=False)
        return result.last("valid/loss")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, 4, catch=(ValueError,))
    assert study.best_value > 0 and all(("topk" in t.params and t.params["topk"] > t.params["n_slots"]) == (t.state.name == "FAIL") for t in study.trials)

@quiet
def test_numbers_go_to_tensorboard_and_to_functions_of_others(tmp_path):
    package("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from memnet.tasks.long_range import LongRangeRecall
    task, cfg, sent = LongRangeRecall(seq_len=32, n_pairs=2), TrainConfig(steps=2, batch_size=2, eval_batches=1), []
    model = lambda: MemNet(MemNetConfig.tiny(vocab_size=task.vocab_size))
    result = fit(model(), task, cfg, tmp_path/"run", progress=False, log="tensorboard")
    events = EventAccumulator(str(tmp_path/"run")).Reload()
    fit(model(), task, cfg, progress=False, log=lambda metrics, step=None: sent.append((step, metrics)))       # the signature of mlflow.log_metrics; wandb.log(data, step) takes the same call
    assert {e.step: e.value for e in events.Scalars("train/total")}.keys() == {1, 2} and events.Scalars("valid/loss")[0].value == pytest.approx(result.last("valid/loss"))
    assert [step for step, _ in sent] == [1, 2] and set(events.Tags()["scalars"]) == set().union(*(m for _, m in sent))
    assert all(re.fullmatch(r"[\w./ -]+", name) for _, metrics in sent for name in metrics)                    # what MLflow allows in a name

@quiet
def test_avalanche_strategy():
    package("avalanche")
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
    from avalanche.training.plugins import EvaluationPlugin
    stream = split_digits(0)
    parts = [(e.inputs, e.targets) for e in stream.experiences][:2]
    benchmark = tensors_benchmark(train_tensors=parts, test_tensors=list(stream.test_sets[:2]), task_labels=[0, 0], complete_test_set_only=False)
    learner = MergeLearner(MergeConfig(n_inputs=stream.n_inputs, n_classes=10, n_slots=40), gen())
    strategy = avalanche_strategy(learner, evaluator=EvaluationPlugin(accuracy_metrics(experience=True), forgetting_metrics(experience=True), loggers=[]), eval_mb_size=256)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        found = strategy.eval(benchmark.test_stream)
    for i, (x, y) in enumerate(stream.test_sets[:2]):
        own = (learner.predict(x).argmax(-1) == y).float().mean().item()
        assert found[f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{i}"] == pytest.approx(own, abs=1e-6) and own > .7
    assert any("Forgetting" in name for name in found)

@quiet
def test_card_games_are_those_of_popgym():
    package("gymnasium"); package("popgym")
    import numpy as np
    from memnet.foundations.validation import IGNORE_INDEX
    from memnet.tasks.card_games import AUTOENCODE_LEVELS, REPEAT_LEVELS, ConcentrationGame, RepeatGame, RepeatState, card_faces
    from popgym.envs import autoencode, concentration, repeat_previous
    for i, level in enumerate(("easy", "medium", "hard")):
        task = REPEAT_LEVELS[level]
        env, game = getattr(repeat_previous, "RepeatPrevious" + level.title())(), RepeatGame(task)
        seen, _ = env.reset(seed=i)
        dealt = card_faces(torch.tensor(env.deck.idx[::-1].copy()))            # cards are dealt from the end
        state, over, steps = RepeatState(dealt.unsqueeze(0), 0), False, 0
        answers = task.solve(dealt[:-1].tolist())
        while not over:
            assert seen == dealt[steps]
            a = max(answers[steps], 0) if steps % 3 else (steps*7) % 4          # right ones and others
            ours = game.step(state, torch.tensor([a]))
            seen, reward, over, _, _ = env.step(a)
            assert ours.observation.item() == seen and abs(ours.reward.item() - reward) < 1e-7 and ours.done.item() == over
            state, steps = ours.state, steps + 1
        assert steps == game.length == task.n_cards - 1

        task, env = AUTOENCODE_LEVELS[level], getattr(autoencode, "Autoencode" + level.title())()
        (flag, suit), _ = env.reset(seed=i)
        row, rewards, answers = [4*flag + suit], [], []
        while True:
            answers = task.solve(row)
            (flag, suit), reward, over, _, _ = env.step(max(answers[-1], 0))
            rewards.append(reward)
            if over: break
            row.append(4*flag + suit)
        assert len(row) == 2*task.n_cards - 1 and abs(sum(rewards) - 1) < 1e-6   # the reference solution earns everything
        assert [r > 0 for r in rewards] == [a != IGNORE_INDEX for a in answers]
        dealt = card_faces(torch.tensor(env.deck.idx[::-1].copy()))
        assert row == [4 + s for s in dealt[:-1].tolist()] + [dealt[-1].item()] + [0]*(task.n_cards - 1)

        env, game = getattr(concentration, "Concentration" + level.title())(), ConcentrationGame(*((1, "colour"), (2, "colour"), (1, "rank"))[i])
        for choices in (game.n_actions, 9, 3):
            seen, _ = env.reset(seed=i)
            faces = card_faces(torch.tensor(env.deck.idx), game.face).unsqueeze(0)
            ours, over, draw = game.reset(1, gen(i)), False, np.random.default_rng(choices)
            ours = ours._replace(state=ours.state._replace(faces=faces))
            while not over:
                assert ours.observation[0].tolist() == seen.tolist()
                a = int(draw.integers(choices))
                seen, reward, terminated, truncated, _ = env.step(a)
                ours, over = game.step(ours.state, torch.tensor([a])), terminated or truncated
                assert abs(ours.reward.item() - reward) < 1e-6 and ours.done.item() == over
            assert ours.observation[0].tolist() == seen.tolist()

@quiet
def test_acting_in_popgym():
    package("gymnasium"); package("popgym")
    import gymnasium, numpy as np
    from popgym.envs.repeat_previous import RepeatPreviousEasy
    env = RepeatPreviousEasy()
    model = MemNet(MemNetConfig.tiny(**EnvironmentPolicy.sizes(env))).eval()
    policy, seen = EnvironmentPolicy(model, env), []
    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        started = done = True
        while done:
            seen.append((observation, started))
            action = policy.act(observation, started, gen(len(seen)))
            observation, _, terminated, truncated, _ = env.step(action)
            started, done = False, not (terminated or truncated)
    with torch.no_grad():
        one = torch.cat([policy.encode(o) for o, _ in seen]).unsqueeze(0)
        want = model(one, reset=torch.tensor([[s for _, s in seen]])).logits[:, -1]
    again = EnvironmentPolicy(model, env)
    for o, s in seen: last = again(o, s)
    assert torch.allclose(last, want, atol=1e-5) and sum(s for _, s in seen) == 2
    envs = gymnasium.vector.SyncVectorEnv([RepeatPreviousEasy]*3)
    policy, (observations, _), started = EnvironmentPolicy(model, envs), envs.reset(seed=0), np.ones(3, bool)
    for _ in range(60):
        observations, _, terminated, truncated, _ = envs.step(policy.act(observations, started))
        started = terminated | truncated
    assert (policy.state.memory.clock < 60).all() and policy(observations, started).shape == (3, 4)

# --- what torch does with a whole model
def test_copies_pickles_and_a_model_without_numbers():
    model, x = tiny(dream_every=1, w_hindsight=.1), tokens(2, 20)
    model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))): assert torch.equal(other(x).logits, model(x).logits)
    with torch.device("meta"): bare = MemNet(model.config)
    assert all(p.is_meta for p in bare.parameters())
    bare = bare.to_empty(device="cpu")
    bare.load_state_dict(model.state_dict())
    assert torch.equal(bare(x).logits, model(x).logits)

def test_gradients_by_torch_func_one_row_at_a_time():
    model, x, y = set_memory_path(tiny(), "reference"), tokens(2, 12), tokens(2, 12, seed=2)
    numbers = dict(model.named_parameters())
    def loss(p, x, y): return nn.functional.cross_entropy(torch.func.functional_call(model, p, (x.unsqueeze(0),)).logits[0], y)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(numbers, x, y)
    for r in range(2):
        want = torch.autograd.grad(loss(numbers, x[r], y[r]), list(numbers.values()), allow_unused=True)
        for (name, g), w in zip(each.items(), want): assert torch.allclose(g[r], torch.zeros_like(g[r]) if w is None else w, atol=1e-5), name
