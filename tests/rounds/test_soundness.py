"""What a damaged or hostile file may not do: it is refused, with its name and the key, and takes no memory."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from encagg_cli.errors import NothingToDo, UnusableInput
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.verify import verify
from encagg_cli.rounds.writer import RoundWriter

PARAMETERS = (Parameter("fc.weight", (30, 40), 0), Parameter("fc.bias", (40,), 1200, "output"))
N_PARAMETERS = 1240
GROUP = "rounds/000001"


def make(folder: Path, compression=None) -> Path:
    updates = np.random.default_rng(0).standard_normal((4, N_PARAMETERS)).astype(np.float32)
    with RoundWriter(
        folder, 1, session="s", parameters=PARAMETERS, compression=compression, global_model=updates[3]
    ) as writer:
        for client, update in zip("abc", updates, strict=False):
            writer.add(client, update)
    return folder / "round-000001.h5"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "run")


def read_everything(path: Path) -> None:
    run = Run.open(path)
    for stored in run:
        stored.rows(range(len(stored.client_ids)))
        stored.global_model()
        verify(stored)


def replaced(name: str, **settings: object) -> Callable[[h5py.File], None]:
    """Put another dataset in the place of one of the round's."""

    def change(file: h5py.File) -> None:
        if f"{GROUP}/{name}" in file:
            del file[f"{GROUP}/{name}"]
        file.create_dataset(f"{GROUP}/{name}", **settings)

    return change


def with_attribute(name: str, value: object, owner: str = GROUP) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[owner].attrs[name] = value

    return change


