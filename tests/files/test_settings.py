"""Settings from text, JSON, TOML and YAML: typed by the field, and never a traceback."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from monolift.augment.augmentation import Augmentation
from monolift.errors import InputError
from monolift.files.settings import (
    NAMES,
    Range,
    apply_settings,
    as_setting,
    changed,
    check_fields,
    differences,
    split_settings,
)
from monolift.methods import METHODS, get_method
from monolift.methods.recipe import Recipe
from monolift.methods.smoke import SmokeConfig


@dataclass(frozen=True)
class Inner:
    """Of Outer."""

    share: float = 0.5
    pair: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True)
class Outer:
    """One field of each kind."""

    count: int = 3
    ratio: float = 0.1
    flag: bool = False
    name: str = "a"
    kind: Literal["x", "y"] = "x"
    names: tuple[str, ...] = field(default=("one",), metadata={"decides": ("rows",)})
    rows: tuple[tuple[float, float], ...] = ()
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_fields("outer", self, limits={"count": Range(1, 100), "names": NAMES})


@pytest.mark.parametrize("text, name, value", [
    ("count=4", "count", 4),
    ("count=1e1", "count", 10),
    ("ratio=2", "ratio", 2.0),
    ("ratio=-1e-3", "ratio", -1e-3),
    ("flag=true", "flag", True),
    ("flag=True", "flag", True),
    ("flag=0", "flag", False),
    ("name=12", "name", "12"),
    ('name="quoted"', "name", "quoted"),
    ("name=a=b", "name", "a=b"),
    ("kind=y", "kind", "y"),
    ("names=a,b", "names", ("a", "b")),
    ('names=["a", "b"]', "names", ("a", "b")),
    ("names=('a','b')", "names", ("a", "b")),
    ("rows=[[1,2],[3,4]]", "rows", ((1.0, 2.0), (3.0, 4.0))),
    ("rows=((1,2),)", "rows", ((1.0, 2.0),)),
    ("maybe=none", "maybe", None),
    ("maybe=5", "maybe", 5),
    ("inner.pair=(0.7,2.2)", "inner", Inner(pair=(0.7, 2.2))),
    ("inner.pair=0.7,2.2", "inner", Inner(pair=(0.7, 2.2))),
    ('inner={"share": 1}', "inner", Inner(share=1.0)),
])  # fmt: skip
def test_text_becomes_the_type_of_the_field(text: str, name: str, value: Any) -> None:
    (made,) = apply_settings((Outer(),), [text])
    assert made == replace(Outer(), **{name: value})
    assert type(getattr(made, name)) is type(value)


@pytest.mark.parametrize("text, words", [
    ("count", "expected key=value"),
    ("=3", "expected key=value"),
    (".x=3", "expected key=value"),
    ("count=", "count: expected int like 3, got ''"),
    ("count=3.5", "count: expected int"),
    ("count=true", "count: expected int"),
    ("count=0", "count must be at least 1 and at most 100, got 0"),
    ("count=" + "9" * 400, "count: expected int"),
    ("ratio=" + "9" * 400, "ratio: expected float"),
    ("ratio=" + "9" * 5000, "ratio: expected float"),
    ("ratio=NaN", "ratio: expected float"),
    ("ratio=-Infinity", "ratio: expected float"),
    ("ratio=1e999", "not finite"),
    ("flag=2", "flag: expected bool"),
    ("kind=z", "kind: expected one of x, y"),
    ("names=[]", "names must hold at least one name"),
    ("names=", "names must hold at least one name"),
    ("names=[1]", "names: expected text, got 1"),
    ("names=a,a", "must not name a twice"),
    ('names=[""]', "must not hold an empty name"),
    ("rows=[[1,2,3]]", "rows: expected list of 2 numbers, got"),
    ('rows=[[1,"b"]]', "rows: expected float, got 'b'"),
    ("rows=" + "[" * 100_000, "at most 10000 characters"),
    ("rows=" + "[" * 5_000, "rows: expected"),
    ("rows=" + "(" * 5_000, "rows: expected"),
    ("inner=3", "expected its fields, as in inner.share"),
    ("inner.pair=1", "inner.pair: expected list of 2 numbers"),
    ("inner.pair=1,2,3", "inner.pair: expected list of 2 numbers"),
    ("inner.depth=1", "Inner has no depth"),
    ("inner.share.x=1", "share has no fields"),
    ("coumt=1", "did you mean count?"),
    ("zzz=1", "known are"),
])  # fmt: skip
def test_text_that_does_not_fit_is_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_settings((Outer(),), [text])
    message = str(caught.value)
    assert words in message
    assert len(message) < 300
    assert "\n" not in message


def test_the_last_of_a_name_counts_and_the_order_of_names_does_not() -> None:
    rows = "rows=[[1,2],[3,4]]"
    one, other = (apply_settings((Outer(),), s)[0] for s in ((rows, "names=a,b"), ("names=a,b", rows)))
    assert one == other == replace(Outer(), names=("a", "b"), rows=((1.0, 2.0), (3.0, 4.0)))
    assert apply_settings((Outer(),), ["count=4", "count=5"])[0].count == 5
    assert apply_settings((replace(Outer(), rows=((1.0, 2.0),)),), ["names=b"])[0].rows == ()  # decided anew
    with pytest.raises(InputError, match="given as a whole, too"):
        split_settings(["inner=3", "inner.share=1"])


def test_values_of_a_file_are_typed_strictly() -> None:
    assert changed(Outer(), {"count": 4, "inner": {"pair": [1, 2]}}) == replace(
        Outer(), count=4, inner=Inner(pair=(1.0, 2.0))
    )
    for values, words in (
        ({"count": "4"}, "run.toml: count: expected int like 3, got '4'"),
        ({"flag": 1}, "run.toml: flag: expected bool like False, got 1"),
        ({"names": "one"}, "run.toml: names: expected list of names"),
        ({"inner": {"share": None}}, "run.toml: inner.share: expected float"),
        ({"1": 2}, "run.toml: 1: Outer has no 1"),
    ):
        with pytest.raises(InputError, match=words):
            changed(Outer(), values, "run.toml: ")


def test_differences_are_settings() -> None:
    other = replace(Outer(), count=9, name="b c", names=("x", "y"), inner=Inner(pair=(3.0, 4.0)))
    found = differences(Outer(), other)
    assert found["inner.pair"] == ((1.0, 2.0), (3.0, 4.0))
    settings = [as_setting(name, value) for name, (_, value) in found.items()]
    assert apply_settings((Outer(),), settings) == [other]


# -- the settings that there are --------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [
    "head_channels=0", "head_channels=-16", "head_channels=100000", "classes=[]", "classes=[1]", "classes=Car,Car",
    "input_width=3200000", "input_width=0", "input_width=-32", "input_width=833", "top_k=0", "depth_std=0", "sizes=[[1,2,3]]",
    "sizes=[[1,2,-3],[1,2,3],[1,2,3]]", "focal=-1", "size_limit=0", "clip=-1", "ema=2", "ema=1", "ema=-0.1", "weight_decay=-1",
    "warmup=NaN", "warmup=-1", "warmup=1", "epochs=0", "epochs=1e30", "batch_size=0", "lr=0", "lr=-1", "lr=" + "9" * 400,
    "lr=inf", "bias_lr_factor=-1", "backbone_lr_factor=-1", 'milestones=["a"]', "milestones=[2]", "schedule=linear",
    "optimizer=lion", "precision=float16", "freeze=[1]", "augmentation=3", "augmentation=[]", "augmentation.mirror=NaN",
    "augmentation.mirror=2", "augmentation.scale=(2.2,0.7)", "augmentation.scale=(0,1)", "augmentation.scale=1",
    "augmentation.shift=-1", "augmentation.recolor=9", "augmentation.paste=2", "augmentation.paste_up_to=0", "nms=2",
    "quirks=1", "quirks.bgr=3", "quirks.regression=l2", "boxes2d_fusion=-1", "min_height=-1",
])  # fmt: skip
def test_senseless_values_are_refused(setting: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_settings((SmokeConfig(), Recipe()), [setting])
    assert setting.partition("=")[0].split(".")[-1] in str(caught.value).replace(
        "augmentation: expected", "augmentation"
    )


def test_a_wrong_value_in_python_is_the_same_error() -> None:
    with pytest.raises(InputError, match="recipe clip must be at least 0, got -1"):
        Recipe(clip=-1)
    with pytest.raises(InputError, match=r"augmentation scale must be \(smallest, largest\)"):
        Augmentation(scale=(2.0, 1.0))


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_every_method_has_a_limit_or_none_on_purpose(name: str) -> None:
    """Minus a billion is refused for every number of every configuration."""
    method = get_method(name)
    config = method.config()
    for key, value in vars(config).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            with pytest.raises(InputError, match=key):
                apply_settings((config,), [f"{key}=-1000000000"])
