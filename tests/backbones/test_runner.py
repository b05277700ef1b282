"""The runner: the backbone's own features, the same bits on any number of threads."""

import logging

import pytest
import timm
import torch
from torch import Tensor, nn

from dfl.backbones import Backbone, FusedBackbone, TimmBackbone
from dfl.backbones.engines import MICRO_BATCH, Encode, _is_linear
from dfl.backbones.precision import stem_of
from dfl.backbones.runner import Runner
from dfl.errors import BackboneError

SIZE = 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for seed, model in enumerate(("test_vit", "test_resnet")):
        torch.manual_seed(seed)
        files[model] = str(folder / f"{model}.safetensors")
        save_file(timm.create_model(model).state_dict(), files[model])
    return files


def fused(weights: dict[str, str]) -> FusedBackbone:
    vit = TimmBackbone(
        "test_vit", ["block0.cls", "pooled"], weights=weights["test_vit"], input_size=SIZE
    )
    net = TimmBackbone("test_resnet", weights=weights["test_resnet"], input_size=SIZE)
    return FusedBackbone({"vit": vit, "net": net})


def images(count: int = 2 * MICRO_BATCH + 3) -> Tensor:
    shape = (count, 3, SIZE, SIZE)
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(7)
    )


def run(runner: Runner, image: Tensor) -> dict[str, Tensor]:
    with runner:
        pending = [runner.submit(name, image) for name in ("vit", "net")]
        return {name: value for layer in pending for name, value in layer.result().items()}


def test_runner__gives_what_the_backbone_gives(weights) -> None:
    image = images()
    expected = fused(weights)(image)
    found = run(Runner(fused(weights)), image)
    assert list(found) == list(expected) == ["vit.block0.cls", "vit.pooled", "net.pooled"]
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_runner__same_bits_on_any_number_of_threads(weights, precision) -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(run(Runner(fused(weights), precision=precision), images()))
        assert torch.get_num_threads() == threads  # given back
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name])


def test_runner__batches_of_whole_micro_batches_give_the_same_bits(weights) -> None:
    image = images(4 * MICRO_BATCH)
    whole = run(Runner(fused(weights)), image)
    with Runner(fused(weights)) as runner:
        pending = [runner.submit("net", chunk) for chunk in image.split(2 * MICRO_BATCH)]
        halves = torch.cat([layer.result()["net.pooled"] for layer in pending])
    assert torch.equal(whole["net.pooled"], halves)


@pytest.mark.parametrize(
    ("precision", "least"), [("bf16-mixed", 0.999), ("bf16-true", 0.995), ("16-mixed", 0.9999)]
)
def test_runner__lower_precision_stays_close(weights, precision, least: float) -> None:
    image = images(8)
    expected = fused(weights)(image)
    for name, value in run(Runner(fused(weights), precision=precision), image).items():
        assert torch.cosine_similarity(value, expected[name]).min() > least
        assert not torch.equal(value, expected[name])


class Edges(Backbone):
    """The difference of neighbouring pixels, which is where faint traces are."""

    def __init__(self) -> None:
        network = nn.Conv2d(3, 2, (1, 2), bias=False)
        network.weight.data = torch.tensor([-0.7, 0.7]).expand(2, 3, 1, 2).clone()
        super().__init__(
            network, ["edges"], architecture="edges", input_size=SIZE, mean=[0.4] * 3, std=[0.3] * 3
        )

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        return {"edges": self.network(image).flatten(1)}


