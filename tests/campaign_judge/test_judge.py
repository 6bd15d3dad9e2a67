"""The judge finds each kind of fault in a folder that has only this one, and nothing in a folder that has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.campaign_judge.__main__ import main
from tests.campaign_judge.findings import Kind
from tests.campaign_judge.judge import Judgement, judge_folder
from tests.campaign_judge.report import write_report
from tests.campaign_judge.sample_run import (
    BEGIN,
    FORGOTTEN,
    GATEWAY_RUN,
    KILLED,
    UNCOUNTED,
    UNMATCHED,
    Line,
    SampleRun,
    decode,
    make_sample_run,
)

CLEAN = make_sample_run()
# A casting that was judged `ok` and one that was judged `defect`, far from all faults that could excuse something.
OK, DEFECT = 4, 6


def judge_run(run: SampleRun, folder: Path) -> Judgement:
    return judge_folder(run.write(folder))


def found(judgement: Judgement) -> dict[Kind, int]:
    return {kind: len(sentences) for kind, sentences in judgement.findings.faults.items()}


def drop(lines: list[Line], line: Line) -> None:
    lines.remove(line)


def upload_of(run: SampleRun, number: int) -> Line:
    return next(each for each in run.files["uploads"] if each["casting"] == number)


def image_of(run: SampleRun, number: int) -> Line:
    sha256 = upload_of(run, number)["sha256"]
    return next(each for each in run.topics["castings.images.north"] if each["sha256"] == sha256)


def move_to(run: SampleRun, number: int, side: str) -> None:
    """Lets a casting leave on the side `side`. The sorted record says so."""
    action = "diverted" if side == "chute" else "passed"
    run.change(run.find_json("sorted", number), action=action, gate_moved=False)
    run.casting(number).update(left_by=side, gate_moves=0)


def lose_picture(run: SampleRun) -> None:
    drop(run.topics["castings.images.north"], image_of(run, OK))
    drop(run.topics["castings.verdicts.north"], run.find_json("verdicts", OK))
    move_to(run, OK, "chute")
    run.change(run.find_json("sorted", OK), reason="no-verdict")


def leave_unjudged(run: SampleRun) -> None:
    drop(run.topics["castings.verdicts.north"], run.find_json("verdicts", OK))
    move_to(run, OK, "chute")
    run.change(run.find_json("sorted", OK), reason="no-verdict")


def judge_too_late(run: SampleRun) -> None:
    run.find_json("verdicts", OK)["timestamp"] = (run.end["last_fault_ended_at"] + 121) * 1000
    run.number_records("castings.verdicts.north")
    move_to(run, OK, "chute")
    run.change(run.find_json("sorted", OK), reason="no-verdict")


def judge_unsent(run: SampleRun) -> None:
    record = run.find_json("verdicts", UNMATCHED - 5)
    fields = decode(record)
    image = run.add_record("castings.images.north", BEGIN, None, {}, sha256="f" * 64)
    fields |= {"run": 9, "part": 9, "image": fields["image"] | {"partition": 0, "offset": image["offset"], "sha256": "f" * 64}}
    run.add_record("castings.verdicts.north", BEGIN + 30, fields)


def contradict(run: SampleRun) -> None:
    fields = decode(run.find_json("verdicts", OK))
    run.add_record("castings.verdicts.north", BEGIN + 30, fields | {"label": "defect", "verdict_id": "other"})


def contradict_with_the_same_id(run: SampleRun) -> None:
    run.add_record("castings.verdicts.north", BEGIN + 30, decode(run.find_json("verdicts", OK)) | {"label": "defect"})


def exchange_pictures(run: SampleRun) -> None:
    one, other = run.find_json("verdicts", OK), run.find_json("verdicts", OK + 4)
    parts = [{name: decode(record)[name] for name in ("run", "part")} for record in (one, other)]
    run.change(one, **parts[1])
    run.change(other, **parts[0])


def judge_under_other_number(run: SampleRun) -> None:
    upload_of(run, OK)["judged_part"] = "north:1:777"


def move_twice(run: SampleRun) -> None:
    run.casting(DEFECT)["gate_moves"] = 2
    run.files["castings"].append({"gate": "moved", "line": "north", "at": BEGIN + DEFECT + 5})


def keep_defect(run: SampleRun) -> None:
    move_to(run, DEFECT, "belt")


def keep_reviewed(run: SampleRun) -> None:
    move_to(run, 7, "belt")


def keep_unjudged_casting(run: SampleRun) -> None:
    run.casting(UNCOUNTED)["left_by"] = "belt"
    run.casting(UNCOUNTED)["eye2_at"] += 3


def keep_casting_with_late_verdict(run: SampleRun) -> None:
    """Lets a casting pass whose verdict `ok` came only after it had passed photo-eye 2."""
    run.find_json("verdicts", OK)["timestamp"] = (BEGIN + OK + 6) * 1000
    run.number_records("castings.verdicts.north")


def divert_ok_against_its_verdict(run: SampleRun) -> None:
    move_to(run, KILLED + 5, "chute")


def divert_ok_without_a_fault(run: SampleRun) -> None:
    move_to(run, OK, "chute")
    run.change(run.find_json("sorted", OK), reason="no-verdict", told_at=None)


def record_other_side(run: SampleRun) -> None:
    run.change(run.find_json("sorted", OK), action="diverted", reason="no-verdict")


def forget_without_reset(run: SampleRun) -> None:
    run.files["castings"] = [line for line in run.files["castings"] if "board" not in line or line["line"] == "south"]
    run.casting(FORGOTTEN)["eye2_at"] -= 0.001


def leave_unrecorded(run: SampleRun) -> None:
    drop(run.topics["castings.sorted.north"], run.find_json("sorted", OK))


def sort_twice(run: SampleRun) -> None:
    fields = decode(run.find_json("sorted", DEFECT))
    run.add_record("castings.sorted.north", BEGIN + 30, fields | {"event": 999, "gate_moved": False})


def record_two_moves(run: SampleRun) -> None:
    fields = decode(run.find_json("sorted", DEFECT))
    run.add_record("castings.sorted.north", BEGIN + 30, fields | {"event": 999})


def record_unknown_casting(run: SampleRun) -> None:
    run.add_record("castings.sorted.north", BEGIN + 30, decode(run.find_json("sorted", DEFECT)) | {"part": 5000})


def stay_silent(run: SampleRun) -> None:
    """Delays the verdicts after the kill of the inspector."""
    for record in run.topics["castings.verdicts.north"]:
        if BEGIN + 10.5 < record["timestamp"] / 1000 < BEGIN + 16.3:
            record["timestamp"] = (BEGIN + 16.3) * 1000


def grow(run: SampleRun) -> None:
    sample = run.files["memory"][0]
    hours = [second / 3600 for second in range(0, 7200, 5)]
    run.files["memory"] = [
        sample | {"at": BEGIN + hour * 3600, "rss_bytes": round(2**20 * (400 + 3 * hour + index % 3 / 10))}
        for index, hour in enumerate(hours)
    ]


def fail_to_inject(run: SampleRun) -> None:
    run.files["faults"][0]["error"] = "the process had already ended"


def give_no_alarm(run: SampleRun) -> None:
    run.files["alarms"].clear()


def reject_good_record(run: SampleRun) -> None:
    about = {"dead-topic": "castings.verdicts.north", "dead-partition": "0", "dead-offset": "3", "dead-reason": "handling-failed"}
    run.add_record("castings.dead-letters", BEGIN + 20, None, about)


def write_no_json(run: SampleRun) -> None:
    run.add_record("castings.verdicts.north", BEGIN + 30, {"label": "ok"})


def leave_injected_record(run: SampleRun) -> None:
    run.topics["castings.dead-letters"].clear()


def lose_image_of_judged(run: SampleRun) -> None:
    drop(run.topics["castings.images.north"], image_of(run, OK))


FAULTS: list[tuple[Callable[[SampleRun], None], Kind]] = [
    (lose_picture, Kind.LOST),
    (leave_unjudged, Kind.UNJUDGED),
    (judge_too_late, Kind.UNJUDGED),
    (leave_injected_record, Kind.UNJUDGED),
    (judge_unsent, Kind.UNEXPECTED),
    (contradict, Kind.CONTRADICTING),
    (contradict_with_the_same_id, Kind.CONTRADICTING),
    (exchange_pictures, Kind.OTHER_CASTING),
    (judge_under_other_number, Kind.OTHER_CASTING),
    (lose_image_of_judged, Kind.VANISHED),
    (reject_good_record, Kind.DEAD_LETTER),
    (write_no_json, Kind.UNREADABLE),
    (move_twice, Kind.MOVED_TWICE),
    (keep_defect, Kind.WRONG_SIDE),
    (keep_reviewed, Kind.WRONG_SIDE),
    (keep_unjudged_casting, Kind.WRONG_SIDE),
    (divert_ok_against_its_verdict, Kind.WRONG_SIDE),
    (keep_casting_with_late_verdict, Kind.WRONG_SIDE),
    (divert_ok_without_a_fault, Kind.WRONG_SIDE),
    (record_other_side, Kind.OTHER_RECORD),
    (forget_without_reset, Kind.OTHER_RECORD),
    (leave_unrecorded, Kind.NOT_RECORDED),
    (sort_twice, Kind.SORTED_TWICE),
    (record_unknown_casting, Kind.UNKNOWN_CASTING),
    (stay_silent, Kind.SILENT),
    (give_no_alarm, Kind.NO_ALARM),
    (grow, Kind.GROWING),
    (fail_to_inject, Kind.NOT_INJECTED),
]


def test_a_run_without_faults_of_castline_is_right(tmp_path: Path) -> None:
    judgement = judge_run(CLEAN, tmp_path)
    assert judgement.findings.faults == {}
    counts = judgement.findings.counts
    assert counts["faults"] == 5
    assert counts["castings"] == 120
    assert counts["recovered: never acknowledged, yet judged"] == 2
    assert counts["verdicts repeated"] == 2
    assert counts["castings that the board did not count"] == 2
    assert counts["castings whose board forgot them in a reset"] == 2
    assert counts["pictures never acknowledged and not judged"] == 2
    assert counts["dead letters about injected records"] == 1


def record_under_the_number_of_the_picture(run: SampleRun) -> None:
    """Lets a reset delete the number of a casting before any sorter knew it. The gateway gives the picture a number of its own."""
    number = {"run": GATEWAY_RUN, "part": FORGOTTEN}
    run.change(run.find_json("sorted", FORGOTTEN), **number)
    run.change(run.find_json("verdicts", FORGOTTEN), **number)
    upload_of(run, FORGOTTEN)["judged_part"] = f"north:{GATEWAY_RUN}:{FORGOTTEN}"


def test_a_casting_whose_number_only_the_board_knew_needs_a_record_of_its_picture_and_a_reset(tmp_path: Path) -> None:
    lost = CLEAN.copy()
    record_under_the_number_of_the_picture(lost)
    judgement = judge_run(lost, tmp_path / "lost")
    assert judgement.findings.faults == {}
    assert judgement.findings.counts["castings whose number only the board knew, recorded under the numbers of their pictures"] == 1
    unrecorded = lost.copy()
    last = unrecorded.topics["castings.sorted.north"]
    drop(last, next(each for each in last if decode(each)["run"] == GATEWAY_RUN))
    assert found(judge_run(unrecorded, tmp_path / "unrecorded")) == {Kind.NOT_RECORDED: 1}
    not_reset = lost.copy()
    forget_without_reset(not_reset)
    assert found(judge_run(not_reset, tmp_path / "not-reset")) == {Kind.NOT_RECORDED: 1}


def test_a_casting_before_the_gate_may_fall_into_the_chute_when_the_board_is_reset(tmp_path: Path) -> None:
    run = CLEAN.copy()
    run.casting(OK)["left_by"] = "chute"
    assert Kind.OTHER_RECORD in found(judge_run(run, tmp_path / "no-reset"))
    run.files["castings"].append({"board": "reset", "line": "north", "at": run.casting(OK)["eye2_at"] + 0.07})
    judgement = judge_run(run, tmp_path / "reset")
    assert Kind.OTHER_RECORD not in judgement.findings.faults
    assert judgement.findings.counts["castings that lay before the gate when the board was reset"] == 1


@pytest.mark.parametrize(("spoil", "kind"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_single_fault_is_found_and_nothing_else(spoil: Callable[[SampleRun], None], kind: Kind, tmp_path: Path) -> None:
    run = CLEAN.copy()
    spoil(run)
    judgement = judge_run(run, tmp_path)
    assert set(found(judgement)) == {kind}, judgement.findings.faults
    assert kind in write_report(judgement)


def test_a_silence_belongs_to_the_fault_during_which_it_began_and_to_the_other_one_of_a_pair(tmp_path: Path) -> None:
    run = CLEAN.copy()
    other_pair = [("freeze-broker", 51.0, 52.0), ("slow-disk", 52.0, 54.0)]
    run.files["faults"] += [
        run.files["faults"][4] | {"number": number, "kind": kind, "began_at": BEGIN + began_s, "ended_at": BEGIN + ended_s}
        for number, (kind, began_s, ended_s) in enumerate(other_pair, 6)
    ]
    for record in run.topics["castings.verdicts.north"]:
        if BEGIN + 45.2 < record["timestamp"] / 1000 < BEGIN + 53:
            record["timestamp"] = (BEGIN + 53) * 1000
    rows = {row.cause: row for row in judge_run(run, tmp_path).silences}
    assert rows["kill-broker + kill-gateway"].longest_s > 6
    assert rows["kill-broker + kill-gateway"].limit is None
    assert rows["kill-inspector"].longest_s < 2


def test_a_fault_that_was_injected_in_part_explains_its_silence_and_does_not_count(tmp_path: Path) -> None:
    run = CLEAN.copy()
    run.files["faults"][0]["error"] = "no space left"
    stay_silent(run)
    judgement = judge_run(run, tmp_path)
    assert set(found(judgement)) == {Kind.NOT_INJECTED}
    assert judgement.findings.counts["faults"] == 4
    assert [row for row in judgement.silences if row.cause == "kill-inspector (in part)" and row.longest_s > 5]


def write_memory(run: SampleRun, mib_by_minute: Callable[[int], float], minutes: int) -> None:
    sample = run.files["memory"][0]
    run.files["memory"] = [
        sample | {"at": BEGIN + 5 * index, "rss_bytes": round(2**20 * (mib_by_minute(index // 12) + index % 3 / 10))}
        for index in range(minutes * 12)
    ]


@pytest.mark.parametrize(
    ("mib_by_minute", "outcome"),
    [
        (lambda minute: 400 + min(minute, 20), "flat"),
        (lambda minute: 400 + 5 * (minute > 60), "flat"),
        (lambda minute: 400 + minute / 20, "grows"),
        (lambda minute: 400 + minute / 60, "not decided"),
    ],
    ids=["warm-up", "one jump", "3 MiB an hour", "1 MiB an hour"],
)
def test_memory_is_judged_by_its_slope_after_the_warm_up(mib_by_minute: Callable[[int], float], outcome: str, tmp_path: Path) -> None:
    run = CLEAN.copy()
    write_memory(run, mib_by_minute, 120)
    (slope,) = judge_run(run, tmp_path).memory
    assert slope.outcome == outcome, slope


def test_a_run_without_faults_must_show_that_the_memory_is_flat(tmp_path: Path) -> None:
    run = CLEAN.copy()
    run.files["faults"].clear()
    run.plan["minutes"] = 120
    run.plan["silence_limits"] = {}
    write_memory(run, lambda minute: 400 + minute / 60, 120)
    assert Kind.NOT_FLAT in found(judge_run(run, tmp_path / "undecided"))
    write_memory(run, lambda minute: 400, 120)
    assert Kind.NOT_FLAT not in found(judge_run(run, tmp_path / "flat"))
    run.files["memory"] = run.files["memory"][:100]
    assert Kind.NOT_FLAT in found(judge_run(run, tmp_path / "short"))


def test_a_gate_that_moved_twice_by_its_records_is_found(tmp_path: Path) -> None:
    run = CLEAN.copy()
    record_two_moves(run)
    assert found(judge_run(run, tmp_path)) == {Kind.MOVED_TWICE: 1, Kind.SORTED_TWICE: 1}


def test_a_wrong_clock_of_an_inspector_is_no_fault(tmp_path: Path) -> None:
    run = CLEAN.copy()
    run.files["faults"][0].update(kind="clock-step", ended_at=BEGIN + 18)
    for number in range(17, 20):
        run.find_json("verdicts", number)["timestamp"] += 7200_000
    for number in range(20, 23):
        run.find_json("verdicts", number)["timestamp"] -= 7200_000
    assert found(judge_run(run, tmp_path)) == {}


def test_what_the_stated_order_drops_on_a_full_disk_is_counted_apart(tmp_path: Path) -> None:
    run = CLEAN.copy()
    lose_picture(run)
    images = run.topics["castings.images.north"]
    # The dropped record was the first one of its partition.
    for image in [image for image in images if image["partition"] == OK % 4 and image["timestamp"] < (BEGIN + OK) * 1000]:
        drop(images, image)
    about = {"dead-topic": "castings.images.north", "dead-partition": "0", "dead-offset": "0", "dead-reason": "expired"}
    run.add_record("castings.dead-letters", BEGIN + 25, None, about)
    assert Kind.LOST in found(judge_run(run, tmp_path / "without"))
    run.files["faults"][1]["loses"] = "judged pictures, then unjudged ones"
    judgement = judge_run(run, tmp_path / "with")
    assert found(judgement) == {}
    assert judgement.findings.counts["pictures that the stated order dropped on a full disk"] == 1


# The counts of a run change when a record is repeated. They change or a fault is found when one is missing.
RECORDS = [
    *((name, index) for name in ("castings", "uploads", "faults", "injected", "alarms") for index in range(len(CLEAN.files[name]))),
    *((name, index) for name, records in CLEAN.topics.items() for index in range(len(records))),
]


def lines_of(run: SampleRun, name: str) -> list[Line]:
    return run.files[name] if name in run.files else run.topics[name]


@pytest.fixture(scope="module")
def clean_judgement(tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    return judge_run(CLEAN, tmp_path_factory.mktemp("clean"))


def judge_changed(change: Callable[[list[Line]], None], name: str, folder: Path) -> Judgement:
    run = CLEAN.copy()
    change(lines_of(run, name))
    return judge_run(run, folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(RECORDS))
def test_a_missing_record_is_noticed(tmp_path: Path, clean_judgement: Judgement, place: tuple[str, int]) -> None:
    name, index = place
    judgement = judge_changed(lambda lines: lines.remove(lines[index]), name, tmp_path)
    assert judgement.findings.faults or judgement.findings.counts != clean_judgement.findings.counts


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(RECORDS), st.booleans())
def test_a_repeated_record_is_noticed(tmp_path: Path, clean_judgement: Judgement, place: tuple[str, int], has_new_offset: bool) -> None:
    name, index = place

    def repeat(lines: list[Line]) -> None:
        lines.append(dict(lines[index]))
        if has_new_offset and "offset" in lines[index]:
            lines[-1]["offset"] = max(line["offset"] for line in lines) + 1

    judgement = judge_changed(repeat, name, tmp_path)
    assert judgement.findings.faults or judgement.findings.counts != clean_judgement.findings.counts


def test_the_command_writes_the_report_and_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong, page = CLEAN.write(tmp_path / "right"), CLEAN.copy(), tmp_path / "campaign.md"
    keep_defect(wrong)
    wrong.write(tmp_path / "wrong")
    monkeypatch.setattr("sys.argv", ["judge", str(right), "--publish", str(page)])
    assert main() == 0
    assert "Nothing is wrong" in (right / "report.md").read_text()
    assert "| kill-inspector | 1 | 0 |" in page.read_text()
    monkeypatch.setattr("sys.argv", ["judge", str(right), str(tmp_path / "wrong")])
    assert main() == 1
    assert "stayed on the belt, judged defect in time" in (tmp_path / "wrong" / "report.md").read_text()
