"""The sealer and its files, and the commands `seal`, `receipt` and `verify`."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from click.testing import CliRunner, Result

from recordledger.domain.errors import SealBroken, SealKeyRefused
from recordledger.domain.proof.notes import SigningKey, VerifierKey
from recordledger.domain.proof.seals import Checkpoint
from recordledger.projections.proof.receipts import make_receipt
from recordledger.projections.proof.seals import newest_checkpoint, newest_seal
from recordledger.workers.cli import main
from recordledger.workers.jobs.schedule import ScheduledJob, run_jobs, seal_the_log, server_jobs
from recordledger.workers.jobs.sealing import Sealer, SealFileFault, read_checkpoints, read_note
from tests.projections.forger import Forger
from tests.projections.stage import OK, Stage, good, staged, until


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A ledger in which one task was done and two wait."""
    with staged(database_url) as made:
        made.submit(3)
        manager_id = made.manager()
        made.hand_in(manager_id, made.claim(manager_id, 1), good())
        yield made


@pytest.fixture
def sealer(stage: Stage, tmp_path: Path) -> Sealer:
    """A sealer with an empty home, that exports checkpoints."""
    return Sealer(stage.ledger, home=tmp_path, checkpoint_dir=tmp_path / "checkpoints")


def invoke(stage: Stage, home: Path, verb: str, *options: str) -> Result:
    arguments = [verb, "--home", str(home), "--database-url", stage.url, *options]
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})


# The sealer


