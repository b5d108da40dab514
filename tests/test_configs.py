"""Every config can be used alone, refuses what it does not know, and goes to json and back."""
import importlib, json, pkgutil
from dataclasses import FrozenInstanceError, fields, is_dataclass
import pytest
import memnet
from memnet.foundations.config import Config

CORE = ("foundations", "memory", "dreaming", "models", "tasks", "training")

def configs():
    "Every subclass of `Config` in the core, by name."
    for part in CORE:
        package = importlib.import_module(f"memnet.{part}")
        for module in pkgutil.iter_modules(package.__path__): importlib.import_module(f"memnet.{part}.{module.name}")
    found, todo = {}, [Config]
    while todo:
        for c in todo.pop().__subclasses__():
            if c.__module__.startswith("memnet.") and c.__name__ not in found: found[c.__name__] = c; todo.append(c)
    return found

ALL = configs()
own = lambda c: [f.name for f in fields(c) if f.name in c.__dict__.get("__annotations__", {})]

@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_alone_frozen_and_back(config):
    if "__dataclass_fields__" not in config.__dict__: return   # an abstract base without fields of its own
    try: made = config()
    except TypeError: return   # a base without defaults
    assert config.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(ValueError, match="no field 'mistyped'"): config.from_dict(made.to_dict() | dict(mistyped=1))
    with pytest.raises(FrozenInstanceError): setattr(made, "mistyped", 1)

@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_parts_do_not_share_a_field(config):
    bases = [b for b in config.__mro__ if is_dataclass(b)]
    every = [f for b in bases for f in own(b)]
    assert sorted({f for f in every if every.count(f) > 1}) == []

def test_a_model_config_gives_the_settings_of_each_part():
    from memnet import MemNetConfig
    cfg = MemNetConfig.tiny()
    for part in MemNetConfig.__mro__[1:]:
        if is_dataclass(part) and issubclass(part, Config) and part is not Config and fields(part): assert {f: getattr(cfg, f) for f in own(part)}.items() <= cfg.part(part).to_dict().items()