@pytest.mark.parametrize("engine", ["eager", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mixed__sees_faint_traces_that_autocast_blurs(engine) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="needs the extra [openvino]")
    image = (images(8) % 3 + 240).to(torch.uint8)  # bright, two levels apart at most
    backbone = FusedBackbone({"net": Edges()})
    expected = backbone(image)["net.edges"]
    backbone.backbones["net"].network.__dict__.pop("forward")  # torch's own again
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        blurred = backbone(image)["net.edges"]
    backbone = FusedBackbone({"net": Edges()})
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(backbone(image)["net.edges"], expected)
    with Runner(backbone, precision="bf16-mixed", engine=engine) as runner:
        found = runner.submit("net", image).result()["net.edges"]
    error, autocast_error = ((x - expected).norm() / expected.norm() for x in (found, blurred))
    assert error < 0.005 < 0.1 < autocast_error


def test_mixed__casts_products_and_keeps_the_pixels(weights) -> None:
    backbone = fused(weights)
    Runner(backbone, precision="bf16-mixed")
    network = backbone.backbones["vit"].network
    assert network.patch_embed.proj.weight.dtype == torch.float32
    assert network.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert network.blocks[0].norm1.weight.dtype == torch.float32


def test_runner__crops_of_an_image_are_averaged(weights) -> None:
    crops = images(6).reshape(3, 2, 3, SIZE, SIZE)
    expected = fused(weights)(crops)
    for name, value in run(Runner(fused(weights)), crops).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


def test_runner__fingerprints_are_of_the_weights_given(weights) -> None:
    expected = fused(weights).spec
    runner = Runner(fused(weights), precision="bf16-true")
    assert runner.spec == expected
    run(runner, images(1))
    assert runner.spec == expected


def test_runner__describes_what_decides_the_last_bits(weights) -> None:
    runner = Runner(fused(weights), precision="bf16-mixed", engine="compile")
    assert runner.description == {"precision": "bf16-mixed", "engine": "compile"}


def test_runner__an_error_in_a_pass_reaches_who_waits(weights) -> None:
    with Runner(fused(weights)) as runner:
        pending = runner.submit("vit", images(2).float())
        with pytest.raises(BackboneError, match="uint8"):
            pending.result()


def test_runner__threads_are_given_back_after_an_error(weights) -> None:
    torch.set_num_threads(2)

    def failing() -> None:
        with Runner(fused(weights)) as runner:
            runner.submit("vit", images())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        failing()
    assert torch.get_num_threads() == 2


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("32-true", 0.999999), ("bf16-mixed", 0.999)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_openvino__gives_the_same_features_on_any_number_of_threads(
    weights, precision, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra [openvino]")
    convert, converted = openvino.convert_model, []

    def convert_once(exported: object) -> object:
        """Convert for all: how many threads there are is said to what compiles."""
        if not converted:
            converted.append(convert(exported))
        return converted[0]

    monkeypatch.setattr(openvino, "convert_model", convert_once)
    image = images()
    backbone = FusedBackbone({"net": fused(weights).backbones["net"]})
    expected = backbone(image)["net.pooled"]
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with Runner(backbone, precision=precision, engine="openvino") as runner:
            found.append(runner.submit("net", image).result()["net.pooled"])
    assert torch.equal(*found)
    assert torch.cosine_similarity(found[0], expected).min() > least


@pytest.mark.parametrize("model", ["eca_nfnet_l0", "resnetv2_50x1_bit", "resnet18"])
def test_is_linear__not_where_a_convolution_standardises_its_weights(model: str) -> None:
    stem = stem_of(timm.create_model(model))
    assert stem is not None
    kept = stem.weight
    assert _is_linear(stem) == (model == "resnet18")
    assert (stem.weight is kept, stem.in_channels) == (True, 3)


def test_is_linear__not_with_groups() -> None:
    assert not _is_linear(nn.Conv2d(3, 6, 3, groups=3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_openvino__a_network_it_cannot_convert_is_named(weights) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    with pytest.raises(BackboneError, match=r"test_vit.*OpenVINO cannot convert.*--engine=eager"):
        run(Runner(fused(weights), engine="openvino"), images(1))
    assert before == (root.level, root.filters, root.handlers)  # everybody's log stays as it was


def test_runner__a_backbone_that_was_cast_runs_in_the_same_precision(weights) -> None:
    backbone = fused(weights)
    Runner(backbone, precision="32-true")
    first = run(Runner(backbone, precision="bf16-true"), images(3))
    again = run(Runner(backbone, precision="bf16-true"), images(3))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    ("other", "engine"), [("32-true", "eager"), ("bf16-mixed", "eager"), ("32-true", "openvino")]
)
def test_runner__a_backbone_that_was_cast_runs_in_no_other_precision(
    weights, other: str, engine: str
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="needs the extra [openvino]")
    backbone = fused(weights)
    Runner(backbone, precision="bf16-true")
    with pytest.raises(BackboneError, match=r"vit: was cast to bf16-true .*; build it anew"):
        Runner(backbone, precision=other, engine=engine)


def test_openvino__takes_two_precisions(weights) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    with pytest.raises(BackboneError, match="32-true or bf16-mixed, not on cpu in bf16-true"):
        Runner(fused(weights), precision="bf16-true", engine="openvino")


@pytest.mark.slow
def test_compile__gives_the_same_features_and_stays_in_place() -> None:
    image = images()
    backbone = FusedBackbone({"net": Edges()})  # a larger one takes the compiler longer
    runner = Runner(backbone, engine="compile")
    expected = backbone(image)["net.edges"]
    with runner:
        assert backbone.backbones["net"]._encode is not None
        found = runner.submit("net", image).result()["net.edges"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(backbone(image)["net.edges"], expected)  # eager again


def test_compile__on_an_accelerator_sees_batches_of_one_size(weights, monkeypatch) -> None:
    """It would compile anew for another one, and its rows would have other bits."""
    sizes = []

    def engine_for(backbone: Backbone, *_: object, **__: object) -> Encode:
        def encode(image: Tensor) -> dict[str, Tensor]:
            sizes.append(len(image))
            return backbone.encode(image)

        return encode

    monkeypatch.setattr("dfl.backbones.runner.engine_for", engine_for)
    image, crops = images(5), images(6).reshape(3, 2, 3, SIZE, SIZE)
    expected = fused(weights)
    settings = {"device": "cuda", "precision": "32-true", "engine": "compile"}  # no GPU is used
    with Runner(fused(weights), **settings) as runner:
        for batch in (image, image[:3], crops):
            found = runner.submit("net", batch, batch_size=5).result()["net.pooled"]
            torch.testing.assert_close(found, expected(batch)["net.pooled"], rtol=1e-4, atol=1e-5)
        runner.submit("net", image[:3])
    assert sizes == [5, 5, 10, 3]


def test_compile__a_failure_at_the_first_batch_says_what_to_do(weights, monkeypatch) -> None:
    def fail(image: Tensor) -> dict[str, Tensor]:
        raise type("TritonMissing", (RuntimeError,), {"__module__": "torch._inductor.exc"})(
            "no triton"
        )

    monkeypatch.setattr("dfl.backbones.runner.engine_for", lambda *_, **__: fail)
    settings = {"device": "cuda", "precision": "32-true", "engine": "compile"}
    with (
        Runner(fused(weights), **settings) as runner,
        pytest.raises(BackboneError, match=r"net: torch.compile fails \(no triton\); choose --eng"),
    ):
        runner.submit("net", images(2))


def test_openvino__missing_names_the_extra(weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfl.backbones.engines.find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r'pip install "dfl\[openvino\]"'):
        Runner(fused(weights), engine="openvino")


def on_gpu(backbone: FusedBackbone, **settings: str) -> Runner:
    runner = Runner(backbone, device="cuda", **settings)
    runner.backbone.to("cuda")
    return runner


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "least"), [("32-true", 0.999999), ("bf16-mixed", 0.999), ("16-mixed", 0.9999)]
)
def test_gpu__features_are_those_of_the_cpu(weights, precision: str, least: float) -> None:
    image = images()
    expected = run(Runner(fused(weights)), image)
    found = run(on_gpu(fused(weights), precision=precision), image.cuda())
    for name, value in found.items():
        assert torch.cosine_similarity(value, expected[name]).min() > least
        if precision == "32-true":  # of which TF32 would leave three digits
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_gpu__sees_faint_traces_in_any_precision(precision: str) -> None:
    image = (images(8) % 3 + 240).to(torch.uint8)
    expected = Edges()(image)["edges"]
    with on_gpu(FusedBackbone({"net": Edges()}), precision=precision) as runner:
        found = runner.submit("net", image.cuda()).result()["net.edges"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_gpu__large_images_are_resized_as_on_the_cpu() -> None:
    """The kernel of CUDA refuses what is too much for it."""
    shape, generator = (1, 3, 64 * SIZE, 64 * SIZE), torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    expected = Edges()(image)["edges"]
    torch.testing.assert_close(
        Edges().cuda()(image.cuda())["edges"].cpu(), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.gpu
def test_gpu__submit_waits_for_nothing(weights) -> None:
    batches = [images(8).cuda() for _ in range(5)]
    with on_gpu(fused(weights), precision="bf16-mixed") as runner:
        runner.submit("vit", batches[0]).result()
        runner.submit("net", batches[0]).result()
        torch.cuda.set_sync_debug_mode("error")
        try:
            pending = [runner.submit(name, x) for x in batches for name in ("vit", "net")]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = [each.result() for each in pending]
    for name, features in (("vit.pooled", found[::2]), ("net.pooled", found[1::2])):
        assert all(torch.equal(each[name], features[0][name]) for each in features)


@pytest.mark.gpu
def test_gpu__the_last_batch_compiles_nothing_and_has_the_same_bits(weights) -> None:
    from torch._dynamo.utils import counters  # slow to import

    backbone = FusedBackbone({"net": fused(weights).backbones["net"]})
    image = images(16).cuda()
    with on_gpu(backbone, precision="bf16-mixed", engine="compile") as runner:
        whole = runner.submit("net", image, batch_size=16).result()["net.pooled"]
        graphs = counters["stats"]["unique_graphs"]
        part = runner.submit("net", image[:5], batch_size=16).result()["net.pooled"]
        assert counters["stats"]["unique_graphs"] == graphs
    assert torch.equal(part, whole[:5])
