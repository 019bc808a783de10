"""The overhead benchmark: its arithmetic on hand-made runs, its setting, and a tiny run."""

import json
import subprocess
import sys
from pathlib import Path

import bench_overhead
import pytest
import torch
from bench_overhead import WARM, fits, in_turn
from lab.launch import flags
from overhead.clock import PHASES, Clock
from overhead.result import counted_steps, flop_floor, halves, quick, spread, summarise
from overhead.setting import SETTINGS, make
from overhead.text import as_markdown
from transformers import AutoConfig, AutoModel

from let_titan.config import LetConfigManager
from let_titan.student import FLAVORS, LetTransformer
from let_titan.teacher.description import flops_per_token
from let_titan.teacher.facts import all_facts

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "recipes" / "results" / "overhead"
MS = 1e-3


def run(teacher_ms, taught, rate=1.0, peak=(1000, 1000)):
    """12 steps of which each takes 100 ms for the student; the first of each half are slow."""
    steps = []
    for number in range(12):
        active = number < taught
        phases = dict.fromkeys(PHASES, 0.0)
        phases |= {"data": 5 * MS, "forward": 30 * MS, "backward": 60 * MS, "optimizer": 5 * MS}
        phases = {phase: rate * seconds for phase, seconds in phases.items()}
        phases["teacher"] = teacher_ms * MS if active else 0.0
        if number % 6 in (0, 5):
            phases["rest"] = 10.0  # warm-up, and the step that lets the teacher go
        steps.append({"teacher_active": active, "peak_bytes": peak[number // 6], "phases": phases})
    return {
        "steps": steps,
        "tokens_per_step": 1000,
        "student_flops_per_token": 200,
        "teacher": {"flops_per_token": 10} if taught else None,
        "peak_flops": 4e6,
    }


def test_halves_of_a_known_run():
    found = halves(run(25, taught=6), warmup=1)
    first, second = found["with_teacher"], found["after"]
    assert first["step_s"] == pytest.approx(125 * MS)
    assert first["phases"]["teacher"] == pytest.approx(25 * MS)
    assert first["tokens_per_s"] == pytest.approx(8000)
    assert first["student_mfu"] == pytest.approx(200 * 1000 / 0.1 / 4e6)
    assert first["teacher_mfu"] == pytest.approx(10 * 1000 / 0.025 / 4e6)
    assert second["step_s"] == pytest.approx(100 * MS)
    assert second["teacher_mfu"] is None


def test_what_is_counted_of_a_run_and_said_of_rounds():
    """Neither warm-up nor a half's last step; the quickest tenth; the extremes."""
    counted = counted_steps({"steps": list(range(12))}, warmup=1)
    assert counted == {"with_teacher": [1, 2, 3, 4], "after": [7, 8, 9, 10]}
    assert quick([[{"phases": {"data": t}} for t in range(11)]]) == 1.0
    assert spread([3, 1, 2]) == {"median": 2, "min": 1, "max": 3}


def test_ratios_are_to_the_baseline_of_the_same_round():
    """The second round's machine is half as fast: each arm's ratio stays what it was."""
    rounds = [
        {"baseline": run(0, 0, rate), "LET": run(25 * rate, 6, rate, peak=(1100, 1000))}
        for rate in (1.0, 2.0)
    ]
    let = summarise(rounds, warmup=1)["LET"]
    for value in let["with_teacher"]["tokens_per_s_ratio"].values():
        assert value == pytest.approx(0.8)
    assert let["with_teacher"]["peak_ratio"]["max"] == pytest.approx(1.1)
    assert let["after"]["tokens_per_s_ratio"] == pytest.approx({"median": 1, "min": 1, "max": 1})
    assert let["after"]["peak_ratio"]["median"] == 1
    assert let["with_teacher"]["quick_step_s"] == pytest.approx(0.125)  # the fast round's
    assert let["floor"] == pytest.approx(200 / 210) == flop_floor(rounds[0]["LET"])


def test_within_a_run_the_speed_of_its_process_cancels():
    """LET's process is a tenth faster throughout, and the machine slows down after the teacher."""
    taught = run(25 * 0.9, 6, 0.9)
    runs = {"LET": taught, "RKD": run(25, 12), "baseline": run(0, 0)}
    for each in runs.values():
        for step in each["steps"][6:]:
            step["phases"] = {phase: 1.2 * seconds for phase, seconds in step["phases"].items()}
    arms = summarise([runs], warmup=1)
    assert list(arms) == ["baseline", "LET", "RKD"]  # whichever was first
    assert arms["LET"]["with_teacher"]["tokens_per_s_ratio"]["median"] == pytest.approx(0.8 / 0.9)
    assert arms["LET"]["within_run"]["median"] == pytest.approx(0.8)
    assert "within_run" not in arms["baseline"] and "within_run" not in arms["RKD"]


def test_arms_differ_from_the_baseline_in_their_method_alone():
    found = {}
    for arm, keys in bench_overhead.arms(6, Path("states")).items():
        args = ["--job.config_file", str(SETTINGS["cpu"].config), *flags(keys)]
        config = LetConfigManager().parse_args(args)
        let = config.let.s_stop if config.let.enable else 0
        distilled = config.distill.method, config.distill.n_kd
        found[arm] = (let, distilled, config.teacher.cache)
        config.let = config.distill = config.teacher = None
        found[arm, "else"] = config
    none, methods = ("none", 0), bench_overhead.arms(6, Path())
    assert {arm: found[arm] for arm in methods} == {
        "baseline": (0, none, ""),
        "LET": (6, none, ""),
        "LET_writing": (6, none, "states"),
        "LET_reading": (6, none, "states"),
        "RKD": (0, ("rkd", 0), ""),
        "SALT": (0, ("salt", 6), ""),
    }
    assert all(found[arm, "else"] == found["baseline", "else"] for arm in methods)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--half", "2"], "--half 2 must be at least 3: warm-up, one step, the last"),
        (["--arms", "LET_reading"], "--arms LET_reading needs LET_writing"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(args, says, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "tiny", *args, "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="2"):
        bench_overhead.main()
    assert says in capsys.readouterr().err and not (tmp_path / "work").exists()


WORKER = """
import json, os, sys
from pathlib import Path
if sys.argv[2] == "0":
    sys.exit("no room")
Path(sys.argv[1]).write_text(json.dumps([sys.argv[2:6], "RANK" in os.environ, os.getcwd()]))
"""


def test_a_worker_is_no_rank_of_many_and_what_fails_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_overhead, "WORKER", tmp_path / "worker.py")
    (tmp_path / "worker.py").write_text(WORKER)
    args, is_rank, folder = bench_overhead.timed(Path("c.toml"), 1, {"let.enable": "false"})
    assert args == ["1", "--job.config_file", "c.toml", "--let.no-enable"]
    assert not is_rank and folder == str(ROOT)
    with pytest.raises(SystemExit, match=r"(?s)worker\.py.* failed:\nno room"):
        bench_overhead.timed(Path("c.toml"), 0, {})


def test_each_round_writes_states_anew_and_reads_them(tmp_path, monkeypatch):
    there, now = [], [1000.0]

    def timed(config, warmup, keys):
        now[0] += 10.0
        assert keys["training.steps"] == "6" and keys["validation.enable"] == "false"
        if "teacher.cache" in keys:
            there.append(Path(keys["teacher.cache"]).exists())
            Path(keys["teacher.cache"]).mkdir(exist_ok=True)

    monkeypatch.setattr(bench_overhead, "timed", timed)
    monkeypatch.setattr(bench_overhead, "make", lambda *_: {})
    monkeypatch.setattr(bench_overhead, "so_far", lambda name, half, runs: list(runs[-1]))
    chosen = ["baseline", "LET_writing", "LET_reading"]
    orders = list(bench_overhead.measure("tiny", 2, 3, chosen, tmp_path))
    assert orders == [chosen, ["LET_writing", "LET_reading", "baseline"]]
    assert there == [False, True] * 2
    monkeypatch.setattr(bench_overhead.time, "monotonic", lambda: now[0])
    for seconds, rounds in ((30 + 29 * WARM, 1), (30 + 31 * WARM, 2)):  # of thirty seconds each
        found = bench_overhead.measure("tiny", 3, 3, chosen, tmp_path, seconds)
        assert len(list(found)) == rounds


def test_each_arm_begins_a_round_in_its_turn():
    assert [in_turn(["a", "b", "c"], done) for done in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    names = ["baseline", "LET_writing", "LET_reading"]
    orders = [in_turn(names, done) for done in range(3)]
    assert [order[0] for order in orders] == ["baseline", "LET_writing", "LET_writing"]
    assert all(set(order) == set(names) for order in orders)
    assert all(order.index("LET_writing") < order.index("LET_reading") for order in orders)


def test_clock_gives_every_moment_to_one_phase(monkeypatch):
    moments = iter([0, 1, 3, 6, 10, 15, 21, 28])
    monkeypatch.setattr("overhead.clock.time.perf_counter", lambda: next(moments))
    clock = Clock(torch.device("cpu"))
    clock.next_step()
    for phase in ("data", "forward", "backward"):
        clock.enter(phase)
    clock.next_step()
    clock.enter("data")
    clock.enter("data")
    first, second = clock.steps()
    assert first == dict.fromkeys(PHASES, 0) | {"rest": 1, "data": 2, "forward": 3, "backward": 4}
    assert second == dict.fromkeys(PHASES, 0) | {"rest": 5, "data": 6 + 7}


def test_the_cpu_setting_has_the_cost_ratio_of_the_papers(tmp_path):
    """Teacher's forward to student's step: as SmolLM-135M's to the 1.4B student's at 2,048."""

    def student(name, vocabulary, seq_len):
        args = FLAVORS[name]
        args.vocab_size = vocabulary
        with torch.device("meta"):
            model = LetTransformer(args)
        return args.get_nparams_and_flops(model, seq_len)[1]

    facts = next(f for name, f in all_facts().items() if name.endswith("/SmolLM-135M"))
    with torch.device("meta"):
        teacher = AutoModel.from_config(facts.config())
    wanted = flops_per_token(teacher, 2048) / student("1.4B", facts.tokenizer_vocabulary, 2048)
    setting = SETTINGS["cpu"]
    made = AutoConfig.from_pretrained(make(setting, tmp_path)["teacher.checkpoint"])
    with torch.device("meta"):
        teacher = AutoModel.from_config(made)
    found = flops_per_token(teacher, 256) / student("bench", setting.vocabulary, 256)
    assert found == pytest.approx(wanted, rel=0.03)


def test_no_round_is_begun_that_will_not_fit():
    assert fits(done=0, elapsed=0.0, seconds=1.0)  # one there is in any case
    assert fits(done=1, elapsed=20.0, seconds=20.1 + 20 * WARM)
    assert not fits(done=1, elapsed=20.0, seconds=19.9 + 20 * WARM)
    assert fits(done=2, elapsed=40.0, seconds=61.0)
    assert not fits(done=2, elapsed=40.0, seconds=59.0)
    assert fits(done=2, elapsed=1e9, seconds=float("inf"))


def test_a_round_is_written_before_the_next_is_begun(tmp_path, monkeypatch):
    """So that a limit costs what was under way, not what was found."""
    runs = [run(0, 0), run(25, 6), run(25, 6), run(0, 0)]
    facts = {**dict.fromkeys(bench_overhead.SHARED, 0), "hardware": {"cpu": "C"}}
    monkeypatch.setattr(bench_overhead, "timed", lambda *_: {**facts, **runs.pop(0)})
    monkeypatch.setattr(bench_overhead, "make", lambda *_: {})
    monkeypatch.setattr(bench_overhead, "as_markdown", lambda results: f"{results['rounds']}")
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["", "tiny", "--arms", "LET", "--half", "3", *where])
    with pytest.raises(IndexError):  # the third round's first run
        bench_overhead.main()
    results = json.loads((tmp_path / "out" / "tiny-cpu-c" / "results.json").read_text())
    assert results["rounds"] == 2 and results["arms"]["LET"]["with_teacher"]["step_s"] > 0
    assert results["steps"] == 6 and results["teacher"] == {"flops_per_token": 10}
    assert (tmp_path / "out" / "tiny-cpu-c" / "report.md").read_text() == "2"


@pytest.mark.parametrize("folder", sorted(MEASURED.iterdir()), ids=lambda folder: folder.name)
def test_what_was_measured_is_said_by_the_present_code(folder):
    results = json.loads((folder / "results.json").read_text())
    results["arms"] = summarise(results["runs"], results["warmup"])
    assert (folder / "report.md").read_text() == as_markdown(results)


def test_a_tiny_run_end_to_end(tmp_path):
    """Baseline and LET once, in processes of their own: every figure is there."""
    command = [sys.executable, str(ROOT / "scripts" / "bench_overhead.py"), "tiny"]
    command += ["--rounds", "1", "--half", "3", "--arms", "LET"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "out").iterdir()
    results = json.loads((folder / "results.json").read_text())
    let = results["arms"]["LET"]
    assert let["with_teacher"]["phases"]["teacher"] > 0
    assert let["with_teacher"]["teacher_mfu"] > 0 and let["after"]["teacher_mfu"] is None
    assert [s["teacher_active"] for s in results["runs"][0]["LET"]["steps"]] == [True] * 3 + [
        False
    ] * 3
    assert (folder / "report.md").read_text() == as_markdown(results)
