"""DLA-34 against its published wiring, written out call by call, and the loading of published weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from monolift.errors import InputError
from monolift.nn.deform import DeformConv2d
from monolift.nn.dla import DLA34, DLA34Up, IDAUp, Upsample
from monolift.nn.pretrained import load_pretrained

CLASSIFIER = 512 * 1000 + 1000  # parameters
UNUSED_PROJECTIONS = 41_728

State = dict[str, Tensor]


def released_state(projections: bool = False) -> State:
    """Random weights of DLA-34 under the published names, shapes from the paper's figure 3 and table 1.

    projections: with the two that nothing reads, as the original files have them; timm's lack them.
    """
    state: State = {}
    generator = torch.Generator().manual_seed(0)

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        fan_in = inputs * kernel**2
        state[f"{name}.weight"] = (
            torch.randn(outputs, inputs, kernel, kernel, generator=generator) / fan_in**0.5
        )

    def bn(name: str, channels: int) -> None:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{entry}"] = torch.rand(channels, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def block(name: str, inputs: int, outputs: int) -> None:
        for i, channels in enumerate((inputs, outputs), start=1):
            conv(f"{name}.conv{i}", channels, outputs, 3)
            bn(f"{name}.bn{i}", outputs)

    def project(name: str, inputs: int, outputs: int) -> None:
        conv(f"{name}.project.0", inputs, outputs, 1)
        bn(f"{name}.project.1", outputs)

    def tree(name: str, inputs: int, outputs: int, into_root: int) -> None:
        block(f"{name}.tree1", inputs, outputs)
        block(f"{name}.tree2", outputs, outputs)
        conv(f"{name}.root.conv", into_root, outputs, 1)
        bn(f"{name}.root.bn", outputs)
        if inputs != outputs:
            project(name, inputs, outputs)

    for name, inputs, outputs, kernel in (
        ("base_layer", 3, 16, 7),
        ("level0", 16, 16, 3),
        ("level1", 16, 32, 3),
    ):
        conv(f"{name}.0", inputs, outputs, kernel)
        bn(f"{name}.1", outputs)
    tree("level2", 32, 64, 2 * 64)
    for level, inputs, outputs in ((3, 64, 128), (4, 128, 256)):
        tree(f"level{level}.tree1", inputs, outputs, 2 * outputs)
        tree(f"level{level}.tree2", outputs, outputs, 3 * outputs + inputs)
        if projections:
            project(f"level{level}", inputs, outputs)
    tree("level5", 256, 512, 2 * 512 + 256)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 512, 1, 1), torch.zeros(1000)
    return state


def released_forward(s: State, image: Tensor) -> list[Tensor]:
    """The published network in inference mode, straight from its state: strides 4, 8, 16, 32."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1) -> Tensor:
        weight = s[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = s[f"{bn}.running_mean"], s[f"{bn}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{bn}.weight"], s[f"{bn}.bias"])

    def block(x: Tensor, residual: Tensor, name: str, stride: int = 1) -> Tensor:
        y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
        return (conv_bn(y, f"{name}.conv2", f"{name}.bn2") + residual).relu()

    def root(name: str, *maps: Tensor) -> Tensor:
        return conv_bn(torch.cat(maps, 1), f"{name}.root.conv", f"{name}.root.bn").relu()

    def halved_block(x: Tensor, name: str) -> Tensor:
        pooled = F.max_pool2d(x, 2)
        shortcut = conv_bn(pooled, f"{name}.project.0", f"{name}.project.1")
        return block(x, shortcut, f"{name}.tree1", stride=2)

    def deep_level(x: Tensor, name: str) -> Tensor:
        a = halved_block(x, f"{name}.tree1")
        b = block(a, a, f"{name}.tree1.tree2")
        first = root(f"{name}.tree1", b, a)
        c = block(first, first, f"{name}.tree2.tree1")
        d = block(c, c, f"{name}.tree2.tree2")
        return root(f"{name}.tree2", d, c, F.max_pool2d(x, 2), first)

    x = conv_bn(image, "base_layer.0", "base_layer.1").relu()
    x = conv_bn(x, "level0.0", "level0.1").relu()
    x = conv_bn(x, "level1.0", "level1.1", stride=2).relu()
    a = halved_block(x, "level2")
    level2 = root("level2", block(a, a, "level2.tree2"), a)
    level3 = deep_level(level2, "level3")
    level4 = deep_level(level3, "level4")
    a = halved_block(level4, "level5")
    level5 = root("level5", block(a, a, "level5.tree2"), a, F.max_pool2d(level4, 2))
    return [level2, level3, level4, level5]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def learned(state: State) -> int:
    return sum(
        value.numel() for name, value in state.items() if not name.endswith(("mean", "var", "tracked"))
    )


