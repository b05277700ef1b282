import os
import tarfile
from pathlib import Path

import pytest

from dfl.data.containers.base import ContainerError
from dfl.data.containers.content import read_bytes
from dfl.data.containers.tar import TarFile, members_of
from tests.data.packing import pack_tar, png

FILES = {f"{i:03}.png": png(i) for i in range(6)}


def test_members__places(tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "a.tar", FILES)
    whole = path.read_bytes()
    found = {name: whole[start : start + size] for name, start, size in members_of(path)}
    assert found == FILES


def test_names__long_and_foreign(tmp_path: Path) -> None:
    files = {"d/" + "x" * 300 + ".png": b"1", "ümläut/日本.png": b"2", "/abs//p.png": b"3"}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, __import__("io").BytesIO(content))
        packed = TarFile(path)
        assert packed.read("d/" + "x" * 300 + ".png") == b"1"
        assert packed.read("ümläut/日本.png") == b"2"
        assert packed.read("abs/p.png") == b"3"


def test_names__not_utf8_error(tmp_path: Path) -> None:
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1"
    ) as tar:
        tar.addfile(tarfile.TarInfo("café.png"))
    with pytest.raises(ContainerError, match=r"a\.tar: the name 'caf.*png' is not UTF-8; pack"):
        list(members_of(tmp_path / "a.tar"))


def test_folders__are_no_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.png").write_bytes(b"1")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
    assert [name for name, _, _ in members_of(tmp_path / "a.tar")] == ["d/x.png"]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_link__error(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("d/x.png"))
        link = tarfile.TarInfo("d/y.png")
        link.type, link.linkname = kind, "d/x.png"
        tar.addfile(link)
    with pytest.raises(
        ContainerError, match=r"a.tar: d/y.png is a link to d/x.png; pack it again with tar --deref"
    ):
        TarFile(tmp_path / "a.tar")


def test_twice__error(tmp_path: Path) -> None:
    pack_tar(tmp_path / "a.tar", [("x.png", b"1"), ("y.png", b"2"), ("./x.png", b"3")])
    with pytest.raises(ContainerError, match=r"a.tar: holds x.png twice; pack it again"):
        TarFile(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed__error(tmp_path: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as tar:
        tar.add(__file__, "x.png")
    with pytest.raises(ContainerError, match=r"not a readable tar .* decompress it first"):
        TarFile(tmp_path / "a.tar")


def test_damaged_header__no_image_is_lost_in_silence(tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "a.tar", FILES)
    start = next(start for name, start, _ in members_of(path) if name == "003.png")
    damaged = bytearray(path.read_bytes())
    damaged[start - 512 + 3] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(ContainerError, match=r"not a readable tar after \d+ bytes; restore it"):
        read_bytes(tmp_path / "a.tar::000.png")


@pytest.mark.parametrize("after", ["header", "content", "member"])
def test_cut__error(tmp_path: Path, after: str) -> None:
    path = pack_tar(tmp_path / "a.tar", FILES)
    _, start, size = list(members_of(path))[3]
    end = {"header": start - 100, "content": start + 1, "member": start + -(-size // 512) * 512}
    path.write_bytes(path.read_bytes()[: end[after]])
    with pytest.raises(ContainerError, match=r"a.tar: (not a readable tar|ends within)"):
        TarFile(path)


def test_empty__error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ContainerError, match="empty file"):
        TarFile(tmp_path / "a.tar")


def test_read__many_tars(tmp_path: Path) -> None:
    paths = [pack_tar(tmp_path / f"{i:03}.tar", {"x.png": b"%d" % i}) for i in range(90)]
    for i in [*range(90), 3, 80, 0]:
        assert read_bytes(Path(f"{paths[i]}::x.png")) == b"%d" % i


def test_replaced_tar__is_read_anew(tmp_path: Path) -> None:
    for content in (b"first", b"other!"):
        pack_tar(tmp_path / "new.tar", {"y": b"", "x.png": content})
        (tmp_path / "new.tar").replace(tmp_path / "a.tar")
        os.utime(tmp_path / "a.tar", ns=(1, len(content)))
        assert read_bytes(tmp_path / "a.tar::x.png") == content
