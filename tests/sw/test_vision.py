"""The zoo's networks for ImageNet: their state is torchvision's. And the front end with every network of the zoo."""

import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.train import load_weights
from shiftwright.sw.zoo import NETWORKS, network_info
from tests.graphs import execute

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMETERS = {"alexnet": 61_100_840, "vgg16": 138_357_544, "googlenet": 6_624_904, "resnet18": 11_689_512,
              "resnet50": 25_557_032, "mobilenet_v1": 4_231_976, "mobilenet_v2": 3_504_872}
TENSORS = {"alexnet": 16, "vgg16": 32, "googlenet": 344, "resnet18": 122, "resnet50": 320, "mobilenet_v1": 164,
           "mobilenet_v2": 314}
"""Entries of the state dict; those of torchvision's networks."""
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "alexnet": {
        "features.0.weight": (64, 3, 11, 11), "features.3.weight": (192, 64, 5, 5), "features.6.bias": (384,),
        "features.8.weight": (256, 384, 3, 3), "features.10.weight": (256, 256, 3, 3),
        "classifier.1.weight": (4096, 9216), "classifier.4.weight": (4096, 4096), "classifier.6.bias": (1000,)},
    "vgg16": {
        "features.0.weight": (64, 3, 3, 3), "features.2.bias": (64,), "features.7.weight": (128, 128, 3, 3),
        "features.14.weight": (256, 256, 3, 3), "features.17.weight": (512, 256, 3, 3),
        "features.28.weight": (512, 512, 3, 3), "classifier.0.weight": (4096, 25088),
        "classifier.3.bias": (4096,), "classifier.6.weight": (1000, 4096)},
    "googlenet": {
        "conv1.conv.weight": (64, 3, 7, 7), "conv1.bn.num_batches_tracked": (), "conv2.conv.weight": (64, 64, 1, 1),
        "conv3.bn.bias": (192,), "inception3a.branch1.conv.weight": (64, 192, 1, 1),
        "inception4a.branch2.1.conv.weight": (208, 96, 3, 3), "inception4d.branch4.1.conv.weight": (64, 512, 1, 1),
        "inception4e.branch3.0.conv.weight": (32, 528, 1, 1), "inception4e.branch3.1.conv.weight": (128, 32, 3, 3),
        "inception4e.branch3.1.bn.running_var": (128,), "inception5b.branch2.0.conv.weight": (192, 832, 1, 1),
        "fc.weight": (1000, 1024)},
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7), "bn1.running_mean": (64,), "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer2.0.downsample.1.running_var": (128,),
        "layer3.1.bn2.weight": (256,), "layer4.1.conv2.weight": (512, 512, 3, 3), "fc.weight": (1000, 512)},
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1), "layer2.3.conv1.weight": (128, 512, 1, 1),
        "layer3.5.conv2.weight": (256, 256, 3, 3), "layer4.0.downsample.1.bias": (2048,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1), "layer4.2.bn3.num_batches_tracked": (), "fc.bias": (1000,)},
    "mobilenet_v1": {
        "features.0.0.weight": (32, 3, 3, 3), "features.1.0.0.weight": (32, 1, 3, 3),
        "features.1.1.0.weight": (64, 32, 1, 1), "features.13.1.1.running_mean": (1024,),
        "classifier.weight": (1000, 1024)},
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3), "features.0.1.running_mean": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3), "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,), "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.17.conv.1.0.weight": (960, 1, 3, 3), "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.17.conv.3.running_var": (320,), "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280)},
}
STRIDES = {"resnet50": {"layer2.0.conv1": 1, "layer2.0.conv2": 2}, "mobilenet_v1": {"features.12.0.0": 2,
                                                                                    "features.13.0.0": 1}}
HEAVY = ("alexnet", "vgg16", "resnet50")


@pytest.fixture
def bare():
    """Networks without values, which take no time: for names and shapes."""
    def build(name):
        with torch.device("meta"):
            return network_info(name).build()
    return build


@pytest.mark.parametrize("name", PARAMETERS)
def test_state(name, bare):
    info, module = network_info(name), bare(name)
    assert (info.input_shape, info.dataset) == ((3, 224, 224), "imagenet")
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]
    state = module.state_dict()
    assert len(state) == TENSORS[name]
    assert {key: tuple(state[key].shape) for key in SHAPES[name]} == SHAPES[name]
    for path, stride in STRIDES.get(name, {}).items():
        assert module.get_submodule(path).stride == (stride, stride)


