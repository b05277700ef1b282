"""Published sets made small: a few empty files in each folder, as their downloads unpack."""

from pathlib import Path

import pytest

from dfl.data import Pair, Pairs, Source, Tree
from dfl.errors import DataError

Counts = dict[tuple[str, str, str], int]
"""Images by dataset, generator (``real`` for photographs) and split."""


def lay_out(root: Path, folders: dict[str, int]) -> Path:
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.png").touch()
    return root


def counts_of(source: Source) -> Counts:
    frame = source.scan().frame
    return frame.groupby(["dataset", "generator", "split"]).size().to_dict()


def sides(real: str, fake: str, count: int) -> dict[str, int]:
    return {real: count, fake: count}


FORENSYNTHS = {
    f"{split}/{thing}/{side}": 2
    for split in ("train", "val")
    for thing in ("airplane", "cat", "train")  # of the twenty classes of LSUN
    for side in ("0_real", "1_fake")
}
FORENSYNTHS |= {
    f"test/{name}/{side}": 3 for name in ("biggan", "crn") for side in ("0_real", "1_fake")
}
FORENSYNTHS |= {
    f"test/progan/{thing}/{side}": 1
    for thing in ("airplane", "train")
    for side in ("0_real", "1_fake")
}
GENIMAGE = {
    f"{folder}/{split}/{side}": count
    for folder in ("Midjourney/imagenet_midjourney", "BigGAN/imagenet_ai_0419_biggan")
    for split, count in (("train", 4), ("val", 2))
    for side in ("ai", "nature")
}
FACES = {
    f"real-vs-fake/{split}/{side}": count
    for split, count in (("train", 10), ("valid", 2), ("test", 2))
    for side in ("real", "fake")
}
DEEPFAKE_AND_REAL = {
    f"{split}/{side}": count
    for split, count in (("Train", 14), ("Validation", 4), ("Test", 1))
    for side in ("Real", "Fake")
}
FORENSICS = {
    **{f"images/{split}/lsun_bedroom/{name}": count
       for split, count in (("train", 4), ("val", 1), ("test", 1))
       for name in ("real", "adm", "iddpm")},
    **{f"images/test/imagenet/{name}": 5 for name in ("real", "adm", "sdv1")},
}  # fmt: skip
ART_BENCH = {
    f"{split}/{made_by}{style}": count
    for split, count in (("train", 5), ("test", 1))
    for style in ("art_nouveau", "post_impressionism")
    for made_by in ("", "AI_LD_", "AI_SD_")
}

