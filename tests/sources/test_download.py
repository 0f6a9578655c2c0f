"""Published files: whole and as published, or not at all; nothing twice."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.commands import preprocess
from synehrgy.errors import UserError
from synehrgy.files import REPOSITORY
from synehrgy.sources import published
from synehrgy.sources.download import TRIES, Published, download, read_checksums
from synehrgy.sources.mimic3.tables import RELEASE
from synehrgy.sources.published import download_tables
from tests.conftest import SHARED
from tests.sources.http_server import Server, serving
from tests.sources.raw_database import write_database
from tests.sources.test_mimic3_files import several_patients

CONTENT = bytes(range(256)) * 40
DEMO, LISTS = SHARED / "data" / "mimic3-demo", SHARED / "data" / "benchmark-splits"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited, instead of waiting."""
    waited: list[float] = []
    monkeypatch.setattr("synehrgy.sources.download.time.sleep", waited.append)
    return waited


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server, pauses: list[float]) -> Server:
    running.forget()
    running.files = {"/file": CONTENT}
    return running


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def file_of(server: Server, folder: Path, checksum: str | None = None) -> Published:
    return Published(f"{server.url}/file", folder / "raw" / "file", checksum or sha256(CONTENT))


def get(file: Published) -> None:
    download([file], "Do it by hand.", progress=False)


def refused(file: Published) -> str:
    """The message of a download that fails; nothing is at the file's place then."""
    with pytest.raises(UserError) as error:
        get(file)
    assert not file.file.exists()
    return str(error.value)


def test_a_file_comes_whole_and_only_once(server, tmp_path):
    file = file_of(server, tmp_path)
    get(file)
    get(file)
    assert file.file.read_bytes() == CONTENT
    assert names(tmp_path / "raw") == ["file"]
    assert server.asked == [("/file", 0)]


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path, pauses, capsys):
    server.faults = [-1000, -5000, 503]
    get(file_of(server, tmp_path))
    assert (tmp_path / "raw" / "file").read_bytes() == CONTENT
    assert [start for _, start in server.asked] == [0, 1000, 6000, 6000]
    # New bytes are a new start.
    assert pauses == [1, 1, 2]
    said = capsys.readouterr().err
    assert "file: the connection broke off after 1,000 of 10,240 bytes. Going on in 1 s." in said
    assert "the server answers 503" in said


def test_a_stopped_download_goes_on_in_the_next_run(server, tmp_path):
    file = file_of(server, tmp_path)
    server.faults = [-4000, *[500] * (TRIES - 1)]
    message = refused(file)
    assert "the server answers 500" in message
    assert "run the same command again. Do it by hand." in message
    assert file.part.stat().st_size == 4000
    server.forget()
    get(file)
    assert server.asked == [("/file", 4000)]
    assert names(tmp_path / "raw") == ["file"]


