"""What the bytes under an image's name are where no decoder knows them, and what to do about it."""

import re
from typing import Final

_DOWNLOAD: Final = "download it again"
_CONVERT: Final = "convert it to PNG"
_HEAD: Final = 2048  # bytes that are looked at
_QUOTED: Final = 60  # characters of a text that an error quotes

_MEDIA: Final = rb"....ftyp"
_KNOWN: Final = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (
            rb"version https?://(?:git-lfs\.github|hawser\.github)\.com/",
            "is a Git LFS pointer, which stands for the image",
            "fetch the images with `git lfs pull`",
        ),
        (
            rb"(?:\.\./)*(?:/|\.git/)annex/objects/",
            "is a git-annex pointer, which stands for the image",
            "fetch the images with `git annex get`",
        ),
        (
            _MEDIA + rb"(?:hei[cxms]|hev[cmsx]|mif1|msf1)",
            "is a HEIC image, which Pillow reads with a plugin",
            'install it with `pip install "dfl[heif]"`, or convert the image to PNG',
        ),
        (
            _MEDIA + rb"avi[fs]",
            "is an AVIF image, which this Pillow does not read",
            "install Pillow 11.3 or newer, or convert the image to PNG",
        ),
        (
            rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
            "is a JPEG XL image, which Pillow reads with a plugin",
            'install it with `pip install "dfl[jxl]"`, or convert the image to PNG',
        ),
        (
            _MEDIA + rb"crx |FUJIFILMCCD-RAW|II(?:U\0|R[OS])|MMOR|\0MRM|FOVb",
            "is a camera's raw file, whose pixels are still to be developed",
            "develop it, as darktable or rawpy do, and give the picture",
        ),
        (
            _MEDIA + rb"|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]",
            "is a video",
            "extract its frames as images",
        ),
        (rb"%PDF-", "is no image of a known format (PDF)", "render its pages to PNG"),
        (
            rb"%!PS|\xc5\xd0\xd3\xc6",
            "is no image of a known format (PostScript, which another program draws)",
            "render it to PNG",
        ),
        (
            rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
            rb"(?:<!doctype svg[^>]*>\s*)?<svg",
            "is no image of a known format (SVG, which has no pixels)",
            "render it to PNG",
        ),
        (
            rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|.{257}ustar",
            "is an archive",
            "unpack it",
        ),
        (
            rb"v/1\x01|#\?RADIANCE|SIMPLE  =|.{128}DICM|\x93NUMPY|\x89HDF|BPG\xfb",
            "is an image or an array of a kind that is not read here",
            _CONVERT,
        ),
    )
)
_PAGE: Final = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    r"<(?:!doctype\s+html|html|head|body|title|meta|script|iframe|div|center|h1|p)\b",
    re.DOTALL | re.IGNORECASE,
)
_TITLE: Final = re.compile(r"<(title|h1|body)[^>]*>\s*([^<]+)", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]*>")
_MAGIC: Final = {
    "JPEG": rb"\xff\xd8",
    "PNG": rb"\x89PNG",
    "GIF": rb"GIF8",
    "WebP": rb"RIFF....WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PSD": rb"8BPS",
    "ICO": rb"\0\0\x01\0",
    "ICNS": rb"icns",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
}


def name_foreign(data: bytes) -> tuple[str, str]:
    """Say what bytes are that no decoder took for an image.

    Args:
        data: The content of the file.

    Returns:
        What it is, to stand behind a name, and the remedy.
    """
    head = data[:_HEAD]
    for pattern, what, remedy in _KNOWN:
        if pattern.match(head):
            return what, remedy
    for kind, magic in _MAGIC.items():
        if re.match(magic, head, re.DOTALL):
            return (
                f"begins as a {kind} and cannot be decoded, since it is damaged or of a rare kind",
                f"restore it, or {_CONVERT}",
            )
    if not data.strip(b"\0"):
        return "holds zeros alone, as a copy or download that broke off leaves it", "restore it"
    text = _text(head)
    return ("is no image of a known format", "remove it") if text is None else _name_text(text)


def _name_text(text: str) -> tuple[str, str]:
    if _PAGE.match(text):
        title = _TITLE.search(text)
        words = title[2] if title else _TAG.sub(" ", text)
        return f"is a web page{_quoted(words)}, no image", _DOWNLOAD
    if text.lstrip().startswith("<"):
        return f"is XML{_quoted(_TAG.sub(' ', text))}, no image", _DOWNLOAD
    if text.lstrip().startswith(("{", "[")):
        return f"is JSON{_quoted(text)}, no image", _DOWNLOAD
    return f"is text{_quoted(text)}, no image", f"{_DOWNLOAD} or remove it"


def _text(head: bytes) -> str | None:
    """Read the beginning of a file as text; None where it is none."""
    codec = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(codec, "replace").rstrip("\ufffd")  # a character may be cut
    strange = sum(not each.isprintable() and each not in "\t\r\n\f" for each in text)
    strange += text.count("\ufffd")
    return text if text.strip() and strange <= len(text) // 50 else None


def _quoted(text: str) -> str:
    words = " ".join(text.split())
    if not words:
        return ""
    return f' ("{words[:_QUOTED]}...")' if len(words) > _QUOTED else f' ("{words}")'