def test_sizes_are_the_published_ones() -> None:
    network = DLA34Up()
    base = parameters(network.base)
    assert base == 15_742_104 - CLASSIFIER  # the figure of timm's model card, without the classifier
    assert base + UNUSED_PROJECTIONS == 15_270_832  # as the original code counts
    assert learned(released_state()) == base + CLASSIFIER
    assert learned(released_state(projections=True)) == base + CLASSIFIER + UNUSED_PROJECTIONS
    assert parameters(network) - base == 3_940_336
    assert sum(isinstance(part, DeformConv2d) for part in network.modules()) == 16
    assert parameters(DLA34("batch")) == base


@pytest.mark.parametrize("projections", [False, True], ids=["timm", "original"])
def test_published_weights_give_the_published_maps(tmp_path: Path, projections: bool) -> None:
    state, path = released_state(projections), tmp_path / "dla34.safetensors"
    save_file(state, path)
    network = DLA34("batch").eval()
    report = load_pretrained(network, path)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for actual, expected in zip(network(image), released_forward(state, image), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert report.naming == "released" and report.path == path
    assert set(report.loaded) == set(network.state_dict())
    assert {name.split(".")[0] for name in report.ignored} == (
        {"fc", "level3", "level4"} if projections else {"fc"}
    )
    assert all(name.startswith(("fc.", "level3.project.", "level4.project.")) for name in report.ignored)


def test_group_norm_takes_the_affine_pair_and_leaves_the_statistics(tmp_path: Path) -> None:
    state, path = released_state(), tmp_path / "dla34.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    network = DLA34("group")
    report = load_pretrained(network, path)
    assert network.level5.root.norm.weight.equal(state["level5.root.bn.weight"])
    assert network.stem[1].bias.equal(state["base_layer.1.bias"])
    assert network.level3.tree2.tree1.conv2.weight.equal(state["level3.tree2.tree1.conv2.weight"])
    statistics = [name for name in state if name.endswith(("mean", "var", "tracked"))]
    assert set(report.ignored) == {*statistics, "fc.weight", "fc.bias"}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_own_names_round_trip(tmp_path: Path, norm: str) -> None:
    path = tmp_path / "own.safetensors"
    saved = DLA34(norm)
    save_file(saved.state_dict(), path)
    network = DLA34(norm)
    report = load_pretrained(network, path)
    assert report.naming == "monolift" and not report.ignored
    there = saved.state_dict()
    assert all(value.equal(there[name]) for name, value in network.state_dict().items())


def edited(path: Path, edit) -> Path:
    state = released_state()
    edit(state)
    save_file(state, path)
    return path


def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    network = DLA34("batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def widen(state: State) -> None:
        state["level4.tree1.root.conv.weight"] = torch.zeros(256, 513, 1, 1)

    cases = {
        r"should be \(256, 512, 1, 1\), got \(256, 513, 1, 1\)": widen,
        r"1 of \d+ entries are missing \(first: level1\.1\.running_var\)": lambda s: s.pop(
            "level1.1.running_var"
        ),
        r"1 are unknown \(first: level6\.conv\.weight\)": lambda s: s.update(
            {"level6.conv.weight": torch.ones(1)}
        ),
    }
    for i, (message, edit) in enumerate(cases.items()):
        path = edited(tmp_path / f"{i}.safetensors", edit)
        with pytest.raises(InputError, match=message) as caught:
            load_pretrained(network, path)
        assert str(path) in str(caught.value) and "dla34.in1k" in str(caught.value)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_group_norm_weights_do_not_fill_batch_norm(tmp_path: Path) -> None:
    path = tmp_path / "group.safetensors"
    save_file(DLA34("group").state_dict(), path)
    with pytest.raises(InputError, match=r"missing \(first: stem\.1\.running_mean\)"):
        load_pretrained(DLA34("batch"), path)


class Opener:
    """Pickles to a call, as hostile checkpoints do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    network = DLA34()
    with pytest.raises(InputError, match=r"absent\.pth: expected a weight file, found none"):
        load_pretrained(network, tmp_path / "absent.pth")
    for name, message in (("w.onnx", "expected .safetensors"), ("w.safetensors", "expected a safetensors file"),
                          ("w.pth", "expected a PyTorch file")):  # fmt: skip
        (tmp_path / name).write_bytes(b"neither of them" * 10)
        with pytest.raises(InputError, match=message) as caught:
            load_pretrained(network, tmp_path / name)
        assert name in str(caught.value)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="expected named tensors, got list"):
        load_pretrained(network, tmp_path / "list.pt")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    hostile, trace = tmp_path / "hostile.bin", tmp_path / "trace"
    hostile.write_bytes(pickle.dumps({"stem.0.weight": Opener(trace)}, protocol=2))
    with pytest.raises(InputError, match=r"hostile\.bin"):
        load_pretrained(DLA34(), hostile)
    assert not trace.exists()


def test_image_sides_are_checked() -> None:
    with pytest.raises(ValueError, match="multiples of 32, got 64 x 100"):
        DLA34()(torch.zeros(1, 3, 64, 100))


def test_group_norm_has_32_groups_or_16() -> None:
    norms = [part for part in DLA34Up().modules() if isinstance(part, nn.GroupNorm)]
    assert {(norm.num_channels, norm.num_groups) for norm in norms} == {
        (16, 16), (32, 32), (64, 32), (128, 32), (256, 32), (512, 32)
    }  # fmt: skip


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_enlargement_starts_as_bilinear_interpolation(factor: int) -> None:
    x = torch.randn(2, 3, 6, 7)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    actual = Upsample(3, factor)(x)
    assert actual.shape == expected.shape
    inner = (
        ...,
        slice(factor, -factor),
        slice(factor, -factor),
    )  # the transposed convolution fades at the border
    torch.testing.assert_close(actual[inner], expected[inner])


def test_up_path_is_the_published_cascade() -> None:
    """Against the eight steps written out: project the coarser map, enlarge it, add the finer one, node."""
    network = DLA34Up("batch", deformable=False).eval()

    def step(ida: IDAUp, i: int, finer: Tensor, coarser: Tensor) -> Tensor:
        return ida.node[i](finer + ida.upsample[i](ida.project[i](coarser)))

    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        s4, s8, s16, s32 = network.base(image)
        first, second, third = network.up.step
        a16 = step(first, 0, s16, s32)
        a8 = step(second, 0, s8, s16)
        b8 = step(second, 1, a8, a16)
        a4 = step(third, 0, s4, s8)
        b4 = step(third, 1, a4, a8)
        c4 = step(third, 2, b4, b8)
        last = step(network.merge, 1, step(network.merge, 0, c4, b8), a16)
        torch.testing.assert_close(network(image), last)


def test_deformable_nodes_at_rest_are_plain_ones() -> None:
    """Zero offsets and open masks: the deformable network is the plain one with the same weights."""
    torch.manual_seed(0)
    plain, deformable = DLA34Up(deformable=False).eval(), DLA34Up().eval()
    deformable.load_state_dict(plain.state_dict(), strict=False)
    for part in deformable.modules():
        if isinstance(part, DeformConv2d):
            part.conv_offset_mask.bias.data[18:] = 30.0  # its sigmoid is 1
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)
        assert expected.shape == (1, plain.out_channels, 64 // plain.stride, 96 // plain.stride)
        torch.testing.assert_close(deformable(image), expected, rtol=1e-4, atol=1e-4)


def test_every_parameter_takes_part() -> None:
    """DistributedDataParallel waits for ever for a parameter without gradient."""
    network = DLA34Up()
    network(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())
