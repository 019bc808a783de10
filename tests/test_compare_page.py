"""The files that a comparison leaves: the page, Markdown, charts; and the command line."""

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from let_titan.compare import page
from let_titan.compare.__main__ import main
from let_titan.compare.charts import CHARTS, drawn
from let_titan.compare.drawing import VARIABLES
from let_titan.compare.files import write
from let_titan.compare.result import compare
from let_titan.runs import Run
from tests.handmade import BASELINE, BETTER, WORSE, evaluate, shifted, twins, write_run

DRAWN = {"validation_loss", "speedup", "alignment", "costs"}
VOID = {"meta", "link", "br", "img", "hr", "input"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Checker(HTMLParser):
    """Collects ids, references and text; fails where an element is not closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [v for k, v in attributes if k in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A comparison of two arms, one of them with two seeds, with the hostile name <b>."""
    folder = tmp_path_factory.mktemp("runs")
    baseline = [
        write_run(folder / f"base-{s}", False, shifted(BASELINE, s / 10), s) for s in (0, 1)
    ]
    let = [write_run(folder / f"let-{s}", True, shifted(BETTER, s / 9), s) for s in (0, 1)]
    other = write_run(folder / "<b>", True, WORSE, 0)
    text = (other / "summary.json").read_text().replace('"k": 2', '"k": 3')
    (other / "summary.json").write_text(text)
    for i, run in enumerate((*baseline, *let, other)):
        evaluate(run, {20: 0.3 + i / 100, 40: 0.4 + i / 90})
    arguments = [*map(str, (*let, other)), "--baseline", *map(str, baseline)]
    assert main([*arguments, "--out", str(folder / "out"), "--note", "A <note>"]) == 0
    return folder / "out"


def test_the_page_is_well_formed_whole_and_alone(out):
    text = (out / "report.html").read_text()
    checked = Checker(text)
    assert len(checked.ids) == len(set(checked.ids))
    assert checked.links and all(link.startswith("#") for link in checked.links)
    inner = {link[1:] for link in checked.links} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert inner <= set(checked.ids)
    assert "script" not in checked.tags and "@import" not in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)  # XML's namespaces are no addresses
    assert text.count("<svg") == 2 * len(CHARTS)


def test_the_page_says_the_verdict_first_and_escapes_names(out):
    text = (out / "report.html").read_text()
    verdict = text.index("let is 0.1")
    assert text.index("<h1>Late-to-Early Training against its baseline</h1>") < verdict
    assert verdict < text.index("<svg") and verdict < text.index("<table")
    assert "&lt;b&gt;" in text and "<b>" not in text and "A &lt;note&gt;" in text


def test_many_arms_stand_in_one_table_above_their_verdicts(tmp_path, monkeypatch):
    monkeypatch.setattr(
        page, "chart", lambda comparison, name: {"name": name}
    )  # drawing takes long
    baseline = Run.load(write_run(tmp_path / "baseline", False, BASELINE))
    runs = [
        Run.load(write_run(tmp_path / f"k{k}", True, shifted(BETTER, k / 20))) for k in range(3)
    ]
    for k, run in enumerate(runs):
        run.summary["config"]["let"]["k"] = k
    text = page.page(compare(runs[:2], [baseline]))
    assert text.count('<dl class="cards">') == 2 and "at a glance" not in text
    text = page.page(compare(runs, [baseline]))
    assert 'class="cards"' not in text
    table = text[text.index("All arms at a glance") : text.index('<p class="verdict">')]
    rows = re.findall(r'<th scope="row">(.*?)</tr>', table)
    assert [re.findall(r'class="value">(.*?)<', row) for row in rows] == [
        ["-0.200", "1.143x", "1.000x", "1.143x"],
        ["-0.150", "1.103x", "0.970x", "1.103x"],
        ["-0.100", "1.067x", "0.941x", "1.067x"],
    ]


def test_charts_take_every_colour_from_the_page(out):
    text = (out / "report.html").read_text()
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)
    assert set(re.findall(r"var\((--\w+)\)", drawn)) <= set(VARIABLES.values())
    for variable in VARIABLES.values():
        assert text.count(f"{variable}:") == 3, variable  # light, dark, print
    for word in ("validation loss", "nats per token", "optimiser step", "speed-up", "baseline"):
        assert word in drawn  # text stays text


def test_two_arms_stand_side_by_side_in_markdown(out):
    text = (out / "report.md").read_text()
    assert text.startswith("**A <note>**")
    assert "|  | baseline | let | <b> |" in text
    assert "| let.k | n/a | 2 | 3 |" in text
    assert "| let, whole run |" in text and "| <b>, whole run |" in text


def test_without_a_clock_that_counts_there_is_nothing_of_throughput(tmp_path):
    baseline, let = twins(tmp_path, BASELINE, BETTER)
    assert "costs" in drawn(compare([let], [baseline]))
    untimed = compare([let], [baseline], untimed={id(let)})
    (out := tmp_path / "out").mkdir()
    (out / "costs.png").write_text("of an earlier report")
    write(untimed, out, None)
    assert {path.stem for path in out.glob("*.png")} == set(drawn(untimed)) == DRAWN - {"costs"}
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        assert "Throughput and memory" not in text and "costs.png" not in text
    assert Checker(text).links and "#costs" not in Checker(text).links