def test_attributes_that_no_shape_shows(bare):
    googlenet = bare("googlenet")
    assert {module.eps for module in googlenet.modules() if isinstance(module, nn.BatchNorm2d)} == {0.001}
    pools = [module for module in googlenet.modules() if isinstance(module, nn.MaxPool2d)]
    assert len(pools) == 13 and all(pool.ceil_mode for pool in pools)
    dropouts = {name: [module.p for module in bare(name).modules() if isinstance(module, nn.Dropout)]
                for name in PARAMETERS}
    assert dropouts == {"alexnet": [0.5] * 2, "vgg16": [0.5] * 2, "googlenet": [0.2], "resnet18": [], "resnet50": [],
                        "mobilenet_v1": [], "mobilenet_v2": [0.2]}
    assert bare("alexnet").avgpool.output_size == (6, 6) and bare("vgg16").avgpool.output_size == (7, 7)


@pytest.mark.parametrize(("name", "expected"), [
    ("googlenet", lambda pixel: [(pixel / 255 - 0.5) / 0.5] * 3),
    ("resnet18", lambda pixel: [(pixel / 255 - mean) / deviation for mean, deviation in (
        (0.485, 0.229), (0.456, 0.224), (0.406, 0.225))])])
def test_images_are_normalized_as_the_published_weights_expect(name, expected):
    module = network_info(name).build()
    for pixel in (0, 128, 255):
        found = module.normalize(torch.full((1, 3, 1, 1), pixel / 256)).flatten()
        assert found.tolist() == pytest.approx(expected(pixel), abs=1e-5)


def scramble(module):
    """Batch-norm statistics and parameters at random, moderate so that logits keep their order of magnitude."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.normal_(each.running_mean, 0, 0.1)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
            nn.init.uniform_(each.weight, 0.6, 1.0)
            nn.init.normal_(each.bias, 0, 0.1)
    return module.eval()


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.regress] if name in HEAVY else [])
                                  for name in NETWORKS])
def test_graph_computes_what_the_network_computes(name, seed):
    info = network_info(name)
    torch.manual_seed(seed)
    module = scramble(info.build())
    images = torch.randint(256, (1, *info.input_shape)) / 256
    with torch.no_grad():
        expected = module(images).double()
    found = execute(capture(module, info.input_shape), images.double()).flatten(1)
    print(f"{name}: deviation {expected.std():.3g}, error {(found - expected).abs().max():.3g}")
    assert 0.01 < expected.std() < 100
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * min(1, float(expected.std())))


def test_auxiliary_classifiers_of_googlenet_are_left_out(tmp_path):
    torch.manual_seed(3)
    module = scramble(network_info("googlenet").build())
    state = module.state_dict() | {
        "aux1.conv.conv.weight": torch.ones(128, 512, 1, 1), "aux1.conv.bn.weight": torch.ones(128),
        "aux2.fc1.weight": torch.ones(1024, 2048), "aux2.fc2.bias": torch.ones(1000)}
    torch.save(state, tmp_path / "googlenet.pth")
    found = load_weights("googlenet", tmp_path / "googlenet.pth")
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(found(images), module(images))
    fresh = network_info("googlenet").build()
    fresh.load_state_dict(state)
    assert "aux2.fc2.bias" in state
    with pytest.raises(RuntimeError, match="aux3.weight"):
        fresh.load_state_dict(state | {"aux3.weight": torch.ones(1)})


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(4)
    return scramble(network_info("resnet18").build())


@pytest.mark.parametrize("form", ["bare", "state_dict", "module."])
def test_published_weights_load(tmp_path, resnet18, form):
    """Old ones, from before batch norm counted its batches, too."""
    state = {key: value for key, value in resnet18.state_dict().items() if "num_batches" not in key}
    if form == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save(state if form == "bare" else {"state_dict": state, "epoch": 90}, tmp_path / "resnet18.pth")
    found = load_weights("resnet18", tmp_path / "resnet18.pth")
    for key, value in resnet18.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("fc.bias"), "it lacks fc.bias"),
    (lambda state: [state.pop("fc.bias"), state.pop("bn1.bias")], r"it lacks bn1.bias \(1 more\)"),
    (lambda state: state.update(aux1=torch.ones(1)), "it has the unknown aux1"),
    (lambda state: [state.update(fc1=torch.ones(1)), state.pop("fc.bias")],
     "it lacks fc.bias and it has the unknown fc1"),
    (lambda state: state.update({"fc.weight": torch.ones(10, 512)}), r"fc.weight is \(10, 512\), not \(1000, 512\)"),
])
def test_weights_that_do_not_fit(tmp_path, resnet18, change, message):
    state = dict(resnet18.state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=f"w.pth: its tensors don't fit network 'resnet18': {message}; name the "
                                         f"network that they were saved from$"):
        load_weights("resnet18", tmp_path / "w.pth")


def test_commands_say_where_the_images_belong(tmp_path, shiftwright, monkeypatch):
    monkeypatch.delenv("SHIFTWRIGHT_DATA", raising=False)
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path))
    done = shiftwright("train", "resnet18", "-o", tmp_path / "x.safetensors")
    assert done.code == 2
    assert done.err.startswith("shiftwright: data set imagenet (train) is not here: train/<WordNet ID>/*.JPEG not ")