TREES: dict[str, tuple[dict[str, int], Counts]] = {
    "ForenSynths": (
        FORENSYNTHS,
        {
            **{("ForenSynths", made_by, split): 6
               for made_by in ("real", "ForenSynths") for split in ("train", "val")},
            **{(name, made_by, "test"): 3
               for name in ("biggan", "crn") for made_by in ("real", name)},
            **{("progan", made_by, "test"): 2 for made_by in ("real", "progan")},
        },
    ),
    "UniversalFakeDetect": (
        {"laion/0_real": 4, "ldm_100/1_fake": 4, "dalle/1_fake": 4},
        {("laion", "real", ""): 4, ("ldm_100", "ldm_100", ""): 4, ("dalle", "dalle", ""): 4},
    ),
    "GenImage": (
        GENIMAGE,
        {
            (name, made_by, split): count
            for name in ("imagenet_midjourney", "imagenet_ai_0419_biggan")
            for made_by in ("real", name)
            for split, count in (("train", 4), ("test", 2))  # val is what its authors test on
        },
    ),
    "CIFAKE": (
        {f"{split}/{side}": count
         for split, count in (("train", 5), ("test", 1)) for side in ("REAL", "FAKE")},
        {("CIFAKE", made_by, split): count
         for made_by in ("real", "CIFAKE") for split, count in (("train", 5), ("test", 1))},
    ),
    "140k faces": (
        FACES,
        {("real-vs-fake", made_by, split): count
         for made_by in ("real", "real-vs-fake")
         for split, count in (("train", 10), ("val", 2), ("test", 2))},
    ),
    "Deepfake and real images": (
        DEEPFAKE_AND_REAL,
        {("Deepfake and real images", made_by, split): count
         for made_by in ("real", "Deepfake and real images")
         for split, count in (("train", 14), ("val", 4), ("test", 1))},
    ),
    "DiffusionForensics": (
        FORENSICS,
        {
            **{("lsun_bedroom", made_by, split): count
               for made_by in ("real", "adm", "iddpm")
               for split, count in (("train", 4), ("val", 1), ("test", 1))},
            **{("imagenet", made_by, "test"): 5 for made_by in ("real", "adm", "sdv1")},
        },
    ),
    "Chameleon": (
        {"test/0_real": 3, "test/1_fake": 2},
        {("Chameleon", "real", "test"): 3, ("Chameleon", "Chameleon", "test"): 2},
    ),
    "AI-ArtBench": (
        ART_BENCH,
        {("AI-ArtBench", made_by, split): 2 * count
         for made_by in ("real", "AI_LD", "AI_SD")
         for split, count in (("train", 5), ("test", 1))},
    ),
    "real_and_fake_face": (
        {"training_real": 3, "training_fake": 2},
        {("real_and_fake_face", "real", "train"): 3,
         ("real_and_fake_face", "real_and_fake_face", "train"): 2},
    ),
    "AI generated and real images": (
        {"RealArt/RealArt": 4, "AiArtData/AiArtData": 5},
        {("AI generated and real images", "real", ""): 4,
         ("AI generated and real images", "AI generated and real images", ""): 5},
    ),
    "Human Faces Dataset": (
        {"Human Faces Dataset/Real Images": 4, "Human Faces Dataset/AI-Generated Images": 5},
        {("Human Faces Dataset", "real", ""): 4,
         ("Human Faces Dataset", "Human Faces Dataset", ""): 5},
    ),
    "dalle recognition": (
        {"real": 4, "fakeV2/fake-v2": 5},
        {("dalle recognition", "real", ""): 4, ("dalle recognition", "fakeV2", ""): 5},
    ),
    "generators below fake": (
        {"train/real/coco": 2, "train/real/laion": 2,
         **{f"{split}/fake/{name}/{part}": count
            for split, count in (("train", 3), ("test", 1))
            for name in ("sd14", "midjourney") for part in ("0001", "0002")},
         "test/real/coco": 2},
        {("generators below fake", "real", "train"): 4,
         ("generators below fake", "real", "test"): 2,
         **{("generators below fake", name, split): 2 * count
            for name in ("sd14", "midjourney") for split, count in (("train", 3), ("test", 1))}},
    ),
    "one generator for training": (
        {"set/train/real": 2, "set/train/fake/sd14": 3, "set/test/real": 1, "set/test/fake/sd14": 1,
         "set/test/fake/flux": 1},
        {("set", "real", "train"): 2, ("set", "sd14", "train"): 3, ("set", "real", "test"): 1,
         ("set", "sd14", "test"): 1, ("set", "flux", "test"): 1},
    ),
    "generators by family": (
        {"real/imagenet": 2, "fake/GANs/progan": 3, "fake/GANs/stylegan": 4, "fake/DMs/sd": 5,
         "fake/Others": 1},
        {("generators by family", made_by, ""): count
         for made_by, count in (("real", 2), ("progan", 3), ("stylegan", 4), ("sd", 5),
                                ("Others", 1))},
    ),
    "splits and classes in one name": (
        {f"{split}_{side}": count
         for split, count in (("train", 3), ("test", 1)) for side in ("real", "fake")},
        {("splits and classes in one name", made_by, split): count
         for made_by in ("real", "splits and classes in one name")
         for split, count in (("train", 3), ("test", 1))},
    ),
    "human and AI, split below": (
        {f"{side}/{split}": count
         for split, count in (("Train", 5), ("Val", 2), ("TEST", 1)) for side in ("Human", "AI")},
        {("human and AI, split below", made_by, split): count
         for made_by in ("real", "human and AI, split below")
         for split, count in (("train", 5), ("val", 2), ("test", 1))},
    ),
    "numbers": (
        {"train/0": 3, "train/1": 3, "test/0": 1, "test/1": 1},
        {("numbers", made_by, split): count
         for made_by in ("real", "numbers") for split, count in (("train", 3), ("test", 1))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_tree__counts_as_published(name: str, tmp_path: Path) -> None:
    folders, expected = TREES[name]
    assert counts_of(Tree(lay_out(tmp_path / name, folders))) == expected


@pytest.mark.parametrize("name", TREES)
def test_tree__no_published_image_is_lost_or_counted_twice(name: str, tmp_path: Path) -> None:
    folders, _ = TREES[name]
    frame = Tree(lay_out(tmp_path / name, folders)).scan().frame
    assert len(frame) == frame["path"].nunique() == sum(folders.values())


def test_pairs__drct(tmp_path: Path) -> None:
    """Photographs and each method's images are in folders for COCO's splits."""
    methods = ("stable-diffusion-v1-4", "sdxl-turbo")
    sizes = {"train2017": 4, "val2017": 2}
    folders = {f"MSCOCO/{part}": count for part, count in sizes.items()}
    folders |= {f"DRCT-2M/{m}/{part}": count for m in methods for part, count in sizes.items()}
    root = lay_out(tmp_path, folders)
    each = Pairs(root, {m: Pair("MSCOCO", f"DRCT-2M/{m}") for m in methods})
    assert counts_of(each) == {
        (m, made_by, split): count
        for m in methods
        for made_by in ("real", m)
        for split, count in (("train", 4), ("test", 2))
    }
    together = counts_of(Pairs(root, {"drct": Pair("MSCOCO", "DRCT-2M")}))
    assert together == {
        ("drct", made_by, split): count
        for made_by in ("real", *methods)
        for split, count in (("train", 4), ("test", 2))
    }
    alone = Pairs(root, {"p": Pair("MSCOCO/val2017", f"DRCT-2M/{methods[0]}/val2017")})
    assert counts_of(alone) == {("p", "real", "test"): 2, ("p", methods[0], "test"): 2}


def test_pairs__forensynths_by_set(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "ForenSynths", FORENSYNTHS)
    sets = ("train", "val", "test/biggan", "test/progan")
    pairs = Pairs(root, {name: Pair(name, name) for name in sets})
    assert counts_of(pairs) == {
        ("train", "real", "train"): 6,
        ("train", "ForenSynths", "train"): 6,
        ("val", "real", "val"): 6,
        ("val", "ForenSynths", "val"): 6,
        ("test/biggan", "real", "test"): 3,
        ("test/biggan", "biggan", "test"): 3,
        ("test/progan", "real", "test"): 2,
        ("test/progan", "progan", "test"): 2,
    }
    whole = counts_of(Pairs(root, {"test": Pair("test", "test")}))
    assert {made_by: count for (_, made_by, _), count in whole.items()} == {
        "real": 8,
        "biggan": 3,
        "crn": 3,
        "progan": 2,
    }


def test_pairs__synthbuster(tmp_path: Path) -> None:
    """Folders of generators, and photographs of another set, none of them by a known word."""
    root = lay_out(tmp_path, {"dalle2": 2, "sdxl": 2, "raise1k": 2})
    with pytest.raises(
        DataError, match=r"known layouts: .*pairs: \{NAME: .*its folders are dalle2, raise1k, sdxl"
    ):
        Tree(root).scan()
    pairs = Pairs(root, {name: Pair("raise1k", name) for name in ("dalle2", "sdxl")})
    assert counts_of(pairs) == {
        (name, made_by, ""): 2 for name in ("dalle2", "sdxl") for made_by in ("real", name)
    }