def test_an_interruption_keeps_what_has_come(server, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    file = file_of(server, tmp_path)
    server.faults = [-4000]
    monkeypatch.setattr("synehrgy.sources.download.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get(file)
    assert names(tmp_path / "raw") == ["file.part"]
    get(file)
    assert server.asked == [("/file", 0), ("/file", 4000)]


def test_a_server_without_ranges_sends_it_again(server, tmp_path):
    server.ranges = False
    server.faults = [-4000]
    file = file_of(server, tmp_path)
    get(file)
    assert file.file.read_bytes() == CONTENT
    assert server.asked == [("/file", 0), ("/file", 4000)]


def test_other_bytes_than_those_asked_for_are_not_taken(server, tmp_path):
    server.faults = [-4000]
    server.shift = 7
    file = file_of(server, tmp_path)
    get(file)
    assert file.file.read_bytes() == CONTENT
    assert [start for _, start in server.asked] == [0, 4000, 0]


@pytest.mark.parametrize(
    ("part", "asked"),
    [
        (CONTENT, [len(CONTENT)]),
        (CONTENT + b"more", [len(CONTENT) + 4, 0]),
        (b"other" * 9, [45, 0]),
        (b"", [0]),
    ],
    ids=["complete", "too long", "of another version", "empty"],
)
def test_whatever_came_before_the_right_file_is_there_in_the_end(server, tmp_path, part, asked):
    file = file_of(server, tmp_path)
    file.part.parent.mkdir()
    file.part.write_bytes(part)
    get(file)
    assert file.file.read_bytes() == CONTENT
    assert [start for _, start in server.asked] == asked


def test_a_wrong_checksum_is_refused(server, tmp_path):
    file = file_of(server, tmp_path, "0" * 64)
    message = refused(file)
    assert f"{file.url} came with the SHA-256 {sha256(CONTENT)}, published is 000" in message
    assert "Do it by hand." in message
    # Another try could have helped, had it been altered on the way; a third would not.
    assert len(server.asked) == 2
    assert names(tmp_path / "raw") == []


def test_a_file_that_was_changed_here_comes_anew(server, tmp_path):
    file = file_of(server, tmp_path)
    get(file)
    file.file.write_bytes(CONTENT[:-1] + b"x")
    get(file)
    assert file.file.read_bytes() == CONTENT


def test_a_changed_file_stays_until_the_right_one_is_there(server, tmp_path):
    file = file_of(server, tmp_path)
    get(file)
    file.file.write_bytes(b"mine")
    server.faults = [404]
    with pytest.raises(UserError, match="404"):
        get(file)
    assert file.file.read_bytes() == b"mine"


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_cannot_change_is_not_tried_again(server, tmp_path, status):
    server.faults = [status]
    assert f"{server.url}/file cannot be downloaded: the server answers {status}" in refused(
        file_of(server, tmp_path)
    )
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", 7), ("86400", 60), ("Wed, 21 Oct 2026 07:28:00 GMT", 1)]
)
def test_it_waits_as_long_as_the_server_asks_for(server, tmp_path, pauses, asked, waited):
    server.faults, server.retry_after = [429], asked
    get(file_of(server, tmp_path))
    assert pauses == [waited]


def test_no_network(tmp_path, pauses):
    with serving() as server:
        file = file_of(server, tmp_path)
    message = refused(file)
    assert "Connection refused. What has come is kept: check the network" in message
    assert message.endswith("Do it by hand.")
    assert pauses == [1, 2, 4]


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/x", "somewhere"])
def test_only_addresses_of_the_web(tmp_path, url):
    message = refused(Published(url, tmp_path / "raw" / "file"))
    assert f"'{url}' is no address that begins with http:// or https://." in message


def test_two_downloads_into_a_folder_do_not_mix(server, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "raw").mkdir()
    other = os.open(tmp_path / "raw", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    assert "Another process is downloading into" in refused(file_of(server, tmp_path))
    os.close(other)
    get(file_of(server, tmp_path))


def test_a_full_disk_is_not_taken_for_a_broken_connection(server, tmp_path):
    file = file_of(server, tmp_path)
    (tmp_path / "raw").write_text("a file where a folder is needed")
    with pytest.raises(OSError, match="raw"):
        get(file)
    assert server.asked == []


def test_progress_counts_what_was_there_before(server, tmp_path, capsys):
    file = file_of(server, tmp_path)
    file.part.parent.mkdir()
    file.part.write_bytes(CONTENT[:5120])
    download([file], "", progress=True)
    said = capsys.readouterr().err
    assert "file:  50%" in said
    assert "10.0k/10.0k" in said


@settings(max_examples=25)
@given(
    content=st.binary(max_size=3000),
    faults=st.lists(st.sampled_from([-1, -50, -700, 500, 429, -(10**6)]), max_size=6),
    ranges=st.booleans(),
    part=st.binary(max_size=100),
)
def test_whatever_happens_it_is_whole_or_not_there(
    running, tmp_path_factory, content, faults, ranges, part
):
    running.forget()
    running.files, running.ranges, running.faults = {"/file": content}, ranges, list(faults)
    file = file_of(running, tmp_path_factory.mktemp("any"), sha256(content))
    file.part.parent.mkdir()
    file.part.write_bytes(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synehrgy.sources.download.time.sleep", lambda _: None)
        # Each fault of this list may end a run, but none keeps the next one from ending well.
        for _ in range(len(faults) + 1):
            try:
                get(file)
            except UserError:
                assert not file.file.exists()
                continue
            break
    assert file.file.read_bytes() == content
    assert names(file.file.parent) == ["file"]


# Lists of checksums.


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_]{1,8}(/[a-z ]{1,5}[a-z])?\.csv", fullmatch=True), st.binary()
    )
)
def test_lists_of_checksums_are_read_in_all_their_forms(tmp_path_factory, files):
    expected = {name: sha256(content) for name, content in files.items()}
    file = tmp_path_factory.mktemp("sums") / "SHA256SUMS.txt"
    for form in ("{1} {0}", "{1}  ./{0}", "{1} *{0}\r", "{1}\t{0}\n"):
        file.write_text("\n".join(form.format(*row) for row in expected.items()))
        assert read_checksums(file) == expected