def without(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def soft_link(file: h5py.File) -> None:
    file["elsewhere"] = np.zeros(3)
    del file[f"{GROUP}/norm"]
    file[f"{GROUP}/norm"] = h5py.SoftLink("/elsewhere")


def external_link(file: h5py.File) -> None:
    del file[f"{GROUP}/updates"]
    file[f"{GROUP}/updates"] = h5py.ExternalLink("/etc/passwd", "/updates")


def linked_round(file: h5py.File) -> None:
    file.move("rounds", "others")
    file["rounds"] = h5py.SoftLink("/others")


def external_storage(file: h5py.File) -> None:
    del file[f"{GROUP}/norm"]
    file.create_dataset(f"{GROUP}/norm", shape=(3,), dtype="<f8", external=[("/etc/passwd", 0, 24)])


def virtual_updates(file: h5py.File) -> None:
    virtual = h5py.VirtualLayout(shape=(3, N_PARAMETERS), dtype="<f4")
    virtual[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(3, N_PARAMETERS))
    del file[f"{GROUP}/updates"]
    file.create_virtual_dataset(f"{GROUP}/updates", virtual)


def huge_without_values(file: h5py.File) -> None:
    del file[f"{GROUP}/updates"]
    file.create_dataset(f"{GROUP}/updates", shape=(2**40, N_PARAMETERS), chunks=(1, N_PARAMETERS), dtype="<f4")


def huge_compressed_without_values(file: h5py.File) -> None:
    del file[f"{GROUP}/updates"]
    file.create_dataset(
        f"{GROUP}/updates", shape=(2**20, N_PARAMETERS), chunks=(1, N_PARAMETERS), dtype="<f4", compression="gzip"
    )


def huge_model(file: h5py.File) -> None:
    del file["parameters/shape"]
    file["parameters"].create_dataset("shape", data=np.array([b"[1000000000, 1000000]", b"[40]"], dtype="S30"))
    file["parameters/offset"][1] = 10**15


def huge_list_of_tensors(file: h5py.File) -> None:
    del file["parameters/name"]
    file["parameters"].create_dataset("name", shape=(2**40,), dtype="S1000")


def texts_that_all_refer_to_one_huge_text(file: h5py.File) -> None:
    del file[f"{GROUP}/client_id"]
    file.create_dataset(f"{GROUP}/client_id", data=["x" * 10**6] * 3, dtype=h5py.string_dtype())


def chunks_of_many_rows(file: h5py.File) -> None:
    values = file[f"{GROUP}/updates"][...]
    del file[f"{GROUP}/updates"]
    file.create_dataset(f"{GROUP}/updates", data=values, chunks=(3, N_PARAMETERS))


def contiguous_updates(file: h5py.File) -> None:
    values = file[f"{GROUP}/updates"][...]
    del file[f"{GROUP}/updates"]
    file.create_dataset(f"{GROUP}/updates", data=values)


def checksummed_updates(file: h5py.File) -> None:
    values = file[f"{GROUP}/updates"][...]
    del file[f"{GROUP}/updates"]
    file.create_dataset(f"{GROUP}/updates", data=values, chunks=(1, N_PARAMETERS), fletcher32=True)


def missing_rows(file: h5py.File) -> None:
    values = file[f"{GROUP}/updates"][...]
    del file[f"{GROUP}/updates"]
    updates = file.create_dataset(f"{GROUP}/updates", shape=values.shape, chunks=(1, N_PARAMETERS), dtype="<f4")
    updates[:2] = values[:2]


def set_in(name: str, index: int, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][index] = value

    return change


def other_norm(file: h5py.File) -> None:
    file[f"{GROUP}/norm"][1] *= 1.001


def norm_that_hides_a_client(file: h5py.File) -> None:
    file[f"{GROUP}/norm"][1] = np.nan


IDS = {"dtype": h5py.string_dtype("utf-8", 8)}

HOSTILE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "another format": (with_attribute("format", "other", "/"), "is not an encagg-rounds file"),
    "no version": (lambda file: file.attrs.__delitem__("format_version"), "attribute 'format_version'"),
    "a later version": (with_attribute("format_version", 2, "/"), "has format version 2, and this program reads"),
    "a version in words": (with_attribute("format_version", "one", "/"), "'format_version' of / is not an integer"),
    "no parameters": (without("parameters"), "lacks /parameters"),
    "no rounds": (without("rounds"), "lacks /rounds"),
    "a soft link": (soft_link, "norm is a link that leads elsewhere"),
    "a link to another file": (external_link, "updates is a link that leads elsewhere"),
    "rounds behind a link": (linked_round, "/rounds is a link that leads elsewhere"),
    "values in another file": (external_storage, "norm keeps its values in another file"),
    "a virtual dataset": (virtual_updates, "updates keeps its values in another file"),
    "a huge shape without values": (huge_without_values, "updates claims .* more than its file can hold"),
    "a huge compressed shape": (huge_compressed_without_values, "updates claims .* more than its file can hold"),
    "a huge model": (huge_model, "updates has the shape"),
    "a huge list of tensors": (huge_list_of_tensors, "/parameters/name claims .* more than its file can hold"),
    "huge texts": (texts_that_all_refer_to_one_huge_text, r"client_id\[0\] is longer than 1024 bytes"),
    "chunks of several rows": (chunks_of_many_rows, "updates is not stored row by row"),
    "no chunks": (contiguous_updates, "updates is not stored row by row"),
    "another filter": (checksummed_updates, "updates passes through a filter"),
    "rows that are not there": (missing_rows, "updates lacks rows"),
    "another type": (replaced("updates", data=np.zeros((3, N_PARAMETERS)), chunks=(1, N_PARAMETERS)), "float64"),
    "another byte order": (
        replaced("updates", data=np.zeros((3, N_PARAMETERS), dtype=">f4"), chunks=(1, N_PARAMETERS)),
        "updates holds >f4",
    ),
    "a type that the round does not have": (with_attribute("dtype", "float16"), "but says it is float16"),
    "an unknown type": (with_attribute("dtype", "int8"), "attribute 'dtype' of .* is 'int8'"),
    "an unknown kind of update": (with_attribute("update_kind", "x"), "attribute 'update_kind' of .* is 'x'"),
    "another round": (with_attribute("round", 7), "says that it is another round"),
    "a digest that is none": (with_attribute("digest", "abc"), "the digest of /rounds/000001 is not one"),
    "another digest": (with_attribute("digest", "sha256:" + "0" * 64), "do not have the stored digest"),
    "another model's digest": (
        with_attribute("digest", "sha256:" + "0" * 64, f"{GROUP}/global_model"),
        "its global_model is damaged",
    ),
    "no session": (lambda file: file[GROUP].attrs.__delitem__("session"), "attribute 'session' of /rounds/000001"),
    "a session that is a number": (with_attribute("session", 5), "attribute 'session' of .* is not a .short. text"),
    "a session that is a list": (with_attribute("session", ["a", "b"]), "attribute 'session' of .* is not a"),
    "a huge session": (with_attribute("session", "x" * 2000), "attribute 'session' of .* is longer than 1024 bytes"),
    "a session that is no text": (with_attribute("session", np.bytes_(b"\xff")), "is not valid UTF-8"),
    "fewer ids than rows": (replaced("client_id", data=[b"a", b"b"], **IDS), r"client_id has the shape \(2,\)"),
    "ids that are numbers": (replaced("client_id", data=[1, 2, 3]), "client_id holds int64, where texts were expected"),
    "ids that are no text": (
        replaced("client_id", data=[b"a", b"\xff", b"c"], **IDS),
        r"client_id\[1\] is not valid UTF-8",
    ),
    "an empty id": (replaced("client_id", data=[b"a", b"", b"c"], **IDS), "a client without an id"),
    "a client twice": (replaced("client_id", data=[b"a", b"b", b"a"], **IDS), "client 'a' has two uploads"),
    "compressed ids": (
        replaced("client_id", data=[b"a", b"b", b"c"], compression="gzip", **IDS),
        "client_id is compressed",
    ),
    "ids in two dimensions": (replaced("client_id", data=[[b"a", b"b", b"c"]], **IDS), "client_id has the shape"),
    "no norms": (without(f"{GROUP}/norm"), "lacks /rounds/000001/norm"),
    "fewer norms": (replaced("norm", data=np.ones(2)), r"norm has the shape \(2,\)"),
    "norms of another type": (replaced("norm", data=np.ones(3, dtype="f4")), "norm holds float32"),
    "a negative norm": (replaced("norm", data=[1.0, -1.0, 1.0]), "norm of client 'b' is out of range"),
    "another norm": (other_norm, "the update of client 'b' has the norm"),
    "a norm that hides a client": (
        norm_that_hides_a_client,
        "the update of client 'b' has the norm .* not the stored nan",
    ),
    "numbers of examples below -1": (
        replaced("num_examples", data=[1, 2, -2]),
        "num_examples of client 'c' is out of range",
    ),
    "trust in numbers": (replaced("trusted", data=[1, 2, 3]), "trusted holds int64"),
    "labels that are none": (replaced("poisoned", data=np.int8([0, 5, 1])), "poisoned of client 'b' is out of range"),
    "a group for a dataset": (
        lambda file: (file.__delitem__(f"{GROUP}/norm"), file.create_group(f"{GROUP}/norm"))[0],
        "norm is not a dataset",
    ),
    "a dataset for a group": (
        lambda file: (file.__delitem__("parameters"), file.create_dataset("parameters", data=1))[0],
        "/parameters is not a group",
    ),
    "another entry among the rounds": (
        lambda file: file["rounds"].create_group("12"),
        "an entry '12' that is no round",
    ),
    "tensors that overlap": (
        set_in("parameters/offset", 1, 1000),
        "begins at column 1000, not at 1200",
    ),
    "tensors with the same name": (
        set_in("parameters/name", 1, b"fc.weight"),
        "two tensors have the same name",
    ),
    "a shape that is none": (set_in("parameters/shape", 1, b"{}"), "has no shape but '{}'"),
    "a shape with a negative length": (
        set_in("parameters/shape", 1, b"[-40]"),
        "has no shape but",
    ),
    "a shape with a truth value": (set_in("parameters/shape", 1, b"[true]"), "has no shape but"),
    "a shape that is not JSON": (set_in("parameters/shape", 1, b"40"), "has no shape but '40'"),
    "an unknown role": (set_in("parameters/role", 1, b"head"), "the unknown role 'head'"),
    "a global model of another size": (replaced("global_model", data=np.ones(3, "f4")), "global_model is float32"),
    "a global model without values": (
        replaced("global_model", shape=(N_PARAMETERS,), dtype="<f4"),
        "global_model is not stored in one piece",
    ),
    "a global model in chunks": (
        replaced("global_model", data=np.ones(N_PARAMETERS, "f4"), chunks=(100,)),
        "global_model is not stored in one piece",
    ),
    "row digests of another size": (replaced("row_digest", data=np.zeros((3, 16), "u1")), "row_digest has the shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_key(path: Path, name: str):
    change, message = HOSTILE[name]
    with h5py.File(path, "r+", libver=("earliest", "v110")) as file:
        change(file)

    tracemalloc.start()
    with pytest.raises(UnusableInput, match=message) as raised:
        read_everything(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.exit_code == 4
    assert peak < 50e6


def test_a_deeply_nested_shape_is_refused(path: Path):
    with h5py.File(path, "r+") as file:
        del file["parameters/shape"]
        nested = b"[" * 500 + b"]" * 500
        file["parameters"].create_dataset("shape", data=np.array([nested, b"[40]"]), dtype="S1000")

    with pytest.raises(UnusableInput, match="shape"):
        read_everything(path)


def test_texts_of_variable_length_are_taken_from_other_programs(path: Path):
    with h5py.File(path, "r+") as file:
        del file[f"{GROUP}/client_id"]
        file.create_dataset(f"{GROUP}/client_id", data=["клиент", "b", "c" * 1024], dtype=h5py.string_dtype())

    assert Run.open(path).round(1).client_ids == ("клиент", "b", "c" * 1024)


def test_what_is_unknown_to_this_version_is_passed_over(path: Path):
    with h5py.File(path, "r+") as file:
        file.create_group("later/addition")
        file[GROUP].create_dataset("comment", data="x")
        file[GROUP].attrs["more"] = 5
        del file[f"{GROUP}/row_digest"]

    read_everything(path)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_file_that_was_cut_short_anywhere_is_refused(tmp_path: Path, compression):
    path = make(tmp_path / "run", compression)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UnusableInput, match=r"round-000001\.h5"):
            read_everything(path)


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path):
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnusableInput, match=r"text\.h5 is not an encagg-rounds file"):
        Run.open(tmp_path / "text.h5")
    with pytest.raises(NothingToDo, match="holds no round"):
        Run.open(tmp_path / "folder")
    with pytest.raises(UnusableInput, match="there is no run"):
        Run.open(tmp_path / "missing")
    with pytest.raises(UnusableInput, match="not a regular file"):
        Run.open(Path("/dev/null"))


