"""The catalogue of odd inputs: what each is, what happens to it, and how it is made.

README's section "What happens to odd inputs" is printed from it; `test_bad_inputs` runs it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pictures import by_pil, encoded, picture, png, png_header
from PIL import Image

OUT = "leads out of the folder of the {}; --follow-outside reads it anyway"


@dataclass(frozen=True)
class Odd:
    """A case, in the words of the README; variants of one case share its line."""

    what: str
    happens: str

    @property
    def line(self) -> str:
        return f"| {self.what} | {self.happens} |"

    def __str__(self) -> str:
        return self.what


# ------------------------------------------------------------------------------ picture files


@dataclass(frozen=True)
class OddFile(Odd):
    """A file called ``odd.jpg``, and what becomes of it: a reason, or the picture it shows."""

    content: bytes
    expected: str | np.ndarray = field(compare=False)


def turned(stated: int) -> OddFile:
    exif = Image.Exif()
    exif[0x0112] = stated
    upright = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p),
    }[stated]
    return OddFile(
        "EXIF orientations 1 to 8",
        "a row, turned upright",
        encoded(picture(), "JPEG", exif=exif),
        upright(by_pil(encoded(picture(), "JPEG"))),
    )


def with_profile() -> bytes:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return encoded(picture(), "JPEG", icc_profile=profile)


def see_through_palette() -> tuple[bytes, np.ndarray]:
    image = picture().quantize(16)
    shown = np.asarray(image.convert("RGB")).copy()
    shown[np.asarray(image) == 3] = 255
    return encoded(image, "PNG", transparency=3), shown


def animated(fmt: str, **options: object) -> bytes:
    frames = [picture(seed=seed) for seed in range(3)]
    return encoded(frames[0], fmt, save_all=True, append_images=frames[1:], **options)


JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
PLAIN = np.asarray(picture())
DEEP = np.random.default_rng(0).integers(0, 65_536, (40, 60, 3))
PROGRESSIVE = encoded(picture(), "JPEG", progressive=True)
CMYK = encoded(picture().convert("CMYK"), "JPEG")
THIN = encoded(picture(1, 10_000), "PNG")
# As Huffman codes read arithmetically: nonsense to look at, but the same in every decoder.
ARITHMETIC = JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1)
BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"

FILES = [
    OddFile("zero bytes", "listed: the file is empty", b"", "the file is empty"),
    OddFile(
        "a JPEG or PNG cut short",
        "listed: damaged",
        JPEG[: len(JPEG) * 9 // 10],
        "damaged JPEG: image file is truncated",
    ),
    OddFile("a JPEG or PNG cut short", "listed: damaged", PNG[: len(PNG) // 2], "damaged PNG: "),
    OddFile(
        "an HTML page called `.jpg`",
        "listed: not a picture, and what it looks like",
        b"<!DOCTYPE html><title>404</title>",
        "not a picture: it looks like an HTML page",
    ),
    OddFile("a PNG called `.jpg`", "a row: the content decides, not the suffix", PNG, PLAIN),
    OddFile("1 x 1 pixel", "a row", encoded(picture(1, 1), "PNG"), np.asarray(picture(1, 1))),
    OddFile("1 x 10,000 pixels", "a row", THIN, by_pil(THIN)),
    OddFile(
        "30,000 x 30,000 pixels: a decompression bomb",
        "listed before memory is asked for; `--max-pixels` raises the limit, and it is tried again",
        png_header(30_000, 30_000),
        "30,000 x 30,000 pixels are more than the limit of 178,956,970: raise it with --max-pixels",
    ),
    OddFile("CMYK", "a row, as RGB", CMYK, by_pil(CMYK)),
    OddFile("16 bits a channel", "a row, scaled", png(DEEP, 16, 2), (DEEP >> 8).astype(np.uint8)),
    OddFile("a palette with transparency", "a row, on white", *see_through_palette()),
    OddFile(
        "an animated GIF or WebP",
        "a row: its first frame",
        animated("GIF"),
        by_pil(animated("GIF")),
    ),
    OddFile(
        "an animated GIF or WebP", "a row: its first frame", animated("WEBP", lossless=True), PLAIN
    ),
    *(turned(stated) for stated in range(1, 9)),
    OddFile(
        "a broken EXIF block",
        "a row, as it lies",
        encoded(picture(), "JPEG", exif=BROKEN_EXIF),
        by_pil(JPEG),
    ),
    OddFile("an ICC profile", "a row of the colours as stored", with_profile(), by_pil(JPEG)),
    OddFile("a progressive JPEG", "a row", PROGRESSIVE, by_pil(PROGRESSIVE)),
    OddFile("an arithmetic-coded JPEG", "a row", ARITHMETIC, by_pil(ARITHMETIC)),
    OddFile(
        "HEIC without its extra",
        "listed with the command that installs it, and tried again",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "HEIC needs pillow-heif: pip install 'transfer-pipeline[heif]'",
    ),
]


# --------------------------------------------------------------------------- files and folders


@dataclass(frozen=True)
class OddFolder(Odd):
    """Something beside ``owl/sound.png``: what it adds to rows, ledger and what is passed over."""

    make: Callable[[Path], Any]
    ids: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


def put(name: str, content: bytes = PNG) -> Callable[[Path], Any]:
    return lambda folder: (folder / "owl" / name).write_bytes(content)


def link(name: str, target: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "owl" / name).symlink_to(target)


def link_out(name: str, target: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        (folder.parent / "far").mkdir()
        (folder.parent / "far" / "far.png").write_bytes(encoded(picture(seed=9), "PNG"))
        (folder / "owl" / name).symlink_to(folder.parent / target)

    return make


LONG = "x" * 251 + ".png"
LINKED_OUT = "a link that leads out of the folder; --follow-outside reads it anyway"

FOLDERS = [
    OddFolder(
        "a name that is not UTF-8",
        "listed: rename it",
        put("caf\udce9.png"),
        failed={"owl/caf\\udce9.png": "its name is not UTF-8: rename it"},
    ),
    OddFolder("an emoji in a name", "a row", put("🦉.png"), ids=("owl/🦉.png",)),
    OddFolder(
        "a line break in a name",
        "a row; escaped on the terminal, where it makes no line of its own",
        put("a\npipeline: b.png"),
        ids=("owl/a\npipeline: b.png",),
    ),
    OddFolder("a name of 255 bytes", "a row", put(LONG), ids=(f"owl/{LONG}",)),
    OddFolder(
        "hidden files", "passed over, counted", put("._1.png", b"litter"), skipped={"hidden": 1}
    ),
    OddFolder(
        "`Thumbs.db`", "passed over, counted", put("Thumbs.db", b"litter"), skipped={"Thumbs.db": 1}
    ),
    OddFolder(
        "a link to itself, or to a folder above it",
        "listed",
        link("odd.png", "odd.png"),
        failed={"owl/odd.png": "a link to nothing"},
    ),
    OddFolder(
        "a link to itself, or to a folder above it",
        "listed",
        link("odd", ".."),
        failed={"owl/odd": "a link back to a folder that is being listed"},
    ),
    OddFolder(
        "a link to nothing",
        "listed",
        link("odd.png", "nowhere.png"),
        failed={"owl/odd.png": "a link to nothing"},
    ),
    OddFolder(
        "a link that leads out of the folder",
        "listed; `--follow-outside` reads it",
        link_out("odd.png", "far/far.png"),
        failed={"owl/odd.png": LINKED_OUT},
    ),
    OddFolder(
        "a link that leads out of the folder",
        "listed; `--follow-outside` reads it",
        link_out("odd", "far"),
        failed={"owl/odd": LINKED_OUT},
    ),
    OddFolder(
        "a pipe",
        "listed, never opened",
        lambda folder: os.mkfifo(folder / "owl" / "odd.png"),
        failed={"owl/odd.png": "not a regular file"},
    ),
    OddFolder(
        "a folder called `x.jpg`",
        "listed, unless there are pictures in it",
        lambda folder: (folder / "owl" / "x.jpg").mkdir(),
        failed={"owl/x.jpg": "a folder, not a file"},
    ),
    OddFolder(
        "the same picture twice",
        "two rows of equal values, on one side of every split",
        put("again.png", encoded(picture(seed=5), "PNG")),
        ids=("owl/again.png",),
    ),
]


# ---------------------------------------------------------------------------- tables and lists


@dataclass(frozen=True)
class OddTable(Odd):
    """A table or list beside ``1.png`` and ``2.png``: its labels and ledger, or the refusal."""

    content: bytes
    labels: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    refusal: str = ""
    name: str = "odd.csv"


BOTH = {"1.png": "owl", "2.png": "elk"}
TWICE = "a file that stands in two rows"
OUTSIDE = "an absolute path, `..` or a link that leads out of the folder of a table or list"
NO_ROWS = "an empty table, or one without rows"

TABLES = [
    OddTable(
        TWICE,
        "one row, counted; with two labels, the second is listed",
        b"path,label\n1.png,owl\n./1.png,owl\n2.png,elk\n",
        BOTH,
    ),
    OddTable(
        TWICE,
        "one row, counted; with two labels, the second is listed",
        b"path,label\n1.png,owl\n1.png,elk\n2.png,elk\n",
        BOTH,
        {"1.png (row 2)": "stands in row 1 too, with other values"},
    ),
    *(
        OddTable(
            OUTSIDE,
            "listed; `--follow-outside` reads it",
            b"path,label\n1.png,owl\n%s,owl\n2.png,elk\n" % path.encode(),
            BOTH,
            {os.path.normpath(path): OUT.format("table")},
        )
        for path in ("/etc/far.png", "../far.png", "sub/../../far.png", "far/far.png")
    ),
    OddTable(
        OUTSIDE,
        "listed; `--follow-outside` reads it",
        b"1.png\n../far.png\n2.png\n",
        failed={"../far.png": OUT.format("list")},
        name="odd.txt",
    ),
    OddTable(
        "no column `path`",
        "refused, with the columns that there are and the nearest name",
        b"paths,label\n1.png,owl\n",
        refusal=r"has no column 'path'\. Did you mean 'paths'\? Its columns: paths, label\.",
    ),
    OddTable(
        "a row without a path, or with one that leads nowhere",
        "listed",
        b"path,label\n1.png,owl\n,elk\ngone.png,owl\n2.png,elk\n",
        BOTH,
        {"(row 2)": "no path in this row", "gone.png": "no such file"},
    ),
    OddTable(
        "a byte order mark, semicolons, tabs",
        "read",
        b"\xef\xbb\xbfpath;label\r\n1.png;owl\r\n2.png;elk\r\n",
        BOTH,
    ),
    OddTable(NO_ROWS, "refused", b"", refusal=r"odd\.csv is empty\. A table needs a column 'path'"),
    OddTable(NO_ROWS, "refused", b"path,label\n", refusal=r"has a header and no rows\."),
    OddTable(
        "another encoding than UTF-8",
        "refused: save it as UTF-8",
        "path,label\n1.png,Käuzchen\n".encode("latin-1"),
        refusal=r"is not UTF-8 text\. Save it as UTF-8",
    ),
    OddTable(
        "a cell that begins with `=`, `+`, `-` or `@`",
        "written with a `'` in front, so that no spreadsheet computes it; reading takes it off",
        b"path,label\n1.png,'=1+1\n2.png,''@x\n",
        {"1.png": "=1+1", "2.png": "'@x"},
    ),
    OddTable("a label with a comma or a line break", "a class like another",
             b'path,label\n1.png,"owl, grey"\n2.png,"elk\nold"\n',
             {"1.png": "owl, grey", "2.png": "elk\nold"}),
    OddTable("whole numbers as labels, below zero too", "classes, as they are written",
             b"path,label\n1.png,-1\n2.png,2\n", {"1.png": "-1", "2.png": "2"}),
    OddTable("a column of text and numbers", "classes of text",
             b"path,label\n1.png,owl\n2.png,7\n", {"1.png": "owl", "2.png": "7"}),
]  # fmt: skip


# ------------------------------------------------------------------------- labels and networks


LABELS = {
    "one class": "refused: there is nothing to tell apart",
    "a class of one sample": "trained on, never tested, and said",
    "a label at test time that was never trained on": "counts as wrong",
    "NaN among numbers": "a missing label: the row is left out",
    "an infinite number": "refused, naming the row",
    "fractions that are asked for as classes": "refused, unless they are text",
    "a column without a value": "refused",
}

RUNS = {
    "no permission": "listed, and tried again",
    "a file that vanishes during the run": "listed, and tried again",
    "a file that changes during the run": "the row of what was read; the next run sees the change",
    "a network that gives NaN": "stops, naming file and layer",
    "a value beyond float16": "stops, naming file, layer and `--store-dtype float32`",
}

SECTIONS: dict[str, list[str]] = {
    "a picture file": list(dict.fromkeys(odd.line for odd in FILES)),
    "files and folders": list(dict.fromkeys(odd.line for odd in FOLDERS)),
    "a table or list": list(dict.fromkeys(odd.line for odd in TABLES)),
    "labels": [Odd(what, happens).line for what, happens in LABELS.items()],
    "while it runs": [Odd(what, happens).line for what, happens in RUNS.items()],
}
"""The lines of the README, by table."""