def test_a_page_instead_of_a_list_is_named_with_its_line(tmp_path):
    (tmp_path / "SHA256SUMS.txt").write_text(f"{'a' * 64} x.csv\n<html>\n")
    with pytest.raises(UserError, match=r"SHA256SUMS\.txt, line 2: .* found '<html>'"):
        read_checksums(tmp_path / "SHA256SUMS.txt")


# The tables of a demo.


def publish(server: Server, folder: Path) -> None:
    """Serve a folder as PhysioNet does, below /demo, with its list of checksums."""
    (folder / "NOTEEVENTS.csv").write_text("row_id\n")
    rows = [f"{sha256(f.read_bytes())} {f.name}" for f in sorted(folder.iterdir())]
    (folder / "SHA256SUMS.txt").write_text("\n".join(rows) + "\n")
    server.add(folder.parent)


@pytest.fixture
def demo(server, tmp_path) -> Server:
    """A small database, published."""
    write_database(several_patients(), tmp_path / "server" / "demo")
    publish(server, tmp_path / "server" / "demo")
    return server


def demo_settings(server: Server, folder: Path, *more: str) -> list[str]:
    return [
        *("data=mimic3_demo", f"data.url={server.url}/demo/"),
        *(f"data.download_dir={folder / 'raw'}", f"data.path={folder / 'cohort'}"),
        *("preprocess.min_code_count=1", *more),
    ]