def test_a_damaged_update_is_found_by_its_client(path: Path):
    offset = Run.open(path).round(1).row_offsets()[1][1]  # type: ignore[index]
    with path.open("r+b") as file:
        file.seek(offset + 77)
        byte = file.read(1)
        file.seek(offset + 77)
        file.write(bytes([byte[0] ^ 1]))

    with pytest.raises(UnusableInput, match="round 1, client 'b': its update is damaged"):
        verify(Run.open(path).round(1))


def test_a_compressed_chunk_cannot_unfold_beyond_its_size(tmp_path: Path):
    import zlib

    path = make(tmp_path / "run", "gzip")
    with h5py.File(path, "r+") as file:
        file[f"{GROUP}/updates"].id.write_direct_chunk((1, 0), zlib.compress(bytes(10**8)))

    tracemalloc.start()
    with pytest.raises(UnusableInput, match="client 'b': a compressed chunk does not unfold to its declared size"):
        read_everything(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_shards_that_share_a_client_are_refused(tmp_path: Path):
    path = make(tmp_path / "run")
    shutil.copy(path, path.with_name("round-000001.p1.h5"))

    with pytest.raises(UnusableInput, match=r"round-000001\.p1\.h5: round 1: client 'a' has two uploads"):
        Run.open(tmp_path / "run").round(1)


def test_rounds_of_another_model_are_refused(tmp_path: Path):
    make(tmp_path / "run")
    with RoundWriter(tmp_path / "run", 2, session="s", parameters=[Parameter("x", (3,), 0)]) as writer:
        writer.add("a", np.ones(3))

    with pytest.raises(UnusableInput, match=r"round-000002\.h5 holds updates of another model"):
        Run.open(tmp_path / "run").round(2)


FLIPPER = """
import resource, sys, json
from pathlib import Path
import numpy as np
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from encagg_cli.errors import EncaggError
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.verify import verify
path, seeds = Path(sys.argv[1]), json.loads(sys.argv[2])
whole = path.read_bytes()
limit = 3 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for seed in seeds:
    chance = np.random.default_rng(seed)
    data = bytearray(whole)
    for position in chance.integers(0, len(whole) if seed % 3 else 16_384, 1 + seed % 4):
        data[position] = int(chance.integers(256))
    path.write_bytes(data)
    print(seed, flush=True)
    try:
        for stored in Run.open(path):
            stored.rows(range(len(stored.client_ids)))
            verify(stored)
    except EncaggError:
        pass
"""


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_flipped_bytes_end_in_an_error_and_never_in_a_crash(tmp_path: Path, compression):
    path = make(tmp_path / "run", compression)
    command = [sys.executable, "-c", FLIPPER, str(path), json.dumps(list(range(300)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, (done.stdout.split()[-1:], done.stderr[-2000:])


def test_a_heap_of_texts_that_would_stall_the_library_is_refused(path: Path):
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    place = heap + 16
    while data[place : place + 2] != b"\0\0":  # to the free space at the end, whose size leads to what comes next
        place += 16 + (int.from_bytes(data[place + 8 : place + 16], "little") + 7) // 8 * 8
    data[place + 8 : place + 16] = bytes(8)
    path.write_bytes(data)

    with pytest.raises(UnusableInput, match=r"round-000001\.h5 is damaged: its texts cannot be read"):
        Run.open(path)