def test_the_first_seal_makes_a_key_that_only_its_owner_reads(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    assert sealer.run(Event()) == stage.head()
    [key_file] = (tmp_path / "seals").glob("*.key")
    assert key_file == sealer.key_file
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert SigningKey.parse(key_file.read_text().strip()) == sealer.key()
    again = Sealer(stage.ledger, home=tmp_path)
    assert again.key() == sealer.key()
    assert again.run(Event()) == 0
    everything = stage.ask("SELECT string_agg(vkey, '') FROM seal_keys")
    assert sealer.key().secret not in str(everything)


def test_each_seal_is_exported_as_a_file_that_is_not_changed(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    sealer.run(Event())
    first = read_checkpoints(tmp_path / "checkpoints")
    assert list(first.values()) == [newest_checkpoint(stage.ledger)]
    assert sealer.export() is None
    stage.submit()
    sealer.run(Event())
    both = read_checkpoints(tmp_path / "checkpoints")
    assert first.items() < both.items()
    sizes = [Checkpoint.open(note, [sealer.key().verifier]).size for note in both.values()]
    assert sizes == [6, 7]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_checkpoint_that_was_not_exported_is_exported_the_next_time(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    assert sealer.export() is None
    assert sealer.seal() is not None
    assert not (tmp_path / "checkpoints").exists()
    assert sealer.run(Event()) == 0
    assert len(read_checkpoints(tmp_path / "checkpoints")) == 1


def test_another_checkpoint_of_as_many_events_is_not_overwritten(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    sealer.run(Event())
    [path] = (tmp_path / "checkpoints").iterdir()
    path.write_text("another\n")
    with pytest.raises(SealBroken, match="a different checkpoint"):
        sealer.export()
    assert path.read_text() == "another\n"


def test_what_was_signed_last_is_remembered_outside_of_the_database(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    sealer.run(Event())
    assert sealer.signed_file.read_text() == newest_checkpoint(stage.ledger)
    Forger(stage.url).alter(1)
    Forger(stage.url).forget_seals()
    with pytest.raises(SealBroken, match="history was rewritten"):
        sealer.run(Event())
    done = invoke(stage, tmp_path, "verify")
    assert done.exit_code == 1
    # Who knows why, says so by taking the file away.
    sealer.signed_file.unlink()
    assert Sealer(stage.ledger, home=tmp_path).run(Event()) == stage.head()


def test_another_home_has_no_key_and_makes_none(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    sealer.run(Event())
    other = Sealer(stage.ledger, home=tmp_path / "other")
    with pytest.raises(SealKeyRefused, match="copy the file here"):
        other.run(Event())
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("content", ["", "no key", "\udcff"])
def test_a_damaged_key_file_is_named(sealer: Sealer, content: str) -> None:
    sealer.key_file.parent.mkdir(parents=True)
    sealer.key_file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SealFileFault, match="cannot read a key"):
        sealer.run(Event())


def test_a_damaged_memory_is_named(sealer: Sealer) -> None:
    sealer.run(Event())
    sealer.signed_file.write_text("nothing")
    with pytest.raises(SealFileFault, match="last signed"):
        sealer.run(Event())


def test_files_that_cannot_be_are_named(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SealFileFault, match="file"):
        Sealer(stage.ledger, home=tmp_path / "file").run(Event())
    with pytest.raises(SealFileFault, match="checkpoints"):
        Sealer(stage.ledger, home=tmp_path, checkpoint_dir=tmp_path / "file" / "checkpoints").run(
            Event()
        )
    with pytest.raises(SealFileFault, match="no file"):
        read_checkpoints(tmp_path)
    (tmp_path / "large").write_bytes(b"x" * 1_000_001)
    with pytest.raises(SealFileFault, match="too large"):
        read_note(tmp_path / "large")


def test_a_long_backlog_is_sealed_in_slices(
    stage: Stage, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.submit(40)
    monkeypatch.setattr("recordledger.workers.jobs.sealing.SEAL_EVENTS_MAX", 10)
    assert sealer.run(Event()) == 46
    stop = Event()
    stop.set()
    stage.submit()
    assert sealer.run(stop) == 0


def test_the_job_seals_what_happens(stage: Stage, sealer: Sealer) -> None:
    stop = Event()
    jobs = [job for job in server_jobs(sealer=sealer, stop=stop) if job.name == "sealer"]
    assert [job.interval_s for job in jobs] == [10.0]
    assert not [job for job in server_jobs() if job.name == "sealer"]
    job = ScheduledJob("sealer", 0.05, seal_the_log(sealer, stop))
    thread = Thread(target=run_jobs, args=(stage.ledger, [job], stop))
    thread.start()
    try:
        with stage.connected() as connection:
            for _ in range(2):
                stage.submit()
                until(lambda: _sealed(stage) == stage.newest(), connection, 20)
    finally:
        stop.set()
        thread.join(20)


def test_where_the_key_is_missing_another_process_seals(
    stage: Stage, sealer: Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recordledger.workers.jobs.schedule._PAUSE_S", 0.2)
    sealer.run(Event())
    stop = Event()
    without = Sealer(stage.ledger, home=tmp_path / "other")
    threads = [
        Thread(
            target=run_jobs,
            args=(stage.ledger, [ScheduledJob("sealer", 0.05, seal_the_log(each, stop))], stop),
        )
        for each in (without, sealer)
    ]
    stage.submit()
    try:
        threads[0].start()
        threads[1].start()
        with stage.connected() as connection:
            until(lambda: _sealed(stage) == stage.newest(), connection, 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def _sealed(stage: Stage) -> int:
    seal = newest_seal(stage.ledger)
    return 0 if seal is None else seal.position


# Commands


def test_a_log_is_sealed_and_verified_from_the_command_line(stage: Stage, tmp_path: Path) -> None:
    done = invoke(stage, tmp_path, "verify")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "The log has no seal, so nothing is proven."
    checkpoints = ["--checkpoint-dir", str(tmp_path / "kept")]
    done = invoke(stage, tmp_path, "seal", *checkpoints)
    assert done.exit_code == 0, done.output
    assert done.stdout == newest_checkpoint(stage.ledger)
    key = invoke(stage, tmp_path, "seal", "--public-key").stdout.strip()
    assert Checkpoint.open(done.stdout, [VerifierKey.parse(key)]).size == 6
    stage.submit()
    options = ["--key", key, "--checkpoints", str(tmp_path / "kept")]
    done = invoke(stage, tmp_path, "verify", *options)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "events               ok: 6 events; each matches its stored hash"
    assert "6 events are sealed; the log has 7, and 1 of them are not sealed yet" in lines
    assert lines[-1] == "The log agrees with its seals."
    Forger(stage.url).alter(3)
    done = invoke(stage, tmp_path, "verify", "--json")
    assert done.exit_code == 1
    found = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert "position 3:" in found["events"]["breaches"][0]["what"]
    assert invoke(stage, tmp_path, "verify").stdout.splitlines()[-1] == (
        "The log does NOT agree with its seals."
    )


def test_the_key_can_be_changed_from_the_command_line(stage: Stage, tmp_path: Path) -> None:
    invoke(stage, tmp_path, "seal")
    old = invoke(stage, tmp_path, "seal", "--public-key").stdout.strip()
    new = invoke(stage, tmp_path, "seal", "--new-key").stdout.strip()
    assert old != new == invoke(stage, tmp_path, "seal", "--public-key").stdout.strip()
    stage.submit()
    assert invoke(stage, tmp_path, "seal").exit_code == 0
    options = ["--key", old, "--key", new]
    assert invoke(stage, tmp_path, "verify", *options).exit_code == 0
    assert invoke(stage, tmp_path, "verify").exit_code == 0
    files = sorted(path.suffix for path in (tmp_path / "seals").iterdir())
    assert files == sorted([".key", ".newest", f".{old.split('+')[1]}"])


def test_a_receipt_is_verified_from_the_command_line(
    stage: Stage, sealer: Sealer, tmp_path: Path
) -> None:
    sealer.run(Event())
    path, result = tmp_path / "receipt.json", tmp_path / "result.json"
    path.write_text(make_receipt(stage.ledger, 1))
    result.write_bytes(OK)

    def verify(*options: str) -> Result:
        return CliRunner().invoke(main, ["verify", *options])

    key = str(sealer.key().verifier)
    done = verify(str(path), "--key", key, "--result", str(result))
    assert done.exit_code == 0, done.output
    assert "the given key" in done.stdout
    assert "FROM THE RECEIPT ITSELF" in verify(str(path)).stdout
    assert json.loads(verify(str(path), "--json").stdout)["n_events"] == 3
    result.write_bytes(b"{}")
    done = verify(str(path), "--result", str(result))
    assert (done.exit_code, "not the record's" in done.output) == (1, True)
    path.write_text(path.read_text().replace("complete", "completf", 1))
    done = verify(str(path))
    assert (done.exit_code, done.output.startswith("Error: ")) == (1, True)


@pytest.mark.parametrize(
    "options",
    [
        ["FILE", "--checkpoints", "."],
        ["--result", "FILE"],
        ["FILE", "--key", "a", "--key", "b"],
        ["--consistency", "FILE", "FILE"],
        ["nowhere.json"],
    ],
)
def test_what_does_not_go_together_is_refused(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    given = [str(tmp_path / "file") if each == "FILE" else each for each in options]
    assert CliRunner().invoke(main, ["verify", *given]).exit_code == 2