def test_one_command_downloads_the_demo_and_extracts_it(demo, tmp_path):
    command = [sys.executable, str(REPOSITORY / "preprocess.py"), *demo_settings(demo, tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "CHARTEVENTS.csv: 100%" in done.stderr
    assert "Next: python train.py data=mimic3_demo" in done.stdout
    tables = {f"{name.upper()}.csv" for name in RELEASE.columns}
    # Only what the extraction needs.
    assert set(names(tmp_path / "raw")) == {*tables, "SHA256SUMS.txt"}
    assert read_cohort(tmp_path / "cohort").n_patients == 10
    demo.asked.clear()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert demo.asked == []


def test_only_what_is_missing_or_changed_comes_again(demo, tmp_path):
    download_tables(f"{demo.url}/demo", tmp_path / "raw", RELEASE.columns, progress=False)
    (tmp_path / "raw" / "PATIENTS.csv").unlink()
    with (tmp_path / "raw" / "LABEVENTS.csv").open("a") as file:
        file.write("\n")
    demo.asked.clear()
    download_tables(f"{demo.url}/demo", tmp_path / "raw", RELEASE.columns, progress=False)
    assert sorted(demo.asked) == [("/demo/LABEVENTS.csv", 0), ("/demo/PATIENTS.csv", 0)]


def test_compressed_tables_and_names_in_lower_case(server, tmp_path):
    write_database(several_patients(), tmp_path / "server" / "demo", "csv.gz")
    publish(server, tmp_path / "server" / "demo")
    preprocess(compose("preprocess", demo_settings(server, tmp_path)))
    assert read_cohort(tmp_path / "cohort").n_patients == 10


def test_tables_in_folders_keep_them(server, tmp_path):
    content = {"hosp/patients.csv.gz": b"one", "icu/Chart Events.csv": b"two"}
    server.files = {f"/demo/{path.replace(' ', '%20')}": text for path, text in content.items()}
    outside = [f"{'a' * 64} ../../{name}" for name in ("patients.csv", "stays.csv")]
    rows = [*outside, *(f"{sha256(text)} {path}" for path, text in content.items())]
    server.files["/demo/SHA256SUMS.txt"] = "\n".join(rows).encode()
    names = ["patients", "chart events"]
    download_tables(f"{server.url}/demo", tmp_path / "raw", names, progress=False)
    for path, text in content.items():
        assert (tmp_path / "raw" / path).read_bytes() == text
    # A list does not lead out of the folder.
    with pytest.raises(UserError, match="lists no STAYS"):
        download_tables(f"{server.url}/demo", tmp_path / "raw", ["stays"], progress=False)


def test_only_sources_that_are_known_are_downloaded(server, tmp_path):
    given = ["data=simulated", "data.raw_dir=null", f"data.url={server.url}"]
    with pytest.raises(UserError, match=r"data\.source=simulated is not downloaded"):
        preprocess(compose("preprocess", [*given, f"data.path={tmp_path / 'cohort'}"]))


def test_a_folder_of_one_s_own_is_not_downloaded_into(demo, tmp_path):
    (tmp_path / "mine").mkdir()
    given = demo_settings(demo, tmp_path, f"data.raw_dir={tmp_path / 'mine'}")
    with pytest.raises(UserError, match="holds no MIMIC-III tables"):
        preprocess(compose("preprocess", given))
    assert demo.asked == []
    assert names(tmp_path / "mine") == []


def test_without_network_it_says_what_to_do_by_hand(tmp_path, pauses):
    with serving() as gone:
        given = demo_settings(gone, tmp_path)
    with pytest.raises(UserError) as error:
        preprocess(compose("preprocess", given))
    message = str(error.value)
    assert "run the same command again" in message
    assert "By hand: put SHA256SUMS.txt, PATIENTS, ADMISSIONS, " in message
    assert f"from {gone.url}/demo/ into {tmp_path / 'raw'};" in message
    assert "give it as data.raw_dir=<folder>." in message
    assert not (tmp_path / "cohort").exists()


def test_what_was_put_there_by_hand_needs_no_network(demo, tmp_path, pauses):
    (tmp_path / "server" / "demo").rename(tmp_path / "raw")
    with serving() as gone:
        given = demo_settings(gone, tmp_path)
    preprocess(compose("preprocess", given))
    assert read_cohort(tmp_path / "cohort").n_patients == 10


def test_a_login_page_instead_of_the_list(demo, tmp_path):
    right = demo.files["/demo/SHA256SUMS.txt"]
    demo.files["/demo/SHA256SUMS.txt"] = b"<html>Please log in</html>"
    with pytest.raises(UserError, match="expected a checksum and a file name, found '<html>"):
        preprocess(compose("preprocess", demo_settings(demo, tmp_path)))
    demo.files["/demo/SHA256SUMS.txt"] = right
    preprocess(compose("preprocess", demo_settings(demo, tmp_path)))


def test_a_list_without_the_tables(demo, tmp_path):
    demo.files["/demo/SHA256SUMS.txt"] = f"{'a' * 64} PATIENTS.csv\n".encode()
    with pytest.raises(UserError, match=r"lists no ADMISSIONS, ICUSTAYS, .* right address"):
        preprocess(compose("preprocess", demo_settings(demo, tmp_path)))


def test_a_list_from_a_wrong_address_is_fetched_anew(demo, tmp_path, pauses):
    """It would refuse the right address for ever."""
    sums = tmp_path / "raw" / "SHA256SUMS.txt"
    demo.files["/other/SHA256SUMS.txt"] = f"{'a' * 64} PATIENTS.csv\n".encode()
    for _ in range(2):
        with pytest.raises(UserError, match="lists no ADMISSIONS"):
            download_tables(f"{demo.url}/other", sums.parent, RELEASE.columns, progress=False)
    old = sums.read_bytes()
    # The old list stays until there is another.
    with serving() as gone:
        url = gone.url
    with pytest.raises(UserError, match=r"lists no ADMISSIONS.* there is no newer list: .*refused"):
        download_tables(f"{url}/demo", sums.parent, RELEASE.columns, progress=False)
    demo.files["/login/SHA256SUMS.txt"] = b"<html>"
    with pytest.raises(UserError, match=r"lists no ADMISSIONS.* is no list of checksums"):
        download_tables(f"{demo.url}/login", sums.parent, RELEASE.columns, progress=False)
    assert sums.read_bytes() == old
    assert names(sums.parent) == ["SHA256SUMS.txt"]
    demo.asked.clear()
    download_tables(f"{demo.url}/demo", sums.parent, RELEASE.columns, progress=False)
    assert [path for path, _ in demo.asked].count("/demo/SHA256SUMS.txt") == 1
    assert sums.read_bytes() == demo.files["/demo/SHA256SUMS.txt"]
    assert len(names(sums.parent)) == len(RELEASE.columns) + 1


def test_tables_that_were_published_anew(demo, tmp_path):
    download_tables(f"{demo.url}/demo", tmp_path / "raw", RELEASE.columns, progress=False)
    (tmp_path / "raw" / "PATIENTS.csv").unlink()
    demo.files["/demo/PATIENTS.csv"] += b"\n"
    sums = tmp_path / "raw" / "SHA256SUMS.txt"
    with pytest.raises(UserError, match=rf"If .* published anew, remove {sums}"):
        download_tables(f"{demo.url}/demo", tmp_path / "raw", RELEASE.columns, progress=False)


def test_the_demo_comes_from_physionet():
    data = compose("preprocess", ["data=mimic3_demo"]).data
    assert data.url == "https://physionet.org/files/mimiciii-demo/1.4/"
    assert data.download_dir == str(REPOSITORY / "data" / "raw" / "mimic3_demo")
    assert data.raw_dir is None


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="no git here")
@pytest.mark.parametrize("folder", ["mimic3_demo", "mimic3-benchmarks"])
def test_what_is_downloaded_stays_out_of_the_repository(folder):
    ignored = subprocess.run(
        ["git", "check-ignore", "--quiet", f"data/raw/{folder}/a.csv"], cwd=REPOSITORY
    )
    assert ignored.returncode == 0


def test_the_credentialed_database_is_not_downloaded():
    with pytest.raises(UserError) as error:
        preprocess(compose("preprocess", ["data=mimic3"]))
    message = str(error.value)
    assert message.startswith("data.raw_dir=<folder of the raw files of mimic3> is needed.")
    assert "https://physionet.org/content/mimiciii/1.4/" in message
    assert "data=mimic3_demo downloads 100 open patients" in message


# The benchmark's split lists.


@pytest.fixture
def lists(demo, tmp_path, monkeypatch) -> Server:
    """Small lists at the addresses of the benchmark's: patients 1 and 2 are test, 3 is val."""
    content = {
        "mimic3benchmark/resources/testset.csv": b"1,1\n2,1\n3,0\n",
        "mimic3models/resources/valset.csv": b"1,1\n3,1\n4,0\n",
    }
    for path, text in content.items():
        demo.files[f"/benchmarks/{path}"] = text
    monkeypatch.setattr(published, "BENCHMARK_URL", f"{demo.url}/benchmarks")
    checksums = {path: sha256(text) for path, text in content.items()}
    monkeypatch.setattr(published, "BENCHMARK_LISTS", checksums)
    monkeypatch.setattr("synehrgy.sources.workspace", lambda: tmp_path)
    return demo


def test_the_splits_of_the_benchmark(lists, tmp_path):
    given = demo_settings(lists, tmp_path, "data.split_dir=benchmark")
    preprocess(compose("preprocess", given))
    stays = read_cohort(tmp_path / "cohort").stays
    split = stays.groupby("subject_id")["split"].first()
    assert split.to_dict() == {
        n: {1: "test", 2: "test", 3: "val"}.get(n, "train") for n in split.index
    }
    folder = tmp_path / "data" / "raw" / "mimic3-benchmarks"
    assert names(folder) == ["testset.csv", "valset.csv"]
    lists.asked.clear()
    preprocess(compose("preprocess", given))
    assert lists.asked == []


def test_a_folder_named_like_the_word_is_given_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = compose("preprocess", ["data.split_dir=benchmark"]).data.split_dir
    folder = compose("preprocess", ["data.split_dir=./benchmark"]).data.split_dir
    assert (word, folder) == ("benchmark", f"{tmp_path}/benchmark")


def test_lists_that_cannot_be_had_are_named(lists, tmp_path):
    lists.files.pop("/benchmarks/mimic3models/resources/valset.csv")
    given = demo_settings(lists, tmp_path, "data.split_dir=benchmark")
    with pytest.raises(UserError) as error:
        preprocess(compose("preprocess", given))
    assert "valset.csv cannot be downloaded: the server answers 404" in str(error.value)
    assert "data.split_dir=<folder>." in str(error.value)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the split lists are not beside the repository")
def test_the_checksums_are_those_of_the_benchmark_s_lists():
    for path, checksum in published.BENCHMARK_LISTS.items():
        assert sha256((LISTS / Path(path).name).read_bytes()) == checksum


@pytest.mark.skipif(not DEMO.is_dir(), reason="the open demo is not beside the repository")
def test_the_open_demo_over_a_bad_line(server, tmp_path):
    """To the finished cohort, over connections that break."""
    (tmp_path / "server" / "demo").mkdir(parents=True)
    for name in RELEASE.columns:
        file = DEMO / f"{name.upper()}.csv.gz"
        (tmp_path / "server" / "demo" / file.name).write_bytes(file.read_bytes())
    publish(server, tmp_path / "server" / "demo")
    server.faults = [0, -1000, 0, 502, -2000, 0, 0, 0, -3_000_000, -1_000_000]
    settings = [f"data.download_dir={tmp_path / 'raw'}", f"data.path={tmp_path / 'cohort'}"]
    preprocess(
        compose("preprocess", ["data=mimic3_demo", f"data.url={server.url}/demo", *settings])
    )
    cohort = read_cohort(tmp_path / "cohort")
    assert len(cohort.stays) == 113
    assert cohort.counts()["measurements"] == 105_775