def test_mistakes_are_a_sentence(tmp_path, capsys):
    run = str(write_run(tmp_path / "run", False, BASELINE))
    for arguments, sentence in (
        ([run, "--baseline", str(tmp_path / "none")], "none is not a folder: give"),
        (["wandb:only-a-name", "--baseline", run], "write wandb:ENTITY/PROJECT/NAME"),
        ([run, "--baseline", run, "--untimed", "x"], "--untimed x is none of the runs"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


PROBE = """
<script>
const parts = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const luminance = color => {
  const [r, g, b] = parts(color).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const style = node => frame.contentWindow.getComputedStyle(node);
  const shown = node => node.getClientRects().length;
  const ground = node => {
    for (; node; node = node.parentElement) {
      const color = style(node).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
  };
  page.querySelectorAll("details").forEach(details => { details.open = true; });
  const charts = [...page.querySelectorAll("svg")].filter(shown);
  const sizes = charts.flatMap(svg => [...svg.querySelectorAll("text")].map(
    text => parseFloat(style(text).fontSize) * svg.getScreenCTM().a));
  const written = [...page.querySelectorAll("body *")].filter(node => shown(node)
    && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()));
  const faint = written.map(node => {
    const color = node.closest("svg") ? style(node).fill : style(node).color;
    return [ratio(color, ground(node)), node.textContent.trim().slice(0, 30)];
  }).filter(([value]) => value < 4.5);
  const lines = charts.flatMap(svg => [...svg.querySelectorAll("path")]).map(
    path => style(path).stroke).filter(color => color.startsWith("rgb"));
  const grid = style(page.documentElement).getPropertyValue("--grid").trim();
  const probe = document.createElement("i");
  probe.style.color = grid; document.body.append(probe);
  const pale = [...new Set(lines)].filter(color => color !== getComputedStyle(probe).color
    && ratio(color, style(page.body).backgroundColor) < 3);
  const stops = [...page.querySelectorAll("a[href], summary, [tabindex]")].filter(shown);
  const tops = stops.map(node => node.getBoundingClientRect().top);
  const result = {
    charts: charts.length, smallest: Math.min(...sizes), over: page.documentElement.scrollWidth,
    paper: style(page.body).backgroundColor, faint, pale, written: written.length,
    stops: stops.length, order: tops.every((top, i) => i === 0 || top >= tops[i - 1] - 1),
    jumps: stops.filter(node => node.tabIndex > 0).length,
  };
  document.body.dataset.result = JSON.stringify(result);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium here")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_browser_shows_every_chart_legibly_and_nothing_wider_than_the_window(out, width, dark):
    """Sizes, and by WCAG AA the contrast of text (4.5:1) and of lines (3:1) and the focus order."""
    assert CHROMIUM, "CI looks at the page in a browser: apt-get install chromium"
    frame = (
        f'<body><iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe>'
    )
    probe = out / f"probe-{width}.html"
    probe.write_text(frame + PROBE)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=2000"]
    command += [f"--user-data-dir={out / 'profile'}", f"--window-size={width + 40},1000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    found = subprocess.run(
        [*command, probe.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    result = json.loads(html.unescape(re.search(r'data-result="([^"]*)"', found)[1]))
    assert result["charts"] == len(CHARTS)
    assert result["smallest"] >= 9  # pixels
    assert result["over"] <= width
    assert result["paper"] == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
    assert result["written"] > 100 and result["faint"] == []
    assert result["pale"] == []
    assert result["stops"] > 10 and result["order"] and result["jumps"] == 0


def test_every_chart_says_what_it_shows(out):
    text = html.unescape((out / "report.html").read_text())
    said = set(re.findall(r'role="img" aria-label="([^"]*)"', text))
    assert len(said) == len(CHARTS)
    for part in (
        "Validation loss in nats per token, from step 10 to 40: baseline 9.050 to 7.050; "
        "let 9.556 to 6.856; <b> 9.500 to 7.050. Run minus baseline at the end: let -0.194 (",
        "The teacher leaves at step 20.",
        "Average accuracy of the tasks, from step 20 to 40: baseline 0.3050 to 0.4056;",
        "let in steps between 0.77x and 1.19x, 1.15x at its last loss, 7.100;",
        "baseline, whole run: 500 and 2; let, with the teacher: 450 and 3;",
        "let: lambda 0.1 to 0, cosine 0.5 to 0.5, gradient norm 1 to 1;",
    ):
        assert any(part in sentence for sentence in said), (part, said)


def test_teachers_that_auto_stop_sent_away_at_steps_of_their_own(tmp_path):
    runs = {}
    for name, losses, is_let in (("base", BASELINE, False), ("let", BETTER, True)):
        runs[name] = [str(write_run(tmp_path / f"{name}-{s}", is_let, losses, s)) for s in (0, 1)]
    for run, stop in zip(runs["let"], (18, 22), strict=True):
        summary = Path(run) / "summary.json"
        facts = json.loads(summary.read_text())
        facts["let_plan"]["s_stop"] = stop
        summary.write_text(json.dumps(facts))
    out = tmp_path / "out"
    assert main([*runs["let"], "--baseline", *runs["base"], "--out", str(out)]) == 0
    text = (out / "report.html").read_text()
    assert "The teacher leaves at step 18 to 22." in text and "(18 to 22)" in text
