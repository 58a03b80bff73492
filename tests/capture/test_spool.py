"""A spool is understood by its names alone, and what its side files say is believed only where it can be read."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encagg_cli.capture.labels import Label, read_labels, read_trusted
from encagg_cli.capture.selection import Selection, by_name, is_untrained
from encagg_cli.capture.spool import has_ended, look_at_round, round_folders, strange_entries
from encagg_cli.capture.tensors import Entry
from encagg_cli.errors import UnusableInput


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


# --- rounds and clients ----------------------------------------------------------------------------------------------


def test_a_rounds_number_is_the_integer_at_the_end_of_its_folders_name(tmp_path):
    for name in ("round-0012", "r7", "3", "fold2-round-10", "000"):
        touch(tmp_path / name)
    touch(tmp_path / "notes")
    touch(tmp_path / "round-12-old")
    touch(tmp_path / ".round-99")
    touch(tmp_path / "round-98.tmp")
    touch(tmp_path, "round-13")  # a file
    (tmp_path / "round-14").symlink_to(tmp_path / "r7")
    assert {number: folders[0].name for number, folders in round_folders(tmp_path).items()} == {
        0: "000",
        3: "3",
        7: "r7",
        10: "fold2-round-10",
        12: "round-0012",
    }


def test_clients_are_the_stems_of_tensor_files_in_order(tmp_path):
    names = ("b.npy", "a.safetensors", "c.npz", "d.1.pt", "e.PTH", "_global.npz", "_root.npy", "_done")
    found = look_at_round(4, [touch(tmp_path / "round-4", *names)])
    assert [client for client, _ in found.clients] == ["a", "b", "c", "d.1", "e"]
    assert found.global_model == tmp_path / "round-4" / "_global.npz"
    assert found.root_gradient == tmp_path / "round-4" / "_root.npy"
    assert found.is_done
    assert found.ignored == ()


def test_files_that_are_being_written_are_not_clients(tmp_path):
    names = (".a.npy", "a.npy.tmp", "a.tmp.npy", "a.npz.partial", "a.npz~", "A.PART")
    found = look_at_round(1, [touch(tmp_path / "round-1", *names)])
    assert found.clients == ()
    assert set(found.unfinished) == set(names)
    assert found.ignored == ()


def test_what_is_not_known_is_named_and_never_a_client(tmp_path):
    found = look_at_round(1, [touch(tmp_path / "round-1", "a.npy", "b.json", "_extra.npy", "README")])
    assert [client for client, _ in found.clients] == ["a"]
    assert set(found.ignored) == {"b.json", "_extra.npy", "README"}


def test_two_files_of_one_client_or_two_folders_of_one_round_are_refused(tmp_path):
    with pytest.raises(UnusableInput, match=r"round 1: 'a' has two files, a\.npy and a\.npz"):
        look_at_round(1, [touch(tmp_path / "round-1", "a.npy", "a.npz")])
    touch(tmp_path / "round-01", "a.npy")
    folders = round_folders(tmp_path)[1]
    with pytest.raises(UnusableInput, match="round 1 has several folders in the spool: round-01, round-1"):
        look_at_round(1, folders)


def test_a_round_number_beyond_all_rounds_is_refused(tmp_path):
    touch(tmp_path / f"round-{2**31}", "a.npy")
    touch(tmp_path / ("round-" + "9" * 200), "a.npy")
    [(number, folders)] = round_folders(tmp_path).items()
    with pytest.raises(UnusableInput, match="round numbers end at 2147483647"):
        look_at_round(number, folders)


def test_a_client_whose_name_is_not_text_is_refused(tmp_path):
    folder = touch(tmp_path / "round-1")
    (folder / os.fsdecode(b"client-\xff.npy")).write_bytes(b"x")
    with pytest.raises(UnusableInput, match="UTF-8"):
        look_at_round(1, [folder])


def test_the_fingerprint_follows_files_and_settings_and_nothing_else(tmp_path):
    folder = touch(tmp_path / "round-1", "a.npy", "b.npy")
    before = look_at_round(1, [folder])
    touch(folder, "_done", "c.npy.tmp")
    assert look_at_round(1, [folder]).fingerprint("x") == before.fingerprint("x")
    assert before.fingerprint("x") != before.fingerprint("y")
    (folder / "a.npy").write_bytes(b"xy")
    assert look_at_round(1, [folder]).fingerprint("x") != before.fingerprint("x")


def test_files_beside_the_rounds_are_remarked_on_where_updates_may_be_lost(tmp_path):
    touch(tmp_path / "round-1")
    touch(tmp_path / "others")
    touch(tmp_path, "labels.csv", "trusted.txt", "_end", "README.md", "client-1.npy", ".hidden.npy")
    assert strange_entries(tmp_path) == ["client-1.npy", "others"]
    assert has_ended(tmp_path)


def test_a_spool_that_is_not_there_is_unusable(tmp_path):
    with pytest.raises(UnusableInput, match="nowhere"):
        round_folders(tmp_path / "nowhere")


# --- labels and trusted clients --------------------------------------------------------------------------------------


def labels(tmp_path: Path, text: str | bytes):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return dict(read_labels(path))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("column", ["poisoned", "malicious", "Poisoned"])
def test_labels_are_read_in_every_spelling(tmp_path, newline, column):
    rows = [f"round,client_id,{column}", "1,a,1", "1,b,0", "2,a,true", "2,b,FALSE", "3,a,", "", '4,"c,d",1']
    assert labels(tmp_path, newline.join(rows)) == {
        (1, "a"): Label(True),
        (1, "b"): Label(False),
        (2, "a"): Label(True),
        (2, "b"): Label(False),
        (3, "a"): Label(None),
        (4, "c,d"): Label(True),
    }


def test_labels_may_name_the_attack_and_have_further_columns_in_any_order(tmp_path):
    text = "\ufeffattack,client_id,note,poisoned,round\nlie,a,x,1,1\n,b,y,0,1\n"
    assert labels(tmp_path, text) == {(1, "a"): Label(True, "lie"), (1, "b"): Label(False)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1"),
        ("round,client_id\n1,a\n", "line 1"),
        ("client_id,poisoned\na,1\n", "line 1"),
        ("round,client_id,poisoned\n1,a,1\n1,b,maybe\n", "line 3: 'maybe'"),
        ("round,client_id,poisoned\nfirst,a,1\n", "line 2: 'first'"),
        ("round,client_id,poisoned\n-1,a,1\n", "line 2: '-1'"),
        ("round,client_id,poisoned\n1,a\n", "line 2"),
        ("round,client_id,poisoned\n1,a,1\n1,a,0\n", "line 3: round 1, client a is labelled twice"),
        ('round,client_id,poisoned\n1,"a,1\n', "line 2"),
        (b"round,client_id,poisoned\n1,\xff,1\n", "UTF-8"),
        ("round,client_id,poisoned\n" + "9" * 5000 + ",a,1\n", "line 2"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_with_their_line(tmp_path, text, problem):
    with pytest.raises(UnusableInput) as raised:
        labels(tmp_path, text)
    assert problem in str(raised.value)
    assert "labels.csv" in str(raised.value)


def test_trusted_clients_are_listed_one_a_line_with_comments(tmp_path):
    (tmp_path / "trusted.txt").write_text("# ours\nhospital-1\n\n  hospital 2  \r\n#hospital-3\nhospital-1\n")
    assert read_trusted(tmp_path / "trusted.txt") == ("hospital-1", "hospital 2")


def test_side_files_are_not_read_through_links_or_pipes(tmp_path):
    (tmp_path / "secret").write_text("hospital-1\n")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        for read in (read_labels, read_trusted):
            with pytest.raises(UnusableInput, match=name):
                read(tmp_path / name)


# --- which tensors, in which order -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "bn1.running_mean",
        "layer1.0.bn2.running_var",
        "bn.num_batches_tracked",
        "batch_normalization/moving_mean:0",
        "batch_normalization/moving_variance",
        "batch_stats.BatchNorm_0.mean",
        "model.layers.0.rotary_emb.inv_freq",
    ],
)
def test_state_that_is_not_trained_is_recognised_by_name(name):
    assert is_untrained(name, is_floating=True)


@pytest.mark.parametrize(
    "name", ["fc.weight", "bn1.weight", "bn1.bias", "running_mean_head.weight", "my_batch_stats.w"]
)
def test_what_is_trained_is_not_taken_for_state(name):
    assert not is_untrained(name, is_floating=True)
    assert is_untrained(name, is_floating=False)


def test_include_takes_exactly_what_matches_and_exclude_leaves_out():
    entries = {
        name: Entry((2,), name != "steps", 8)
        for name in ("fc.weight", "fc.bias", "bn.weight", "bn.running_mean", "steps")
    }
    assert set(Selection().taken(entries)) == {"fc.weight", "fc.bias", "bn.weight"}
    assert set(Selection(exclude=("bn.*",)).taken(entries)) == {"fc.weight", "fc.bias"}
    assert set(Selection(include=("*",)).taken(entries)) == set(entries)
    assert set(Selection(include=("fc.*", "steps"), exclude=("*.bias",)).taken(entries)) == {"fc.weight", "steps"}


def test_numbers_in_names_count_as_numbers():
    names = ["10.weight", "2.bias", "2.weight", "1.weight", "layer.10.0", "layer.9.0", "a", "layer.9"]
    assert by_name(names) == ["1.weight", "2.bias", "2.weight", "10.weight", "a", "layer.9", "layer.9.0", "layer.10.0"]


@given(st.lists(st.text(alphabet="ab.0129²", max_size=6), unique=True), st.randoms())
def test_the_order_by_name_does_not_depend_on_where_it_starts(names, random):
    shuffled = random.sample(names, len(names))
    assert by_name(names) == by_name(shuffled)
    assert sorted(by_name(names)) == sorted(names)
