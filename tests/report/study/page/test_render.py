import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from dfl.evaluation import METRICS
from dfl.report.study.page import study_html, write_study_page
from dfl.report.study.page.heat import N_SHADES
from tests.report.study_pages import bare_page, full_page

SECTIONS = [
    "best",
    "claims",
    "models",
    "cross",
    "effects",
    "metrics",
    "comparisons",
    "roc",
    "hardest",
    "leaders",
    "notes",
    "reproduce",
]
VOID = {"meta", "link", "img", "wbr", "br", "path", "polyline"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each section, and whether tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.sections, self.text = [], [], {}, []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for tag, name in self.open:
            if tag == "section":
                self.sections.setdefault(name, []).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def said(self, section):
        return " ".join(" ".join(self.sections[section]).split())


@pytest.fixture(scope="module")
def page():
    return full_page()


@pytest.fixture(scope="module")
def html(page):
    return study_html(page)


@pytest.fixture(scope="module")
def read(html):
    return Page(html)


def test_study_html__sections_in_order(read):
    assert [attrs["id"] for attrs in read.all("section")] == SECTIONS
    assert not read.open
    links = [attrs["href"] for attrs in read.all("a")]
    assert links[: len(SECTIONS) + 1] == ["#best", *[f"#{name}" for name in SECTIONS]]
    assert set(links) == {f"#{name}" for name in SECTIONS}


def test_study_html__ids_are_unique_and_labels_lead_somewhere(read):
    ids = [attrs["id"] for _, attrs in read.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {attrs[key] for _, attrs in read.elements for key in attrs if key == "aria-labelledby"}
    assert named <= set(ids)


def test_study_html__loads_nothing(html, read):
    assert not re.search(r"https?://|//[a-z]+\.[a-z]+/|@import|url\(", html)
    loaded = [attrs[key] for _, attrs in read.elements for key in ("src", "href") if key in attrs]
    assert all(target.startswith(("data:", "#")) for target in loaded)
    (policy,) = [a["content"] for a in read.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_study_html__tables_have_captions_and_scopes(html, read):
    assert html.count("<table") == html.count("<caption") > 8
    assert {attrs.get("scope") for attrs in read.all("th")} == {"col", "row", "rowgroup"}


def test_study_html__images_are_in_the_file_and_described(page, read):
    images = read.all("img")
    assert len(images) == len(page.hardest)
    assert all(each["src"].startswith("data:image/jpeg;base64,/9j/") for each in images)
    assert images[0]["alt"] == "Fake image of progan, called real: progan/fake/00000.png"


def test_study_html__headline_is_the_first_choice(read):
    said = read.said("best")
    assert said.index("93.4 %") < said.index("Highest accuracy over all test sets")
    assert "91.2\u201395.2 %" in said
    assert "95.1 % on the validation images" in said
    assert "3,768,000" in said


def test_study_html__claims_with_verdicts(read):
    said = read.said("claims")
    assert "1 held 1 did not hold 1 undecided 1 not tested" in said
    assert "\u22122.6 points \u22123.8 to \u22121.3" in said
    assert "+5.5 points +4.1 to +6.9" in said


def test_study_html__numbers_stand_in_the_heat_map(page, read):
    said = read.said("cross")
    for table in page.matrices.values():
        for value in table["value"].dropna():
            assert f"{100 * value:.1f}" in said
    assert "nan" not in said


def test_study_html__every_metric_of_every_test_set(page, read):
    said = read.said("metrics")
    for name in METRICS:
        assert METRICS[name].title in said
        for value in page.metrics[name].dropna():
            assert f"{100 * value:.1f}" in said
    n_missing = int(page.metrics[list(METRICS)].isna().sum().sum())
    assert said.count("n/a") == n_missing + 1  # and in the sentence that says what it means


def test_study_html__ranking_is_cut_and_says_so(read):
    said = read.said("leaders")
    assert "the first 25 of 61" in said
    assert " 25 " in said
    assert " 26 " not in said


def test_study_html__notes_failures_and_commands(page, read):
    assert "3 cells failed" in read.said("notes")
    assert "2 cells: ValueError: 3 images of one class" in read.said("notes")
    assert "1 cell: MemoryError" in read.said("notes")
    assert page.notes[0] in read.said("notes")
    assert page.commands[1] in read.said("reproduce")
    assert "fake: <folder>" in read.said("reproduce")


def test_study_html__nothing_to_show_says_why():
    read = Page(study_html(bare_page()))
    assert [attrs["id"] for attrs in read.all("section")] == SECTIONS
    assert "No configuration could be chosen" in read.said("best")
    assert "Every cell finished." in read.said("notes")
    assert sum("missing" in a.get("class", "") for a in read.all("p")) == len(SECTIONS) - 1
    assert not read.all("table")


EVIL = '<script>alert("x")</script>&"\'</td>'


def _with_evil_names(page):
    changes = {}
    for each in fields(page):
        value = getattr(page, each.name)
        if isinstance(value, pd.DataFrame):
            texts = value.select_dtypes(exclude="number").columns.drop("kind", errors="ignore")
            changes[each.name] = value.assign(**dict.fromkeys(texts, EVIL))
    changes["models"] = page.models.head(1).assign(chosen=True, features=EVIL, head=EVIL)
    changes["matrices"] = {
        EVIL: pd.DataFrame(
            [(EVIL, EVIL, 0.9, 0.8, 1.0)],
            columns=["train_set", "test_set", "value", "low", "high"],
        )
    }
    changes["roc"] = {EVIL: next(iter(page.roc.values()))}
    changes["hardest"] = [
        replace(page.hardest[0], caption=EVIL, label=EVIL, verdict=EVIL, dataset=EVIL)
    ]
    words = dict.fromkeys(["title", "subtitle", "created", "config"], EVIL)
    lists = {"notes": [EVIL], "commands": [EVIL], "facts": [(EVIL, EVIL)]}
    return replace(page, **changes, **words, **lists)


def test_study_html__html_in_names_is_text(page):
    html = study_html(_with_evil_names(page))
    assert "<script>alert" not in html
    read = Page(html)
    assert len(read.all("script")) == 1
    assert not read.open
    for section in set(SECTIONS) - {"notes"}:
        assert 'alert("x")' in read.said(section).replace(" ", ""), section


@pytest.mark.parametrize("metric", ["eer", "auroc", "tpr_at_fpr_1"])
def test_study_html__any_metric(page, metric):
    read = Page(study_html(replace(page, metric=metric)))
    assert METRICS[metric].title in read.said("models")
    assert ("Further left is better" in read.said("models")) == (metric == "eer")


def test_study_html__nan_everywhere(page):
    changes = {
        each.name: value.assign(**dict.fromkeys(value.select_dtypes("number").columns, np.nan))
        for each in fields(page)
        if isinstance(value := getattr(page, each.name), pd.DataFrame)
    }
    matrices = {name: table.assign(value=np.nan) for name, table in page.matrices.items()}
    html = study_html(replace(page, **changes, matrices=matrices))
    visible = re.sub(r"(?s)<style>.*?</style>|<script>.*?</script>", "", html)
    assert "nan" not in re.findall(r"[a-z]+", visible)
    assert "n/a" in html


def test_study_html__sixty_levels_with_long_names(page):
    names = [f"a_rather_long_backbone_name_{index}+" * 4 for index in range(60)]
    effects = pd.DataFrame(
        [("features", name, 0.5 + index / 200, 0.4, 0.9, 3) for index, name in enumerate(names)],
        columns=["axis", "level", "value", "low", "high", "n_cells"],
    ).assign(difference=-0.1, diff_low=-0.2, diff_high=0.1)
    read = Page(study_html(replace(page, effects=effects)))
    assert sum(name in read.said("effects").replace(" ", "") for name in names) == 60
    assert len(read.all("wbr")) > 60 * 12


def test_study_html__one_level_is_named_not_plotted(read):
    assert "Not varied: test condition (none)." in read.said("effects")


def test_write_study_page__replaces_the_file(tmp_path):
    file = tmp_path / "new" / "report.html"
    write_study_page(bare_page(title="First"), file)
    write_study_page(bare_page(title="Second \u00b7 \u4e00"), file)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<h1>Second \u00b7 \u4e00</h1>" in text
    assert [each.name for each in file.parent.iterdir()] == ["report.html"]


def _contrast(first, second):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted([luminance(first), luminance(second)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_style__text_can_be_read_on_every_ground(scheme):
    style = (files("dfl.report.study.page") / "templates/page.css").read_text(encoding="utf-8")
    bright, _, rest = style.partition("@media screen and (prefers-color-scheme: dark)")
    source = bright if scheme == "light" else rest.partition("\n}")[0]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", source))
    pairs = [(f"s{i}", f"t{i}") for i in range(N_SHADES)]
    pairs += [(ground, ink) for ground in ("paper", "card") for ink in ("ink", "soft", "accent")]
    pairs += [("good-bg", "good"), ("bad-bg", "bad"), ("open-bg", "open"), ("mute-bg", "soft")]
    for ground, ink in pairs:
        assert _contrast(colours[ground], colours[ink]) >= 4.5, (ground, ink)
    for index in range(8):  # lines and dots are graphics: 3 is enough (WCAG 1.4.11)
        assert _contrast(colours["paper"], colours[f"c{index}"]) >= 3, index


@pytest.mark.parametrize(
    ("train_set", "said"), [("combined", "all datasets together"), ("ldm", "ldm")]
)
def test_study_html__says_what_everything_was_trained_on(page, train_set, said):
    read = Page(study_html(replace(page, train_set=train_set)))
    for section in ("models", "metrics", "comparisons", "roc", "leaders"):
        assert f"trained on {said}" in read.said(section), section


def test_study_html__fine_tuned_networks_are_marked(read):
    assert "resnet50 fine-tuned with cross-entropy" in read.said("models")


def test_study_html__differences_are_paired(read):
    said = read.said("effects")
    assert "\u22120.5 points \u22121.1 to +0.1: no clear difference" in said
    assert "\u22121.5 points \u22122.1 to \u22120.9 clip+ efficientnet" in said


def test_study_html__comparison_names_a_once(read):
    said = read.said("comparisons")
    assert said.count("clip+ dino \u00b7 rbf_ svm") == 1
    assert "+1.9 points +0.6 to +3.1 0.004 0.008 A is better < 0.001" in said


def test_study_html__many_failures_name_the_first(page):
    cells = pd.DataFrame({"cell": [f"cell {i:04d}." for i in range(1234)], "cause": "OSError: x"})
    said = Page(study_html(replace(page, failures=cells, notes=["Twice.", "Twice."]))).said("notes")
    assert "1,234 cells: OSError: x" in said
    assert "cell 0009." in said.replace(". ", ".")
    assert "cell 0010." not in said
    assert "and 1,224 more" in said
    assert said.count("Twice.") == 1
